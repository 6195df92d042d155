from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.goo_machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_repository_is_added_and_shown(machine: Machine) -> None:
    result = machine.ok("addrepo", "-priority", "pin", "new", "https://h/repos/new")
    path = machine.root / "repos" / "new.repo"
    assert str(path) in result.out
    assert "- name: new\n  url: https://h/repos/new\n  useoauth: false\n  priority: pin\n" in (
        result.out
    )
    assert path.read_text() in result.out


def test_same_url_has_one_entry(machine: Machine) -> None:
    machine.ok("addrepo", "x", "https://h/r")
    machine.ok("addrepo", "y", "https://h/r")
    out = machine.ok("listrepos").out
    assert "  y: https://h/r" in out and "  x: " not in out


def test_repository_is_removed_whatever_the_case_and_twice_is_fine(machine: Machine) -> None:
    machine.ok("addrepo", "y", "https://h/r")
    result = machine.ok("rmrepo", "Y")
    assert result.out == ""
    assert "y.repo" in result.err
    assert not (machine.root / "repos" / "y.repo").exists()
    assert machine.ok("rmrepo", "Y").err


def test_dry_runs_write_nothing(machine: Machine) -> None:
    before = sorted(path.name for path in (machine.root / "repos").iterdir())
    machine.ok("addrepo", "-dry_run", "new", "https://h/repos/new")
    machine.ok("rmrepo", "-dry_run", "repo")
    assert sorted(path.name for path in (machine.root / "repos").iterdir()) == before


def test_named_file_is_used(machine: Machine) -> None:
    machine.ok("addrepo", "-file", "mine.repo", "new", "oauth-https://h/r")
    assert (machine.root / "repos" / "mine.repo").exists()
    lines = machine.ok("listrepos").lines
    assert lines[0] == f"{machine.root / 'repos' / 'mine.repo'}:"
    assert lines[1] == "  new: oauth-https://h/r"


def test_list_as_json(machine: Machine) -> None:
    machine.ok("addrepo", "-priority", "1200", "new", "https://h/r")
    rows = json.loads(machine.ok("listrepos", "-format", "json").out)
    assert rows[0] == {
        "file": str(machine.root / "repos" / "new.repo"),
        "name": "new",
        "url": "https://h/r",
        "priority": 1200,
    }


def test_flow_of_the_image_tests(machine: Machine) -> None:
    """The exit codes that cloud-image-tests expects, in its order."""
    machine.publish(machine.goo("x"))
    repository = machine.served / "repo" / "repo"
    assert machine.run("-noconfirm", "remove", "x").status == 0
    assert machine.run("installed", "x").status == 1
    assert machine.run("-noconfirm", "install", "x").status == 0
    assert machine.run("installed", "x").status == 0
    for path in (machine.root / "repos").iterdir():
        path.unlink()
    assert machine.run("available", "x").status == 1
    assert machine.run("addrepo", "again", str(repository)).status == 0
    assert machine.run("available", "x").status == 0
    assert machine.run("rmrepo", "again").status == 0
    assert machine.run("available", "x").status == 1
    assert machine.run("install", "-reinstall", "x", answer=None).status == 0
