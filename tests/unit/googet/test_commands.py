"""How the commands of packages are run, and what counts as success."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Optional

import pytest

from googet.commands import (
    Action,
    Outcome,
    PackageCommandError,
    install_argv,
    is_success,
    needs_archive,
    run_install,
    run_uninstall,
    run_verify,
)
from googet.database import InstalledApp, InstalledPackage
from googet.host import UNINSTALL_KEY, current_host
from googet.host.memory import MemoryHost
from googet.pkgspec import PackageSpec, spec_from_json

SYSTEM = "C:\\Windows\\System32\\"
POWERSHELL = [
    f"{SYSTEM}WindowsPowerShell\\v1.0\\powershell.exe",
    "-ExecutionPolicy",
    "Bypass",
    "-NonInteractive",
    "-NoProfile",
    "-Command",
]
APP_KEY = f"{UNINSTALL_KEY}\\{{C0DE}}"


def spec(**commands: Any) -> PackageSpec:
    return spec_from_json({"Name": "a", "Version": "1", "Arch": "noarch", **commands})


@pytest.fixture
def host(tmp_path: Path) -> MemoryHost:
    if sys.platform == "win32":
        pytest.skip("the double keeps its files on Linux")
    return MemoryHost(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder ``C:\\it's`` of the double."""
    path = tmp_path / "C" / "it's"
    path.mkdir(parents=True)
    return path


def argv(host: MemoryHost, folder: Path, name: str, action: Action, *arguments: str) -> list[str]:
    return install_argv(host, folder / name, arguments, action, logs=folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "x.msi",
            [
                f"{SYSTEM}msiexec.exe",
                "/i",
                "C:\\it's\\x.msi",
                "/qn",
                "/norestart",
                "/log",
                "C:\\it's\\msi_install.log",
                "P=a b",
            ],
        ),
        (
            "x.MSP",
            [
                f"{SYSTEM}msiexec.exe",
                "/update",
                "C:\\it's\\x.MSP",
                "/qn",
                "/norestart",
                "/log",
                "C:\\it's\\msi_install.log",
                "P=a b",
            ],
        ),
        ("x.msu", [f"{SYSTEM}wusa.exe", "C:\\it's\\x.msu", "/quiet", "/norestart", "P=a b"]),
        ("x.EXE", ["C:\\it's\\x.EXE", "P=a b"]),
        ("x.cmd", ["C:\\it's\\x.cmd", "P=a b"]),
        ("x.bat", ["C:\\it's\\x.bat", "P=a b"]),
        (
            "x.Ps1",
            [
                *POWERSHELL,
                "& 'C:\\it''s\\x.Ps1' P=a b; if ($?) { exit 0 };"
                " if ($LASTEXITCODE) { exit $LASTEXITCODE }; exit 1",
            ],
        ),
        (
            "x.msix",
            [
                *POWERSHELL,
                "Add-AppxProvisionedPackage -Online -PackagePath 'C:\\it''s\\x.msix'"
                " -SkipLicense P=a b",
            ],
        ),
        (
            "x.msixbundle",
            [
                *POWERSHELL,
                "Add-AppxProvisionedPackage -Online -PackagePath 'C:\\it''s\\x.msixbundle'"
                " -SkipLicense P=a b",
            ],
        ),
    ],
)
def test_install_command_by_extension(
    host: MemoryHost, folder: Path, name: str, expected: list[str]
) -> None:
    assert argv(host, folder, name, Action.INSTALL, "P=a b") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "x.msi",
            [
                f"{SYSTEM}msiexec.exe",
                "/x",
                "C:\\it's\\x.msi",
                "/qn",
                "/norestart",
                "/log",
                "C:\\it's\\msi_uninstall.log",
            ],
        ),
        ("x.msu", [f"{SYSTEM}wusa.exe", "C:\\it's\\x.msu", "/uninstall", "/quiet", "/norestart"]),
        ("x.exe", ["C:\\it's\\x.exe"]),
        (
            "My.App_1.0_x64.msix",
            [
                *POWERSHELL,
                "Get-AppxProvisionedPackage -Online"
                " | Where-Object { ($_.PackageName -split '_')[0] -eq 'My.App' }"
                " | Remove-AppxProvisionedPackage -Online",
            ],
        ),
    ],
)
def test_uninstall_command_by_extension(
    host: MemoryHost, folder: Path, name: str, expected: list[str]
) -> None:
    assert argv(host, folder, name, Action.UNINSTALL) == expected


def test_patch_is_removed_from_the_product_that_it_is_for(
    host: MemoryHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "patched_product", lambda path: "{C0DE}")
    found = argv(host, folder, "x.msp", Action.UNINSTALL)
    assert found[1:5] == ["/package", "{C0DE}", "/uninstall", "C:\\it's\\x.msp"]


def test_patch_of_nothing_installed_is_an_error(host: MemoryHost, folder: Path) -> None:
    with pytest.raises(PackageCommandError, match=r"x\.msp"):
        argv(host, folder, "x.msp", Action.UNINSTALL)


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("x.ext", Action.INSTALL),
        ("x", Action.INSTALL),
        ("x.ps1x", Action.UNINSTALL),
        ("x.msi", Action.VERIFY),
        ("x.msix", Action.VERIFY),
    ],
)
def test_other_extensions_are_an_error(
    host: MemoryHost, folder: Path, name: str, action: Action
) -> None:
    with pytest.raises(PackageCommandError, match=name):
        argv(host, folder, name, action)


@pytest.mark.parametrize("name", ["x.ps1", "x.cmd", "x.bat", "x.exe"])
def test_verify_takes_scripts_and_programs(host: MemoryHost, folder: Path, name: str) -> None:
    assert argv(host, folder, name, Action.VERIFY)


@pytest.mark.parametrize(
    ("code", "extension", "listed", "success"),
    [
        (0, ".ps1", (), True),
        (0, "", (), True),
        (5, ".exe", (), False),
        (5, ".exe", (5,), True),
        (1641, ".msi", (), True),
        (3010, ".msi", (), True),
        (3010, ".msp", (), True),
        (3010, ".msu", (), True),
        (3010, ".exe", (), True),
        (3010, ".msix", (), True),
        (3010, ".ps1", (), False),
        (3010, ".cmd", (), False),
        (3010, ".ps1", (3010,), True),
        (3010, ".ps1", (1,), True),
        (3010, ".cmd", (1,), False),
        (1, ".ps1", (3010,), False),
        (-1, ".ps1", (1,), False),
        (0xFFFFFFFF, ".exe", (-1,), True),
        (0xC0000005, ".exe", (-1073741819,), True),
    ],
)
def test_success(code: int, extension: str, listed: tuple[int, ...], success: bool) -> None:
    assert is_success(code, extension, listed) is success


class TestRunning:
    def run(
        self, host: MemoryHost, folder: Path, code: int, name: str = "x.exe", **command: Any
    ) -> Outcome:
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / name).touch()
        host.programs = lambda argv, log: code
        return run_install(spec(Install={"Path": f"sub/{name}", **command}), folder, host)

    def test_failure_is_told(self, host: MemoryHost, folder: Path) -> None:
        outcome = self.run(host, folder, 5)
        assert (outcome.success, outcome.exit_code, outcome.ran) == (False, 5, True)
        assert outcome.message == "sub/x.exe failed with exit code 5"

    def test_listed_code_is_success(self, host: MemoryHost, folder: Path) -> None:
        assert self.run(host, folder, 5, ExitCodes=[5]).success

    @pytest.mark.parametrize("code", [1641, 3010])
    def test_restart_is_told(self, host: MemoryHost, folder: Path, code: int) -> None:
        assert self.run(host, folder, code).reboot_required
        assert self.run(host, folder, code, name="x.ps1", ExitCodes=[code]).reboot_required

    def test_no_restart_is_told_after_a_failure(self, host: MemoryHost, folder: Path) -> None:
        assert not self.run(host, folder, 3010, name="x.cmd").reboot_required

    def test_log_is_beside_the_file(self, host: MemoryHost, folder: Path) -> None:
        assert self.run(host, folder, 0).log == folder / "sub" / "x.exe.log"

    def test_nothing_runs_without_a_command(self, host: MemoryHost, folder: Path) -> None:
        assert run_install(spec(), folder, host) == Outcome()
        assert run_verify(spec(), folder, host) == Outcome()
        assert host.ran == []

    def test_missing_file_is_named(self, host: MemoryHost, folder: Path) -> None:
        with pytest.raises(PackageCommandError, match=r"gone\.ps1"):
            run_install(spec(Install={"Path": "gone.ps1"}), folder, host)

    def test_verify_has_a_log_of_its_own(self, host: MemoryHost, folder: Path) -> None:
        (folder / "v.ps1").touch()
        outcome = run_verify(spec(Verify={"Path": "v.ps1", "ExitCodes": [3]}), folder, host)
        assert outcome.log == folder / "googet_verify.log"


class TestUninstall:
    def package(self, app: str = APP_KEY, **commands: Any) -> InstalledPackage:
        return InstalledPackage(spec(**commands), installed_app=InstalledApp("App", app))

    def ran(
        self,
        host: MemoryHost,
        folder: Path,
        install: str,
        values: Optional[dict[str, str]] = None,
        app: str = APP_KEY,
    ) -> list[str]:
        if values is not None:
            host.registry[APP_KEY] = values
        package = self.package(app, Install={"Path": install})
        outcome = run_uninstall(package, None, host, logs=folder)
        assert outcome.success
        return host.ran[0] if host.ran else []

    def test_own_command_is_preferred(self, host: MemoryHost, folder: Path) -> None:
        (folder / "u.cmd").touch()
        host.registry[APP_KEY] = {"UninstallString": "C:\\x.exe"}
        package = self.package(Uninstall={"Path": "u.cmd", "Args": ["/x"]})
        assert needs_archive(package.spec)
        run_uninstall(package, folder, host, logs=folder)
        assert host.ran == [["C:\\it's\\u.cmd", "/x"]]

    def test_own_command_needs_the_extracted_package(self, host: MemoryHost, folder: Path) -> None:
        with pytest.raises(PackageCommandError, match="not extracted"):
            run_uninstall(self.package(Uninstall={"Path": "u.cmd"}), None, host, logs=folder)

    @pytest.mark.parametrize(
        ("registered", "arguments"),
        [
            ("MsiExec.exe /I{C0DE}", ["/X", "{C0DE}"]),
            ("MsiExec.exe /X{C0DE}", ["/X{C0DE}"]),
            ("msiexec /i {C0DE}", ["/X", "{C0DE}"]),
            ("MsiExec.exe /X{C0DE} /qn", ["/X{C0DE}", "/qn"]),
            ('MsiExec.exe /I"C:\\it/Is\\a b.msi"', ["/X", "C:\\it/Is\\a b.msi"]),
        ],
    )
    def test_registered_msi_is_removed_quietly(
        self, host: MemoryHost, folder: Path, registered: str, arguments: list[str]
    ) -> None:
        found = self.ran(host, folder, "x.msi", {"UninstallString": registered})
        more = [option for option in ("/qn", "/norestart") if option not in arguments]
        log = ["/log", "C:\\it's\\msi_uninstall.log"]
        assert found == [f"{SYSTEM}msiexec.exe", *arguments, *more, *log]

    def test_quiet_uninstaller_is_preferred(self, host: MemoryHost, folder: Path) -> None:
        values = {
            "UninstallString": '"C:\\a b\\u.exe"',
            "QuietUninstallString": '"C:\\a b\\u.exe" /S "x y"',
        }
        assert self.ran(host, folder, "x.exe", values) == ["C:\\a b\\u.exe", "/S", "x y"]

    def test_program_with_blanks_and_no_quotes_is_found(
        self, host: MemoryHost, folder: Path
    ) -> None:
        program = Path(host.long_path("C:\\a b\\u n.exe"))
        program.parent.mkdir()
        program.touch()
        values = {"UninstallString": "C:\\a b\\u n.exe /S"}
        assert self.ran(host, folder, "x.exe", values) == ["C:\\a b\\u n.exe", "/S"]

    def test_registered_msi_of_another_installer_is_removed_quietly_too(
        self, host: MemoryHost, folder: Path
    ) -> None:
        found = self.ran(host, folder, "x.ps1", {"UninstallString": "MsiExec.exe /I{C0DE}"})
        assert found[:3] == [f"{SYSTEM}msiexec.exe", "/X", "{C0DE}"]

    @pytest.mark.parametrize(
        ("values", "app"), [({}, APP_KEY), (None, APP_KEY), ({"UninstallString": "x"}, "")]
    )
    def test_without_an_application_nothing_runs(
        self, host: MemoryHost, folder: Path, values: Optional[dict[str, str]], app: str
    ) -> None:
        assert self.ran(host, folder, "x.exe", values, app) == []

    def test_msix_is_removed_by_its_name(self, host: MemoryHost, folder: Path) -> None:
        found = self.ran(host, folder, "sub/My.App_1.0.msixbundle")
        assert "-eq 'My.App'" in found[-1]
        assert "Remove-AppxProvisionedPackage -Online" in found[-1]

    def test_application_that_is_gone_already_is_success(
        self, host: MemoryHost, folder: Path
    ) -> None:
        host.programs = lambda argv, log: 1605
        self.ran(host, folder, "x.msi", {"UninstallString": "MsiExec.exe /I{C0DE}"})

    def test_failure_of_a_registered_uninstaller_is_told(
        self, host: MemoryHost, folder: Path
    ) -> None:
        host.registry[APP_KEY] = {"UninstallString": "C:\\u.exe"}
        host.programs = lambda argv, log: 7
        outcome = run_uninstall(self.package(), None, host, logs=folder)
        assert outcome.message == "C:\\u.exe failed with exit code 7"


@pytest.mark.skipif(sys.platform == "win32", reason="files run by themselves on Linux")
class TestLinux:
    def script(self, folder: Path, name: str, text: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    def test_file_runs_by_itself(self, folder: Path) -> None:
        self.script(folder, "i.sh", 'echo "$1"; exit 4')
        command = {"Path": "i.sh", "Args": ["a b"], "ExitCodes": [4]}
        outcome = run_install(spec(Install=command), folder, current_host())
        assert (outcome.success, outcome.exit_code) == (True, 4)
        assert (folder / "googet_install.log").read_text() == "a b\n"

    def test_uninstall_has_a_log_of_its_own(self, folder: Path) -> None:
        self.script(folder, "u.sh", "echo gone")
        package = InstalledPackage(spec(Uninstall={"Path": "u.sh"}))
        assert run_uninstall(package, folder, current_host(), logs=folder).success
        assert (folder / "googet_remove.log").read_text() == "gone\n"

    def test_nothing_is_uninstalled_by_itself(self, folder: Path) -> None:
        package = InstalledPackage(spec(Install={"Path": "x.msi"}))
        assert run_uninstall(package, None, current_host(), logs=folder) == Outcome()

    def test_time_limit_fails_the_command(self, folder: Path) -> None:
        self.script(folder, "i.sh", "sleep 60")
        outcome = run_install(spec(Install={"Path": "i.sh"}), folder, current_host(), timeout=0.2)
        assert (outcome.success, outcome.exit_code) == (False, -1)


@pytest.mark.skipif(sys.platform != "win32", reason="needs cmd.exe")
class TestWindows:
    @pytest.mark.parametrize("name", ["x.cmd", "with blanks (and more).BAT"])
    def test_batch_file_gets_its_arguments_and_its_code_comes_back(
        self, tmp_path: Path, name: str
    ) -> None:
        folder = tmp_path / "a b"
        folder.mkdir()
        (folder / name).write_text("@echo off\r\necho [%~1] [%~2]\r\nexit /b 3010\r\n")
        command = {"Path": name, "Args": ["a b", "c"], "ExitCodes": [3010]}
        outcome = run_install(spec(Install=command), folder, current_host())
        assert (outcome.success, outcome.exit_code, outcome.reboot_required) == (True, 3010, True)
        assert (folder / f"{name}.log").read_text().split() == ["[a", "b]", "[c]"]
