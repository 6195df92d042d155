"""The operating system below googet: the only room of the package manager that touches it.

:class:`Host` is what the rest of googet sees: the machine, its environment, paths, files that may
be in use, programs, the registry of installed applications, the system log and file locks.
``posix`` and ``windows`` are the two real ones, ``memory`` is a Windows in memory for tests on any
system.

Paths of installed files are *host paths*: cleaned absolute text in the form in which the database
records them (``C:\\Program Files\\X\\x.exe``, see ``paths``). :meth:`Host.long_path` says how the
operating system is asked for one.
"""

from __future__ import annotations

import abc
import errno
import hashlib
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Optional, TextIO

from googet.host.paths import PathError, PathRules
from google_guest.errors import GuestError
from google_guest.records import field, record

__all__ = [
    "FileInUse",
    "FileLock",
    "Host",
    "HostError",
    "PathError",
    "ProcessFacts",
    "UninstallEntry",
    "current_host",
]

UNINSTALL_KEY = "SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Uninstall"
"""Below HKEY_LOCAL_MACHINE: what 64-bit applications register (Add or Remove Programs)."""
UNINSTALL_KEY_32 = "SOFTWARE\\WOW6432Node\\Microsoft\\Windows\\CurrentVersion\\Uninstall"
"""The same of 32-bit applications on a 64-bit Windows."""

_BLOCK = 1 << 20
_IN_USE_TRIES = 6
_IN_USE_PAUSE = 0.1
# ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION, ERROR_USER_MAPPED_FILE
_IN_USE_ERRORS = {5, 32, 33, 1224}


class HostError(GuestError):
    """The operating system refused something that googet needs."""


class FileInUse(HostError):
    """A file that can be neither renamed nor deleted: another program has it open, as a rule."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        super().__init__(
            f"{path} is in use by another program, or protected ({reason.rstrip('.')});"
            " close that program and try again"
        )


@record
class UninstallEntry:
    """One application of Add or Remove Programs: its key below HKLM and its text values."""

    key: str
    values: Mapping[str, str] = field(default_factory=dict, hash=False)

    def value(self, name: str) -> str:
        """Return the value called ``name`` (in any case), empty if there is none."""
        wanted = name.casefold()
        return next((text for key, text in self.values.items() if key.casefold() == wanted), "")


@record
class ProcessFacts:
    """A running process: the path of its program and when it started (seconds since 1970)."""

    executable: str
    started: float


class FileLock(abc.ABC):
    """An exclusive lock on a file, held until :meth:`release`."""

    @abc.abstractmethod
    def write(self, data: bytes) -> None:
        """Make ``data`` the content of the locked file."""

    @abc.abstractmethod
    def release(self) -> None:
        """Give the lock back and delete the file."""


class Host(abc.ABC):
    """One operating system. Methods that take ``path`` take host paths, unless they say else."""

    name: str
    """``windows`` or ``linux``."""
    paths: PathRules

    # The machine

    @abc.abstractmethod
    def native_machine(self) -> str:
        """Return the machine's own architecture: x86_64, x86_32, arm64 or arm.

        It is that of the system, whatever this interpreter was built for.
        """

    @abc.abstractmethod
    def is_elevated(self) -> bool:
        """Return whether this process may change the system."""

    @abc.abstractmethod
    def variable(self, name: str) -> Optional[str]:
        """Return an environment variable for ``<NAME>``, None where it is unset or empty.

        On Windows names have no case, and the folders of programs are those of 64-bit ones.
        """

    @abc.abstractmethod
    def protected_folders(self) -> tuple[str, ...]:
        """Return the folders that no package removes, drive roots apart (always protected)."""

    def is_protected(self, path: str, *more: str) -> bool:
        """Return whether ``path`` is a folder that is never removed; ``more`` names others."""
        key = self.paths.key(path)
        protected = (*self.protected_folders(), *more)
        return self.paths.is_root(path) or any(self.paths.key(each) == key for each in protected)

    @abc.abstractmethod
    def untrusted_writers(self, path: Path) -> tuple[str, ...]:
        """Return who may change a folder besides administrators; nothing where it cannot be told.

        Whoever can change ROOT can have programs of theirs run as an administrator.
        """

    # Files

    def host_path(self, path: Path) -> str:
        """Return the host path of a file of this interpreter's own view."""
        return self.paths.cleaned(os.path.abspath(path))

    @abc.abstractmethod
    def long_path(self, path: str) -> str:
        """Return what the operating system is asked for, whatever the length of ``path``."""

    def kind_of(self, path: str) -> str:
        """Return ``file``, ``folder`` or ``link``; an empty string where nothing is.

        A junction, and whatever else is neither a file nor a folder, counts as a link.
        """
        try:
            facts = self.facts(path)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        # The bit of reparse tags that stand for another place: links and junctions on Windows.
        if getattr(facts, "st_reparse_tag", 0) & 0x20000000:
            return "link"
        if stat.S_ISDIR(facts.st_mode):
            return "folder"
        return "file" if stat.S_ISREG(facts.st_mode) else "link"

    def leads_to_folder(self, path: str) -> bool:
        """Return whether a link or junction leads to a folder."""
        return os.path.isdir(self.long_path(path))

    def facts(self, path: str) -> os.stat_result:
        """Return what lstat(2) tells about ``path``."""
        return os.lstat(self.long_path(path))

    def sha256(self, path: str) -> str:
        """Return the SHA-256 of a file in hexadecimal digits."""
        digest = hashlib.sha256()
        with self.open_read(path) as file:
            for block in iter(lambda: file.read(_BLOCK), b""):
                digest.update(block)
        return digest.hexdigest()

    def list_folder(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a folder, nothing where there is none."""
        try:
            return tuple(sorted(os.listdir(self.long_path(path))))
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def make_folder(self, path: str, mode: int = 0o755) -> None:
        """Create one folder, whose parent exists; one that is there already is left as it is."""
        try:
            os.mkdir(self.long_path(path))
        except FileExistsError:
            if self.kind_of(path) != "folder":
                raise
            return
        if self.name != "windows":
            os.chmod(self.long_path(path), mode)

    def open_read(self, path: str) -> BinaryIO:
        """Open a file for reading."""
        return open(self.long_path(path), "rb")

    def open_new(self, path: str, mode: int) -> BinaryIO:
        """Create a file for writing, with its final permission bits where those exist.

        Raises:
            FileExistsError: there is something at ``path``.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.long_path(path), flags | getattr(os, "O_NOFOLLOW", 0), 0o600)
        if sys.platform != "win32" and self.name != "windows":
            os.fchmod(descriptor, mode)
        return os.fdopen(descriptor, "wb")

    def set_times(self, path: str, modified_ns: int) -> None:
        """Set the time of modification (nanoseconds since 1970)."""
        os.utime(self.long_path(path), ns=(modified_ns, modified_ns))

    def rename(self, source: str, target: str) -> None:
        """Rename a file within its volume; nothing is at ``target``.

        Raises:
            FileInUse: another program does not let it be renamed, after some tries.
        """
        self._when_free(source, lambda: os.rename(self.long_path(source), self.long_path(target)))

    def remove_file(self, path: str) -> None:
        """Delete a file; that it is not there is fine.

        Raises:
            FileInUse: another program holds it, after some tries.
        """

        def remove() -> None:
            try:
                os.unlink(self.long_path(path))
            except (FileNotFoundError, NotADirectoryError):
                pass
            except PermissionError:
                if self.name != "windows":
                    raise
                # Windows deletes no file with the read-only attribute.
                os.chmod(self.long_path(path), stat.S_IWRITE)
                os.unlink(self.long_path(path))

        self._when_free(path, remove)

    def remove_empty_folder(self, path: str) -> bool:
        """Delete a folder if it is empty; return whether it is gone (or was not there)."""
        try:
            os.rmdir(self.long_path(path))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.EPERM):
                return False
            if getattr(error, "winerror", 0) in _IN_USE_ERRORS | {145}:
                return False
            if error.errno == errno.EBUSY:
                return False
            raise
        return True

    @abc.abstractmethod
    def sync_folder(self, path: str) -> None:
        """Write the names in a folder to the disk, where the system has an order for that."""

    def is_same_volume(self, path: str, other: str) -> bool:
        """Return whether a file can be renamed from the folder ``path`` to the folder ``other``."""
        try:
            return os.stat(self.long_path(path)).st_dev == os.stat(self.long_path(other)).st_dev
        except OSError:
            return False

    @abc.abstractmethod
    def temporary_folder(self) -> Optional[str]:
        """Return the host path of the system's folder for temporary files, None without one."""

    @abc.abstractmethod
    def remove_at_restart(self, path: str) -> bool:
        """Have the system delete a file when it starts again; return whether it promised to."""

    # Programs

    @abc.abstractmethod
    def run_program(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        console: Optional[TextIO] = None,
        timeout: Optional[float] = None,
    ) -> int:
        """Run a program to its end in the caller's folder and environment; return its exit code.

        What it prints goes to the file ``log`` (replaced) and, as it comes, to ``console``. The
        exit code is an unsigned 32-bit number on Windows; a program that a signal ended, or that
        was ended after ``timeout`` seconds, has -1.

        Raises:
            HostError: it cannot be started.
        """

    @abc.abstractmethod
    def process(self, pid: int) -> Optional[ProcessFacts]:
        """Return what runs under a process number, None if nothing does or it is not told."""

    @abc.abstractmethod
    def end_process(self, pid: int) -> None:
        """End a process at once; that it is gone already is fine."""

    @abc.abstractmethod
    def lock_file(self, path: Path) -> Optional[FileLock]:
        """Take the exclusive lock on ``path``, created where missing; None while another has it."""

    # The registry of installed applications (empty where there is none) and the system log

    @abc.abstractmethod
    def uninstall_entries(self) -> tuple[UninstallEntry, ...]:
        """Return all applications: the 64-bit ones, then those below WOW6432Node."""

    @abc.abstractmethod
    def uninstall_entry(self, key: str) -> Optional[UninstallEntry]:
        """Return the application with that key below HKLM."""

    @abc.abstractmethod
    def write_uninstall_entry(self, name: str, values: Mapping[str, str]) -> None:
        """Register an application as ``name`` with text values, in the 64-bit view.

        Raises:
            HostError: it is refused.
        """

    @abc.abstractmethod
    def delete_uninstall_entry(self, name: str) -> bool:
        """Delete what :meth:`write_uninstall_entry` wrote; return whether there was something."""

    def patched_product(self, path: str) -> str:
        """Return the code of an installed product that a Windows Installer patch is for, or ""."""
        return ""

    @abc.abstractmethod
    def log_event(self, source: str, level: int, text: str) -> None:
        """Write one line to the system's log; ``level`` is one of ``logging``."""

    def _when_free(self, path: str, action: Callable[[], object]) -> None:
        """Do ``action``, again while a sharing violation passes: scanners let files go soon."""
        for left in range(_IN_USE_TRIES, 0, -1):
            try:
                action()
                return
            except PermissionError as error:
                if getattr(error, "winerror", None) not in _IN_USE_ERRORS:
                    raise
                if left == 1:
                    raise FileInUse(path, error.strerror or str(error)) from error
            self.pause(_IN_USE_PAUSE)

    def pause(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def current_host() -> Host:
    """Return the host that this interpreter runs on."""
    if sys.platform == "win32":
        from googet.host.windows import WindowsHost

        return WindowsHost()
    else:
        from googet.host.posix import PosixHost

        return PosixHost()
