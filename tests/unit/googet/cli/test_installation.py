"""googet's own install step: the variable, Path, who may change the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.windows_machines import Machine

from googet.cli.installation import main
from google_guest.system.windows.environment import KEY
from google_guest.system.windows.files import WindowsFiles
from google_guest.system.windows.registry import EXPAND_SZ, SZ, Value

ROOT = r"C:\ProgramData\GooGet"


@pytest.fixture(autouse=True)
def _no_windows_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROGRAMDATA", raising=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.memory.registry.set_text(KEY, "Path", r"%SystemRoot%;C:\X", expandable=True)
    return made


def test_programs_and_people_find_it(machine: Machine) -> None:
    assert main([], machine) == 0
    registry = machine.memory.registry
    assert registry.get(KEY, "GooGetRoot") == Value(ROOT, SZ)
    assert registry.get(KEY, "Path") == Value(rf"%SystemRoot%;C:\X;{ROOT}", EXPAND_SZ)


def test_folder_becomes_the_administrators(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    secured: list[str] = []
    monkeypatch.setattr(WindowsFiles, "secure_directory", lambda self, path: secured.append(path))
    main([], machine)
    assert secured == [ROOT]


def test_removal_restores_what_was(machine: Machine) -> None:
    main([], machine)
    assert main(["remove"], machine) == 0
    assert machine.memory.registry.get(KEY, "GooGetRoot") is None
    assert machine.memory.registry.get(KEY, "Path") == Value(r"%SystemRoot%;C:\X", EXPAND_SZ)


def test_variable_that_names_another_folder_stays(machine: Machine) -> None:
    main([], machine)
    machine.memory.registry.set_text(KEY, "GooGetRoot", r"D:\GooGet")
    main(["remove"], machine)
    assert machine.memory.registry.get(KEY, "GooGetRoot") == Value(r"D:\GooGet", SZ)


def test_removal_leaves_the_administrators_files(machine: Machine) -> None:
    machine.files.write_atomic(rf"{ROOT}\repos\ours.repo", b"x")
    main([], machine)
    main(["remove"], machine)
    assert machine.files.read_bytes(rf"{ROOT}\repos\ours.repo") == b"x"


def test_refusal_is_one_line(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.memory.registry.refusal = PermissionError(13, "Access is denied")
    assert main([], machine) == 1
    assert capsys.readouterr().err == "googet: [Errno 13] Access is denied\n"


def test_wrong_arguments_are_refused(machine: Machine) -> None:
    assert main(["purge"], machine) == 2
