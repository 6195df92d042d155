from __future__ import annotations

from pathlib import Path

import pytest
from support.goo_machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.publish(machine.goo("a"), machine.goo("b"))
    machine.ok("install", "a", "b")
    (machine.root / "cache" / "old.noarch.1.goo").write_bytes(b"x")
    (machine.root / "cache" / "failed" / "x").mkdir(parents=True)
    return machine


def everything(machine: Machine) -> list[str]:
    return sorted(path.name for path in (machine.root / "cache").iterdir())


def test_archives_of_installed_packages_are_kept(machine: Machine) -> None:
    machine.ok("clean")
    assert everything(machine) == ["a.noarch.1.0.0@1.goo", "b.noarch.1.0.0@1.goo"]


def test_all_means_all(machine: Machine) -> None:
    machine.ok("clean", "-all")
    assert everything(machine) == []


def test_named_package_only(machine: Machine) -> None:
    before = everything(machine)
    machine.ok("clean", "-packages", "a,nowhere")
    assert everything(machine) == [name for name in before if not name.startswith("a.")]


@pytest.mark.parametrize("flags", [(), ("-all",), ("-packages", "a")])
def test_dry_run_deletes_nothing(machine: Machine, flags: tuple[str, ...]) -> None:
    before = everything(machine)
    result = machine.ok("clean", "-dry_run", *flags)
    assert result.out.count("Would delete") >= 1
    assert everything(machine) == before


def test_missing_cache_is_clean(tmp_path: Path) -> None:
    Machine(tmp_path).ok("clean")
