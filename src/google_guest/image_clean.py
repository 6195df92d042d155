"""What an instance must not leave in an image that is made of its disk.

Reads the tree below a root (the running machine, or a mounted image). Wants gone: the record of
which instance this is, what the agent remembers, the list of users that it manages, and what
OS Login cached of the organisation; and, from the authorized_keys of those users, the keys that the
agent wrote, which would let the builders of the image into every instance made from it. Everything
else belongs to the image's maker. Files that are not there are fine; directories stay, because
packages own them, and so do accounts.

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
from google_guest.changes.accounts import WriteAuthorizedKeys
from google_guest.changes.files import RemoveFile, WriteFile
from google_guest.config import Config
from google_guest.features.linux.first_boot import marker_path
from google_guest.managed_users import ManagedUser, read_managed_users
from google_guest.state import RUN_DIRECTORY, STATE_DIRECTORY
from google_guest.system import System
from google_guest.system.accounts import Account
from google_guest.system.homes import look_at, without_added_lf

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
    """Return the changes: users' keys while it is known whose they are, then each file once."""
    paths = list(_paths(system, config))
    if host_keys:
        paths += _host_keys(system, config)
    files = tuple(RemoveFile(path) for path in dict.fromkeys(paths))
    return (*_withdrawn_keys(system), *files)


def _withdrawn_keys(system: System) -> Iterator[Change]:
    accounts = system.accounts.local().users
    for name, user in sorted(read_managed_users(system, None).users.items()):
        account = accounts.get(name)
        if account is not None:
            yield from withdrawn_keys_of(system, user, account)


def withdrawn_keys_of(system: System, user: ManagedUser, account: Account) -> Iterator[Change]:
    """Yield the change that leaves a user's authorized_keys without keys of the agent."""
    look = look_at(system, account)
    if look.content is not None and look.keys.holds(()):
        return
    if system.is_live:
        if look.content is not None or look.needs_user:
            yield WriteAuthorizedKeys(
                user.name,
                (),
                account=account,
                may_unlink=user.file_created,
                unterminated=user.unterminated,
            )
        return
    if look.content is None:
        return
    # Nobody can interfere in a tree that is not booted, so the file is replaced directly.
    path = f"{account.home}/.ssh/authorized_keys"
    facts = system.files.stat(path)
    own = without_added_lf(look.keys.own, user.unterminated)
    if not own and user.file_created:
        yield RemoveFile(path, about=f"user {user.name}")
        return
    yield WriteFile(
        path,
        own,
        mode=0o600 if facts is None else stat.S_IMODE(facts.st_mode),
        uid=account.uid,
        gid=account.gid,
        secret=True,
        about=f"user {user.name}",
    )


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
