"""Where a program's log goes when nobody watches a terminal: the event log, and COM1 as text.

A line of COM1, which is the platform's serial console, looks like
``2026/11/24 10:20:30 GCEGuestAgent: message``, in local time. Both sinks together are the reference
agents' own; source: guest-logging-go ``logger_windows.go``, guest-agent
``google_guest_agent/main.go`` and ``google_metadata_script_runner/main.go`` for the names.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Optional

from google_guest.system.windows.event_log import EventLog
from google_guest.system.windows.serial_ports import SerialWriter

CONSOLE_PORT = "COM1"
_NAMES: Mapping[str, str] = {
    "google_guest_agent": "GCEGuestAgent",
    "google_metadata_script_runner": "GCEMetadataScripts",
}
_PATIENCE = 1.0


def log_name(program: str) -> str:
    """Return the name of a program in the event log and on the serial console."""
    return _NAMES.get(program, program)


class ConsoleLines:
    """Text for COM1, each line with the time and the program's name."""

    def __init__(
        self,
        name: str,
        *,
        writer: Optional[SerialWriter] = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._now = now
        self._writer = SerialWriter(CONSOLE_PORT, notice=self._notice) if writer is None else writer

    def put(self, text: str) -> None:
        """Have each line of ``text`` written; never waits."""
        for line in text.split("\n"):
            self._writer.put(self._line(line))

    def flush(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; return whether everything is written."""
        return self._writer.flush(timeout)

    def _line(self, text: str) -> bytes:
        moment = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(self._now()))
        return f"{moment} {self._name}: {text}\n".encode("utf-8", "backslashreplace")

    def _notice(self, dropped: int) -> bytes:
        return self._line(f"lines that found no room here and were dropped: {dropped}")


class ServiceLogHandler(logging.Handler):
    """Writes each record to the event log as one entry, and its lines to COM1."""

    def __init__(
        self,
        name: str,
        *,
        events: Optional[EventLog] = None,
        lines: Optional[ConsoleLines] = None,
    ) -> None:
        super().__init__()
        self._events = EventLog(name) if events is None else events
        self._lines = ConsoleLines(name) if lines is None else lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        text = self.format(record)
        self._events.report(record.levelno, text)
        self._lines.put(text)

    def flush(self) -> None:
        """Give COM1 a moment to take what waits for it."""
        self._lines.flush(_PATIENCE)
