"""What a service owes its manager and its twin: readiness, wake-ups by signal, one instance.

sd_notify(3) is spoken directly on ``$NOTIFY_SOCKET``, abstract sockets included. The lock is
flock(2) on a file below /run, or a locked byte where Windows has no flock: no PID is stored that
could outlive a boot. Windows' own service manager is spoken to in ``cli.windows.service``.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Optional

from google_guest.errors import GuestError

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            # A file that was just opened gives it one reason to fail; Wine does not tell which.
            raise BlockingIOError(error.errno, error.strerror) from error

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _present(*names: str) -> tuple[int, ...]:
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


STOP_SIGNALS = _present("SIGTERM", "SIGINT", "SIGQUIT", "SIGBREAK")
"""What asks the agent to end, as far as the platform knows it."""
RELOAD_SIGNALS = _present("SIGHUP")
"""What asks it to read its configuration again."""

LOCK_NAME = "agent.lock"
"""Name of the agent's lock in the run folder."""

_LOCK_FLAGS = (
    os.O_RDWR
    | os.O_CREAT
    | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NOINHERIT"))
)


class AlreadyRunning(GuestError):
    """Another process holds the lock."""


class ServiceManager:
    """Tells systemd how the service fares; does nothing where no socket was given."""

    def __init__(self, environ: Optional[Mapping[str, str]] = None) -> None:
        environment = os.environ if environ is None else environ
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @property
    def listens(self) -> bool:
        """Whether a service manager waits for notifications."""
        return bool(self._address)

    def notify(self, **fields: str) -> None:
        """Send assignments such as ``READY="1"``; a manager that does not listen is ignored."""
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        message = "\n".join(f"{name}={value}" for name, value in fields.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.sendto(message.encode(), self._address)
            except OSError:
                # The manager is gone or busy: nothing of ours depends on the message.
                return

    def reloading(self) -> None:
        """Announce a reload (systemd >= 253 wants the monotonic time with it)."""
        self.notify(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))


class InstanceLock:
    """A lock that the kernel drops with the process that holds it."""

    def __init__(self, path: str) -> None:
        """Take the lock at ``path``.

        Raises:
            AlreadyRunning: another process has it.
            OSError: the file cannot be created.
        """
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        self._descriptor = os.open(path, _LOCK_FLAGS, 0o600)
        try:
            _lock(self._descriptor)
        except BlockingIOError:
            os.close(self._descriptor)
            raise AlreadyRunning(f"another agent is running: it holds {path}") from None

    def release(self) -> None:
        """Give the lock up; the file stays."""
        os.close(self._descriptor)


class WakeUp:
    """A descriptor that becomes readable when a signal arrives or another thread calls ``wake``.

    A pair of sockets and no pipe: Windows waits for sockets only.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._reader.fileno()

    def wake(self) -> None:
        """Make the descriptor readable."""
        try:
            self._writer.send(b"\0")
        except BlockingIOError:
            # The buffer is full, so the waiting side wakes up anyway.
            return

    def drain(self) -> None:
        """Forget the wake-ups so far."""
        try:
            while self._reader.recv(4096):
                continue
        except BlockingIOError:
            return

    def on_signals(self, numbers: Iterable[int], action: Callable[[int], None]) -> None:
        """Call ``action`` in the main thread, and wake up, when one of the signals arrives."""

        def received(number: int, frame: Optional[FrameType]) -> None:
            action(number)

        for number in numbers:
            signal.signal(number, received)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def close(self) -> None:
        """Close both ends and leave the signals to their defaults."""
        if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None):
            signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()
