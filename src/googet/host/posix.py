"""Linux below googet: for tests, and for packages that are built and tried there.

There is no registry. Facts: flock(2), proc(5), googet: system/system_linux.go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional, TextIO

from googet.host import FileLock, Host, ProcessFacts, UninstallEntry
from googet.host.paths import POSIX_PATHS
from googet.host.programs import run

assert sys.platform != "win32"

_MACHINES = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "arm64",
    "arm64": "arm64",
}
_PROTECTED = (
    "/bin /boot /dev /etc /home /lib /lib32 /lib64 /media /mnt /opt /proc /root /run /sbin /srv"
    " /sys /tmp /usr /usr/bin /usr/lib /usr/lib64 /usr/local /usr/sbin /usr/share /var /var/lib"
)


class PosixHost(Host):
    """The running Linux."""

    name = "linux"
    paths = POSIX_PATHS

    def native_machine(self) -> str:
        """Return the kernel's machine; that of a 32-bit interpreter on 64 bits counts as it is."""
        machine = os.uname().machine.lower()
        if machine in _MACHINES:
            return _MACHINES[machine]
        return "arm" if machine.startswith("arm") else "x86_32"

    def is_elevated(self) -> bool:
        """Return whether this is root."""
        return os.geteuid() == 0

    def variable(self, name: str) -> Optional[str]:
        """Return an environment variable."""
        return os.environ.get(name) or None

    def protected_folders(self) -> tuple[str, ...]:
        """Return the folders of the file system's own layout."""
        return tuple(_PROTECTED.split())

    def untrusted_writers(self, path: Path) -> tuple[str, ...]:
        """Return the owner, the group and everybody else where they may write."""
        try:
            facts = os.stat(path)
        except OSError:
            return ()
        found = []
        if facts.st_uid not in (0, os.geteuid()):
            found.append(f"user {facts.st_uid}")
        if facts.st_mode & stat.S_IWGRP and facts.st_gid != 0:
            found.append(f"group {facts.st_gid}")
        if facts.st_mode & stat.S_IWOTH:
            found.append("everyone")
        return tuple(found)

    def long_path(self, path: str) -> str:
        """Return the path itself."""
        return path

    def sync_folder(self, path: str) -> None:
        """Sync the folder (fsync(2)), if it is there."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def temporary_folder(self) -> Optional[str]:
        """Return the folder of TMPDIR, else /tmp."""
        return self.host_path(Path(tempfile.gettempdir()))

    def remove_at_restart(self, path: str) -> bool:
        """Return False: files in use can be deleted here."""
        return False

    def run_program(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        console: Optional[TextIO] = None,
        timeout: Optional[float] = None,
    ) -> int:
        """Run a program in a session of its own."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        output = os.open(log, flags, 0o600)
        try:
            status = run(
                list(argv),
                name=argv[0],
                log=log,
                output=output,
                console=console,
                timeout=timeout,
                end=_end_session,
                options={"start_new_session": True},
            )
        finally:
            os.close(output)
        return -1 if status is None or status < 0 else status

    def process(self, pid: int) -> Optional[ProcessFacts]:
        """Return what /proc tells."""
        try:
            executable = os.readlink(f"/proc/{pid}/exe")
            started = os.stat(f"/proc/{pid}").st_mtime
        except OSError:
            return None
        return ProcessFacts(executable.rpartition(" (deleted)")[0] or executable, started)

    def end_process(self, pid: int) -> None:
        """Send SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def lock_file(self, path: Path) -> Optional[FileLock]:
        """Take flock(2) on the file that is at ``path`` now."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(descriptor)
            # Its former holder may have deleted the file since it was opened.
            if os.path.samestat(mine, os.stat(path, follow_symlinks=False)):
                # Shared from now on, as Go's googet has it, which still keeps exclusive locks away.
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                return _PosixLock(path, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def uninstall_entries(self) -> tuple[UninstallEntry, ...]:
        """Return nothing."""
        return ()

    def uninstall_entry(self, key: str) -> Optional[UninstallEntry]:
        """Return nothing."""
        return None

    def write_uninstall_entry(self, name: str, values: Mapping[str, str]) -> None:
        """Do nothing."""

    def delete_uninstall_entry(self, name: str) -> bool:
        """Return that there was nothing."""
        return False

    def log_event(self, source: str, level: int, text: str) -> None:
        """Write to syslog(3)."""
        # Only here: most commands write to no system log.
        import syslog

        from google_guest.logs import priority

        syslog.openlog(source, syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(priority(level), text)


class _PosixLock(FileLock):
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)

    def release(self) -> None:
        # Deleted while it is held: whoever opened it before notices that it is no longer there.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._descriptor)


def _end_session(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
