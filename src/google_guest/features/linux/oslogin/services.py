"""Which units OS Login starts, stops and restarts.

A unit exists if a file of its name is in one of systemd's folders. What has to be restarted is
noted below /run before the files are changed, so that neither a crash nor a failed restart loses
it.

Source: guest-agent ``google_guest_agent/oslogin.go`` for the services that read nsswitch.conf once;
glibc 2.33 NEWS: the name service reads nsswitch.conf again by itself.
"""

from __future__ import annotations

import os
import re
from typing import Optional

from google_guest.changes import Change
from google_guest.changes.files import RemoveFile
from google_guest.changes.oslogin import ControlUnits
from google_guest.errors import GuestError
from google_guest.state import RUN_DIRECTORY, Remember, read_state
from google_guest.system import System

MARKER = f"{RUN_DIRECTORY}/oslogin-services.json"
CACHE_SERVICE = "google-oslogin-cache.service"
USERDB_SOCKET = "google-oslogind-userdb.socket"
SOCKETS = ("google-oslogind-nss.socket", "google-oslogind-auth.socket")
PATH_UNIT = "google-oslogin-users.path"
SERVICE = "google-oslogind.service"
SSHD, NAMES = "sshd", "names"

_SSHD_UNITS = ("ssh.service", "sshd.service")
_OPTIONAL = (("nscd.service", "unscd.service"), ("cron.service", "crond.service"))
_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
)
_SYSTEMD = "/run/systemd/system"
_TIMEOUT = 10.0


def has_systemd(system: System) -> bool:
    """Return whether systemd runs here."""
    return system.is_live and system.files.exists(_SYSTEMD)


def unit_exists(system: System, unit: str) -> bool:
    """Return whether there is a file for ``unit``."""
    return any(system.files.exists(f"{folder}/{unit}") for folder in _FOLDERS)


def pending(system: System) -> frozenset[str]:
    """Return what an earlier pass changed and did not get to restart."""
    listed = (read_state(system, MARKER) or {}).get("pending")
    return frozenset(listed if isinstance(listed, list) else ()) & {SSHD, NAMES}


def note(kinds: frozenset[str]) -> Change:
    """Return the change that remembers what has to be restarted."""
    return Remember(
        MARKER, {"pending": sorted(kinds)}, purpose="which services read the files anew"
    )


def restarts(system: System, kinds: frozenset[str]) -> tuple[Change, ...]:
    """Return what makes services see the changed files, and forgets that it was due."""
    changes: list[Change] = []
    if NAMES in kinds:
        groups: list[tuple[str, ...]] = list(_OPTIONAL)
        if not _rereads_nsswitch():
            groups.append(("systemd-logind.service",))
        for group in groups:
            unit = _first(system, group)
            if unit:
                changes.append(ControlUnits(("try-restart",), (unit,), optional=True))
    if SSHD in kinds:
        unit = _first(system, _SSHD_UNITS)
        if unit:
            changes.append(ControlUnits(("try-reload-or-restart", "--no-block"), (unit,)))
    changes.append(RemoveFile(MARKER, about="OS Login"))
    return tuple(changes)


def is_about_sshd(change: Change) -> bool:
    """Return whether the change restarts sshd."""
    return isinstance(change, ControlUnits) and bool(set(change.units) & set(_SSHD_UNITS))


def start(system: System, *, userdb: bool) -> tuple[Change, ...]:
    """Return what opens the daemon's sockets and watches the users' files; stops a userdb."""
    if not has_systemd(system):
        return ()
    wanted = (*SOCKETS, *((USERDB_SOCKET,) if userdb else ()), PATH_UNIT)
    states = _active(system)
    missing = tuple(unit for unit in wanted if states.get(unit) is False)
    changes: list[Change] = []
    if missing:
        if states.get(SERVICE) and any(unit.endswith(".socket") for unit in missing):
            # systemd opens no socket of a running service; the sockets start it again.
            changes.append(ControlUnits(("stop",), (SERVICE,), optional=True))
        changes.append(ControlUnits(("start",), missing))
    if not userdb and states.get(USERDB_SOCKET):
        changes.append(ControlUnits(("stop",), (USERDB_SOCKET,), optional=True))
    return tuple(changes)


def stop(system: System) -> tuple[Change, ...]:
    """Return what closes everything of ours that is open."""
    if not has_systemd(system):
        return ()
    running = tuple(unit for unit, active in _active(system).items() if active)
    if not running:
        return ()
    return (ControlUnits(("stop",), running, optional=True, about="OS Login units"),)


def refresh_cache(system: System) -> tuple[Change, ...]:
    """Return what fills the cache, without waiting for it."""
    if not has_systemd(system) or not unit_exists(system, CACHE_SERVICE):
        return ()
    verb = ("start", "--no-block")
    return (ControlUnits(verb, (CACHE_SERVICE,), optional=True, about="OS Login cache"),)


def _active(system: System) -> dict[str, bool]:
    """Return of each unit of ours that exists whether it is active, the service last."""
    units = (PATH_UNIT, *SOCKETS, USERDB_SOCKET, SERVICE)
    argv = ["systemctl", "show", "--property=Id,LoadState,ActiveState", "--", *units]
    try:
        answer = system.run(argv, timeout=_TIMEOUT)
    except GuestError:
        return {}
    states = {}
    for block in answer.stdout.strip("\n").split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("LoadState") == "loaded":
            active = values.get("ActiveState") in ("active", "activating", "reloading")
            states[values.get("Id", "")] = active
    return states


def _first(system: System, units: tuple[str, ...]) -> Optional[str]:
    if not has_systemd(system):
        return None
    return next((unit for unit in units if unit_exists(system, unit)), None)


def _rereads_nsswitch() -> bool:
    """Return whether this C library notices a changed nsswitch.conf by itself."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return False
    match = re.search(r"([0-9]+)\.([0-9]+)", text)
    return match is not None and (int(match[1]), int(match[2])) >= (2, 33)
