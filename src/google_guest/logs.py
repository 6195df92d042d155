"""Logging: one line per event, to one sink, without secrets.

Under systemd every line goes to standard output with a ``<N>`` priority prefix (sd-daemon(3)), on a
terminal to standard error as it is, otherwise to syslog(3). Windows has no syslog; there it is the
event log and, line by line, COM1 (see ``system.windows.service_log``). A message that repeats
within a minute is written once and then once more with a count. Whatever looks like a token, a
signed URL, a key or a long run of base64 is replaced before it leaves the process.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Optional, TextIO

REPEAT_WINDOW = 60.0
"""Seconds in which an equal message is only counted."""

_REMEMBERED = 256
_REDACTIONS = (
    (re.compile(r"(?i)\b(bearer)\s+[^\s\"']+"), r"\1 [hidden]"),
    (
        re.compile(
            r"(?i)(\"?(?:access_token|token|password|modulus|private_?key|credential)\"?\s*[:=]\s*)"
            r"(\"[^\"]*\"|[^\s,}]+)"
        ),
        r"\1[hidden]",
    ),
    (re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']+"), r"\1?[hidden]"),
    # Keys and tokens: hexadecimal, or base64 with letters of both cases. A path that starts with a
    # slash, and a key of the metadata server (lower case), is left alone.
    (
        re.compile(
            r"(?<![A-Za-z0-9+/_.-])(?:"
            r"(?=[a-z0-9+/_-]*[A-Z])(?=[A-Z0-9+/_-]*[a-z])[A-Za-z0-9+][A-Za-z0-9+/_-]{47,}"
            r"|[0-9a-f]{48,}|[0-9A-F]{48,})={0,2}"
        ),
        "[hidden]",
    ),
)
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}


def level_of(number: int) -> int:
    """Return the logging level of ``[Core] log_level`` (1 error .. 4 debug; others mean 3)."""
    return _LEVELS.get(number, logging.INFO)


def redact(text: str) -> str:
    """Return ``text`` with everything that looks like a secret replaced by ``[hidden]``."""
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


def priority(level: int) -> int:
    """Return the syslog priority (RFC 5424, 2 critical .. 7 debug) of a logging level."""
    return next((number for bound, number in _PRIORITIES if level >= bound), 7)


class LineFormatter(logging.Formatter):
    """One redacted line for each line of the message, with a ``<N>`` prefix where asked."""

    def __init__(self, *, prefixed: bool, timed: bool = False) -> None:
        super().__init__("%(asctime)s %(message)s" if timed else "%(message)s")
        self._prefixed = prefixed

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text; a trace follows its message line by line."""
        text = redact(super().format(record))
        prefix = f"<{priority(record.levelno)}>" if self._prefixed else ""
        return "\n".join(prefix + line for line in text.splitlines() or [""])


class RepeatFilter(logging.Filter):
    """Lets an equal message through once a minute; tells how often it came afterwards."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[int, str], list[float]] = {}
        self.handler: Optional[logging.Handler] = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written now."""
        if getattr(record, "is_summary", False):
            return True
        now = self._clock()
        self.flush(now)
        key = (record.levelno, record.getMessage())
        entry = self._seen.get(key)
        if entry is not None:
            entry[1] += 1
            return False
        if len(self._seen) >= _REMEMBERED:
            self._summarise(next(iter(self._seen)))
        self._seen[key] = [now, 0]
        return True

    def flush(self, now: Optional[float] = None) -> None:
        """Write the counts of messages whose minute is over (of all, without ``now``)."""
        for key, (first, _) in list(self._seen.items()):
            if now is None or now - first >= REPEAT_WINDOW:
                self._summarise(key)

    def _summarise(self, key: tuple[int, str]) -> None:
        level, message = key
        _, repeats = self._seen.pop(key)
        if not repeats or self.handler is None:
            return
        record = logging.LogRecord(
            __name__, level, "", 0, f"{message} (repeated {int(repeats)} times)", (), None
        )
        record.is_summary = True
        self.handler.handle(record)


class SyslogHandler(logging.Handler):
    """Writes to syslog(3) under ``identifier``."""

    def __init__(self, identifier: str) -> None:
        super().__init__()
        # Only here: the module exists on Unix alone.
        import syslog

        self._syslog = syslog.syslog
        syslog.openlog(identifier, syslog.LOG_PID, syslog.LOG_DAEMON)

    def emit(self, record: logging.LogRecord) -> None:
        """Write each line of the record with its priority."""
        for line in self.format(record).splitlines():
            self._syslog(priority(record.levelno), line)


class Sink:
    """The one place that log lines go to; ``flush`` writes pending counts."""

    def __init__(self, handler: logging.Handler) -> None:
        self._repeats = RepeatFilter()
        self._repeats.handler = handler
        handler.addFilter(self._repeats)
        self.handler = handler

    def flush(self, *, everything: bool = False) -> None:
        """Write the counts of repeated messages that are due, or all of them."""
        self.handler.acquire()
        try:
            self._repeats.flush(None if everything else time.monotonic())
        finally:
            self.handler.release()
        if everything:
            self.handler.flush()


def configure_logging(
    identifier: str,
    *,
    level: int = logging.INFO,
    environ: Optional[Mapping[str, str]] = None,
    stdout: Optional[TextIO] = None,
    stderr: Optional[TextIO] = None,
    watched: bool = False,
    platform: str = sys.platform,
) -> Sink:
    """Send the root logger to the sink that fits how the process was started.

    ``watched`` says that somebody reads standard error although it is no terminal.
    """
    environment = os.environ if environ is None else environ
    out = sys.stdout if stdout is None else stdout
    # A Windows service has no standard streams at all.
    err: Optional[TextIO] = sys.stderr if stderr is None else stderr
    handler: logging.Handler
    if "JOURNAL_STREAM" in environment or "NOTIFY_SOCKET" in environment:
        handler = logging.StreamHandler(out)
        handler.setFormatter(LineFormatter(prefixed=True))
    elif err is not None and (watched or err.isatty() or environment.get("GUEST_AGENT_DEBUG")):
        handler = logging.StreamHandler(err)
        handler.setFormatter(LineFormatter(prefixed=False))
    elif platform == "win32":
        from google_guest.system.windows.service_log import ServiceLogHandler, log_name

        handler = ServiceLogHandler(log_name(identifier))
        handler.setFormatter(LineFormatter(prefixed=False))
    else:
        handler = SyslogHandler(identifier)
        handler.setFormatter(LineFormatter(prefixed=False))
    sink = Sink(handler)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if environment.get("GUEST_AGENT_DEBUG") else level)
    logging.raiseExceptions = False
    return sink


def add_log_file(path: str) -> None:
    """Write every line also to ``path`` (``[Core] log_file``), whose folder must exist.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags, 0o640)
    handler = logging.StreamHandler(os.fdopen(descriptor, "a", encoding="utf-8"))
    formatter = LineFormatter(prefixed=False, timed=True)
    handler.setFormatter(formatter)
    logging.getLogger().addHandler(handler)
