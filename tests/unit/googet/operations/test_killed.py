"""googet is killed at every step of its changes; the next command finds every package whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support.goo_machine import Machine, exits

from googet.operations import steps
from googet.transaction import Transaction

# Where a process takes a second to start, not every step is tried.
STRIDE = 1 if hasattr(os, "fork") else 5


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder in memory where that is possible: everything is synced many times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


def install(machine: Machine) -> list[str]:
    machine.publish(
        machine.goo("lib", contents={"lib/l": "lib"}),
        machine.goo(
            "a",
            dependencies=["lib"],
            contents={"a/one": "1", "a/two": "2"},
            scripts={"install": exits(0)},
        ),
    )
    return ["install", "a"]


def update(machine: Machine) -> list[str]:
    machine.publish(
        machine.goo("a", "1.0.0", contents={"a/one": "1", "a/gone": "x"}),
        machine.goo("b", "1.0.0", contents={"b": "1"}),
    )
    machine.ok("install", "a", "b")
    machine.publish(
        machine.goo("a", "2.0.0", contents={"a/one": "2", "a/new": "n"}),
        machine.goo("b", "2.0.0", contents={"b": "2"}, scripts={"install": exits(0)}),
    )
    return ["update"]


def replace_package(machine: Machine) -> list[str]:
    machine.publish(
        machine.goo("old", contents={"f": "old", "old": "o"}, scripts={"uninstall": exits(0)}),
        machine.goo("user", dependencies=["old"], contents={"user": "u"}),
        machine.goo("new", replaces=("old",), contents={"f": "new"}),
    )
    machine.ok("install", "user")
    return ["install", "new"]


def remove(machine: Machine) -> list[str]:
    machine.publish(
        machine.goo("a", contents={"a/f": "1"}, scripts={"uninstall": exits(0)}),
        machine.goo("b", dependencies=["a"], contents={"b/f": "2"}),
    )
    machine.ok("install", "b")
    return ["remove", "a"]


SCENARIOS: list[Callable[[Machine], list[str]]] = [install, update, replace_package, remove]


def killed_at(number: int, machine: Machine, command: list[str]) -> bool:
    """Run a command that is killed at its step ``number``; return False if it came to its end."""
    if hasattr(os, "fork"):
        child = os.fork()
        if child == 0:
            try:
                run_killed(number, machine.folder, command)
            finally:
                os._exit(3)
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status)
        code = 0 if killed else os.WEXITSTATUS(status)
    else:
        call = f"run_killed({number}, Path({str(machine.folder)!r}), {command!r})"
        script = f"import runpy; globals().update(runpy.run_path({__file__!r})); {call}"
        code = subprocess.run([sys.executable, "-c", script], env=_environment()).returncode
        killed = code == 9
        code = 0 if killed else code
    assert code == 0
    return killed


def run_killed(number: int, folder: Path, command: list[str]) -> None:
    """Run a command in this process and kill the process at a step; end it in any case."""
    left = number

    def fault(_step: str, _path: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL if sys.platform != "win32" else 9)

    def watched(*arguments: Any, **named: Any) -> Transaction:
        return Transaction(*arguments, **named, fault=fault)

    with mock.patch.object(steps, "Transaction", watched):
        os._exit(Machine.existing(folder).run("-noconfirm", *command).status)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def orphans(machine: Machine) -> set[str]:
    """Return the files of the disk that no package owns."""
    owned = {path for package in machine.packages() for path in package.files}
    return {str(path) for path in machine.disk.rglob("*") if path.is_file()} - owned


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)
def test_command_killed_at_any_step_leaves_whole_packages(
    folder: Path, scenario: Callable[[Machine], list[str]]
) -> None:
    place = folder / "machine"
    machine = Machine(place)
    command = scenario(machine)
    kept = folder / "kept"
    shutil.copytree(place, kept)
    before = (machine.tree(), machine.installed())
    machine.ok(*command)
    after = (machine.tree(), machine.installed())
    assert before != after
    seen = []
    number = 0
    while True:
        shutil.rmtree(place)
        shutil.copytree(kept, place)
        if not killed_at(number, machine, command):
            break
        # Any command that takes the lock mends what the last one left.
        assert machine.run("clean").status == 0
        for package in machine.packages():
            machine.ok("verify", package.full_name)
        assert orphans(machine) == set()
        assert not [name for name in machine.cached() if not name.endswith((".goo", "failed"))]
        seen.append(machine.installed())
        machine.ok(*command)
        assert (machine.tree(), machine.installed()) == after
        number += STRIDE
    assert (machine.tree(), machine.installed()) == after
    assert number > 15
    assert seen[0] == before[1]
    assert seen[-1] == after[1] or STRIDE > 1


def test_recovery_is_logged(folder: Path) -> None:
    machine = Machine(folder / "machine")
    command = install(machine)
    assert killed_at(8, machine, command)
    machine.ok("clean")
    assert "interrupted run" in (machine.root / "googet.log").read_text()


def test_lock_of_a_killed_googet_does_not_block_the_next(folder: Path) -> None:
    machine = Machine(folder / "machine")
    assert killed_at(0, machine, install(machine))
    assert (machine.root / "googet.lock").exists()
    machine.ok("clean")
    assert not (machine.root / "googet.lock").exists()
