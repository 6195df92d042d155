"""Event sources in the registry."""

from __future__ import annotations

from google_guest.system.windows.event_sources import register_event_source
from google_guest.system.windows.memory import MemoryRegistry
from google_guest.system.windows.registry import DWORD, EXPAND_SZ, Value

KEY = r"SYSTEM\CurrentControlSet\Services\EventLog\Application\GCEGuestAgent"


def test_source_has_the_texts_of_eventcreate() -> None:
    registry = MemoryRegistry()
    register_event_source(registry, "GCEGuestAgent")
    assert {name: registry.get(KEY, name) for name in registry.names(KEY)} == {
        "EventMessageFile": Value(r"%SystemRoot%\System32\EventCreate.exe", EXPAND_SZ),
        "TypesSupported": Value(7, DWORD),
        "CustomSource": Value(1, DWORD),
    }
