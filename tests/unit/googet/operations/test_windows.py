"""Operations on a Windows in memory: registry, programs, files in use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support.goo_machine import Machine, make_spec

from googet.archive import Member, write_archive
from googet.host import UNINSTALL_KEY
from googet.host.memory import MemoryHost
from googet.pkgspec import Command

# What is in memory stands for a Windows; on a real one the other tests of operations run.
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="this is a Windows itself")


class WindowsMachine(Machine):
    """A machine whose host is a Windows; packages place files on its drive C."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.windows = MemoryHost(folder / "drives")
        self.host = self.windows

    def installer(self, name: str, version: str = "1.0.0@1", **fields: Any) -> Path:
        """Write a package that only runs an .msi."""
        spec = make_spec(name, version, install=Command("setup.msi"), **fields)
        path = self.built / f"{spec.full_name}.goo"
        write_archive(path, spec, {"setup.msi": Member(b"msi")}, mtime=1)
        return path

    def file(self, path: str) -> Path:
        return Path(self.windows.long_path(path))


@pytest.fixture
def machine(tmp_path: Path) -> WindowsMachine:
    return WindowsMachine(tmp_path)


def application(machine: WindowsMachine, key: str, **values: str) -> None:
    machine.windows.registry[f"{UNINSTALL_KEY}\\{key}"] = values


def test_destination_of_program_files_is_the_64_bit_folder(machine: WindowsMachine) -> None:
    machine.publish(machine.goo("a", files={"x.txt": "<ProgramFiles>/A/x.txt"}))
    machine.ok("install", "a")
    assert machine.file("C:\\Program Files\\A\\x.txt").read_text() == "content"
    assert list(machine.package("a").installed_files or {}) == ["C:\\Program Files\\A\\x.txt"]


def test_running_program_is_replaced_and_its_old_copy_goes_at_the_restart(
    machine: WindowsMachine,
) -> None:
    machine.publish(machine.goo("a", "1.0.0", files={"a.exe": "C:\\A\\a.exe"}))
    machine.ok("install", "a")
    machine.windows.running.add("C:\\A\\a.exe")
    machine.publish(machine.goo("a", "2.0.0", files={"a.exe": "C:\\A\\a.exe"}))
    machine.ok("install", "a")
    assert machine.installed() == {"a.noarch": "2.0.0"}
    assert len(machine.windows.at_restart) == 1
    machine.windows.running.add("C:\\A\\a.exe")
    machine.ok("remove", "a")
    assert machine.installed() == {}
    assert not machine.file("C:\\A\\a.exe").exists()


def test_locked_file_fails_the_update_and_the_old_version_stays(machine: WindowsMachine) -> None:
    machine.publish(machine.goo("a", "1.0.0", files={"a.exe": "C:\\A\\a.exe"}))
    machine.ok("install", "a")
    machine.windows.locked.add("C:\\A\\a.exe")
    machine.publish(machine.goo("a", "2.0.0", files={"a.exe": "C:\\A\\a.exe"}))
    assert "a.exe" in machine.fails("install", "a").err
    assert machine.installed() == {"a.noarch": "1.0.0"}
    assert machine.file("C:\\A\\a.exe").exists()


def test_package_with_a_command_is_listed_among_the_applications(machine: WindowsMachine) -> None:
    package = machine.goo("a", files={"x.cmd": "C:\\x.cmd"}, install=Command("x.cmd"))
    machine.publish(package)
    machine.ok("install", "a")
    values = machine.windows.registry[f"{UNINSTALL_KEY}\\GooGet - a"]
    assert values["DisplayVersion"] == "1.0.0@1"
    assert "-noconfirm remove a" in values["UninstallString"]
    machine.ok("remove", "a")
    assert not machine.windows.registry


def test_application_of_one_architecture_stays_while_the_other_is_there(
    machine: WindowsMachine,
) -> None:
    packages = [
        machine.goo("a", arch=arch, files={"x.cmd": f"C:\\{arch}.cmd"}, install=Command("x.cmd"))
        for arch in ("x86_32", "x86_64")
    ]
    machine.publish(*packages)
    machine.ok("install", "a.x86_32", "a.x86_64")
    machine.ok("remove", "a.x86_32")
    assert f"{UNINSTALL_KEY}\\GooGet - a" in machine.windows.registry


def test_needed_restart_is_told(machine: WindowsMachine) -> None:
    machine.windows.programs = lambda argv, log: 3010
    machine.publish(machine.installer("a"))
    assert "restart" in machine.ok("install", "a").out


def test_application_that_the_package_installed_is_removed_with_it(
    machine: WindowsMachine,
) -> None:
    def programs(argv: list[str], log: Path) -> int:
        if "/i" in argv:
            application(
                machine, "{CODE}", DisplayName="App", UninstallString="MsiExec.exe /I{CODE}"
            )
        return 0

    machine.windows.programs = programs
    machine.publish(machine.installer("a", external_program_name="App"))
    machine.ok("install", "a")
    assert machine.package("a").installed_app.name == "App"
    machine.ok("remove", "a")
    assert "".join(machine.windows.ran[-1][1:3]).upper() == "/X{CODE}"
    assert machine.cached() == []


def test_failing_uninstaller_keeps_the_package(machine: WindowsMachine) -> None:
    application(machine, "App", DisplayName="App", UninstallString="C:\\app\\un.exe /S")
    machine.publish(machine.installer("a", external_program_name="App"))
    machine.ok("install", "a")
    machine.windows.programs = lambda argv, log: 7
    assert "exit code 7" in machine.fails("remove", "a").err
    assert list(machine.installed()) == ["a.noarch"]


# check


def check(machine: WindowsMachine, *flags: str) -> list[str]:
    return [line for line in machine.ok("check", *flags).lines if line.startswith(" ")]


@pytest.fixture
def applied(machine: WindowsMachine) -> WindowsMachine:
    application(machine, "App", DisplayName="App", InstallSource="C:\\elsewhere")
    application(machine, "Other", DisplayName="Other Tool", Publisher="ACME")
    machine.publish(
        machine.installer("a", "1.0.0", external_program_name="App"),
        machine.installer("a", "2.0.0", external_program_name="App"),
        machine.installer("othertool", authors="acme"),
        machine.installer("absent", external_program_name="Absent"),
    )
    return machine


def test_check_records_the_newest_packages_of_installed_applications(
    applied: WindowsMachine,
) -> None:
    assert check(applied) == [" a: App", " othertool: Other Tool"]
    assert applied.installed() == {"a.noarch": "2.0.0", "othertool.noarch": "1.0.0@1"}
    assert applied.windows.ran == []
    assert applied.package("a").installed_app.name == "App"
    assert check(applied) == []


def test_check_lists_only_in_a_dry_run(applied: WindowsMachine) -> None:
    assert check(applied, "-dry_run") == [" a: App", " othertool: Other Tool"]
    assert applied.installed() == {}


def test_check_installs_on_demand(applied: WindowsMachine) -> None:
    check(applied, "-db_only=false")
    assert len(applied.installed()) == 2
    assert len(applied.windows.ran) == 2


def test_check_of_a_system_without_applications_is_no_failure(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.run("check").status == 0


# Rights.


def test_ordinary_user_cannot_change_anything(machine: WindowsMachine) -> None:
    machine.windows.elevated = False
    machine.publish(machine.goo("a", files={"x": "C:\\x"}))
    for command in (["install", "a"], ["remove", "a"], ["addrepo", "x", "https://h/r"], ["clean"]):
        assert "administrator" in machine.fails(*command).err


def test_ordinary_user_can_look(machine: WindowsMachine) -> None:
    machine.publish(machine.goo("a", files={"x": "C:\\x"}))
    machine.ok("install", "a")
    cache = sorted((machine.root / "cache").iterdir())
    machine.windows.elevated = False
    assert "  a.noarch 1.0.0@1" in machine.ok("available").lines
    assert machine.ok("latest", "a").out == "1.0.0@1\n"
    machine.ok("installed", "a")
    machine.ok("listrepos")
    assert sorted((machine.root / "cache").iterdir()) == cache
    assert not (machine.root / "googet.lock").exists()


def test_root_that_others_can_change_is_warned_of(machine: WindowsMachine) -> None:
    assert machine.ok("clean").err == ""
    machine.windows.untrusted = ("Users", "Everyone")
    result = machine.ok("clean")
    assert "Users, Everyone" in result.err
    assert "Users, Everyone" in (machine.root / "googet.log").read_text()
    machine.windows.elevated = False
    assert "Users" not in machine.run("installed").err


def test_default_architectures_are_those_of_the_machine(machine: WindowsMachine) -> None:
    machine.publish(
        machine.goo("a", files={"x": "C:\\x"}),
        machine.goo("a", arch="x86_64", files={"x": "C:\\x"}),
        machine.goo("b", arch="arm64", files={"x": "C:\\x"}),
    )
    machine.ok("install", "a")
    assert list(machine.installed()) == ["a.x86_64"]
    machine.fails("install", "b")
