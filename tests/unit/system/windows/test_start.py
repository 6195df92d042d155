"""What an agent's start makes ready on Windows."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.trees import tree
from support.windows_machines import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_keys_of_the_registry_exist(machine: Machine) -> None:
    machine.prepare()
    assert machine.memory.registry.subkeys(r"SOFTWARE\Google\ComputeEngine") == ("ForwardedIps",)


def test_folders_exist(machine: Machine) -> None:
    machine.prepare()
    assert machine.files.list_directory(machine.places.run) == ("boot-id",)


def test_what_this_boot_remembers_stays(machine: Machine) -> None:
    machine.prepare()
    machine.files.write_atomic(machine.places.in_run("a.json"), b"{}")
    machine.prepare()
    assert "a.json" in machine.files.list_directory(machine.places.run)


def test_what_an_earlier_boot_remembered_is_gone(machine: Machine) -> None:
    machine.prepare()
    machine.files.write_atomic(machine.places.in_run("a.json"), b"{}")
    machine.files.write_atomic(machine.places.in_state("b.json"), b"{}")
    machine.memory.boot = "boot-2"
    machine.prepare()
    assert machine.files.list_directory(machine.places.run) == ("boot-id",)
    assert machine.files.exists(machine.places.in_state("b.json"))


def test_without_an_identifier_of_the_boot_nothing_is_removed(machine: Machine) -> None:
    machine.prepare()
    machine.files.write_atomic(machine.places.in_run("a.json"), b"{}")
    machine.memory.boot = ""
    machine.prepare()
    assert "a.json" in machine.files.list_directory(machine.places.run)


def test_file_that_cannot_be_removed_does_not_keep_the_others(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.prepare()
    for name in ("a", "b"):
        machine.files.write_atomic(machine.places.in_run(name), b"{}")
    remove = machine.files.remove

    def refuse(path: str) -> bool:
        if path.endswith("\\a"):
            raise PermissionError(13, "in use")
        return remove(path)

    monkeypatch.setattr(machine.files, "remove", refuse)
    machine.memory.boot = "boot-2"
    machine.prepare()
    assert machine.files.list_directory(machine.places.run) == ("a", "boot-id")


def test_on_linux_nothing_is_made(tmp_path: Path) -> None:
    tree(tmp_path).prepare()
    assert list(tmp_path.iterdir()) == []
