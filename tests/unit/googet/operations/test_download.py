from __future__ import annotations

from pathlib import Path

import pytest
from support.goo_machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.publish(
        machine.goo("a", "1.0.0", "x86_32", contents={"f": "1"}),
        machine.goo("a", "2.0.0", "x86_64"),
    )
    return machine


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("a", "a.x86_64.2.0.0.goo"),
        ("a.x86_32", "a.x86_32.1.0.0.goo"),
        ("a.x86_64.2.0.0", "a.x86_64.2.0.0.goo"),
    ],
)
def test_package_is_downloaded_into_the_folder(machine: Machine, wanted: str, got: str) -> None:
    target = machine.folder / "new" / "folder"
    machine.ok("download", "-download_dir", str(target), wanted)
    assert names(target) == [got]
    assert machine.installed() == {}


def test_current_folder_is_the_default(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    machine.ok("download", "a.x86_32")
    assert names(here) == ["a.x86_32.1.0.0.goo"]


def test_content_is_extracted_beside_it(machine: Machine) -> None:
    target = machine.folder / "here"
    machine.ok("download", "-extract", "-download_dir", str(target), "a.x86_32")
    assert (target / "a.x86_32.1.0.0" / "files" / "0").read_text() == "1"
    assert (target / "a.x86_32.1.0.0" / "a.pkgspec").exists()


def test_missing_package_fails_and_others_are_downloaded(machine: Machine) -> None:
    target = machine.folder / "here"
    machine.fails("download", "-download_dir", str(target), "nowhere", "a")
    assert names(target) == ["a.x86_64.2.0.0.goo"]
