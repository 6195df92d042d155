"""Files of a Windows guest; see ``google_guest.system.files`` for what is promised.

Guest paths are those of Windows (``C:\\ProgramData\\Google``, either slash). With another root than
``/`` the drive is a folder below it: ``C:\\ProgramData`` is ``root/C/ProgramData``.

Windows knows no modes. A file or folder whose mode gives nothing to others is created for SYSTEM
and the administrators alone, whatever the folder above says; every other one inherits. A file that
somebody has open (a virus scanner, a backup) cannot be replaced or removed for a moment: that is
tried again for two seconds. Links and junctions at the path itself are replaced, never followed.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from typing import ClassVar, Optional, TypeVar

from google_guest.places import WINDOWS, Places
from google_guest.system.files import TEMPORARY_INFIX, Files
from google_guest.system.windows import security

_ABSOLUTE = re.compile(r"([A-Za-z]):(\\.*)?")
_IN_USE = (5, 32, 33)
"""ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION."""
_PATIENCE = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2
_REPARSE_POINT = 0x400

_T = TypeVar("_T")


class WindowsFiles(Files):
    """File access below ``root``, with the paths of Windows."""

    places: ClassVar[Places] = WINDOWS

    def host_path(self, path: str) -> str:
        """Return where the guest path ``path`` is on this host, its final link not followed."""
        if self._is_live:
            return path.replace("/", "\\")
        return super().host_path(_below_root(path))

    def resolved(self, path: str) -> str:
        """Return the host path; outside the running machine, every link is followed inside it."""
        return path.replace("/", "\\") if self._is_live else self._resolve(_below_root(path))

    def make_directory(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Create a directory and its missing parents; one that exists is left as it is."""
        target = self.host_path(path)
        if os.path.isdir(target):
            return
        parent = _split(path)[0]
        if parent and not os.path.isdir(self.host_path(parent)):
            self.make_directory(parent)
        try:
            _make_folder(target, None if mode & 0o007 else security.PRIVATE_FOLDER)
        except FileExistsError:
            if not os.path.isdir(target):
                raise

    def secure_directory(self, path: str) -> None:
        """Make ``path`` a folder that only administrators can change and everybody can read.

        Whatever a user put there beforehand (folders of ``C:\\ProgramData`` are anybody's to make)
        is taken over, and a junction or link removed.

        Raises:
            OSError, WindowsError: it could not be secured.
        """
        target = self.host_path(path)
        facts = os.lstat(target) if os.path.lexists(target) else None
        if facts is not None and getattr(facts, "st_file_attributes", 0) & _REPARSE_POINT:
            os.rmdir(target)
            facts = None
        if facts is None:
            self.make_directory(_split(path)[0])
            _make_folder(target, security.READABLE_FOLDER)
        elif sys.platform == "win32":
            security.take_folder(target, security.READABLE_FOLDER)

    def write_atomic(
        self, path: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0
    ) -> None:
        """Replace ``path`` by a file with exactly this content.

        Raises:
            OSError: nothing was changed.
        """
        parent, name = _split(path)
        self.make_directory(parent)
        folder = self.resolved(parent)
        prefix = f".{name}{TEMPORARY_INFIX}"
        for entry in os.listdir(folder):
            if entry.startswith(prefix):
                _unlink_quietly(os.path.join(folder, entry))
        temporary = os.path.join(folder, f"{prefix}{os.urandom(6).hex()}")
        try:
            _write_new(temporary, data, private=not mode & 0o007)
            _patiently(lambda: _replace(temporary, os.path.join(folder, name)))
        except BaseException:
            _unlink_quietly(temporary)
            raise

    def remove(self, path: str) -> bool:
        """Remove a file or link; return whether there was one."""
        try:
            _patiently(lambda: os.unlink(self.host_path(path)))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def rename(self, source: str, target: str) -> None:
        """Rename within one directory tree, over whatever file is there."""
        _patiently(lambda: _replace(self.host_path(source), self.host_path(target)))


def _below_root(path: str) -> str:
    """Return the path below the root of a tree: ``/C/ProgramData``."""
    match = _ABSOLUTE.fullmatch(path.replace("/", "\\"))
    if match is None:
        raise OSError(f"{path!r} is no absolute Windows path")
    return f"/{match[1].upper()}{match[2] or ''}".replace("\\", "/")


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.replace("/", "\\").rstrip("\\").rpartition("\\")
    return (f"{parent}\\" if parent.endswith(":") else parent), name


def _patiently(action: Callable[[], _T]) -> _T:
    """Return what ``action`` returns, trying again while somebody else has the file open."""
    deadline = time.monotonic() + _PATIENCE
    pause = _FIRST_PAUSE
    while True:
        try:
            return action()
        except PermissionError as error:
            in_use = getattr(error, "winerror", None) in _IN_USE
            if not in_use or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _make_folder(target: str, rights: Optional[str]) -> None:
    if rights is not None and sys.platform == "win32":
        security.create_folder(target, rights)
    else:
        os.mkdir(target)


def _write_new(target: str, data: bytes, *, private: bool) -> None:
    if private and sys.platform == "win32":
        descriptor = security.create_private_file(target)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(target, flags, 0o600 if private else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace(source: str, target: str) -> None:
    if sys.platform == "win32":
        security.replace_file(source, target)
    else:
        os.replace(source, target)


def _unlink_quietly(target: str) -> None:
    try:
        os.unlink(target)
    except OSError:
        # Somebody reads it just now; the next write of the file removes it.
        return
