"""Guest attributes: what the instance publishes about itself, for people with access to it.

Reads: the public ssh host keys in ``[InstanceSetup] host_key_dir`` (whoever made them), the agent's
``status.json``, and what was published before (``guest-attributes.json`` in the run folder).

Wants ``hostkeys/<algorithm>`` for each host key, ``guest-agent/version``, and once per boot
``guest-agent/sshable`` with the Unix time at which the first pass over accounts or OS Login
succeeded. Every value is sent once per boot and instance, and again when it changes. An instance
that refuses guest attributes is asked again when its ``enable-guest-attributes`` changes or the
agent starts anew.

Source: public GCE documentation, "Guest attributes"; guest-agent ``instance_setup.go`` and
``oslogin.go``; cloud-image-tests ``test_suites/ssh/host_key_test.go``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Optional

from google_guest.changes.reports import GuestAttribute, PublishGuestAttributes
from google_guest.config import BUILT_IN
from google_guest.features import Decision, Feature, Inputs, Plan
from google_guest.metadata.tree import Metadata
from google_guest.run_memory import run_still_lives
from google_guest.state import read_state, status_path
from google_guest.system import System
from google_guest.version import version

MEMORY = "guest-attributes.json"
SWITCH = "enable-guest-attributes"

_PUBLIC_KEY = re.compile(r"ssh_host_[A-Za-z0-9-]+_key\.pub")
_ALGORITHM = re.compile(r"[A-Za-z0-9][A-Za-z0-9@.-]{0,127}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
DRIFT_INTERVAL = 600.0
"""Seconds until a host key is noticed that somebody else replaced."""

_SSHABLE_FEATURES = ("accounts", "oslogin", "ssh-users")
_LAST_MOMENT = 1e11
_SOON, _LATER, _MINUTE = 2.0, 30.0, 60.0


def enabled(inputs: Inputs) -> Decision:
    """On unless the configuration forbids everything that depends on metadata."""
    if not inputs.config.instance_setup.network_enabled:
        layer = inputs.config.origin("instance_setup", "network_enabled")
        return Decision(False, "[InstanceSetup] network_enabled = false", layer)
    return Decision(True, "on by default")


def inputs_of(metadata: Metadata) -> tuple[Optional[int], str]:
    """Return the instance and its switch."""
    return metadata.instance.id, _switch(metadata)


def plan(inputs: Inputs) -> Plan:
    """Return one change that sends every value that was not sent yet."""
    metadata = inputs.metadata
    if metadata is None or metadata.instance.id is None:
        return Plan()
    instance_id = metadata.instance.id
    memory = _memory(inputs.system, metadata)
    if memory.get("refused") is not None:
        return Plan()
    published: dict[str, str] = memory["published"]
    notes: list[str] = []
    wanted = list(_host_keys(inputs, notes))
    wanted.append(GuestAttribute("guest-agent", "version", version()))
    recheck_at = None
    if "guest-agent/sshable" not in published:
        since, pending = _sshable(inputs.system)
        if since is not None:
            wanted.append(GuestAttribute("guest-agent", "sshable", str(since)))
        elif pending:
            recheck_at = inputs.now + _recheck_delay(inputs)
    missing = tuple(item for item in wanted if published.get(item.path) != item.value)
    if not missing:
        return Plan(recheck_at=recheck_at, notes=tuple(notes))
    path = inputs.system.places.in_run(MEMORY)
    change = PublishGuestAttributes(missing, path, memory, instance_id)
    return Plan((change,), recheck_at=recheck_at, notes=tuple(notes))


def _memory(system: System, metadata: Metadata) -> dict[str, Any]:
    """Return what was sent and whether it was refused; empty once that may have changed."""
    switch = _switch(metadata)
    memory = (
        read_state(system, system.places.in_run(MEMORY), instance_id=metadata.instance.id) or {}
    )
    published = memory.get("published")
    if memory.get("switch") != switch or not isinstance(published, dict):
        return {"switch": switch, "published": {}}
    if "refused" in memory and not run_still_lives(system, memory):
        del memory["refused"]
    return memory


def _switch(metadata: Metadata) -> str:
    values = (metadata.instance.attributes.get(SWITCH), metadata.project.attributes.get(SWITCH))
    return " ".join("-" if value is None else value for value in values)


def _host_keys(inputs: Inputs, notes: list[str]) -> Iterator[GuestAttribute]:
    files = inputs.system.files
    configured = inputs.config.instance_setup.host_key_dir.rstrip("/")
    is_default = inputs.config.origin("instance_setup", "host_key_dir") == BUILT_IN
    directory = files.places.host_keys if is_default else configured
    seen = set()
    for name in files.list_directory(directory):
        if not _PUBLIC_KEY.fullmatch(name) or not files.exists(f"{directory}/{name[:-4]}"):
            continue
        try:
            fields = (files.read_text(f"{directory}/{name}", limit=64 << 10) or "").split()
        except OSError as error:
            notes.append(f"{directory}/{name} is not published: {error.strerror}")
            continue
        if (
            len(fields) < 2
            or not _ALGORITHM.fullmatch(fields[0])
            or not _BASE64.fullmatch(fields[1])
        ):
            notes.append(f"{directory}/{name} is not published: it is no public key")
        elif fields[0] not in seen:
            seen.add(fields[0])
            yield GuestAttribute("hostkeys", fields[0], fields[1])


def _sshable(system: System) -> tuple[Optional[int], bool]:
    """Return since when people can log in, and whether that is still to be waited for."""
    status = read_state(system, status_path(system))
    features = (status or {}).get("features")
    if not isinstance(features, dict):
        return None, True
    moments = []
    pending = False
    for name in _SSHABLE_FEATURES:
        row = features.get(name)
        if not isinstance(row, dict) or row.get("on") is False:
            continue
        moment = row.get("first_success") or row.get("last_success")
        # JSON knows numbers that are no moments: 1e999, NaN.
        if isinstance(moment, (int, float)) and 0 < moment < _LAST_MOMENT and row.get("on"):
            moments.append(int(moment))
        else:
            pending = True
    return (min(moments), False) if moments else (None, pending)


def _recheck_delay(inputs: Inputs) -> float:
    """Return how soon to look again: the status file trails the pass that it tells of."""
    started = (read_state(inputs.system, status_path(inputs.system)) or {}).get("started")
    young = not isinstance(started, (int, float)) or inputs.now - started < _MINUTE
    return _SOON if young else _LATER


FEATURE = Feature(
    name="guest-attributes",
    summary="publish host keys, the agent's version and readiness for ssh",
    enabled=enabled,
    plan=plan,
    inputs_of=inputs_of,
    drift_interval=DRIFT_INTERVAL,
    follows=("first-boot", *_SSHABLE_FEATURES),
    live_only=True,
)
