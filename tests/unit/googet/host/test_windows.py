"""The registry of applications and the Event Log of a real Windows (or Wine)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("needs Windows", allow_module_level=True)

import winreg

from googet.host import UNINSTALL_KEY, UNINSTALL_KEY_32
from googet.host.windows import WindowsHost

HOST = WindowsHost()
NAME = "GooGet - test"
ACCESS = winreg.KEY_ALL_ACCESS | winreg.KEY_WOW64_64KEY


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    for parent in (UNINSTALL_KEY, UNINSTALL_KEY_32):
        for name in (NAME, "Test App"):
            try:
                winreg.DeleteKeyEx(
                    winreg.HKEY_LOCAL_MACHINE, f"{parent}\\{name}", winreg.KEY_WOW64_64KEY, 0
                )
            except OSError:
                pass


def write(parent: str, name: str, values: dict[str, tuple[int, object]]) -> None:
    with winreg.CreateKeyEx(winreg.HKEY_LOCAL_MACHINE, f"{parent}\\{name}", 0, ACCESS) as key:
        for value, (kind, data) in values.items():
            winreg.SetValueEx(key, value, 0, kind, data)  # type: ignore[arg-type]


def test_entry_is_written_read_and_deleted() -> None:
    HOST.write_uninstall_entry(NAME, {"DisplayName": NAME, "DisplayVersion": "1"})
    entry = HOST.uninstall_entry(f"{UNINSTALL_KEY}\\{NAME}")
    assert entry is not None
    assert entry.value("displayname") == NAME
    assert entry.value("Publisher") == ""
    assert HOST.delete_uninstall_entry(NAME)
    assert not HOST.delete_uninstall_entry(NAME)
    assert HOST.uninstall_entry(f"{UNINSTALL_KEY}\\{NAME}") is None


def test_applications_of_both_parts_are_listed_64_bit_ones_first() -> None:
    for parent in (UNINSTALL_KEY_32, UNINSTALL_KEY):
        write(parent, "Test App", {"DisplayName": (winreg.REG_SZ, "Test")})
    keys = [entry.key for entry in HOST.uninstall_entries() if entry.key.endswith("Test App")]
    assert keys == [f"{UNINSTALL_KEY}\\Test App", f"{UNINSTALL_KEY_32}\\Test App"]


def test_values_that_are_no_text_are_left_out_and_variables_expanded() -> None:
    write(
        UNINSTALL_KEY,
        "Test App",
        {
            "DisplayName": (winreg.REG_DWORD, 5),
            "UninstallString": (winreg.REG_EXPAND_SZ, "%SystemRoot%\\x.exe"),
        },
    )
    entry = HOST.uninstall_entry(f"{UNINSTALL_KEY}\\Test App")
    assert entry is not None
    assert entry.value("DisplayName") == ""
    assert entry.value("UninstallString").lower() == "c:\\windows\\x.exe"


def test_event_is_taken_and_its_source_registered() -> None:
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        HOST.log_event("GooGet", level, "a test")
    path = "SYSTEM\\CurrentControlSet\\Services\\EventLog\\Application\\GooGet"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
        assert winreg.QueryValueEx(key, "TypesSupported")[0] == 7
        assert "EventCreate.exe" in winreg.QueryValueEx(key, "EventMessageFile")[0]


def test_user_who_asks_is_no_untrusted_writer(tmp_path: Path) -> None:
    from googet.host import win32

    own = win32.current_user()
    assert own in win32.writers(str(tmp_path))
    assert own not in HOST.untrusted_writers(tmp_path)
