"""A change that is killed anywhere is whole or undone once googet has started again."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.package_changes import CHANGES, World, ended_at, world_in

# A Windows in memory stands on a file system that is not one: two of the changes there are enough.
# Starting a process takes long there; the numbers that are left out differ from case to case.
STRIDE = 4 if sys.platform == "win32" else 1
CASES = [(change, "real") for change in CHANGES]
if sys.platform != "win32":
    CASES += [("update", "memory"), ("take over", "memory")]


class Stop(BaseException):
    """Raised by a test in the middle of a change; nothing in googet catches it."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a new folder, in memory where that is possible: hundreds of changes are synced."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def prepared(place: Path, change: str, kind: str) -> tuple[dict[str, object], dict[str, object]]:
    """Prepare ``place/world/before`` and return the states before and after the change."""
    folder = place / "world" / "before"
    world = world_in(folder, kind)
    CHANGES[change][0](world)
    before = world.state()
    done = place / "world" / "done"
    # The paths that are recorded contain the folder, so it has to be the same.
    shutil.copytree(folder, done)
    CHANGES[change][1](world)
    after = world.state()
    assert world.leftovers() == []
    assert before != after
    shutil.rmtree(folder)
    shutil.move(str(done), str(folder))
    return before, after


class Snapshots:
    """Puts the prepared world back into its place, again and again."""

    def __init__(self, place: Path, kind: str) -> None:
        self.kind = kind
        self.folder = place / "world" / "before"
        self._kept = place / "kept"
        shutil.copytree(self.folder, self._kept)

    def fresh(self) -> World:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._kept, self.folder)
        return world_in(self.folder, self.kind)


@pytest.mark.parametrize(("change", "kind"), CASES)
def test_change_killed_at_any_access_is_whole_or_undone_after_recovery(
    folder: Path, change: str, kind: str
) -> None:
    before, after = prepared(folder, change, kind)
    snapshots = Snapshots(folder, kind)
    seen = []
    number = 0
    while True:
        world = snapshots.fresh()
        if not ended_at(number, change, snapshots.folder, kind):
            break
        recovery = world.recover()
        assert recovery.problems == ()
        state = world.state()
        assert state in (before, after), f"killed at access {number}"
        # Before anything is journaled an extracted package may be left, which no journal names.
        if recovery.undone or recovery.completed:
            assert world.leftovers() == []
        seen.append(state == after)
        number += STRIDE
    assert world.state() == after
    # It was killed on both sides of the commit, and only once was the side changed.
    assert seen == sorted(seen)
    assert len(seen) > 10 // STRIDE and not seen[0] and seen[-1]


@pytest.mark.parametrize(("change", "kind"), [("update", "real"), ("remove", "real")])
def test_recovery_killed_at_any_access_is_finished_by_the_next_one(
    folder: Path, change: str, kind: str
) -> None:
    before, after = prepared(folder, change, kind)
    snapshots = Snapshots(folder, kind)
    kills = 0
    for number in range(2, 1000, 5 * STRIDE):
        world = snapshots.fresh()
        if not ended_at(number, change, snapshots.folder, kind):
            break
        rounds = 0
        while ended_at(5 + rounds, "recover", snapshots.folder, kind):
            rounds += 1
            kills += 1
        assert world.state() in (before, after), f"killed at access {number}"
        assert world.recover().problems == ()
        assert world.state() in (before, after)
    assert kills > 0


@pytest.mark.parametrize("error", [Stop, OSError, KeyboardInterrupt])
@pytest.mark.parametrize(("change", "kind"), CASES)
def test_change_that_fails_at_any_step_is_undone_or_made(
    folder: Path, change: str, error: type[BaseException], kind: str
) -> None:
    before, after = prepared(folder, change, kind)
    snapshots = Snapshots(folder, kind)
    steps = 0
    committed = 0
    while True:
        world = snapshots.fresh()
        raised = _fail_at(world, change, steps, error)
        if raised is None:
            break
        state = world.state()
        if error is not Stop and raised != "handled":
            # What is not committed is undone at once; what is may have to wait for the next start.
            if _rows(before) == _rows(state) != _rows(after):
                assert state == before, f"failed at step {steps}: {raised}"
        world.recover()
        state = world.state()
        assert state in (before, after), f"failed at step {steps}: {raised}"
        committed += state == after
        steps += 1
    assert steps > 8 and committed > 0


def _rows(state: dict[str, object]) -> dict[str, object]:
    return {key: each for key, each in state.items() if key.startswith("row ")}


def _fail_at(
    world: World, change: str, number: int, error: type[BaseException]
) -> BaseException | str | None:
    """Run the change with an error at its step ``number``; None if it has fewer steps."""
    left = number
    raised = False

    def fault(step: str, path: str) -> None:
        nonlocal left, raised
        left -= 1
        if left < 0 and not raised:
            raised = True
            raise error(28, f"at {step} {path}") if error is OSError else error()

    original = World.change, World.removal

    def change_it(self: World, *arguments: object, **named: object) -> object:
        return original[0](self, *arguments, fault=fault, **named)  # type: ignore[arg-type]

    def remove_it(self: World, *arguments: object, **named: object) -> object:
        return original[1](self, *arguments, fault=fault, **named)  # type: ignore[arg-type]

    try:
        World.change, World.removal = change_it, remove_it  # type: ignore[method-assign]
        CHANGES[change][1](world)
    except BaseException as found:
        if not raised:
            raise
        return found
    finally:
        World.change, World.removal = original  # type: ignore[method-assign]
    return "handled" if raised else None
