"""The lock of a ROOT, ``googet.lock``: one googet at a time, Go's included.

The file holds the process number of its holder in decimal digits and is deleted on release.
Facts: googet: system/system_windows.go, googet: system/system_linux.go.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Optional

from googet.host import FileLock, Host, ProcessFacts
from google_guest.errors import GuestError

_log = logging.getLogger(__name__)

PATIENCE = 70.0
"""Seconds after which a lock that is held is given up."""
_TELL_EVERY = 5.0
_POLL_EVERY = 0.1
_DELETE_TRIES = 5
_CLOCK_TOLERANCE = 2.0
# Far longer than any process number.
_LIMIT = 32


class LockTimeout(GuestError):
    """Another googet holds the lock."""


class RootLock:
    """The lock as a context manager.

    ``max_age`` is in seconds: a googet that has held it for longer is ended. ``tell`` gets the
    messages while it waits.
    """

    def __init__(
        self,
        root: Path,
        host: Host,
        *,
        max_age: float,
        tell: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = root / "googet.lock"
        self._host = host
        self._max_age = max_age
        self._tell = tell
        self._clock = clock
        self._sleep = sleep
        self._lock: Optional[FileLock] = None

    def __enter__(self) -> RootLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            LockTimeout: another googet held it for all of ``PATIENCE``.
            GuestError: the file cannot be made.
        """
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._lock = self._wait()
            self._lock.write(str(os.getpid()).encode())
        except OSError as error:
            raise GuestError(f"{self.path} cannot be locked: {error.strerror}") from error

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _wait(self) -> FileLock:
        began = self._clock()
        told = began
        while True:
            lock = self._host.lock_file(self.path)
            if lock is not None:
                return lock
            self._end_stale_holder()
            now = self._clock()
            if now - began >= PATIENCE:
                raise LockTimeout(f"another googet holds {self.path}; try again when it is done")
            if now - told >= _TELL_EVERY:
                told += _TELL_EVERY
                self._tell(f"Waiting for another googet to release {self.path}...")
            self._sleep(_POLL_EVERY)

    def _end_stale_holder(self) -> None:
        try:
            modified = os.stat(self.path).st_mtime
            if time.time() - modified < self._max_age:
                return
            pid = _pid_in(self.path)
        except OSError:
            return
        if pid is None or pid == os.getpid():
            return
        process = self._host.process(pid)
        if process is None or not self._is_googet(process):
            return
        if process.started > modified + _CLOCK_TOLERANCE:
            # The number was given to another process since.
            return
        _log.warning("process %d has held %s for too long and is ended", pid, self.path)
        self._host.end_process(pid)
        self._delete()

    def _is_googet(self, process: ProcessFacts) -> bool:
        name = os.path.basename(process.executable.replace("\\", "/")).lower()
        if name in ("googet", "googet.exe"):
            return True
        # The interpreter of this googet, which is in its ROOT.
        folder = str(self.path.parent / "python") + os.sep
        return process.executable.lower().startswith(folder.lower())

    def _delete(self) -> None:
        for _ in range(_DELETE_TRIES):
            try:
                os.unlink(self.path)
                return
            except FileNotFoundError:
                return
            except OSError:
                self._sleep(_POLL_EVERY)


def _pid_in(path: Path) -> Optional[int]:
    with open(path, "rb") as file:
        text = file.read(_LIMIT)
    return int(text) if text.isdigit() else None
