r"""A script as a child process on Windows; see ``google_guest.system.children``.

The child gets NUL as standard input and one pipe as standard output and error, so that their order
is exact; it inherits no other handle, shares the runner's console (Ctrl-C in a window reaches it)
and belongs to no job object, because what it leaves in the background is to live on.

Processes that it leaves may hold the pipe. Closing it would end them at their next output, waiting
for them would keep a boot's scripts from going on. So after a short drain the pipe is given to a
relay, a process of its own which reads until the last writer is gone. For that, reading must be
something that can be called off without losing a byte: the pipe is a named one with overlapped
reads, as those of ``CreatePipe`` cannot be.

An end of the runner itself is asked for by the console: Ctrl-C, Ctrl-Break, a closed window, the
end of Windows. Each becomes a signal, so that ``children.Stopped`` is raised as on Linux.

Source: learn.microsoft.com, "Synchronous and Overlapped Input and Output", "CancelIoEx",
"HandlerRoutine callback function", "CreateProcessW"; guest-agent
``google_metadata_script_runner/main.go`` for the visible behaviour.
"""

from __future__ import annotations

import sys
from typing import Protocol

from google_guest.system.children import OutputSink

STOPPED_STATUS = 0xC000013A - (1 << 32)
"""What a process returns that Ctrl-C has ended (STATUS_CONTROL_C_EXIT), as a C integer."""


class RelayedSink(OutputSink, Protocol):
    """What takes the output of a script and can leave the rest to another process."""

    def hand_over(self) -> bool:
        """Finish with what there is; return whether the other process continues a line."""


if sys.platform == "win32":
    import contextlib
    import ctypes
    import msvcrt
    import os
    import signal
    import subprocess
    import threading
    import time
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from ctypes import wintypes
    from typing import Any, Optional, Union

    from google_guest.records import record
    from google_guest.system.children import DRAIN_SECONDS, Ending, Stopped, stop_signals
    from google_guest.system.windows.calls import (
        GENERIC_WRITE,
        OPEN_EXISTING,
        create_file,
        function,
    )

    _READ_SIZE = 1 << 16
    _INBOUND, _OVERLAPPED, _FIRST_INSTANCE = 0x1, 0x40000000, 0x80000
    _REJECT_REMOTE, _ONE_INSTANCE = 0x8, 1
    _IO_PENDING, _IO_INCOMPLETE, _ABORTED, _BROKEN_PIPE = 997, 996, 995, 109
    _INFINITE = _FAILED = 0xFFFFFFFF
    _INVALID_HANDLE = ctypes.c_void_p(-1).value
    _CTRL_C, _CTRL_BREAK, _CTRL_CLOSE, _CTRL_LOGOFF, _CTRL_SHUTDOWN = 0, 1, 2, 5, 6
    _CLEANUP_SECONDS = 4.5
    """Windows ends a process 5 s after it was told of its window's or Windows' own end."""

    _DWORD, _BOOL, _NAME = wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR
    _HANDLE = _POINTER = ctypes.c_void_p
    _PROTOTYPES: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
        "CancelIoEx": (_BOOL, (_HANDLE, _POINTER)),
        "CloseHandle": (_BOOL, (_HANDLE,)),
        "CreateEventW": (_HANDLE, (_POINTER, _BOOL, _BOOL, _NAME)),
        "CreateNamedPipeW": (_HANDLE, (_NAME, *(_DWORD,) * 6, _POINTER)),
        "GetOverlappedResult": (_BOOL, (_HANDLE, _POINTER, _POINTER, _BOOL)),
        "ReadFile": (_BOOL, (_HANDLE, _POINTER, _DWORD, _POINTER, _POINTER)),
        "SetEvent": (_BOOL, (_HANDLE,)),
        "WaitForMultipleObjects": (_DWORD, (_DWORD, _POINTER, _BOOL, _DWORD)),
    }
    """Functions of kernel32: their results and arguments."""

    Relay = Callable[[int, bool], None]
    """Starts a relay: takes a descriptor of the pipe, and whether it continues a line."""

    class _Overlapped(ctypes.Structure):
        """OVERLAPPED."""

        _fields_ = (
            ("internal", ctypes.c_void_p),
            ("internal_high", ctypes.c_void_p),
            ("offset", wintypes.DWORD),
            ("offset_high", wintypes.DWORD),
            ("event", ctypes.c_void_p),
        )

    class PipeReader:
        """The read end of a pipe; there is always one read under way."""

        def __init__(self, handle: int) -> None:
            """Take ``handle``, that of an overlapped pipe."""
            self.handle = handle
            self.event: int = _call("CreateEventW", None, True, False, None)
            """Handle that is signalled when ``take`` has something to return."""
            self._buffer = ctypes.create_string_buffer(_READ_SIZE)
            self._overlapped = _Overlapped()
            self._at_end = False
            self._start()

        def take(self) -> Optional[bytes]:
            """Return what came, b"" at the end of the pipe, None if there is nothing yet."""
            if self._at_end:
                return b""
            data = self._result(wait=False)
            if data is None or self._at_end:
                return data
            self._start()
            # Somebody wrote no bytes at all, which is not the end.
            return data or None

        def cancel(self) -> bytes:
            """Read no more; return what came nevertheless."""
            if self._at_end:
                return b""
            _call("CancelIoEx", self.handle, ctypes.byref(self._overlapped))
            data = self._result(wait=True) or b""
            self._at_end = True
            return data

        def close(self) -> None:
            """Let go of the handles."""
            self.cancel()
            for handle in (self.handle, self.event):
                _call("CloseHandle", handle)

        def _start(self) -> None:
            self._overlapped = _Overlapped(event=self.event)
            started = _call(
                "ReadFile",
                self.handle,
                self._buffer,
                _READ_SIZE,
                None,
                ctypes.byref(self._overlapped),
            )
            error = ctypes.get_last_error()
            if not started and error == _BROKEN_PIPE:
                self._at_end = True
                _call("SetEvent", self.event)
            elif not started and error != _IO_PENDING:
                raise _error(error)

        def _result(self, *, wait: bool) -> Optional[bytes]:
            """Return what the read has brought; None while it goes on."""
            count = wintypes.DWORD()
            if _call(
                "GetOverlappedResult",
                self.handle,
                ctypes.byref(self._overlapped),
                ctypes.byref(count),
                wait,
            ):
                return self._buffer.raw[: count.value]
            error = ctypes.get_last_error()
            if error == _IO_INCOMPLETE:
                return None
            if error in (_BROKEN_PIPE, _ABORTED):
                self._at_end = True
                return b""
            raise _error(error)

    @record
    class Child:
        """A running child and its output."""

        process: Any
        output: PipeReader

    def spawn(
        command: Union[str, Sequence[str]], *, program: str, environment: Mapping[str, str]
    ) -> Child:
        """Start ``program`` (an absolute path) and return it.

        ``command`` is its command line, or the list of arguments to make one of.

        Raises:
            OSError: Windows refused, for example because the file is no program.
        """
        reader, writer = _make_pipe()
        try:
            process = subprocess.Popen(
                command,
                executable=program,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                env=dict(environment),
            )
        except BaseException:
            _call("CloseHandle", reader)
            raise
        finally:
            os.close(writer)
        return Child(process, PipeReader(reader))

    def run_to_end(
        child: Child, sink: RelayedSink, relay: Relay, *, drain: float = DRAIN_SECONDS
    ) -> Ending:
        """Hand the child's output to ``sink`` until it ends, and return how it ended.

        If the pipe is still held ``drain`` seconds later, or if ``Stopped`` interrupts the wait,
        ``relay`` gets the pipe.
        """
        try:
            ending, at_end = _follow(child, sink, drain)
        except Stopped:
            _hand_over(child.output, sink, relay)
            raise
        if at_end:
            sink.close()
            child.output.close()
        else:
            _hand_over(child.output, sink, relay)
        return ending

    def copy_to_end(output: PipeReader, sink: OutputSink) -> None:
        """Hand what comes from a pipe to ``sink`` until its last writer is gone."""
        while True:
            data = output.take()
            if data is None:
                _wait([output.event], sink.due())
            elif data:
                sink.feed(data)
            else:
                break
            sink.tick()
        sink.close()

    def start_detached(argv: Sequence[str], *, standard_input: int) -> None:
        """Start a program without window that outlives this one; close the descriptor here.

        Raises:
            OSError: Windows refused.
        """
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=standard_input,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                creationflags=subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP,
            )
        finally:
            os.close(standard_input)
        # It is nobody's child any more: no warning about its missing end is wanted.
        process.returncode = 0

    def pipe_of(descriptor: int) -> PipeReader:
        """Return the reader of a pipe that another process has left under ``descriptor``."""
        return PipeReader(msvcrt.get_osfhandle(descriptor))

    @contextlib.contextmanager
    def stop_requests() -> Iterator[None]:
        """Turn Ctrl-C, Ctrl-Break, a closed window and the end of Windows into ``Stopped``."""
        ended = threading.Event()
        handler = _Handler(lambda event: take_console_event(event, ended))
        set_handler = function("kernel32", "SetConsoleCtrlHandler", _Handler, wintypes.BOOL)
        set_handler(handler, True)
        try:
            with stop_signals():
                yield
        finally:
            ended.set()
            set_handler(handler, False)

    def take_console_event(event: int, ended: threading.Event) -> bool:
        """Take what the console tells, in a thread that Windows has made for it.

        ``ended`` tells that this process has cleaned up. The log-off of some user, of which
        programs of SYSTEM hear, too, is no reason to end.
        """
        if event == _CTRL_LOGOFF:
            return True
        number = {_CTRL_C: signal.SIGINT, _CTRL_BREAK: signal.SIGBREAK}.get(event, signal.SIGTERM)
        signal.raise_signal(number)
        _call("SetEvent", _stop_event())
        if event in (_CTRL_CLOSE, _CTRL_SHUTDOWN):
            ended.wait(_CLEANUP_SECONDS)
        return True

    _Handler = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)
    _stop: list[int] = []

    def _stop_event() -> int:
        """Return the handle of the event that ends the wait for a child."""
        if not _stop:
            # Resets itself: one wait ends.
            _stop.append(_call("CreateEventW", None, False, False, None))
        return _stop[0]

    def _follow(child: Child, sink: OutputSink, drain: float) -> tuple[Ending, bool]:
        """Return how the child ended and whether the pipe came to its end."""
        process = int(child.process._handle)
        ending: Optional[Ending] = None
        drained_at: Optional[float] = None
        at_end = False
        while ending is None or not at_end:
            if drained_at is not None and time.monotonic() >= drained_at:
                break
            data = None if at_end else child.output.take()
            if data:
                sink.feed(data)
            elif data is not None:
                at_end = True
            sink.tick()
            if ending is None:
                status = child.process.poll()
                if status is not None:
                    ending = Ending(exit_status=status)
                    drained_at = time.monotonic() + drain
            if data is None:
                handles = [_stop_event()]
                handles += [] if at_end else [child.output.event]
                handles += [process] if ending is None else []
                _wait(handles, sink.due(), drained_at)
        assert ending is not None
        return ending, at_end

    def _wait(handles: Sequence[int], *moments: Optional[float]) -> None:
        """Wait for one of the handles or of the moments."""
        waits = [max(0.0, one - time.monotonic()) for one in moments if one is not None]
        timeout = int(min(waits) * 1000) + 1 if waits else _INFINITE
        array = (ctypes.c_void_p * len(handles))(*handles)
        if _call("WaitForMultipleObjects", len(handles), array, False, timeout) == _FAILED:
            raise _error(ctypes.get_last_error())

    def _hand_over(output: PipeReader, sink: RelayedSink, relay: Relay) -> None:
        data = output.cancel()
        if data:
            sink.feed(data)
        continued = sink.hand_over()
        _call("CloseHandle", output.event)
        relay(msvcrt.open_osfhandle(output.handle, os.O_RDONLY | os.O_BINARY), continued)

    def _make_pipe() -> tuple[int, int]:
        """Return the handle of the read end, which is overlapped, and a descriptor to write to."""
        name = rf"\\.\pipe\google-guest-{os.getpid()}-{os.urandom(16).hex()}"
        reader = _call(
            "CreateNamedPipeW",
            name,
            _INBOUND | _OVERLAPPED | _FIRST_INSTANCE,
            _REJECT_REMOTE,
            _ONE_INSTANCE,
            0,
            _READ_SIZE,
            0,
            None,
        )
        if reader is None or reader == _INVALID_HANDLE:
            raise _error(ctypes.get_last_error())
        writer = create_file(name, GENERIC_WRITE, OPEN_EXISTING, flags=0)
        if writer is None:
            error = _error(ctypes.get_last_error())
            _call("CloseHandle", reader)
            raise error
        return reader, msvcrt.open_osfhandle(writer, os.O_WRONLY | os.O_BINARY)

    def _call(name: str, *arguments: Any) -> Any:
        result, types = _PROTOTYPES[name]
        return function("kernel32", name, *types, result=result)(*arguments)

    def _error(code: int) -> OSError:
        return OSError(None, ctypes.FormatError(code).strip(), None, code)
