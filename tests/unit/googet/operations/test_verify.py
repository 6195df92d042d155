from __future__ import annotations

from pathlib import Path

import pytest
from support.goo_machine import Machine, copies, exits, fails_where, own_file


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_package_without_files_is_sound(machine: Machine) -> None:
    machine.publish(machine.goo("a"))
    machine.ok("install", "a")
    assert "Verification of a.noarch.1.0.0@1 completed" in machine.ok("verify", "a").lines


def test_all_damaged_files_are_listed(machine: Machine) -> None:
    machine.publish(machine.goo("a", contents={"one": "1", "two": "2", "three": "3"}))
    machine.ok("install", "a")
    (machine.disk / "one").write_text("changed")
    (machine.disk / "two").unlink()
    error = machine.fails("verify", "a").err
    assert str(machine.disk / "one") in error and str(machine.disk / "two") in error
    assert str(machine.disk / "three") not in error


def test_missing_files_do_not_matter_when_they_are_skipped(machine: Machine) -> None:
    machine.publish(machine.goo("a", contents={"one": "1"}))
    machine.ok("install", "a")
    (machine.disk / "one").unlink()
    machine.ok("verify", "-skip_files", "a")


def test_damage_is_repaired_by_reinstalling(machine: Machine) -> None:
    machine.publish(machine.goo("a", contents={"one": "1"}))
    machine.ok("install", "a")
    (machine.disk / "one").write_text("changed")
    machine.ok("verify", "-reinstall", "a")
    assert machine.read("one") == "1"
    machine.ok("verify", "a")


def test_failed_repair_is_a_failure(machine: Machine) -> None:
    package = machine.goo("a", contents={"one": "1"})
    machine.ok("install", str(package))
    (machine.disk / "one").write_text("changed")
    (machine.root / "cache" / package.name).unlink()
    machine.fails("verify", "-reinstall", "a")


def test_absent_package_is_a_failure(machine: Machine) -> None:
    assert "not installed" in machine.fails("verify", "nowhere").err


def test_verify_command_decides(machine: Machine) -> None:
    flag = machine.folder / "broken"
    machine.publish(machine.goo("a", scripts={"verify": fails_where(flag)}))
    machine.ok("install", "a")
    machine.ok("verify", "a")
    flag.touch()
    assert "exit code 1" in machine.fails("verify", "a").err
    assert machine.cached() == ["a.noarch.1.0.0@1.goo"]


def test_verify_command_gets_the_whole_package_at_the_second_try(machine: Machine) -> None:
    script = copies(Path(own_file("files/0")), machine.folder / "seen")
    machine.publish(machine.goo("a", contents={"one": "1"}, scripts={"verify": script}))
    machine.ok("install", "a")
    machine.ok("verify", "a")


def test_damaged_archive_is_fetched_again_before_anything_of_it_runs(machine: Machine) -> None:
    machine.publish(machine.goo("a", scripts={"verify": exits(0)}))
    machine.ok("install", "a")
    (machine.root / "cache" / "a.noarch.1.0.0@1.goo").write_bytes(b"damaged")
    machine.ok("verify", "a")
    (machine.root / "cache" / "a.noarch.1.0.0@1.goo").write_bytes(b"damaged")
    (machine.served / "repo" / "packages" / "a.noarch.1.0.0@1.goo").write_bytes(b"damaged")
    machine.fails("verify", "a")
