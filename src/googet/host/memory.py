"""A Windows in memory, on any system: for tests.

Files are real, below one folder: ``C:\\A\\b.txt`` is ``FOLDER/C/A/b.txt``, whatever the case of its
letters, and ``Z:\\`` is the root of the real system, as under Wine. Everything else (registry,
events, programs, files in use) is plain data that tests set and read.
"""

from __future__ import annotations

import ntpath
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Optional, TextIO

from googet.host import (
    UNINSTALL_KEY,
    UNINSTALL_KEY_32,
    FileInUse,
    FileLock,
    Host,
    ProcessFacts,
    UninstallEntry,
)
from googet.host.paths import WINDOWS_PATHS

Programs = Callable[[list[str], Path], int]
"""What a program does: gets its arguments and log file, returns its exit code."""

_VARIABLES = {
    "SystemDrive": "C:",
    "SystemRoot": "C:\\Windows",
    "ProgramFiles": "C:\\Program Files",
    "ProgramFiles(x86)": "C:\\Program Files (x86)",
    "ProgramData": "C:\\ProgramData",
    "TEMP": "C:\\Windows\\TEMP",
}


class MemoryHost(Host):
    """Behaves like Windows; ``folder`` holds a folder for each drive."""

    name = "windows"
    paths = WINDOWS_PATHS

    def __init__(
        self,
        folder: Path,
        *,
        programs: Optional[Programs] = None,
        variables: Optional[Mapping[str, str]] = None,
    ) -> None:
        self.folder = folder
        self.variables = {**_VARIABLES, **(variables or {})}
        self.programs = programs or (lambda argv, log: 0)
        self.machine = "x86_64"
        self.elevated = True
        self.ran: list[list[str]] = []
        self.running: set[str] = set()
        """Files that can be renamed but not deleted or replaced, as running programs."""
        self.locked: set[str] = set()
        """Files that can be neither renamed nor deleted."""
        self.untrusted: tuple[str, ...] = ()
        self.at_restart: list[str] = []
        self.registry: dict[str, dict[str, str]] = {}
        """Keys of applications below HKLM to their values."""
        self.events: list[tuple[str, int, str]] = []
        self.processes: dict[int, ProcessFacts] = {}
        self.ended: list[int] = []
        self.pauses: list[float] = []
        self._locks: set[str] = set()
        for path in (*self.protected_folders(), self.variables["TEMP"]):
            os.makedirs(self.long_path(self.paths.cleaned(path + "\\")), exist_ok=True)

    def native_machine(self) -> str:
        """Return ``machine``."""
        return self.machine

    def is_elevated(self) -> bool:
        """Return ``elevated``."""
        return self.elevated

    def variable(self, name: str) -> Optional[str]:
        """Return one of ``variables``, in any case."""
        found = {key.upper(): value for key, value in self.variables.items()}
        return found.get(name.upper()) or None

    def protected_folders(self) -> tuple[str, ...]:
        """Return the folders that WindowsHost protects."""
        names = ("SystemRoot", "ProgramFiles", "ProgramFiles(x86)", "ProgramData")
        found = [self.variables[name] for name in names]
        return (*found, self.variables["SystemRoot"] + "\\System32")

    def untrusted_writers(self, path: Path) -> tuple[str, ...]:
        """Return ``untrusted``."""
        return self.untrusted

    def host_path(self, path: Path) -> str:
        """Return the drive path of a real path."""
        absolute = os.path.abspath(path)
        below = os.path.relpath(absolute, self.folder).split(os.sep)
        if len(below[0]) == 1 and below[0].isalpha():
            return self.paths.cleaned(f"{below[0]}:\\" + "\\".join(below[1:]))
        return self.paths.cleaned("Z:\\" + os.path.splitdrive(absolute)[1].lstrip("\\/"))

    def long_path(self, path: str) -> str:
        """Return the real path, each component in the case in which it exists."""
        drive, rest = ntpath.splitdrive(path)
        names = [name for name in rest.split("\\") if name]
        if drive.upper() == "Z:":
            return os.path.join(os.sep, *names)
        here = os.path.join(self.folder, drive.strip("\\:").replace("\\", "_").upper())
        for name in names:
            here = os.path.join(here, self._existing(here, name))
        return here

    def _existing(self, folder: str, name: str) -> str:
        if os.path.lexists(os.path.join(folder, name)):
            return name
        try:
            found = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return name
        key = self.paths.key(name)
        return next((each for each in found if self.paths.key(each) == key), name)

    def rename(self, source: str, target: str) -> None:
        """Rename, unless the file is locked."""
        self._check(source, self.locked)
        if os.path.lexists(self.long_path(target)):
            raise FileExistsError(17, "File exists", source, None, target)
        os.rename(self.long_path(source), self.long_path(target))
        key = self.paths.key(source)
        if key in self._keys(self.running):
            self.running = {each for each in self.running if self.paths.key(each) != key}
            self.running.add(target)

    def remove_file(self, path: str) -> None:
        """Delete, unless the file is locked or runs."""
        if self.kind_of(path):
            self._check(path, self.locked | self.running)
        super().remove_file(path)

    def _check(self, path: str, held: set[str]) -> None:
        if self.paths.key(path) in self._keys(held):
            raise FileInUse(path, "error 32")

    def _keys(self, paths: set[str]) -> set[str]:
        return {self.paths.key(path) for path in paths}

    def sync_folder(self, path: str) -> None:
        """Do nothing: Windows has no order for that."""

    def temporary_folder(self) -> Optional[str]:
        """Return TEMP."""
        return self.variable("TEMP")

    def remove_at_restart(self, path: str) -> bool:
        """Note the file in ``at_restart``, where this process is elevated."""
        if self.elevated:
            self.at_restart.append(path)
        return self.elevated

    def run_program(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        console: Optional[TextIO] = None,
        timeout: Optional[float] = None,
    ) -> int:
        """Let ``programs`` decide."""
        self.ran.append(list(argv))
        log.write_bytes(b"")
        return self.programs(list(argv), log)

    def process(self, pid: int) -> Optional[ProcessFacts]:
        """Return one of ``processes``."""
        return self.processes.get(pid)

    def end_process(self, pid: int) -> None:
        """Note the process in ``ended``."""
        self.ended.append(pid)
        self.processes.pop(pid, None)

    def lock_file(self, path: Path) -> Optional[FileLock]:
        """Lock within this object."""
        name = self.paths.key(self.host_path(path))
        if name in self._locks:
            return None
        self._locks.add(name)
        path.touch()
        return _MemoryLock(path, lambda: self._locks.discard(name))

    def uninstall_entries(self) -> tuple[UninstallEntry, ...]:
        """Return what is in ``registry``, the 64-bit part first."""
        found = []
        for parent in (UNINSTALL_KEY, UNINSTALL_KEY_32):
            for key, values in self.registry.items():
                if key.upper().startswith(parent.upper() + "\\"):
                    found.append(UninstallEntry(key, dict(values)))
        return tuple(found)

    def uninstall_entry(self, key: str) -> Optional[UninstallEntry]:
        """Return one key of ``registry``, in any case."""
        return next(
            (each for each in self.uninstall_entries() if each.key.upper() == key.upper()), None
        )

    def write_uninstall_entry(self, name: str, values: Mapping[str, str]) -> None:
        """Set a key of ``registry``."""
        self.registry[f"{UNINSTALL_KEY}\\{name}"] = dict(values)

    def delete_uninstall_entry(self, name: str) -> bool:
        """Delete a key of ``registry``."""
        return self.registry.pop(f"{UNINSTALL_KEY}\\{name}", None) is not None

    def log_event(self, source: str, level: int, text: str) -> None:
        """Append to ``events``."""
        self.events.append((source, level, text))

    def pause(self, seconds: float) -> None:
        """Note the pause, do not wait."""
        self.pauses.append(seconds)


class _MemoryLock(FileLock):
    def __init__(self, path: Path, release: Callable[[], None]) -> None:
        self._path = path
        self._release = release

    def write(self, data: bytes) -> None:
        self._path.write_bytes(data)

    def release(self) -> None:
        self._path.unlink()
        self._release()
