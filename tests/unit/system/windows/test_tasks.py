"""Tasks of the Task Scheduler: the XML of a task that runs at boot, and how it is registered."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.trees import Commands
from support.windows_machines import Machine

from google_guest.system.commands import CommandError, Completed
from google_guest.system.windows import tasks

PROGRAM = r"C:\Program Files\Google & Co\run.cmd"
SCHTASKS = r"C:\Windows\System32\schtasks.exe"
SPACE = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
XML = "C/Program Files/Google/Compute Engine/GCEStartup.task.xml"


@pytest.fixture(autouse=True)
def _no_windows_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYSTEMROOT", raising=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def task(xml: str) -> ElementTree.Element:
    # The declaration says UTF-16, which is right for the file and not for this text.
    return ElementTree.fromstring(xml.partition("?>")[2])


def value(xml: str, path: str) -> str | None:
    return task(xml).findtext("/".join(f"{SPACE}{part}" for part in path.split("/")))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Principals/Principal/UserId", "S-1-5-18"),
        ("Triggers/BootTrigger/Enabled", "true"),
        ("Settings/Priority", "5"),
        ("Settings/Enabled", "true"),
        ("Settings/AllowStartOnDemand", "true"),
        ("Settings/ExecutionTimeLimit", "PT0S"),
        ("Settings/DisallowStartIfOnBatteries", "false"),
        ("Settings/StopIfGoingOnBatteries", "false"),
        ("Actions/Exec/Command", f'"{PROGRAM}"'),
    ],
)
def test_startup_task_has(path: str, expected: str) -> None:
    assert value(tasks.boot_task(PROGRAM, description="x"), path) == expected


def test_task_may_start_later_and_repeat() -> None:
    xml = tasks.boot_task(PROGRAM, description="x", delay="PT5M", repetition="P1D")
    assert value(xml, "Triggers/BootTrigger/Delay") == "PT5M"
    assert value(xml, "Triggers/BootTrigger/Repetition/Interval") == "P1D"


def test_settings_are_in_the_order_of_the_schema() -> None:
    settings = task(tasks.boot_task(PROGRAM, description="x")).find(f"{SPACE}Settings")
    assert settings is not None
    assert [element.tag.removeprefix(SPACE) for element in settings] == [
        "MultipleInstancesPolicy",
        "DisallowStartIfOnBatteries",
        "StopIfGoingOnBatteries",
        "AllowStartOnDemand",
        "Enabled",
        "ExecutionTimeLimit",
        "Priority",
    ]


def test_task_is_created_or_changed_from_a_file_in_utf_16(machine: Machine, tmp_path: Path) -> None:
    seen: list[bytes] = []

    def answer(argv: Sequence[str]) -> Completed:
        seen.append((tmp_path / XML).read_bytes())
        return Completed(tuple(argv), 0, "", "")

    runner = machine.runner = Commands(answer)
    tasks.register(machine, "GCEStartup", tasks.boot_task(PROGRAM, description="x"))
    file = str(tmp_path / XML)
    assert runner.argvs == [(SCHTASKS, "/create", "/tn", "GCEStartup", "/xml", file, "/f")]
    assert seen[0].decode("utf-16") == tasks.boot_task(PROGRAM, description="x")
    assert not (tmp_path / XML).exists()


def test_file_goes_when_the_scheduler_refuses(machine: Machine, tmp_path: Path) -> None:
    def refuse(argv: Sequence[str]) -> Completed:
        raise CommandError(argv, 1, "ERROR: The task XML is malformed.")

    machine.runner = Commands(refuse)
    with pytest.raises(CommandError, match="malformed"):
        tasks.register(machine, "GCEStartup", "<Task/>")
    assert not (tmp_path / XML).exists()


def test_task_is_deleted_when_there_is_one(machine: Machine) -> None:
    machine.files.write_atomic(r"C:\Windows\System32\Tasks\GCEStartup", b"<Task/>")
    runner = machine.runner = Commands()
    assert tasks.delete(machine, "GCEStartup")
    assert runner.argvs == [(SCHTASKS, "/delete", "/tn", "GCEStartup", "/f")]


def test_nothing_runs_when_there_is_no_task_to_delete(machine: Machine) -> None:
    runner = machine.runner = Commands()
    assert not tasks.delete(machine, "GCEStartup")
    assert runner.argvs == []
