"""The vocabulary of changes: order, isolation of subjects, batches, stopping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Optional

import pytest

from google_guest.changes import BATCH_SIZE, Change, apply_all
from google_guest.changes.files import RemoveFile, WriteFile, line_difference
from google_guest.errors import GuestError
from google_guest.system import System


@dataclass(frozen=True)
class Step(Change):
    """A change that records itself."""

    needs_live_system: ClassVar[bool] = False
    log: ClassVar[list[str]] = []

    thing: str
    name: str
    error: Optional[Exception] = None

    @property
    def subject(self) -> str:
        return self.thing

    def describe(self) -> str:
        return self.name

    def apply(self, system: System) -> None:
        if self.error is not None:
            raise self.error
        self.log.append(self.name)


@dataclass(frozen=True)
class BatchStep(Step):
    batched: ClassVar[bool] = True
    batches: ClassVar[list[int]] = []

    @classmethod
    def apply_batch(
        cls, changes: Sequence[Change], system: System
    ) -> Sequence[Optional[Exception]]:
        cls.batches.append(len(changes))
        return super().apply_batch(changes, system)


@pytest.fixture(autouse=True)
def _clean() -> None:
    Step.log.clear()
    BatchStep.batches.clear()


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(root=tmp_path)


def test_changes_are_made_in_order(system: System) -> None:
    outcome = apply_all([Step("a", "1"), Step("b", "2"), Step("a", "3")], system)
    assert Step.log == ["1", "2", "3"]
    assert outcome.ok


def test_failure_leaves_out_later_changes_of_its_subject_only(system: System) -> None:
    changes = [
        Step("user ada", "1", GuestError("no room")),
        Step("user bob", "2"),
        Step("user ada", "3"),
        Step("user bob", "4"),
    ]
    outcome = apply_all(changes, system)
    assert Step.log == ["2", "4"]
    assert [change.describe() for change in outcome.left_out] == ["3"]
    assert not outcome.ok


def test_mistake_of_ours_is_a_failure_and_not_an_exception(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = apply_all([Step("a", "1", ZeroDivisionError()), Step("b", "2")], system)
    assert Step.log == ["2"]
    assert "internal error" in caplog.text
    assert isinstance(outcome.failed[0][1], ZeroDivisionError)


def test_batched_changes_are_handed_over_together_up_to_the_batch_size(system: System) -> None:
    count = BATCH_SIZE + 5
    outcome = apply_all([BatchStep(f"s{n}", str(n)) for n in range(count)], system)
    assert BatchStep.batches == [BATCH_SIZE, 5]
    assert len(outcome.applied) == count


def test_broken_subject_is_left_out_of_a_batch(system: System) -> None:
    changes = [
        Step("s1", "create", GuestError("x")),
        BatchStep("s1", "keys 1"),
        BatchStep("s2", "keys 2"),
    ]
    apply_all(changes, system)
    assert Step.log == ["keys 2"]


def test_stop_is_honoured_between_changes(system: System) -> None:
    outcome = apply_all(
        [Step("a", "1"), Step("b", "2"), Step("c", "3")],
        system,
        stopping=lambda: len(Step.log) >= 1,
    )
    assert Step.log == ["1"]
    assert len(outcome.left_out) == 2


def test_what_came_of_it_is_noted_when_it_stops(system: System) -> None:
    @dataclass(frozen=True)
    class Note(Step):
        notes_outcome: ClassVar[bool] = True

    outcome = apply_all(
        [Step("a", "1"), Step("b", "2"), Note("c", "note")],
        system,
        stopping=lambda: len(Step.log) >= 1,
    )
    assert Step.log == ["1", "note"]
    assert [change.describe() for change in outcome.left_out] == ["2"]


def test_change_for_the_running_machine_is_not_tried_in_a_tree(system: System) -> None:
    @dataclass(frozen=True)
    class LiveStep(Step):
        needs_live_system: ClassVar[bool] = True

    outcome = apply_all([LiveStep("a", "1"), Step("a", "2")], system)
    assert Step.log == ["2"]
    assert outcome.ok
    assert len(outcome.not_live) == 1


def test_written_file_shows_its_difference(system: System, tmp_path: Path) -> None:
    change = WriteFile("/etc/f", b"one\nthree\n", previous=b"one\ntwo\n")
    assert change.describe() == "change /etc/f"
    assert "-two" in change.diff()
    assert "+three" in change.diff()
    assert apply_all([change], system).ok
    assert (tmp_path / "etc/f").read_bytes() == b"one\nthree\n"


def test_secret_content_is_never_shown() -> None:
    change = WriteFile("/etc/f", b"hunter2", secret=True)
    assert change.diff() == ()
    assert "hunter2" not in str(change.as_dict())


def test_removing_what_is_gone_is_fine(system: System) -> None:
    assert apply_all([RemoveFile("/etc/none")], system).ok


def test_difference_of_equal_content_is_empty() -> None:
    assert line_difference(b"a\nb\n", b"a\nb\n") == ()
