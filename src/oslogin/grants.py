"""The files that let an OS Login user in and give it sudo.

``/var/google-users.d`` holds one file a user, included by sshd_config: it takes the user's own
``authorized_keys`` out of the game. ``/var/google-sudoers.d`` holds one file an administrator,
included by sudoers. When that folder cannot be written (the disk is full or read-only), the rule
goes to ``/run/google-sudoers.d``, which is memory; revoking removes it in both.

File names are encoded: sudo ignores names with a full stop, and ``README`` belongs to the package.
``+`` is in no login name, so no two users share a file. The rule names the user by uid: a user may
be called ``ALL``, or as an administrator's ``User_Alias`` is. A file is compared with what it
should be and replaced whole, so an empty one, which a full disk left behind, is mended; its mode is
right before its first byte, and a half-written one is deleted. Folders are opened without following
links and everything inside is done relative to them, links found there are replaced or unlinked,
never followed.

Source: guest-oslogin ``src/oslogin_utils.cc`` (names and contents), issues 8 and 115; sudoers(5),
"Including other files from within sudoers"; sshd_config(5).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

from google_guest.errors import GuestError
from oslogin.identities import is_login_name, is_uid

USERS_MODE = 0o640
SUDOERS_MODE = 0o440
FOLDER_MODE = 0o750

_README = "README"
_LARGEST = 64 * 1024
_TEMPORARY = re.compile(r"\.new-[0-9a-f]{16}")
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What makes the rule go to the folder in memory."""
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_log = logging.getLogger(__name__)


class GrantError(GuestError):
    """A file that grants access cannot be written or removed."""


def file_name(user: str) -> str:
    """Return the name of the user's file in each folder; it has neither ``.`` nor ``~``."""
    return f"+{_README}" if user == _README else user.replace(".", "+2E")


def user_of(name: str) -> Optional[str]:
    """Return whose file ``name`` is, today's or an older version's; None: nobody's."""
    if name == _README:
        return None
    user = _README if name == f"+{_README}" else name.replace("+2E", ".")
    return user if is_login_name(user) else None


def users_text(user: str) -> str:
    """Return the users file: sshd does not read the keys in the user's home."""
    return f"Match User {user}\n    AuthorizedKeysFile none\n"


def sudoers_text(user: str, uid: int) -> str:
    """Return the sudoers file: all commands as everybody, without a password."""
    return f"# OS Login user: {user}\n#{uid} ALL=(ALL) NOPASSWD: ALL\n"


class Grants:
    """The files in their folders.

    ``sudoers`` are one or two folders: the lasting one, then the one in memory. Methods may be
    called from any thread. They raise ``GrantError`` for what the system refuses, ValueError for
    names and uids that no OS Login user has.
    """

    def __init__(self, *, users: str, sudoers: Sequence[str]) -> None:
        self._users = users
        self._sudoers = tuple(sudoers)
        self._lock = threading.Lock()

    def admit(self, user: str) -> None:
        """Make the users file what it should be."""
        _require_name(user)
        with self._lock, _told("write the users file", user):
            _put(self._users, user, users_text(user), USERS_MODE)

    def is_admitted(self, user: str) -> bool:
        """Return whether the user has a users file: it was let in before."""
        _require_name(user)
        return any(
            stat.S_ISREG(mode)
            for name in _names_for(user)
            for mode in (_mode_of(self._users, name),)
        )

    def has_sudo(self, user: str) -> bool:
        """Return whether there is a rule for the user."""
        _require_name(user)
        return any(
            stat.S_ISREG(_mode_of(folder, name))
            for folder in self._sudoers
            for name in _names_for(user)
        )

    def grant_sudo(self, user: str, uid: int) -> None:
        """Make the rule what it should be, on disk or else in memory, and in one place only."""
        _require_name(user)
        if not is_uid(uid):
            raise ValueError(f"{uid} is no uid of an OS Login user")
        text = sudoers_text(user, uid)
        with self._lock, _told("write the sudoers file", user):
            for number, folder in enumerate(self._sudoers):
                try:
                    _put(folder, user, text, SUDOERS_MODE)
                except OSError as error:
                    if error.errno not in _DISK or number + 1 == len(self._sudoers):
                        _drop_empty(self._sudoers, user)
                        raise
                    _log.warning("%s: %s; the grant is kept in memory", folder, error.strerror)
                    continue
                self._remove_elsewhere(user, folder)
                return

    def revoke_sudo(self, user: str) -> bool:
        """Remove the rule wherever it is; return whether there was one."""
        _require_name(user)
        with self._lock, _told("remove the sudoers file", user):
            return _remove_everywhere(self._sudoers, user)

    def revoke(self, user: str) -> bool:
        """Remove both files; return whether there was one. The rule goes first."""
        _require_name(user)
        with self._lock, _told("remove the files", user):
            return _remove_everywhere((*self._sudoers, self._users), user)

    def names(self) -> frozenset[str]:
        """Return the users who have a file in any folder."""
        found = set()
        for folder in (self._users, *self._sudoers):
            for name in _entries(folder):
                user = user_of(name)
                if user is not None:
                    found.add(user)
        return frozenset(found)

    def sweep(self, is_departed: Callable[[str], bool]) -> tuple[str, ...]:
        """Remove the files of departed users, and what an interrupted write left; return whom.

        ``is_departed`` returns true only if the metadata server says that there is no such user;
        a GuestError that it raises keeps the user's files.
        """
        gone = []
        for user in sorted(self.names()):
            try:
                if is_departed(user) and self.revoke(user):
                    gone.append(user)
            except GuestError as error:
                _log.debug("the files of %s stay: %s", user, error)
        with self._lock:
            for folder in (self._users, *self._sudoers):
                _remove_leftovers(folder)
        if gone:
            _log.info("removed the files of departed users: %s", ", ".join(gone))
        return tuple(gone)

    def migrate(self) -> None:
        """Mend what older versions wrote, without asking anybody: to be called at each start.

        Users files get today's text and name. Of sudoers files the empty ones are removed, as is
        one that gives root to everybody because its user is called ``ALL``; those that sudo ignores
        for their name get one that it reads.
        """
        with self._lock:
            for name in _entries(self._users):
                user = user_of(name)
                if user is not None:
                    with _logged("write the users file", user):
                        _put(self._users, user, users_text(user), USERS_MODE)
            for folder in self._sudoers:
                for name in _entries(folder):
                    user = user_of(name)
                    if user is not None:
                        with _logged("mend the sudoers file", user):
                            _mend_rule(folder, name, user)

    def _remove_elsewhere(self, user: str, kept: str) -> None:
        for folder in self._sudoers:
            if folder != kept:
                try:
                    _remove_everywhere((folder,), user)
                except OSError as error:
                    _log.warning("the older rule of %s stays in %s: %s", user, folder, error)


def _require_name(user: str) -> None:
    if not is_login_name(user):
        raise ValueError(f"{user!r} is no login name")


@contextlib.contextmanager
def _told(what: str, user: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"cannot {what} of {user}: {where}{error.strerror or error}"
        raise GrantError(message) from error


@contextlib.contextmanager
def _logged(what: str, user: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _log.warning("cannot %s of %s: %s", what, user, error.strerror or error)


@contextlib.contextmanager
def _opened(folder: str, *, create: bool = False) -> Iterator[int]:
    """Open a folder that is root's alone; a link in its place raises OSError."""
    if create:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, FOLDER_MODE)
    descriptor = os.open(folder, _FOLDER_FLAGS)
    try:
        status = os.fstat(descriptor)
        if status.st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "the folder is not root's", folder)
        if create and stat.S_IMODE(status.st_mode) != FOLDER_MODE:
            os.fchmod(descriptor, FOLDER_MODE)
        yield descriptor
    finally:
        os.close(descriptor)


def _names_for(user: str) -> tuple[str, ...]:
    """Return the names that the user's file has, or had in older versions."""
    name = file_name(user)
    return (name,) if user in (name, _README) else (name, user)


def _mode_of(folder: str, name: str) -> int:
    try:
        with _opened(folder) as directory:
            return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except OSError:
        return 0


def _entries(folder: str) -> tuple[str, ...]:
    try:
        with _opened(folder) as directory:
            return tuple(sorted(os.listdir(directory)))
    except OSError:
        return ()


def _put(folder: str, user: str, text: str, mode: int) -> None:
    """Make the file hold exactly ``text`` with ``mode``; write nothing if it does."""
    name, data = file_name(user), text.encode()
    with _opened(folder, create=True) as directory:
        if _content(directory, name, mode) != data:
            _replace(directory, name, data, mode)
        if user not in (name, _README):
            _unlink(directory, user)


def _content(directory: int, name: str, mode: Optional[int] = None) -> Optional[bytes]:
    """Return what a regular file of root's holds, None for anything else or another mode."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid in (0, os.geteuid())
        if not is_ours or (mode is not None and stat.S_IMODE(status.st_mode) != mode):
            return None
        return os.read(descriptor, _LARGEST)
    finally:
        os.close(descriptor)


def _replace(directory: int, name: str, data: bytes, mode: int) -> None:
    # sudo ignores names with a full stop, sshd's Include those that begin with one.
    temporary = f".new-{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode, dir_fd=directory)
    try:
        try:
            os.fchmod(descriptor, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        _unlink(directory, temporary)
        raise
    os.fsync(directory)


def _unlink(directory: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def _remove_everywhere(folders: Sequence[str], user: str) -> bool:
    """Remove the user's files in all folders; the first failure is raised at the end."""
    failure: Optional[OSError] = None
    removed = False
    for folder in folders:
        try:
            with _opened(folder) as directory:
                for name in _names_for(user):
                    removed |= _unlink(directory, name)
        except FileNotFoundError:
            continue
        except OSError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return removed


def _drop_empty(folders: Sequence[str], user: str) -> None:
    for folder in folders:
        with contextlib.suppress(OSError), _opened(folder) as directory:
            for name in _names_for(user):
                if _content(directory, name) == b"":
                    _unlink(directory, name)


def _remove_leftovers(folder: str) -> None:
    with contextlib.suppress(OSError), _opened(folder) as directory:
        for name in os.listdir(directory):
            if _TEMPORARY.fullmatch(name):
                _unlink(directory, name)


def _mend_rule(folder: str, name: str, user: str) -> None:
    with _opened(folder) as directory:
        content = _content(directory, name)
        old_rule = f"{user} ALL=(ALL) NOPASSWD: ALL"
        lines = [] if content is None else content.decode("utf-8", "replace").split("\n")
        if content is None or not content.strip() or (user == "ALL" and old_rule in lines):
            _unlink(directory, name)
        elif name != file_name(user):
            if _content(directory, file_name(user)) is None:
                _replace(directory, file_name(user), content, SUDOERS_MODE)
            _unlink(directory, name)
