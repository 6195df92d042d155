"""Event sources: names under which programs write to the event log.

Without one the event viewer shows a complaint about a missing description in front of every entry.
``EventCreate.exe``, which every Windows has, knows the description "the text itself" for the event
identifiers 1 to 1000.

Source: guest-logging-go ``logger/logger_windows.go``.
"""

from __future__ import annotations

from google_guest.system.windows.registry import Registry

_SOURCES = r"SYSTEM\CurrentControlSet\Services\EventLog\Application"
_MESSAGES = r"%SystemRoot%\System32\EventCreate.exe"
_ERROR_WARNING_INFORMATION = 7


def register_event_source(registry: Registry, source: str) -> None:
    """Make ``source`` a source of the log ``Application``; it stays when its program is removed.

    Raises:
        OSError: Windows refused.
    """
    key = rf"{_SOURCES}\{source}"
    registry.set_text(key, "EventMessageFile", _MESSAGES, expandable=True)
    registry.set_number(key, "TypesSupported", _ERROR_WARNING_INFORMATION)
    registry.set_number(key, "CustomSource", 1)
