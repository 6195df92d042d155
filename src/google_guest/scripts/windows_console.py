"""Where the lines of a run go on Windows: COM1, the event log, standard output.

COM1, which is the platform's serial console, gets
``2026/11/24 10:20:30 GCEMetadataScripts: windows-startup-script-ps1: hello``; the event log gets an
entry for each line, standard output the line itself as UTF-8 (a console shows it whatever its code
page is). None of them holds up a script: COM1 has a thread, and one that is gone is left alone.

What a script prints is UTF-8, or else text in the machine's OEM code page, in which ``cmd.exe`` and
Windows PowerShell write to a pipe.

Source: guest-agent ``google_metadata_script_runner/main.go``, ``utils/serial_port_logger.go``.
"""

from __future__ import annotations

import logging
import sys
from typing import BinaryIO, Optional

from google_guest.scripts.output import Console, one_line, with_escapes
from google_guest.system.windows.event_log import EventLog
from google_guest.system.windows.service_log import ConsoleLines

NAME = "GCEMetadataScripts"
"""Of the program on COM1 and of the source in the event log."""
FLUSH_SECONDS = 10.0
"""How long COM1 gets at the end for what waits for it."""
_OEM = "oem"


class WindowsConsole(Console):
    """The three sinks; see the module."""

    def __init__(
        self,
        *,
        lines: Optional[ConsoleLines] = None,
        events: Optional[EventLog] = None,
        stream: Optional[BinaryIO] = None,
    ) -> None:
        """Without ``stream`` nothing goes to standard output."""
        super().__init__()
        self._lines = ConsoleLines(NAME) if lines is None else lines
        self._events = EventLog(NAME) if events is None else events
        self._stream = stream

    def info(self, message: str) -> None:
        """Write one line of the runner's own."""
        self._tell(logging.INFO, one_line(message))

    def warning(self, message: str) -> None:
        """Write one line of the runner's own that a person should see."""
        self._tell(logging.WARNING, one_line(message))

    def write(self, data: bytes) -> None:
        """Write complete lines."""
        for line in data.splitlines(keepends=True):
            self._tell(logging.INFO, line)

    def close(self) -> None:
        """Give COM1 a while to take what waits for it."""
        self._lines.flush(FLUSH_SECONDS)

    def _tell(self, level: int, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\n")
        self._lines.put(text)
        self._events.report(level, text)
        if self._stream is not None:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):
                # The window was closed, or the reader of the pipe has ended.
                self._stream = None


def standard_output() -> Optional[BinaryIO]:
    """Return this process's standard output for bytes; None where it has none."""
    return None if sys.stdout is None else sys.stdout.buffer


def decode(data: bytes) -> str:
    """Return a script's output as text: UTF-8, else the OEM code page, else escapes."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return from_code_page(data, _OEM)


def from_code_page(data: bytes, code_page: str) -> str:
    """Return ``data`` in this code page as text; escapes stand for what it does not know."""
    try:
        return data.decode(code_page, "backslashreplace")
    except LookupError:
        # Only Windows has a code page of that name.
        return with_escapes(data)
