"""A script as a child process: started with one pipe, followed to its end, outlived by its daemons.

The child gets what a script may expect whatever the runner is: /dev/null as standard input, one
pipe as standard output and error (so their order is exact), umask 0022, no blocked signal, SIGPIPE
with its default action (Python and systemd ignore it, which would change ``cmd | head``), the
runner's own working directory and session (Ctrl-C in a terminal reaches it), and no variable that
only concerned the runner.

When the script ends, processes that it left in the background may still hold the pipe. Closing it
would kill them at their next output, waiting for them would keep the unit "activating" for ever.
So after a short drain a forked relay goes on reading until the last writer is gone.

Reads ``/proc/self/environ`` (proc(5)): Python's C-locale coercion (PEP 538) puts LC_CTYPE into
``os.environ``, which the script must not see. Source of the visible behaviour: guest-agent
``google_metadata_script_runner/main.go``, google-guest-agent ``internal/run/run.go``.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Optional, Protocol

from google_guest.records import record

DRAIN_SECONDS = 2.0
"""How long the pipe is read after the script's end before a relay takes over."""

_READ_SIZE = 1 << 16
_POLL_WITHOUT_PIDFD = 0.05
_INITIAL_ENVIRONMENT = "/proc/self/environ"
_STOP_SIGNALS = tuple(
    # Windows has no SIGHUP, and its SIGBREAK nobody else has.
    signal.Signals[name]
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)


class OutputSink(Protocol):
    """What takes the output of a script."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""

    def due(self) -> Optional[float]:
        """Return when (``time.monotonic``) ``tick`` has something to do; None: never."""

    def tick(self) -> None:
        """Do what is due."""

    def close(self) -> None:
        """Take note that no more bytes come."""


@record
class Ending:
    """How a child ended: by itself with a status, or by a signal."""

    exit_status: Optional[int] = None
    signal: Optional[int] = None
    core_dumped: bool = False


@record
class Child:
    """A running child and the read end of its output."""

    pid: int
    output: int
    pidfd: Optional[int]

    def close(self) -> None:
        """Let go of the descriptors."""
        os.close(self.output)
        if self.pidfd is not None:
            os.close(self.pidfd)


class Stopped(BaseException):
    """A signal asked this process to end; raised wherever the main thread is."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def initial_environment(path: str = _INITIAL_ENVIRONMENT) -> dict[str, str]:
    """Return the environment that this process was started with."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        # No /proc: the environment as it is now is the next best.
        return dict(os.environ)
    pairs = (entry.partition(b"=") for entry in content.split(b"\0"))
    return {os.fsdecode(name): os.fsdecode(value) for name, sign, value in pairs if name and sign}


def spawn(argv: Sequence[str], *, environment: Mapping[str, str]) -> Child:
    """Start ``argv`` (its first element is a path) and return it.

    Raises:
        OSError: the kernel refused, for example ENOEXEC (no program of a known format), EACCES (no
            execute permission, or a file system mounted noexec), ENOENT (no such interpreter).
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    umask = os.umask(0o022)
    try:
        pid = os.posix_spawn(
            argv[0],
            list(argv),
            dict(environment),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writer, 1),
                (os.POSIX_SPAWN_DUP2, writer, 2),
            ],
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD),
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.umask(umask)
        os.close(writer)
    return Child(pid, reader, _pidfd(pid))


def run_to_end(child: Child, sink: OutputSink, *, drain: float = DRAIN_SECONDS) -> Ending:
    """Hand the child's output to ``sink`` until it ends, and return how it ended.

    If the pipe is still held ``drain`` seconds later, or if :class:`Stopped` interrupts the wait, a
    relay keeps feeding ``sink`` in a process of its own.
    """
    try:
        ending, at_end = _follow(child, sink, drain)
    except Stopped:
        _relay(child.output, sink)
        child.close()
        raise
    if at_end:
        sink.close()
    else:
        _relay(child.output, sink)
    child.close()
    return ending


@contextmanager
def stop_signals() -> Iterator[None]:
    """Turn signals to end into :class:`Stopped`; those ignored so far stay ignored."""

    def stop(number: int, frame: Optional[FrameType]) -> None:
        # The clean-up that follows must not be interrupted by a second signal.
        for other in installed:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    installed = [one for one in _STOP_SIGNALS if signal.getsignal(one) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in installed}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def end_by_signal(number: int) -> None:
    """End this process as the signal would have ended it, for the parent to see."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _pidfd(pid: int) -> Optional[int]:
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    try:
        descriptor: int = opener(pid)
    except OSError:
        # Linux before 5.3, or a sandbox that knows no pidfd_open(2).
        return None
    return descriptor


def _follow(child: Child, sink: OutputSink, drain: float) -> tuple[Ending, bool]:
    """Return how the child ended and whether the pipe came to its end."""
    poller = select.poll()
    poller.register(child.output, select.POLLIN)
    if child.pidfd is not None:
        poller.register(child.pidfd, select.POLLIN)
    ending: Optional[Ending] = None
    drained_at: Optional[float] = None
    at_end = False
    while ending is None or not at_end:
        if drained_at is not None and time.monotonic() >= drained_at:
            break
        watch = _POLL_WITHOUT_PIDFD if child.pidfd is None and ending is None else None
        ready = {descriptor for descriptor, _ in poller.poll(_pause(sink, drained_at, watch))}
        if child.output in ready and not _copy_once(child.output, sink):
            at_end = True
            poller.unregister(child.output)
        sink.tick()
        if ending is None and (child.pidfd is None or child.pidfd in ready):
            ending = _reap(child.pid)
            if ending is not None:
                drained_at = time.monotonic() + drain
                if child.pidfd is not None:
                    poller.unregister(child.pidfd)
    assert ending is not None
    return ending, at_end


def _pause(sink: OutputSink, drained_at: Optional[float], watch: Optional[float]) -> Optional[int]:
    """Return the milliseconds that poll(2) may wait."""
    moments = [moment for moment in (sink.due(), drained_at) if moment is not None]
    waits = [max(0.0, moment - time.monotonic()) for moment in moments]
    if watch is not None:
        waits.append(watch)
    return int(min(waits) * 1000) + 1 if waits else None


def _copy_once(descriptor: int, sink: OutputSink) -> bool:
    """Hand over what there is; return False at the end of the pipe."""
    data = os.read(descriptor, _READ_SIZE)
    if data:
        sink.feed(data)
    return bool(data)


def _reap(pid: int) -> Optional[Ending]:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done == 0:
        return None
    if os.WIFSIGNALED(status):
        return Ending(signal=os.WTERMSIG(status), core_dumped=os.WCOREDUMP(status))
    return Ending(exit_status=os.WEXITSTATUS(status))


def _relay(descriptor: int, sink: OutputSink) -> None:
    """Fork a process that feeds ``sink`` until the pipe ends; return in this one at once."""
    if os.fork() != 0:
        return
    status = 1
    try:
        # It belongs to the daemons whose output it takes, not to the terminal.
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _keep_only(descriptor)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        while True:
            if poller.poll(_pause(sink, None, None)) and not _copy_once(descriptor, sink):
                break
            sink.tick()
        sink.close()
        status = 0
    finally:
        # Not sys.exit: what the parent registered to happen at its end is the parent's.
        os._exit(status)


def _keep_only(descriptor: int) -> None:
    """Close what the parent had open (locks!) but the pipe and the standard streams."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number != descriptor:
            try:
                os.close(number)
            except OSError as error:
                # The descriptor that the listing itself used.
                if error.errno != errno.EBADF:
                    raise
