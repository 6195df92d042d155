"""The event log: entries of the log ``Application`` under a source of ours.

Every entry has the identifier 882, as those of the reference agents have; who filters for one
thing only filters for the source. ``event_sources`` registers a source at installation.

A log that takes nothing (it is full, or its service has ended already) is no reason to fail.

Source: guest-logging-go ``logger_windows.go``; learn.microsoft.com, "ReportEventW" (the longest
text), "RegisterEventSourceW".
"""

from __future__ import annotations

import logging
import sys

EVENT_ID = 882
ERROR, WARNING, INFORMATION = 1, 2, 4
LONGEST_TEXT = 31839
"""Characters (UTF-16 code units) of one entry's text."""

_TYPES = ((logging.ERROR, ERROR), (logging.WARNING, WARNING))


def event_type(level: int) -> int:
    """Return the type of an entry for a logging level."""
    return next((kind for bound, kind in _TYPES if level >= bound), INFORMATION)


def entry_text(text: str) -> str:
    """Return ``text`` as an entry can hold it: not too long, and without NUL."""
    data = text.replace("\0", "\\x00").encode("utf-16-le", "replace")
    return data[: 2 * LONGEST_TEXT].decode("utf-16-le", "ignore")


class EventLog:
    """Entries under one source; nothing happens on other systems than Windows."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._handle = 0

    def report(self, level: int, text: str) -> None:
        """Write one entry; ``level`` is a logging level."""
        if sys.platform == "win32":
            if not self._handle:
                self._handle = _open(self._source)
            if self._handle:
                _report(self._handle, event_type(level), entry_text(text))


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    from google_guest.system.windows.calls import function

    def _open(source: str) -> int:
        """Return a handle that lives as long as the process, or 0."""
        handle: int = (
            function(
                "advapi32",
                "RegisterEventSourceW",
                wintypes.LPCWSTR,
                wintypes.LPCWSTR,
                result=ctypes.c_void_p,
            )(None, source)
            or 0
        )
        return handle

    def _report(handle: int, kind: int, text: str) -> None:
        function(
            "advapi32",
            "ReportEventW",
            ctypes.c_void_p,
            wintypes.WORD,
            wintypes.WORD,
            wintypes.DWORD,
            ctypes.c_void_p,
            wintypes.WORD,
            wintypes.DWORD,
            ctypes.POINTER(wintypes.LPCWSTR),
            ctypes.c_void_p,
        )(handle, kind, 0, EVENT_ID, None, 1, 0, (wintypes.LPCWSTR * 1)(text), None)
