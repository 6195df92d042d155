"""The metadata scripts' package: Path, the startup task, the shutdown policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.trees import Commands
from support.windows_machines import Machine

from google_guest.installation import scripts
from google_guest.system.commands import CommandError, Completed
from google_guest.system.windows.environment import KEY
from google_guest.system.windows.group_policy import policy_files
from google_guest.system.windows.registry import EXPAND_SZ, Value

FOLDER = r"C:\Program Files\Google\Compute Engine\metadata_scripts"
TASK = r"C:\Windows\System32\Tasks\GCEStartup"


@pytest.fixture(autouse=True)
def _no_windows_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYSTEMROOT", raising=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine whose task scheduler keeps a file of each task, as Windows' does."""
    made = Machine(tmp_path)
    made.memory.registry.set_text(KEY, "Path", r"%SystemRoot%;C:\X", expandable=True)

    def schtasks(argv: Sequence[str]) -> Completed:
        if argv[1] == "/create":
            made.files.write_atomic(TASK, Path(argv[5]).read_bytes())
        else:
            made.files.remove(TASK)
        return Completed(tuple(argv), 0, "", "")

    made.runner = Commands(schtasks)
    return made


def silent(text: str) -> None:
    """Takes a line."""


def test_startup_scripts_run_at_boot(machine: Machine) -> None:
    scripts.install(machine, silent)
    task = (machine.files.read_bytes(TASK) or b"").decode("utf-16")
    assert rf'<Command>"{FOLDER}\run_startup_scripts.cmd"</Command>' in task


def test_shutdown_scripts_are_in_the_policy(machine: Machine) -> None:
    scripts.install(machine, silent)
    assert machine.files.read_text(policy_files().scripts) == (
        f"[Shutdown]\r\n0CmdLine={FOLDER}\\run_shutdown_scripts.cmd\r\n0Parameters=\r\n"
    )


def test_programs_are_in_the_path(machine: Machine) -> None:
    scripts.install(machine, silent)
    expected = Value(rf"%SystemRoot%;C:\X;{FOLDER}", EXPAND_SZ)
    assert machine.memory.registry.get(KEY, "Path") == expected


def test_installing_twice_changes_nothing_more(machine: Machine) -> None:
    scripts.install(machine, silent)
    before = {path: path.read_bytes() for path in machine.root.rglob("*") if path.is_file()}
    scripts.install(machine, silent)
    assert {path: path.read_bytes() for path in machine.root.rglob("*") if path.is_file()} == before


def test_removal_leaves_nothing_of_ours(machine: Machine) -> None:
    scripts.install(machine, silent)
    scripts.remove(machine, silent)
    assert [path for path in machine.root.rglob("*") if path.is_file()] == []
    assert machine.memory.registry.get(KEY, "Path") == Value(r"%SystemRoot%;C:\X", EXPAND_SZ)


def test_removal_goes_on_after_a_failure(machine: Machine) -> None:
    scripts.install(machine, silent)

    def refuse(argv: Sequence[str]) -> Completed:
        raise CommandError(argv, 1, "ERROR: Access is denied.")

    machine.runner = Commands(refuse)
    told: list[str] = []
    scripts.remove(machine, told.append)
    assert told == [
        "warning: cannot delete the task GCEStartup: C:\\Windows\\System32\\schtasks.exe failed "
        "with status 1: ERROR: Access is denied."
    ]
    assert not machine.files.exists(policy_files().scripts)
    assert machine.memory.registry.get(KEY, "Path") == Value(r"%SystemRoot%;C:\X", EXPAND_SZ)
