from __future__ import annotations

import io
import sys
from unittest import mock

import pytest

from googet.screen import Screen, prepare_streams


class Console(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class Output(io.StringIO):
    """Notes whether what was printed had been flushed when the question was answered."""

    flushed = 0

    def flush(self) -> None:
        self.flushed = len(self.getvalue())


@pytest.mark.parametrize(
    ("answer", "is_yes"),
    [
        ("y\n", True),
        ("Y\n", True),
        ("yes\n", True),
        (" YES \r\n", True),
        ("y", True),
        ("n\n", False),
        ("\n", False),
        ("", False),
        ("yes please\n", False),
        ("ja\n", False),
    ],
)
def test_yes_is_y_or_yes_in_any_case(answer: str, is_yes: bool) -> None:
    assert Screen(io.StringIO(), io.StringIO(answer)).is_confirmed("Sure?") == is_yes


def test_question_ends_as_programs_expect() -> None:
    out = io.StringIO()
    Screen(out, io.StringIO("n\n")).is_confirmed("Sure?")
    assert out.getvalue() == "Sure? (y/N): "


def test_everything_is_shown_before_the_answer_is_read() -> None:
    out = Output()

    class Answers(io.StringIO):
        def readline(self, size: int = -1, /) -> str:
            assert out.flushed == len(out.getvalue()) > 0
            return "y\n"

    assert Screen(out, Answers()).is_confirmed("Sure?")


def test_closed_input_declines() -> None:
    answers = io.StringIO()
    answers.close()
    assert not Screen(io.StringIO(), answers).is_confirmed("Sure?")


def test_missing_input_declines() -> None:
    with mock.patch.object(sys, "stdin", None):
        assert not Screen(io.StringIO()).is_confirmed("Sure?")


def test_input_that_is_no_text_declines() -> None:
    answers = io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8")
    assert not Screen(io.StringIO(), answers).is_confirmed("Sure?")


def test_nothing_is_asked_on_demand() -> None:
    out = io.StringIO()
    assert Screen(out, io.StringIO(), confirm=False).is_confirmed("Sure?")
    assert out.getvalue() == ""


def test_missing_output_is_no_failure() -> None:
    with mock.patch.object(sys, "stdout", None):
        Screen().line("into nowhere")


def test_old_console_shows_question_marks() -> None:
    raw = io.BytesIO()
    console = Console(raw, encoding="cp437")
    with mock.patch.object(sys, "stdout", console):
        prepare_streams()
        Screen().line("gr\u00fc\u00dfe \u4f60")
        console.flush()
    assert raw.getvalue().decode("cp437").split() == ["gr\u00fc\u00dfe", "?"]
