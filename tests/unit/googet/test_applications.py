"""Packages and the applications that Windows lists."""

from __future__ import annotations

import calendar
import sys
from pathlib import Path
from typing import Any

import pytest

from googet.applications import find_application, register, unregister
from googet.database import InstalledApp
from googet.host import UNINSTALL_KEY, UNINSTALL_KEY_32, HostError
from googet.host.memory import MemoryHost
from googet.pkgspec import PackageSpec, spec_from_json

CACHED = "C:\\ProgramData\\GooGet\\cache\\my-app.x86_64.1.0.0@1.goo"
FOUND = f"{UNINSTALL_KEY}\\found"

if sys.platform == "win32":
    pytest.skip("the double keeps its files on Linux", allow_module_level=True)


@pytest.fixture
def host(tmp_path: Path) -> MemoryHost:
    return MemoryHost(tmp_path)


def spec(**more: Any) -> PackageSpec:
    value = {"Name": "my-app", "Version": "1.0.0@1", "Arch": "x86_64", "Authors": "Example"}
    return spec_from_json({**value, **more})


@pytest.mark.parametrize(
    ("package", "values", "found"),
    [
        # 1: where its .msi was installed from
        (
            {"Install": {"Path": "x.MSI"}},
            {"InstallSource": "C:\\ProgramData\\GooGet\\cache\\my-app.x86_64.1.0.0@2\\"},
            True,
        ),
        (
            {"Install": {"Path": "x.exe"}},
            {"InstallSource": "C:\\ProgramData\\GooGet\\cache\\my-app.x86_64.1.0.0@2\\"},
            False,
        ),
        # 2: the name that the package gives
        ({"ExternalProgramName": "Some App"}, {}, True),
        ({"ExternalProgramName": "some app"}, {}, False),
        # 3: publisher and name
        ({}, {"DisplayName": "The My-App 5", "Publisher": "EXAMPLE"}, True),
        ({"Name": "myapp"}, {"DisplayName": "My App", "Publisher": "Example"}, True),
        ({"Name": "myapp"}, {"DisplayName": "My-App", "Publisher": "Example"}, True),
        ({}, {"DisplayName": "My-App", "Publisher": "Other"}, False),
        ({}, {"DisplayName": "Another", "Publisher": "Example"}, False),
        ({"Authors": ""}, {"DisplayName": "My-App", "Publisher": ""}, False),
        # 4: where it was installed from
        ({}, {"InstallSource": CACHED.upper()}, True),
        # never
        ({"Files": {"x": "C:\\x"}, "ExternalProgramName": "Some App"}, {}, False),
        ({"ExternalProgramName": "GooGet - x"}, {"DisplayName": "GooGet - x"}, False),
        ({"ExternalProgramName": ""}, {"DisplayName": "", "InstallSource": CACHED}, False),
    ],
)
def test_application_of_a_package(
    host: MemoryHost, package: dict[str, Any], values: dict[str, str], found: bool
) -> None:
    host.registry[FOUND] = {"DisplayName": "Some App", **values}
    app = find_application(spec(**package), CACHED, host)
    assert app.reg == (FOUND if found else "")
    assert app.name == (host.registry[FOUND]["DisplayName"] if found else "")


def test_unknown_archive_does_not_end_the_search(host: MemoryHost) -> None:
    host.registry[f"{UNINSTALL_KEY}\\a"] = {"DisplayName": "Other", "InstallSource": "C:\\x"}
    host.registry[FOUND] = {"DisplayName": "Some App"}
    app = find_application(
        spec(ExternalProgramName="Some App", Install={"Path": "x.msi"}), "", host
    )
    assert app.reg == FOUND


def test_64_bit_application_is_found_first(host: MemoryHost) -> None:
    for parent in (UNINSTALL_KEY_32, UNINSTALL_KEY):
        host.registry[f"{parent}\\found"] = {"DisplayName": "Some App"}
    assert find_application(spec(ExternalProgramName="Some App"), "", host).reg == FOUND


def test_32_bit_application_is_found(host: MemoryHost) -> None:
    key = f"{UNINSTALL_KEY_32}\\x"
    host.registry[key] = {"DisplayName": "Some App"}
    found = find_application(spec(ExternalProgramName="Some App"), "", host)
    assert found == InstalledApp("Some App", key)


def test_package_is_listed_with_the_active_root(host: MemoryHost) -> None:
    root = host.folder / "C" / "Some Root"
    folder = root / "cache" / "my-app"
    noon = calendar.timegm((2026, 1, 31, 12, 0, 0))
    register(spec(Install={"Path": "x.exe"}), folder, root, host, now=noon)
    assert host.registry == {
        f"{UNINSTALL_KEY}\\GooGet - my-app": {
            "UninstallString": '"C:\\Some Root\\googet.exe" -noconfirm remove my-app',
            "InstallLocation": "C:\\Some Root\\cache\\my-app",
            "DisplayVersion": "1.0.0@1",
            "DisplayName": "GooGet - my-app",
            "InstallDate": "20260131",
        }
    }
    unregister("my-app", host)
    assert host.registry == {}
    unregister("my-app", host)


def test_package_without_a_command_is_not_listed(host: MemoryHost) -> None:
    register(spec(), host.folder, host.folder, host)
    assert host.registry == {}


def test_refused_registry_is_only_logged(
    host: MemoryHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise HostError("access denied")

    monkeypatch.setattr(host, "write_uninstall_entry", refuse)
    monkeypatch.setattr(host, "delete_uninstall_entry", refuse)
    register(spec(Install={"Path": "x.exe"}), host.folder, host.folder, host)
    unregister("my-app", host)
    assert caplog.text.count("access denied") == 2
