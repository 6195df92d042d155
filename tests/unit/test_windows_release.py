"""What Windows says of itself, and what telemetry makes of it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import Channel, metadata
from support.windows_machines import Machine, windows_inputs

from google_guest.features import telemetry
from google_guest.reconcile import run_pass
from google_guest.system.windows import FileVersion
from google_guest.system.windows.memory import MemoryWindows
from google_guest.windows_release import (
    KERNEL,
    VERSION_KEY,
    windows_kernel,
    windows_os_release,
)


def windows(name: str = "Windows Server 2022 Datacenter", build: str = "20348") -> MemoryWindows:
    made = MemoryWindows()
    made.registry.set_text(VERSION_KEY, "ProductName", name)
    made.registry.set_text(VERSION_KEY, "CurrentBuild", build)
    made.versions[KERNEL] = FileVersion("10.0.20348.859 (WinBuild.160101.0800)", "10.0.20348.859")
    return made


def test_versions_are_those_of_the_kernels_file() -> None:
    kernel = windows_kernel(windows())
    assert kernel.system == "windows"
    assert kernel.release == "10.0.20348.859"
    assert kernel.version == "10.0.20348.859 (WinBuild.160101.0800)"
    assert kernel.machine == "x64"


def test_version_id_has_three_of_the_four_parts() -> None:
    release = windows_os_release(windows())
    assert (release.id, release.version_id) == ("windows", "10.0.20348")


@pytest.mark.parametrize(
    ("name", "build", "shown"),
    [
        ("Windows 10 Pro", "19045", "Windows 10 Pro"),
        ("Windows 10 Pro", "22000", "Windows 11 Pro"),
        ("Windows 10 Enterprise", "26100", "Windows 11 Enterprise"),
        ("Windows Server 2025 Datacenter", "26100", "Windows Server 2025 Datacenter"),
        ("Windows 10 Pro", "unknown", "Windows 10 Pro"),
        ("Windows 10 Pro", "\N{SUPERSCRIPT TWO}2000", "Windows 10 Pro"),
        ("Windows 10 Pro", "9" * 5000, "Windows 10 Pro"),
    ],
)
def test_windows_11_is_called_so(name: str, build: str, shown: str) -> None:
    assert windows_os_release(windows(name, build)).pretty_name == shown


def test_folder_of_windows_is_where_the_registry_says() -> None:
    made = windows()
    made.registry.set_text(VERSION_KEY, "SystemRoot", r"D:\WINNT")
    made.versions[r"D:\WINNT\System32\ntoskrnl.exe"] = FileVersion("6.3", "6.3.9600.1")
    assert windows_kernel(made).release == "6.3.9600.1"


def test_unknown_windows_is_still_windows() -> None:
    release, kernel = windows_os_release(MemoryWindows()), windows_kernel(MemoryWindows())
    assert (release.id, release.version_id, release.pretty_name) == ("windows", "", "Windows")
    assert (kernel.release, kernel.version) == ("", "")


@given(st.text(), st.text(), st.text())
def test_any_texts_of_the_registry_are_taken(name: str, build: str, product: str) -> None:
    made = windows(name, build)
    made.versions[KERNEL] = FileVersion(product, product)
    assert windows_os_release(made).version_id.count(".") <= 2


def test_telemetry_reports_windows(tmp_path: Path) -> None:
    machine = Machine(tmp_path, channel=Channel())
    registry = machine.memory.registry
    registry.set_text(VERSION_KEY, "ProductName", "Windows 10 Pro")
    registry.set_text(VERSION_KEY, "CurrentBuild", "22631")
    machine.memory.versions[KERNEL] = FileVersion("10.0.22631.1 (x)", "10.0.22631.1")
    assert run_pass(telemetry.FEATURE, windows_inputs(machine, metadata())).ok
    assert isinstance(machine.channel, Channel)
    (headers,) = machine.channel.reports
    agent = base64.b64decode(headers["X-Google-Guest-Agent"])
    system = base64.b64decode(headers["X-Google-Guest-OS"])
    assert agent.endswith(b"\x1a\x05amd64")
    assert system == b"".join(
        bytes([number << 3 | 2, len(text)]) + text
        for number, text in (
            (2, b"windows"),
            (3, b"windows"),
            (4, b"Windows 11 Pro"),
            (5, b"10.0.22631"),
            (6, b"x64"),
            (7, b"10.0.22631.1"),
            (8, b"10.0.22631.1 (x)"),
        )
    )
