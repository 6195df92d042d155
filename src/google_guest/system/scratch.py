"""A private directory for one script: made where programs may run, locked, removed afterwards.

Scripts hold secrets and run as root, so the directory is made with mode 0700 under a name that
nobody can guess, below a base that nobody else can swap: no symbolic link, and owned by the current
user or sticky. Files in it are created with O_EXCL and O_NOFOLLOW relative to the open directory.

An exclusive flock(2) on the directory keeps systemd-tmpfiles(8) from ageing files of a script that
runs for weeks. ``.pid`` names the process that made it (number and start time, proc(5)), so that a
later run can remove what a killed one left behind.

Hardened images mount /tmp and /var/tmp with noexec (guest-agent issues 141 and 525): a base that
allows execution is preferred, and one that does not is better than none, because an interpreter
needs to read the file only. The ``tempfile`` module would load ``random`` and ``shutil`` (5 ms).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Optional

from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.system.files import Files

PREFIX = "metadata-scripts"
_PID_FILE = ".pid"
_CREATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 100


class NoScratchSpace(GuestError):
    """No base can take a private directory."""


@record
class Base:
    """A directory below which private ones are made; ``create``: make it (0700) when missing."""

    path: str
    create: bool = False


class ScratchDirectory:
    """A private directory that exists as long as the ``with`` block."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        """Where it is on this host."""
        self._descriptor = descriptor

    def __enter__(self) -> ScratchDirectory:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        try:
            _remove_tree(self.path)
        except BaseException:
            # A signal to end came in between; it comes once.
            _remove_tree(self.path)
            raise
        finally:
            # A download that was given up may still hold this object, and numbers are reused.
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def create(self, name: str) -> int:
        """Create a file with mode 0700 and return a descriptor to write to."""
        return os.open(name, _CREATE, 0o700, dir_fd=self._descriptor)

    def write(self, name: str, data: bytes) -> str:
        """Create a file with this content and return its path on this host."""
        descriptor = self.create(name)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        return os.path.join(self.path, name)

    def rename(self, source: str, target: str) -> str:
        """Give a file another name and return its path on this host."""
        os.rename(source, target, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        return os.path.join(self.path, target)


def make_scratch(files: Files, bases: Sequence[Base]) -> ScratchDirectory:
    """Make a private directory below the first base that is fit, one that allows execution first.

    Raises:
        NoScratchSpace: none of them is fit; the message says why for each.
    """
    complaints = []
    without_execution = []
    for base in bases:
        try:
            path = _fit(files, base)
            if os.statvfs(path).f_flag & os.ST_NOEXEC:
                without_execution.append(path)
                continue
            return _make(path)
        except OSError as error:
            complaints.append(f"{base.path}: {error.strerror}")
    for path in without_execution:
        try:
            return _make(path)
        except OSError as error:
            complaints.append(f"{path}: {error.strerror}")
    raise NoScratchSpace("no directory for the script: " + "; ".join(complaints))


def remove_leftovers(files: Files, bases: Iterable[Base]) -> None:
    """Remove private directories below ``bases`` whose makers are gone."""
    for path in dict.fromkeys(files.host_path(base.path) for base in bases):
        try:
            with os.scandir(path) as entries:
                found = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
        except OSError:
            # A base that is missing or unreadable holds nothing of ours.
            continue
        for leftover in found:
            _remove_if_dead(leftover)


def _fit(files: Files, base: Base) -> str:
    """Return the host path of a base that is safe and writable; raise OSError otherwise."""
    path = files.host_path(base.path)
    if base.create and not os.path.lexists(path):
        files.make_directory(base.path, mode=0o700)
    facts = os.lstat(path)
    if stat.S_ISLNK(facts.st_mode):
        raise OSError(errno.ELOOP, "it is a symbolic link", path)
    if not stat.S_ISDIR(facts.st_mode):
        raise OSError(errno.ENOTDIR, "it is no directory", path)
    if not facts.st_mode & stat.S_ISVTX:
        if facts.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "it belongs to another user", path)
        if facts.st_mode & stat.S_IWOTH:
            raise OSError(errno.EPERM, "everybody may rename what is in it", path)
    if not os.access(path, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "it is not writable", path)
    return path


def _make(base: str) -> ScratchDirectory:
    path = _new_directory(base)
    try:
        descriptor = os.open(path, _OPEN_DIRECTORY)
    except OSError:
        os.rmdir(path)
        raise
    scratch = ScratchDirectory(path, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        scratch.write(_PID_FILE, f"{os.getpid()} {_start_time(os.getpid())}\n".encode())
    except BaseException:
        # A full file system shows here: the next base may have room.
        scratch.__exit__(None, None, None)
        raise
    return scratch


def _new_directory(base: str) -> str:
    for _ in range(_ATTEMPTS):
        path = os.path.join(base, f"{PREFIX}{os.urandom(8).hex()}")
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        return path
    raise OSError(errno.EEXIST, "every name is taken", base)


def _start_time(pid: int) -> str:
    """Return when a process started, in the kernel's ticks since boot; empty if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    # Field 22 of proc(5); the split starts behind field 2, the only one that may hold blanks.
    return fields[19].decode("ascii", "replace") if len(fields) > 19 else ""


def _remove_if_dead(path: str) -> None:
    try:
        descriptor = os.open(path, _OPEN_DIRECTORY)
    except OSError:
        # Not a directory, or somebody was faster.
        return
    try:
        facts = os.fstat(descriptor)
        if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) != 0o700:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _maker_lives(descriptor, facts.st_mtime):
            _remove_tree(path)
    except OSError:
        # Locked: it is in use.
        return
    finally:
        os.close(descriptor)


def _maker_lives(directory: int, changed_at: float) -> bool:
    try:
        file = os.open(_PID_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        # Made by a reference runner, or a moment ago: certain only if it is older than this boot.
        return changed_at >= time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        words = os.read(file, 64).decode("ascii", "replace").split()
    finally:
        os.close(file)
    if len(words) != 2 or not words[0].isdigit():
        return False
    return _start_time(int(words[0])) == words[1]


def _remove_tree(path: str) -> None:
    # Only here: it loads the compression modules, and runs after the script.
    import shutil

    shutil.rmtree(path, ignore_errors=True)
