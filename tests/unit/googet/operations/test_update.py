from __future__ import annotations

from pathlib import Path

import pytest
from support.goo_machine import Machine, exits


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def install_foo_and_bar(machine: Machine) -> None:
    old = [machine.goo("foo", "1.0", "x86_32"), machine.goo("bar", "2.0", "x86_32")]
    machine.publish(*old)
    machine.ok("install", "foo", "bar")


def test_newer_version_is_installed(machine: Machine) -> None:
    install_foo_and_bar(machine)
    machine.publish(machine.goo("foo", "2.0", "x86_32"), machine.goo("bar", "2.0", "x86_32"))
    result = machine.ok("update")
    assert machine.installed() == {"foo.x86_32": "2.0", "bar.x86_32": "2.0"}
    url = machine.served / "repo" / "repo"
    assert f"  foo.x86_32, 1.0 --> 2.0 from {url}" in result.lines
    assert "bar.x86_32" not in result.out


def test_rollback_repository_downgrades(machine: Machine) -> None:
    new = machine.goo("foo", "2.0", "x86_32", contents={"v": "2"})
    machine.publish(new)
    machine.ok("install", "foo")
    url = machine.repository("back", "rollback")
    machine.publish(machine.goo("foo", "1.0", "x86_32", contents={"v": "1"}), repository="back")
    result = machine.ok("update")
    assert f"  foo.x86_32, 2.0 --> 1.0 from {url}" in result.lines
    assert machine.installed() == {"foo.x86_32": "1.0"}
    assert machine.read("v") == "1"
    assert "-->" not in machine.ok("update").out


def test_repository_below_the_default_priority_never_updates(machine: Machine) -> None:
    machine.publish(machine.goo("foo", "1.0", "x86_32"))
    machine.ok("install", "foo")
    machine.repository("low", "400")
    machine.publish(machine.goo("foo", "2.0", "x86_32"), repository="low")
    assert "-->" not in machine.ok("update").out


def test_same_version_is_no_update(machine: Machine) -> None:
    install_foo_and_bar(machine)
    assert "-->" not in machine.ok("update").out


@pytest.mark.parametrize("answer", ["", None, "n\n"])
def test_nobody_to_ask_lists_and_changes_nothing(machine: Machine, answer: str) -> None:
    install_foo_and_bar(machine)
    machine.publish(machine.goo("foo", "2.0", "x86_32"))
    result = machine.run("update", answer=answer)
    assert result.status == 0
    assert "-->" in result.out
    assert machine.installed()["foo.x86_32"] == "1.0"


def test_dry_run_never_asks(machine: Machine) -> None:
    install_foo_and_bar(machine)
    machine.publish(machine.goo("foo", "2.0", "x86_32"))
    result = machine.run("update", "-dry_run", answer="y\n")
    assert result.status == 0
    assert "-->" in result.out and "y/N" not in result.out
    assert machine.installed()["foo.x86_32"] == "1.0"


def test_nothing_installed_is_said(machine: Machine) -> None:
    assert machine.ok("update").out.strip()


def test_named_packages_only(machine: Machine) -> None:
    install_foo_and_bar(machine)
    machine.publish(machine.goo("foo", "2.0", "x86_32"), machine.goo("bar", "3.0", "x86_32"))
    machine.ok("update", "bar")
    assert machine.installed() == {"foo.x86_32": "1.0", "bar.x86_32": "3.0"}
    machine.fails("update", "nowhere", "foo")
    assert machine.installed()["foo.x86_32"] == "2.0"


def test_update_that_fails_does_not_stop_the_others(machine: Machine) -> None:
    install_foo_and_bar(machine)
    machine.publish(
        machine.goo("bar", "3.0", "x86_32", scripts={"install": exits(1)}),
        machine.goo("foo", "2.0", "x86_32"),
    )
    machine.fails("update")
    assert machine.installed() == {"foo.x86_32": "2.0", "bar.x86_32": "2.0"}


def test_update_brings_new_dependencies(machine: Machine) -> None:
    install_foo_and_bar(machine)
    machine.publish(machine.goo("foo", "2.0", "x86_32", dependencies=["lib"]), machine.goo("lib"))
    result = machine.run("update", answer="y\n")
    assert "  lib.noarch.1.0.0@1" in result.lines
    assert machine.installed()["lib.noarch"] == "1.0.0@1"


def test_provider_in_a_repository_is_no_update(machine: Machine) -> None:
    machine.publish(machine.goo("foo", "1.0"))
    machine.ok("install", "foo")
    machine.publish(machine.goo("other", "9.0", provides=("foo",)))
    assert "-->" not in machine.ok("update").out


def test_each_architecture_is_updated_on_its_own(machine: Machine) -> None:
    arches = ("x86_32", "x86_64")
    machine.publish(*(machine.goo("a", "1.0.0", arch) for arch in arches))
    machine.ok("install", "a.x86_32", "a.x86_64")
    machine.publish(machine.goo("a", "2.0.0", "x86_32"), machine.goo("a", "3.0.0", "x86_64"))
    machine.ok("update")
    assert machine.installed() == {"a.x86_32": "2.0.0", "a.x86_64": "3.0.0"}


def test_replacement_during_an_update_is_shown(machine: Machine) -> None:
    install_foo_and_bar(machine)
    machine.publish(machine.goo("foo", "2.0", "x86_32", replaces=("bar",)))
    result = machine.run("update", answer="y\n")
    assert any("bar.x86_32" in line and "replaced by foo" in line for line in result.lines)
    assert machine.installed() == {"foo.x86_32": "2.0"}
