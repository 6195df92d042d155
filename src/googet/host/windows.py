"""Windows below googet.

Facts: googet: system/system_windows.go (registry, lock), googet: install/install.go (folders that
are never removed), Microsoft: "Registry Keys Affected by WOW64", "Event Sources".
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
import winreg
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Optional, TextIO

from googet.host import (
    UNINSTALL_KEY,
    UNINSTALL_KEY_32,
    FileLock,
    Host,
    HostError,
    ProcessFacts,
    UninstallEntry,
    win32,
)
from googet.host.paths import WINDOWS_PATHS, PathError, with_long_prefix
from googet.host.programs import run
from googet.host.quoting import quote_arguments

assert sys.platform == "win32"

_log = logging.getLogger(__name__)

_FOLDERS_KEY = "SOFTWARE\\Microsoft\\Windows\\CurrentVersion"
# Values there of what the environment of a 32-bit process has other folders in.
_FOLDER_VALUES = {
    "PROGRAMFILES": "ProgramFilesDir",
    "PROGRAMW6432": "ProgramFilesDir",
    "COMMONPROGRAMFILES": "CommonFilesDir",
    "COMMONPROGRAMW6432": "CommonFilesDir",
}
_KNOWN_FOLDERS = (
    "F38BF404-1D43-42F2-9305-67DE0B28FC23",  # Windows
    "1AC14E77-02E7-4E5D-B744-2EB1AE5198B7",  # System
    "D65231B0-B2F1-4857-A4CE-A8E7C6EA7D27",  # SystemX86
    "905E63B6-C1BF-494E-B29C-65B732D3D21A",  # ProgramFiles
    "7C5A40EF-A0FB-4BFC-874A-C0F2E0B9FA8E",  # ProgramFilesX86
    "62AB5D82-FDC1-4DC3-A9DD-070D1D495D97",  # ProgramData
)
_PROTECTED_VARIABLES = (
    "SystemRoot",
    "ProgramFiles",
    "ProgramW6432",
    "ProgramFiles(x86)",
    "ProgramData",
)
_APPLICATION_VALUES = (
    "DisplayName",
    "DisplayVersion",
    "InstallLocation",
    "InstallSource",
    "Publisher",
    "QuietUninstallString",
    "UninstallString",
)
_EVENT_SOURCES_KEY = "SYSTEM\\CurrentControlSet\\Services\\EventLog\\Application"
_LONGEST_EVENT = 31839
_TRUSTED_SIDS = {
    "S-1-5-18",  # SYSTEM
    "S-1-5-32-544",  # Administrators
    "S-1-3-0",  # CREATOR OWNER
    "S-1-3-4",  # OWNER RIGHTS
    "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",  # TrustedInstaller
}
_SID_NAMES = {
    "S-1-1-0": "Everyone",
    "S-1-5-11": "Authenticated Users",
    "S-1-5-32-545": "Users",
}
_DENIED_TRIES = 10
_DENIED_PAUSE = 0.1


class WindowsHost(Host):
    """The running Windows."""

    name = "windows"
    paths = WINDOWS_PATHS

    def __init__(self) -> None:
        self._event_sources: dict[str, win32.EventSource] = {}

    def native_machine(self) -> str:
        """Return the machine of the system."""
        return win32.native_machine()

    def is_elevated(self) -> bool:
        """Return whether the process token is elevated."""
        return win32.is_elevated()

    def variable(self, name: str) -> Optional[str]:
        """Return an environment variable; the folders of programs are those of the system."""
        value = _FOLDER_VALUES.get(name.upper())
        if value is not None:
            with contextlib.suppress(OSError), _open(_FOLDERS_KEY) as key:
                return winreg.ExpandEnvironmentStrings(winreg.QueryValueEx(key, value)[0])
        return os.environ.get(name) or None

    def protected_folders(self) -> tuple[str, ...]:
        """Return the folders of Windows and of all programs, whatever the environment says."""
        return self._protected_folders

    @cached_property
    def _protected_folders(self) -> tuple[str, ...]:
        found = [win32.known_folder(identifier) for identifier in _KNOWN_FOLDERS]
        found += [self.variable(name) or "" for name in _PROTECTED_VARIABLES]
        if found[0]:
            found += [found[0] + "\\System32", found[0] + "\\SysWOW64"]
        cleaned = []
        for path in filter(None, found):
            with contextlib.suppress(PathError):
                cleaned.append(self.paths.cleaned(path))
        return tuple(dict.fromkeys(cleaned))

    def untrusted_writers(self, path: Path) -> tuple[str, ...]:
        """Return the names, else SIDs, of the accounts that are no administrators'.

        The user who asks is none of them: what may be changed by it is changed with its rights.
        """
        try:
            found = win32.writers(self.long_path(self.host_path(path)))
            trusted = {*_TRUSTED_SIDS, win32.current_user()}
        except OSError:
            return ()
        return tuple(_SID_NAMES.get(sid, sid) for sid in found if sid not in trusted)

    def long_path(self, path: str) -> str:
        r"""Return the path with ``\\?\``."""
        return with_long_prefix(path)

    def sync_folder(self, path: str) -> None:
        """Do nothing: NTFS has a journal of its own and no order for one folder."""

    def temporary_folder(self) -> Optional[str]:
        """Return the folder of TEMP."""
        try:
            return self.paths.cleaned(win32.temporary_folder())
        except (OSError, PathError):
            return None

    def remove_at_restart(self, path: str) -> bool:
        """Note the file for the session manager."""
        try:
            win32.remove_at_restart(self.long_path(path))
        except OSError as error:
            _log.warning("%s cannot be deleted at the next start: %s", path, error.strerror)
            return False
        return True

    def run_program(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        console: Optional[TextIO] = None,
        timeout: Optional[float] = None,
    ) -> int:
        """Run a program in a group of its own, which Ctrl-C does not reach."""
        try:
            # Others may delete the log while a program that was left running still has it open.
            handle = win32.create_file(
                self.long_path(self.host_path(log)),
                win32.GENERIC_WRITE,
                win32.FILE_SHARE_ALL,
                win32.CREATE_ALWAYS,
            )
        except OSError as error:
            raise HostError(f"{log} cannot be written: {error.strerror}") from error
        output = win32.descriptor_of(handle, os.O_WRONLY)
        job = win32.Job()

        def end(process: subprocess.Popen[bytes]) -> None:
            try:
                job.end()
            except OSError:
                process.kill()

        try:
            status = run(
                quote_arguments(argv),
                name=argv[0],
                log=log,
                output=output,
                console=console,
                timeout=timeout,
                end=end,
                started=lambda process: _add_to_job(job, process),
                options={"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP},
            )
        finally:
            job.close()
            os.close(output)
        return -1 if status is None else status & 0xFFFFFFFF

    def process(self, pid: int) -> Optional[ProcessFacts]:
        """Return the image of a process."""
        try:
            return ProcessFacts(*win32.process_image(pid))
        except OSError:
            return None

    def end_process(self, pid: int) -> None:
        """Terminate the process."""
        with contextlib.suppress(OSError):
            win32.end_process(pid)

    def lock_file(self, path: Path) -> Optional[FileLock]:
        """Lock one byte of the file."""
        name = self.long_path(self.host_path(path))
        access = win32.GENERIC_READ | win32.GENERIC_WRITE
        for left in reversed(range(_DENIED_TRIES)):
            try:
                handle = win32.create_file(
                    name, access, win32.FILE_SHARE_READ_WRITE, win32.OPEN_ALWAYS
                )
                break
            except OSError as error:
                if error.winerror == win32.ERROR_SHARING_VIOLATION:
                    return None
                # A file that goes as soon as its last user closes it cannot be opened meanwhile.
                if error.winerror != win32.ERROR_ACCESS_DENIED or left == 0:
                    raise
                time.sleep(_DENIED_PAUSE)
        try:
            locked = win32.lock(handle)
        except BaseException:
            win32.close_handle(handle)
            raise
        if not locked:
            win32.close_handle(handle)
            return None
        return _WindowsLock(name, handle)

    def uninstall_entries(self) -> tuple[UninstallEntry, ...]:
        """Return the applications of both parts of the registry."""
        found = []
        for parent in (UNINSTALL_KEY, UNINSTALL_KEY_32):
            for name in _subkeys(parent):
                entry = self.uninstall_entry(f"{parent}\\{name}")
                if entry is not None:
                    found.append(entry)
        return tuple(found)

    def uninstall_entry(self, key: str) -> Optional[UninstallEntry]:
        """Return the values of one key that are text."""
        try:
            with _open(key) as opened:
                return UninstallEntry(key, dict(_texts(opened, _APPLICATION_VALUES)))
        except OSError:
            return None

    def write_uninstall_entry(self, name: str, values: Mapping[str, str]) -> None:
        """Write the key and its values."""
        try:
            with winreg.CreateKeyEx(
                winreg.HKEY_LOCAL_MACHINE,
                f"{UNINSTALL_KEY}\\{name}",
                0,
                winreg.KEY_WRITE | winreg.KEY_WOW64_64KEY,
            ) as key:
                for value, text in values.items():
                    winreg.SetValueEx(key, value, 0, winreg.REG_SZ, text)
        except OSError as error:
            raise HostError(f"registry key {UNINSTALL_KEY}\\{name}: {error.strerror}") from error

    def delete_uninstall_entry(self, name: str) -> bool:
        """Delete the key."""
        try:
            winreg.DeleteKeyEx(
                winreg.HKEY_LOCAL_MACHINE, f"{UNINSTALL_KEY}\\{name}", winreg.KEY_WOW64_64KEY, 0
            )
        except FileNotFoundError:
            return False
        except OSError as error:
            raise HostError(f"registry key {UNINSTALL_KEY}\\{name}: {error.strerror}") from error
        return True

    def patched_product(self, path: str) -> str:
        """Return the first installed product that a patch is for."""
        try:
            return next(iter(win32.patch_targets(path)), "")
        except OSError as error:
            raise HostError(f"{path} is no patch: {error.strerror}") from error

    def log_event(self, source: str, level: int, text: str) -> None:
        """Write to the Event Log: 1 is information, 2 an error, 3 a warning."""
        if source not in self._event_sources:
            _register_event_source(source)
            self._event_sources[source] = win32.EventSource(source)
        kind, identifier = win32.EVENTLOG_INFORMATION, 1
        if level >= logging.ERROR:
            kind, identifier = win32.EVENTLOG_ERROR, 2
        elif level >= logging.WARNING:
            kind, identifier = win32.EVENTLOG_WARNING, 3
        self._event_sources[source].report(kind, identifier, text[:_LONGEST_EVENT])


class _WindowsLock(FileLock):
    def __init__(self, name: str, handle: int) -> None:
        self._name = name
        self._handle = handle
        self._descriptor = win32.descriptor_of(handle, os.O_RDWR | os.O_BINARY)

    def write(self, data: bytes) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, data)
        os.ftruncate(self._descriptor, len(data))

    def release(self) -> None:
        win32.unlock(self._handle)
        os.close(self._descriptor)
        # Whoever waits for it may have it open, and then deletes it later.
        with contextlib.suppress(OSError):
            os.unlink(self._name)


def _add_to_job(job: win32.Job, process: subprocess.Popen[bytes]) -> None:
    try:
        job.add(int(process._handle))  # type: ignore[attr-defined]
    except OSError as error:
        # It is only needed to end what the program started, and it may have ended already.
        _log.info("process %d is in no job: %s", process.pid, error.strerror)


def _open(path: str) -> winreg.HKEYType:
    """Open a key of the 64-bit registry for reading."""
    return winreg.OpenKey(
        winreg.HKEY_LOCAL_MACHINE, path, 0, winreg.KEY_READ | winreg.KEY_WOW64_64KEY
    )


def _subkeys(path: str) -> list[str]:
    try:
        with _open(path) as key:
            return [winreg.EnumKey(key, index) for index in range(winreg.QueryInfoKey(key)[0])]
    except OSError:
        return []


def _texts(key: winreg.HKEYType, names: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for name in names:
        try:
            value, kind = winreg.QueryValueEx(key, name)
        except OSError:
            continue
        if not isinstance(value, str):
            continue
        if kind == winreg.REG_EXPAND_SZ:
            value = winreg.ExpandEnvironmentStrings(value)
        found.append((name, value))
    return found


def _register_event_source(name: str) -> None:
    """Say where the texts of the events are: in a program of Windows whose text is the event's."""
    values = (
        ("EventMessageFile", winreg.REG_EXPAND_SZ, "%SystemRoot%\\System32\\EventCreate.exe"),
        ("TypesSupported", winreg.REG_DWORD, 7),
        ("CustomSource", winreg.REG_DWORD, 1),
    )
    try:
        with winreg.CreateKeyEx(
            winreg.HKEY_LOCAL_MACHINE,
            f"{_EVENT_SOURCES_KEY}\\{name}",
            0,
            winreg.KEY_WRITE | winreg.KEY_WOW64_64KEY,
        ) as key:
            for value, kind, data in values:
                winreg.SetValueEx(key, value, 0, kind, data)
    except OSError:
        # Without rights the events are written all the same and shown with a remark.
        _log.debug("the event source %s cannot be registered", name)
