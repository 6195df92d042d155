"""The log of googet: ``ROOT/googet.log``, the system's log, and the console.

A line is ``INFO : 2026/01/31 12:00:00.000000 install.py:12: text``. Everything goes to the file and
to the system's log, with ``-verbose`` also to standard output; errors always also to standard
error. A command that takes no lock writes to standard error alone. Facts: googet: googet.go,
github.com/google/logger.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from pathlib import Path
from typing import Optional, TextIO

from googet.host import Host
from google_guest.logs import redact

SOURCE = "GooGet"
"""Name in the Event Log, tag in syslog."""
LARGEST_LOG = 10 << 20
"""Bytes from which the log file starts anew."""

_LABELS = (
    (logging.CRITICAL, "FATAL: "),
    (logging.ERROR, "ERROR: "),
    (logging.WARNING, "WARN : "),
)
_USER_IN_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@\"']+@")


class LineFormatter(logging.Formatter):
    """The line of one record, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Return label, time, place and text."""
        label = next((text for bound, text in _LABELS if record.levelno >= bound), "INFO : ")
        moment = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(record.created))
        micros = int(record.created % 1 * 1_000_000)
        text = plain_text(super().format(record))
        return f"{label}{moment}.{micros:06d} {record.filename}:{record.lineno}: {text}"


def plain_text(text: str) -> str:
    """Return ``text`` without secrets: tokens, signed URLs, the users and passwords of URLs."""
    return redact(_USER_IN_URL.sub(r"\1", text))


class SystemLogHandler(logging.Handler):
    """Writes to the Event Log or to syslog(3)."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a log that does not take it is no reason to fail."""
        try:
            self._host.log_event(SOURCE, record.levelno, plain_text(self.format(record)))
        except OSError:
            self.handleError(record)


class Logbook:
    """The handlers that :func:`configure` set."""

    def __init__(self, handlers: list[logging.Handler]) -> None:
        self._handlers = handlers

    def close(self) -> None:
        """Take the handlers off and close the file."""
        root = logging.getLogger()
        for handler in self._handlers:
            root.removeHandler(handler)
            handler.close()


def configure(
    root: Optional[Path],
    host: Host,
    *,
    verbose: bool = False,
    system_log: bool = True,
    stdout: Optional[TextIO] = None,
    stderr: Optional[TextIO] = None,
) -> Logbook:
    """Send the records of all modules to where they belong.

    ``root`` is None for a command that takes no lock. A log file that cannot be written is told on
    standard error.
    """
    out = sys.stdout if stdout is None else stdout
    err = sys.stderr if stderr is None else stderr
    formatter = LineFormatter()
    handlers: list[logging.Handler] = []

    def add(handler: logging.Handler, level: int) -> None:
        handler.setLevel(level)
        handler.setFormatter(formatter)
        handlers.append(handler)

    if root is None:
        add(logging.StreamHandler(err), logging.INFO if verbose else logging.WARNING)
    else:
        try:
            add(_file_handler(root), logging.INFO)
        except OSError as error:
            err.write(f"{root / 'googet.log'} cannot be written: {error.strerror}\n")
        if system_log:
            add(SystemLogHandler(host), logging.INFO)
            handlers[-1].setFormatter(logging.Formatter("%(message)s"))
        if verbose:
            add(logging.StreamHandler(out), logging.INFO)
        add(logging.StreamHandler(err), logging.ERROR)
    logger = logging.getLogger()
    logger.handlers[:] = handlers
    logger.setLevel(logging.INFO)
    # urllib3 tells about every connection.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.raiseExceptions = False
    return Logbook(handlers)


def _file_handler(root: Path) -> logging.Handler:
    path = root / "googet.log"
    try:
        if path.stat().st_size >= LARGEST_LOG:
            os.replace(path, path.with_name("googet.log.old"))
    except FileNotFoundError:
        pass
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o660)
    return _FileHandler(os.fdopen(descriptor, "a", encoding="utf-8", newline="\n"))


class _FileHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Closes its stream when it is closed."""

    def close(self) -> None:
        """Close the file."""
        self.stream.close()
        super().close()
