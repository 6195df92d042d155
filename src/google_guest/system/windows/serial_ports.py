r"""Serial ports: COM1 takes log lines, COM4 the agent's answers.

A port is opened, written and closed for each line, so that other programs get their turn; between
these moments it belongs to nobody. Its settings are 115200 baud, 8 data bits, no parity, one stop
bit, no flow control. Something that has no such settings (a file or pipe that a hypervisor, or
Wine, passes off as a port) is written all the same.

A port that takes nothing must not hold up anything else: lines go to a :class:`SerialWriter`, which
has a thread and a bounded queue of its own for each port, and a write that takes too long fails.

Source: guest-agent ``utils/serial_port_logger.go``, guest-logging-go ``logger_windows.go``;
learn.microsoft.com, "DCB", "COMMTIMEOUTS", "Naming Files" (``\\.\COM1``).
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Optional

BAUD_RATE = 115200
QUEUE_LINES = 1000
"""Lines that wait for a port; the oldest one is dropped for a further one."""
NOW_TRIES, NOW_PAUSE = 3, 1.0
"""How often ``write_now`` tries, and the seconds in between."""
LINE_TRIES, LINE_PAUSE = 3, 0.1
"""The same for one line of a ``SerialWriter``, where the port belongs to somebody else."""

Transfer = Callable[[str, bytes], None]
"""Opens a port, writes to it and closes it: ``transfer``, or a double. Raises OSError."""


def transfer(port: str, data: bytes) -> None:
    """Open ``port`` (``COM1``), write ``data`` at once and close it.

    Raises:
        PermissionError: somebody else has it open.
        OSError: there is no such port, or it did not take everything in time.
    """
    if sys.platform == "win32":
        _transfer(port, data)
    else:
        raise OSError(f"{port}: this machine has no ports of that name")


def write_now(
    port: str,
    data: bytes,
    *,
    transfer: Transfer = transfer,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write ``data`` to ``port``, trying three times a second apart.

    Raises:
        OSError: why the last attempt failed.
    """
    for attempt in range(1, NOW_TRIES + 1):
        try:
            return transfer(port, data)
        except OSError:
            if attempt == NOW_TRIES:
                raise
        sleep(NOW_PAUSE)


class SerialWriter:
    """Writes lines to one port from a thread of its own; what the port does not take is lost."""

    def __init__(
        self,
        port: str,
        *,
        notice: Callable[[int], bytes],
        transfer: Transfer = transfer,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``notice`` returns the line that tells how many lines found no room."""
        self._port = port
        self._notice = notice
        self._transfer = transfer
        self._sleep = sleep
        self._lines: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._dropped = 0
        self._busy = False
        self._closed = False
        self._thread: Optional[threading.Thread] = None

    def put(self, line: bytes) -> None:
        """Have ``line``, which has its end, written; never waits for the port."""
        with self._changed:
            if self._closed:
                return
            if self._thread is None:
                # A daemon: a port that hangs keeps no process from its end.
                self._thread = threading.Thread(target=self._run, name=self._port, daemon=True)
                self._thread.start()
            if len(self._lines) >= QUEUE_LINES:
                self._lines.popleft()
                self._dropped += 1
            self._lines.append(line)
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; return whether everything is written, or was refused."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout)

    def close(self, timeout: float) -> bool:
        """Take no more lines and wait as ``flush`` does."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        return self.flush(timeout)

    def _is_idle(self) -> bool:
        return not (self._lines or self._busy)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or self._closed)
                if not self._lines:
                    return
                self._busy = True
                dropped, self._dropped = self._dropped, 0
                line = self._lines.popleft()
            if dropped:
                self._write(self._notice(dropped))
            self._write(line)

    def _write(self, line: bytes) -> None:
        for attempt in range(1, LINE_TRIES + 1):
            try:
                return self._transfer(self._port, line)
            except PermissionError:
                # The port is everybody's, and whoever has it open just now will close it.
                if attempt == LINE_TRIES:
                    return
            except OSError:
                # A machine without this port, or a port without a reader: nobody misses the line.
                return
            self._sleep(LINE_PAUSE)


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    from google_guest.system.windows.calls import (
        GENERIC_READ,
        GENERIC_WRITE,
        OPEN_EXISTING,
        create_file,
        function,
    )

    _TIMED_OUT = 121
    _TO_THE_END = 2
    _BINARY, _DTR_ON = 0x1, 0x10
    _WRITE_TIMEOUT_MS, _WRITE_TIMEOUT_PER_BYTE_MS = 2000, 1

    class _Settings(ctypes.Structure):
        """DCB."""

        _fields_ = (
            ("length", wintypes.DWORD),
            ("baud_rate", wintypes.DWORD),
            ("flags", wintypes.DWORD),
            ("reserved", wintypes.WORD),
            ("xon_limit", wintypes.WORD),
            ("xoff_limit", wintypes.WORD),
            ("byte_size", wintypes.BYTE),
            ("parity", wintypes.BYTE),
            ("stop_bits", wintypes.BYTE),
            ("characters", ctypes.c_char * 5),
            ("reserved_too", wintypes.WORD),
        )

    class _Timeouts(ctypes.Structure):
        """COMMTIMEOUTS."""

        _fields_ = (
            ("read_interval", wintypes.DWORD),
            ("read_per_byte", wintypes.DWORD),
            ("read", wintypes.DWORD),
            ("write_per_byte", wintypes.DWORD),
            ("write", wintypes.DWORD),
        )

    def _transfer(port: str, data: bytes) -> None:
        handle = create_file(rf"\\.\{port}", GENERIC_READ | GENERIC_WRITE, OPEN_EXISTING)
        if handle is None:
            raise _error(port, ctypes.get_last_error())
        try:
            _set_up(port, handle)
            written = wintypes.DWORD()
            if not function(
                "kernel32",
                "WriteFile",
                ctypes.c_void_p,
                ctypes.c_char_p,
                wintypes.DWORD,
                ctypes.c_void_p,
                ctypes.c_void_p,
            )(handle, data, len(data), ctypes.byref(written), None):
                raise _error(port, ctypes.get_last_error())
            if written.value < len(data):
                raise _error(port, _TIMED_OUT)
        finally:
            function("kernel32", "CloseHandle", ctypes.c_void_p)(handle)

    def _set_up(port: str, handle: int) -> None:
        settings = _Settings(length=ctypes.sizeof(_Settings))
        call = function("kernel32", "GetCommState", ctypes.c_void_p, ctypes.c_void_p)
        if not call(handle, ctypes.byref(settings)):
            # A file under the name of a port: what it holds already must not be overwritten.
            function(
                "kernel32",
                "SetFilePointer",
                ctypes.c_void_p,
                wintypes.LONG,
                ctypes.c_void_p,
                wintypes.DWORD,
            )(handle, 0, None, _TO_THE_END)
            return
        settings.baud_rate = BAUD_RATE
        settings.flags = _BINARY | _DTR_ON
        settings.byte_size = 8
        settings.parity = settings.stop_bits = 0
        call = function("kernel32", "SetCommState", ctypes.c_void_p, ctypes.c_void_p)
        if not call(handle, ctypes.byref(settings)):
            raise _error(port, ctypes.get_last_error())
        timeouts = _Timeouts(write=_WRITE_TIMEOUT_MS, write_per_byte=_WRITE_TIMEOUT_PER_BYTE_MS)
        function("kernel32", "SetCommTimeouts", ctypes.c_void_p, ctypes.c_void_p)(
            handle, ctypes.byref(timeouts)
        )

    def _error(port: str, code: int) -> OSError:
        return OSError(None, ctypes.FormatError(code).strip(), port, code)
