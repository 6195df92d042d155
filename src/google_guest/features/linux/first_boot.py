"""First boot: what an instance gets once, when it is a new one.

Reads: ``instance/id`` and ``project/project-id``; the marker (``[Instance] instance_id_dir``, by
default ``/etc/google_instance_id``) and ``[Instance] instance_id`` of older agents; the ssh host
keys in ``[InstanceSetup] host_key_dir``; ``/etc/boto.cfg`` and ``/etc/boto.cfg.template``.

Wants, if the marker names another instance or none: new host keys of every type that exists or is
configured, their SELinux labels, an sshd that knows them, boto's configuration, and last the
marker. A step that fails leaves the marker as it was, so that the next pass tries again; host keys
that were made in an earlier try are kept (``/var/lib/google-guest-agent/first-boot.json``).

Switches: ``[InstanceSetup] network_enabled``, ``set_host_keys``, ``set_boto_config``.

Source: guest-agent ``google_guest_agent/instance_setup.go``, google-guest-agent
``cmd/core_plugin/firstboot``, ssh-keygen(1), restorecon(8).
"""

from __future__ import annotations

import posixpath
import re
import stat
from typing import Optional

from google_guest.boto_config import BotoSetting, merge_boto, parse_boto
from google_guest.changes import Change
from google_guest.changes.files import RemoveFile, WriteFile
from google_guest.changes.first_boot import (
    FIRST_BOOT,
    FollowUp,
    GenerateHostKey,
    RecordInstance,
)
from google_guest.config import Config
from google_guest.features import Decision, Feature, Frequency, Inputs, Plan, Stage
from google_guest.metadata.tree import Metadata
from google_guest.programs import find_program
from google_guest.state import STATE_DIRECTORY, Remember, read_state
from google_guest.system import System

PROGRESS = f"{STATE_DIRECTORY}/first-boot.json"
MARKER_NAME = "google_instance_id"
BOTO_CONFIG = "/etc/boto.cfg"
BOTO_TEMPLATE = "/etc/boto.cfg.template"

_HOST_KEY = re.compile(r"ssh_host_([A-Za-z0-9][A-Za-z0-9-]*)_key")
_KEY_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_PROJECT_ID = re.compile(r"[A-Za-z0-9.:-]+")
_UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


def enabled(inputs: Inputs) -> Decision:
    """On unless the configuration forbids set-up from metadata."""
    if not inputs.config.instance_setup.network_enabled:
        layer = inputs.config.origin("instance_setup", "network_enabled")
        return Decision(False, "[InstanceSetup] network_enabled = false", layer)
    return Decision(True, "on by default")


def inputs_of(metadata: Metadata) -> tuple[Optional[int], Optional[str]]:
    """Return the identifiers of the instance and of its project."""
    return metadata.instance.id, metadata.project.id


def plan(inputs: Inputs) -> Plan:
    """Return everything that this instance still lacks; nothing on every later start."""
    metadata = inputs.metadata
    if metadata is None:
        return Plan()
    instance_id = metadata.instance.id
    if instance_id is None:
        return Plan(notes=("metadata has no instance id: whether this is a new one is unknown",))
    marker = marker_path(inputs.system, inputs.config)
    try:
        recorded = (inputs.system.files.read_text(marker, limit=4096) or "").strip()
    except OSError as error:
        return Plan(notes=(f"{marker} cannot be read, so nothing is set up: {error.strerror}",))
    if recorded == str(instance_id):
        return Plan()
    if not recorded and inputs.config.instance.instance_id.strip() == str(instance_id):
        # An older agent set this instance up and kept its number in the configuration.
        return Plan((RecordInstance(marker, instance_id),))
    return _set_up(inputs, metadata, marker=marker, instance_id=instance_id)


def marker_path(system: System, config: Config) -> str:
    """Return the file that holds the identifier of the last instance that was set up.

    ``[Instance] instance_id_dir`` names that file in some generations of the agent and its
    directory in others.
    """
    path = config.instance.instance_id_dir.rstrip("/") or "/"
    facts = system.files.stat(path)
    if facts is not None and stat.S_ISDIR(facts.st_mode):
        return posixpath.join(path, MARKER_NAME)
    if facts is not None or posixpath.basename(path) == MARKER_NAME:
        return path
    return posixpath.join(path, MARKER_NAME)


def _set_up(inputs: Inputs, metadata: Metadata, *, marker: str, instance_id: int) -> Plan:
    changes: list[Change] = []
    notes: list[str] = []
    progress = read_state(inputs.system, PROGRESS, instance_id=instance_id) or {}
    if inputs.config.instance_setup.set_host_keys and not progress.get("host_keys"):
        changes += _host_keys(inputs, marker=marker, instance_id=instance_id, notes=notes)
    if inputs.config.instance_setup.set_boto_config:
        changes += _boto_config(inputs.system, metadata, notes)
    changes.append(RecordInstance(marker, instance_id))
    if progress or any(isinstance(change, Remember) for change in changes):
        changes.append(RemoveFile(PROGRESS, about=FIRST_BOOT))
    return Plan(tuple(changes), notes=tuple(notes))


def _host_keys(
    inputs: Inputs, *, marker: str, instance_id: int, notes: list[str]
) -> tuple[Change, ...]:
    system = inputs.system
    if find_program(system.files, "ssh-keygen") is None:
        notes.append("no host keys are made: ssh-keygen is not installed")
        return ()
    directory = inputs.config.instance_setup.host_key_dir.rstrip("/") or "/"
    changes: list[Change] = []
    for key_type in _key_types(inputs, directory, notes):
        public = _read_quietly(system, f"{directory}/ssh_host_{key_type}_key.pub")
        changes.append(GenerateHostKey(key_type, directory, marker, previous=public))
    if not changes:
        return ()
    changes.append(
        Remember(
            PROGRESS,
            {"host_keys": True},
            purpose="that the host keys are new",
            about=FIRST_BOOT,
            instance_id=instance_id,
        )
    )
    if find_program(system.files, "restorecon") is not None:
        changes.append(
            FollowUp(("restorecon", "-FR", directory), "restore the labels of the host keys")
        )
    changes += _reload_sshd(system)
    return tuple(changes)


def _key_types(inputs: Inputs, directory: str, notes: list[str]) -> tuple[str, ...]:
    """Return the configured types and those on disk; order as configured, each once."""
    wanted = []
    for item in inputs.config.instance_setup.host_key_types.split(","):
        key_type = item.strip()
        if _KEY_TYPE.fullmatch(key_type):
            wanted.append(key_type)
        elif key_type:
            notes.append(f"[InstanceSetup] host_key_types: {key_type[:40]!r} is no key type")
    for name in inputs.system.files.list_directory(directory):
        match = _HOST_KEY.fullmatch(name)
        if match:
            wanted.append(match[1])
    return tuple(dict.fromkeys(wanted))


def _reload_sshd(system: System) -> tuple[Change, ...]:
    if not system.files.exists("/run/systemd/system"):
        return ()
    for unit in ("ssh.service", "sshd.service"):
        if any(system.files.exists(f"{folder}/{unit}") for folder in _UNIT_DIRECTORIES):
            # Not waiting for the job: sshd's own start may be ordered after the agent's.
            argv = ("systemctl", "--no-block", "try-reload-or-restart", unit)
            return (FollowUp(argv, "let sshd read its new host keys if it runs"),)
    return ()


def _boto_config(system: System, metadata: Metadata, notes: list[str]) -> tuple[Change, ...]:
    """Return the change to boto's file: the template's settings, then those of this project."""
    try:
        current = system.files.read_bytes(BOTO_CONFIG)
        template = system.files.read_bytes(BOTO_TEMPLATE)
    except OSError as error:
        notes.append(f"boto's configuration is left alone: {error.strerror}")
        return ()
    settings = list(parse_boto(_decoded(template)))
    project = metadata.project.id
    if project is not None and _PROJECT_ID.fullmatch(project):
        settings.append(BotoSetting("GSUtil", "default_project_id", project))
    settings.append(BotoSetting("GSUtil", "default_api_version", "2"))
    settings.append(BotoSetting("GoogleCompute", "service_account", "default"))
    merged = merge_boto(_decoded(current), tuple(settings)).encode("utf-8", "surrogateescape")
    if merged == current:
        return ()
    facts = system.files.stat(BOTO_CONFIG)
    return (
        WriteFile(
            BOTO_CONFIG,
            merged,
            mode=0o644 if facts is None else stat.S_IMODE(facts.st_mode),
            uid=0 if facts is None else facts.st_uid,
            gid=0 if facts is None else facts.st_gid,
            previous=current,
            # The administrator's file may hold credentials.
            secret=current is not None,
            about=FIRST_BOOT,
        ),
    )


def _decoded(data: Optional[bytes]) -> str:
    return (data or b"").decode("utf-8", "surrogateescape")


def _read_quietly(system: System, path: str) -> Optional[str]:
    try:
        return system.files.read_text(path)
    except OSError:
        # Whatever is there will be replaced, and does not count as a key.
        return None


FEATURE = Feature(
    name="first-boot",
    summary="new host keys and boto configuration on a new instance",
    enabled=enabled,
    plan=plan,
    stage=Stage.BOOT,
    frequency=Frequency.ONCE_PER_INSTANCE,
    inputs_of=inputs_of,
)
