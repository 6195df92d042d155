"""From switches and files to the changes that set OS Login up, or set everything back.

Every file's new text is computed here, by ``sshd_config``, ``nsswitch``, ``pam`` and
``group_conf`` beside this module; what is written is ``changes.oslogin``'s business. On the way up
the files are one transaction and follow the directories; on the way down each file is cleaned for
itself, so that one that cannot be written keeps none of the others from being cleaned, and the
daemon goes last.
"""

from __future__ import annotations

import fnmatch
import logging
import re
import stat
from collections.abc import Callable
from typing import Optional

from google_guest.changes import Change
from google_guest.changes.files import RemoveFile, WriteFile
from google_guest.changes.oslogin import (
    LIMIT,
    SUBJECT,
    Edit,
    EditFiles,
    EnsureDirectory,
    RemoveDirectory,
)
from google_guest.errors import GuestError
from google_guest.features import Inputs, Plan
from google_guest.features.linux.oslogin import (
    group_conf,
    nsswitch,
    pam,
    services,
    sshd_config,
    trusted_ca,
)
from google_guest.features.linux.oslogin.layout import Layout, Switches, layout_for
from google_guest.os_release import read_os_release
from google_guest.records import record, replace
from google_guest.system import System

log = logging.getLogger(__name__)

DIRECTORIES = ("/var/google-sudoers.d", "/var/google-users.d", "/run/google-sudoers.d")
DROP_IN = "/etc/sudoers.d/google-oslogin"
OTHER_DROP_IN = "/etc/sudoers.d/google-sudoers"
"""Where Google's newer agent puts the same line."""
CACHES = (
    "/etc/oslogin/identity.v1.cache",
    "/etc/oslogin_passwd.cache",
    "/etc/oslogin_passwd.cache.bin",
    "/etc/oslogin_group.cache",
)
NOT_INSTALLED = "OS Login not installed"

_OLD_DROP_INS = (b"#includedir /var/google-sudoers.d\n", b"#includedir /var/google-sudoers.d")
_DROP_IN_TEXT = b"#includedir /var/google-sudoers.d\n#includedir /run/google-sudoers.d\n"
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_NSS = ("libnss_oslogin.so.2", "libnss_cache_oslogin.so.2")
_PAM = ("security/pam_oslogin_login.so", "security/pam_oslogin_admin.so")
_HELPERS = ("google_authorized_keys", "google_authorized_keys_sk", "google_authorized_principals")
_FIRST_INCLUDE, _BACKPORTED = (8, 2), (8, 0)


@record
class _File:
    """One configuration file: what it holds, and what it would hold."""

    path: str
    previous: Optional[bytes]
    text: str
    is_sshd_config: bool = False

    def edited(self, text: str) -> Optional[Edit]:
        """Return the edit that gives the file ``text``, or None if it has it."""
        if text == self.text:
            return None
        # What is empty after us was made by us, or says nothing.
        content = text.encode("utf-8", "surrogateescape") if text else None
        return Edit(self.path, self.previous, content, self.is_sshd_config)


def switches_of(inputs: Inputs, *, two_factor: bool = False) -> Switches:
    """Return what metadata and configuration ask for; ``two_factor`` asks for it in any case."""

    def is_true(key: str) -> bool:
        value = None if inputs.metadata is None else inputs.metadata.switch(key)
        return value is not None and value[0]

    return Switches(
        two_factor=two_factor or is_true("enable-oslogin-2fa"),
        security_keys=is_true("enable-oslogin-sk"),
        certificates=is_true("enable-oslogin-certificates"),
        cert_authentication=inputs.config.os_login.cert_authentication,
    )


def plan_on(inputs: Inputs, *, two_factor: bool = False) -> Plan:
    """Return what sets OS Login up; what is left over from before when it is not installed."""
    system = inputs.system
    layout = layout_for(read_os_release(system.files))
    nsswitch_text = _read(system, layout.nsswitch).text
    mode = inputs.config.os_login.userdb_provider.strip().lower()
    missing = missing_parts(system, layout, with_names=not _may_do_without(mode, nsswitch_text))
    if missing:
        cleaning = plan_off(system)
        return Plan(cleaning.changes, notes=(f"{NOT_INSTALLED}: there is no {missing[0]}",))
    has_names = not missing_parts(system, layout, with_names=True)
    switches = switches_of(inputs, two_factor=two_factor)
    warnings: list[str] = []
    if mode not in ("auto", "true", "false"):
        warnings.append(f"[OSLogin] userdb_provider = {mode[:20]!r} is none of auto, true, false")
    userdb = mode == "true" or (mode != "false" and not has_names)
    copies = _copies(system, layout)
    if copies is None:
        return Plan(warnings=("OS Login stays off: the files of /usr/etc cannot be read",))
    try:
        edits = _edits_on(system, layout, switches, warnings, has_names=has_names)
    except GuestError as error:
        return Plan(warnings=(f"OS Login stays as it is: {error}",))
    changes: list[Change] = [*_directories(system), *_drop_ins(system), *copies]
    changes += services.start(system, userdb=userdb)
    kinds = services.pending(system) | _kinds(edits)
    if kinds:
        changes.append(services.note(kinds))
    if edits:
        changes.append(EditFiles(edits, purpose="set up OS Login"))
        su = _edit_su(system, layout)
        changes += [EditFiles((su,), purpose="remove old lines", about=su.path)] if su else []
        changes += services.refresh_cache(system)
    elif su := _edit_su(system, layout):
        changes.append(EditFiles((su,), purpose="remove old lines", about=su.path))
    recheck_at = None
    if switches.offers_certificates:
        ca_changes, recheck_at = trusted_ca.plan_file(system, repr(switches), inputs.now)
        # Before sshd reads a configuration that names the file.
        changes += ca_changes
    else:
        changes += trusted_ca.plan_removal(system)
    if kinds:
        changes += services.restarts(system, kinds)
    return Plan(tuple(changes), recheck_at, warnings=tuple(warnings))


def plan_off(system: System, *, thorough: bool = False) -> Plan:
    """Return what removes every trace; ``thorough``: the directories and all grants, too."""
    layout = layout_for(read_os_release(system.files))
    edits = _edits_off(system, layout)
    kinds = services.pending(system) | _kinds(edits)
    changes: list[Change] = []
    if kinds:
        changes.append(services.note(kinds))
    for edit in edits:
        changes.append(
            EditFiles((edit,), purpose="remove OS Login", tolerant=True, about=f"file {edit.path}")
        )
    if kinds:
        changes += services.restarts(system, kinds)
    changes += services.stop(system)
    changes += trusted_ca.plan_removal(system)
    gone = (*CACHES, DROP_IN, *((OTHER_DROP_IN,) if _is_other_drop_in(system) else ()))
    changes += [RemoveFile(path) for path in gone if system.files.exists(path)]
    if thorough:
        for directory in DIRECTORIES:
            # A package's empty folder with its README is nothing that we made.
            if set(system.files.list_directory(directory)) != {"README"}:
                if system.files.exists(directory):
                    changes.append(RemoveDirectory(directory))
    return Plan(tuple(changes))


def is_on(inputs: Inputs) -> bool:
    """Return whether metadata and configuration want OS Login."""
    from google_guest.features.linux.accounts.wanted import is_oslogin_on

    return inputs.metadata is not None and is_oslogin_on(inputs.metadata, inputs.config)


def obstacle(system: System) -> str:
    """Return why OS Login cannot be set up on this machine; empty if it can."""
    missing = missing_parts(system, layout_for(read_os_release(system.files)), with_names=True)
    return f"{NOT_INSTALLED}: there is no {', no '.join(missing)}" if missing else ""


def state(system: System, *, two_factor: bool) -> tuple[tuple[str, bool], ...]:
    """Return what belongs to OS Login in full, a line each, and whether it is there."""
    layout = layout_for(read_os_release(system.files))
    sshd = _active_words(_read(system, layout.sshd_config).text)
    pam_text = _active_words(_read(system, layout.pam_sshd).text)
    names = _active_words(_read(system, layout.nsswitch).text)
    helpers = "google_authorized_keys|google_authorized_principals"
    checks = [
        (f"{layout.sshd_config}: keys or certificates of OS Login", rf"Command .*/(?:{helpers})"),
        (f"{layout.sshd_config}: the users' settings", r"Include /var/google-users\.d/"),
    ]
    rows = [(text, re.search(pattern, sshd) is not None) for text, pattern in checks]
    for database in ("passwd", "group"):
        found = re.search(rf"(?m)^\s*{database}\s*:.*\boslogin\b", names) is not None
        rows.append((f"{layout.nsswitch}: oslogin for {database}", found))
    rows.append((f"{layout.pam_sshd}: session of OS Login", "pam_mkhomedir.so" in pam_text))
    rows.append((f"{DROP_IN}: grants", system.files.exists(DROP_IN)))
    if two_factor:
        rows.append((f"{layout.pam_sshd}: second factor", "pam_oslogin_login.so" in pam_text))
        methods = re.search(r"AuthenticationMethods publickey,keyboard-interactive", sshd)
        rows.append((f"{layout.sshd_config}: second factor", methods is not None))
    return tuple(rows)


def missing_parts(system: System, layout: Layout, *, with_names: bool) -> tuple[str, ...]:
    """Return the helpers and modules that are not installed."""
    missing = [
        f"{layout.helpers}/{name}"
        for name in _HELPERS
        if not system.files.is_executable(f"{layout.helpers}/{name}")
    ]
    folders = _library_folders(system)
    for name in (*_PAM, *(_NSS if with_names else ())):
        if not any(system.files.stat(f"{folder}/{name}") for folder in folders):
            missing.append(name)
    return tuple(missing)


def _library_folders(system: System) -> tuple[str, ...]:
    folders = []
    for folder in _LIBRARIES:
        folders.append(folder)
        names = system.files.list_directory(folder)
        folders += [f"{folder}/{name}" for name in names if re.search("-(?:linux|freebsd)", name)]
    return tuple(folders)


def _may_do_without(mode: str, nsswitch_text: str) -> bool:
    """Return whether systemd's user database can stand in for our name service module."""
    if mode == "true":
        return True
    if mode != "auto":
        return False
    words = _active_words(nsswitch_text)
    return all(
        re.search(rf"(?m)^\s*{database}\s*:.*\bsystemd\b", words)
        for database in ("passwd", "group")
    )


def _active_words(text: str) -> str:
    """Return ``text`` without comments."""
    return "\n".join(line.split("#", 1)[0] for line in text.splitlines())


def _read(system: System, path: str, *, instead: str = "") -> _File:
    """Return a file; ``instead`` is the one that will be copied to its place."""
    data = system.files.read_bytes(path, limit=LIMIT)
    if data is None and instead:
        data = system.files.read_bytes(instead, limit=LIMIT)
    text = "" if data is None else data.decode("utf-8", "surrogateescape")
    return _File(path, data, text)


def _needed(system: System, path: str, *, instead: str = "") -> _File:
    file = _read(system, path, instead=instead)
    if file.previous is None:
        raise GuestError(f"there is no {path}")
    return file


def _copies(system: System, layout: Layout) -> Optional[tuple[Change, ...]]:
    """Return what copies the distribution's files to /etc; None if one cannot be read."""
    changes: list[Change] = []
    for source, target in layout.copies:
        if system.files.exists(target):
            continue
        try:
            data = system.files.read_bytes(source, limit=LIMIT)
        except OSError:
            return None
        if data is not None:
            changes.append(WriteFile(target, data, about=SUBJECT))
    return tuple(changes)


def _edits_on(
    system: System,
    layout: Layout,
    switches: Switches,
    warnings: list[str],
    *,
    has_names: bool,
) -> tuple[Edit, ...]:
    instead = {target: source for source, target in layout.copies}

    def read(path: str, reader: Callable[..., _File] = _read) -> _File:
        return reader(system, path, instead=instead.get(path, ""))

    sshd = replace(read(layout.sshd_config, _needed), is_sshd_config=True)
    foreign = sshd_config.foreign_keys_command(sshd.text, _reader_of_includes(system))
    if foreign:
        warnings.append(
            f"AuthorizedKeysCommand {foreign} is in sshd's configuration and stays:"
            " keys of OS Login are not offered to sshd"
        )
    includes = _knows_include(system, sshd.text)
    if not includes:
        warnings.append("this sshd is older than 8.2: settings of single users have no effect")
    edits = [
        sshd.edited(
            sshd_config.enable(
                sshd.text, switches, layout, includes=includes, keys_command=not foreign
            )
        )
    ]
    names = read(layout.nsswitch, _needed)
    if has_names:
        edits.append(names.edited(nsswitch.enable(names.text, layout)))
    login = read(layout.pam_sshd)
    edits.append(login.edited(pam.enable_sshd(login.text, switches, layout)))
    if layout.group_conf:
        groups = read(layout.group_conf)
        edits.append(groups.edited(group_conf.enable(groups.text)))
    return tuple(edit for edit in edits if edit is not None)


def _edits_off(system: System, layout: Layout) -> tuple[Edit, ...]:
    edits: list[Optional[Edit]] = []
    rows: list[tuple[Optional[str], Callable[[str], str]]] = [
        (layout.nsswitch, lambda text: nsswitch.disable(text, layout)),
        (layout.sshd_config, sshd_config.disable),
        (layout.pam_sshd, pam.disable_sshd),
        (layout.group_conf, group_conf.disable),
    ]
    for path, disable in rows:
        if not path:
            continue
        try:
            file = _read(system, path)
        except OSError as error:
            log.warning("%s cannot be read and stays as it is: %s", path, error)
            continue
        if file.previous is not None:
            if path == layout.sshd_config:
                file = replace(file, is_sshd_config=True)
            edits.append(file.edited(disable(file.text)))
    edits.append(_edit_su(system, layout))
    return tuple(edit for edit in edits if edit is not None)


def _edit_su(system: System, layout: Layout) -> Optional[Edit]:
    """Return what removes a line that once kept OS Login's users from su."""
    try:
        file = _read(system, layout.pam_su)
    except OSError:
        return None
    return None if file.previous is None else file.edited(pam.without_deprecated_su(file.text))


def _kinds(edits: tuple[Edit, ...]) -> frozenset[str]:
    kinds = set()
    for edit in edits:
        if edit.is_sshd_config:
            kinds.add(services.SSHD)
        elif edit.path.endswith("nsswitch.conf"):
            kinds.add(services.NAMES)
    return frozenset(kinds)


def _directories(system: System) -> tuple[Change, ...]:
    changes = []
    for path in DIRECTORIES:
        facts = system.files.lstat(path)
        is_right = (
            facts is not None
            and stat.S_ISDIR(facts.st_mode)
            and stat.S_IMODE(facts.st_mode) == 0o750
            and (facts.st_uid == 0 or not system.is_live)
        )
        if not is_right:
            changes.append(EnsureDirectory(path))
    return tuple(changes)


def _drop_ins(system: System) -> tuple[Change, ...]:
    changes: list[Change] = []
    present = _content(system, DROP_IN)
    if present is None or present in _OLD_DROP_INS:
        changes.append(WriteFile(DROP_IN, _DROP_IN_TEXT, mode=0o440, previous=present))
    if _is_other_drop_in(system):
        changes.append(RemoveFile(OTHER_DROP_IN, previous=_OLD_DROP_INS[0]))
    return tuple(changes)


def _is_other_drop_in(system: System) -> bool:
    return _content(system, OTHER_DROP_IN) in _OLD_DROP_INS


def _content(system: System, path: str) -> Optional[bytes]:
    """Return the content; of what cannot be read something that is nobody's."""
    try:
        return system.files.read_bytes(path)
    except OSError:
        return b"?"


def _reader_of_includes(system: System) -> Callable[[str], tuple[str, ...]]:
    """Return what gives the texts of the files that an Include line's pattern names."""

    def read(pattern: str) -> tuple[str, ...]:
        absolute = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
        folder, _, name = absolute.rpartition("/")
        texts = []
        for entry in system.files.list_directory(folder):
            if fnmatch.fnmatchcase(entry, name):
                try:
                    texts.append(system.files.read_text(f"{folder}/{entry}") or "")
                except OSError:
                    continue
        return tuple(texts)

    return read


def _knows_include(system: System, text: str) -> bool:
    """Return whether this sshd has Include; asked of ssh only where the file has none."""
    if re.search(r"(?mi)^\s*Include\s", text) or not system.is_live:
        return True
    try:
        answer = system.run(["ssh", "-V"], timeout=10.0, check=False)
    except GuestError:
        return True
    match = re.search(r"OpenSSH_([0-9]+)\.([0-9]+)", answer.stderr + answer.stdout)
    if match is None:
        return True
    found = (int(match[1]), int(match[2]))
    # Red Hat's 8.0 has it from later versions.
    return found >= _FIRST_INCLUDE or found == _BACKPORTED
