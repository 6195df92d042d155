"""What an instance must not leave in an image that is made of its disk.

Reads the tree below a root (the running machine, or a mounted image). Wants gone: the record of
which instance this is, what the agent remembers, the list of users that it manages, and what
OS Login cached of the organisation. Everything else belongs to the image's maker. Files that are
not there are fine; directories stay, because packages own them.

ssh host keys are removed only on request: a new instance replaces them anyway, and an image that is
also booted elsewhere may depend on them.

Source of the paths: ``google_guest.features``; guest-agent ``accounts.go`` for the list of users;
guest-oslogin ``src/include/oslogin_utils.h`` for the caches.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator

from google_guest.changes import Change
from google_guest.changes.files import RemoveFile
from google_guest.config import Config
from google_guest.features.linux.first_boot import marker_path
from google_guest.state import RUN_DIRECTORY, STATE_DIRECTORY
from google_guest.system import System

_FILES = (
    "/etc/google_instance_id",
    "/etc/google_instance_id/google_instance_id",
    "/var/lib/google/google_users",
    "/var/lib/google/managed_users.json",
    "/etc/oslogin_passwd.cache",
    "/etc/oslogin_passwd.cache.bin",
    "/etc/oslogin_passwd.cache.bak",
    "/etc/oslogin_group.cache",
    "/etc/oslogin_group.cache.bak",
    "/etc/oslogin/identity.v1.cache",
)
_DIRECTORIES = ("/var/google-users.d", "/var/google-sudoers.d")
"""One file for each OS Login user that logged in; a README belongs to the package."""
_KEPT_NAMES = ("README",)
_HOST_KEY = re.compile(r"ssh_host_[A-Za-z0-9-]+_key(\.pub)?")
_DEEPEST = 8


def plan(system: System, config: Config, *, host_keys: bool = False) -> tuple[Change, ...]:
    """Return one change for each file to remove, each path once."""
    paths = list(_paths(system, config))
    if host_keys:
        paths += _host_keys(system, config)
    return tuple(RemoveFile(path) for path in dict.fromkeys(paths))


def _paths(system: System, config: Config) -> Iterator[str]:
    for path in (marker_path(system, config), *_FILES):
        if _is_file(system, path):
            yield path
    yield from _files_below(system, STATE_DIRECTORY)
    for directory in _DIRECTORIES:
        for name in system.files.list_directory(directory):
            path = f"{directory}/{name}"
            if name not in _KEPT_NAMES and _is_file(system, path):
                yield path
    if not system.is_live:
        # On the running machine it ends with the boot, and the agent still needs it.
        yield from _files_below(system, RUN_DIRECTORY)


def _host_keys(system: System, config: Config) -> Iterator[str]:
    directory = config.instance_setup.host_key_dir.rstrip("/")
    for name in system.files.list_directory(directory):
        if _HOST_KEY.fullmatch(name):
            yield f"{directory}/{name}"


def _files_below(system: System, directory: str, *, depth: int = 0) -> Iterator[str]:
    for name in system.files.list_directory(directory):
        path = f"{directory}/{name}"
        facts = system.files.stat(path)
        is_link = system.files.resolved(path) != system.files.host_path(path)
        if facts is not None and stat.S_ISDIR(facts.st_mode) and not is_link:
            if depth < _DEEPEST:
                yield from _files_below(system, path, depth=depth + 1)
        else:
            yield path


def _is_file(system: System, path: str) -> bool:
    facts = system.files.stat(path)
    return system.files.exists(path) and (facts is None or not stat.S_ISDIR(facts.st_mode))
