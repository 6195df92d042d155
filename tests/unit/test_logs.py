"""Logging: priorities, repeats, redaction."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest import logs

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIJ" + "q1w2e3r4t5y6u7i8o9p0" * 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture(autouse=True)
def _restore() -> object:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], root.level = before


def _journal() -> tuple[logs.Sink, io.StringIO]:
    out = io.StringIO()
    sink = logs.configure_logging("x", environ={"JOURNAL_STREAM": "8:1"}, stdout=out)
    return sink, out


def test_lines_carry_priorities_under_systemd() -> None:
    _, out = _journal()
    for level in (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.getLogger("t").log(level, "line %d", level)
    assert out.getvalue() == "<6>line 20\n<4>line 30\n<3>line 40\n<2>line 50\n"


def test_every_line_of_a_trace_has_the_priority() -> None:
    _, out = _journal()
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("t").exception("broken")
    assert all(line.startswith("<3>") for line in out.getvalue().splitlines())


def test_terminal_gets_plain_lines() -> None:
    err = Terminal()
    logs.configure_logging("x", environ={}, stderr=err)
    logging.getLogger("t").warning("hello")
    assert err.getvalue() == "hello\n"


def test_watched_program_writes_to_standard_error_although_it_is_no_terminal() -> None:
    err = io.StringIO()
    logs.configure_logging("x", environ={}, stderr=err, watched=True)
    logging.getLogger("test").warning("here")
    assert err.getvalue() == "here\n"


def test_fifty_equal_errors_are_two_lines_and_the_second_counts() -> None:
    sink, out = _journal()
    for _ in range(50):
        logging.getLogger("t").error("same")
    sink.flush(everything=True)
    assert out.getvalue().splitlines() == ["<3>same", "<3>same (repeated 49 times)"]


def test_message_is_written_again_after_its_minute(clock: list[float]) -> None:
    repeats = logs.RepeatFilter(clock=lambda: clock[0])
    record = logging.LogRecord("t", logging.ERROR, "", 0, "same", (), None)
    assert repeats.filter(record)
    assert not repeats.filter(record)
    clock[0] = logs.REPEAT_WINDOW + 1
    assert repeats.filter(record)


def test_memory_for_repeats_is_bounded(clock: list[float]) -> None:
    repeats = logs.RepeatFilter(clock=lambda: clock[0])
    for number in range(10_000):
        repeats.filter(logging.LogRecord("t", logging.ERROR, "", 0, str(number), (), None))
    assert len(repeats._seen) <= 256


@pytest.mark.parametrize(
    "text",
    [
        f"ada:ssh-ed25519 {KEY} ada",
        f"Authorization: Bearer {KEY[:20]}",
        f'{{"access_token":"{KEY[:20]}","expires_in":1}}',
        f"https://storage.example/b/o?X-Goog-Signature={KEY[:20]}",
        f"modulus: {KEY[:20]}",
        f"unknown answer {KEY}",
    ],
)
def test_secrets_never_reach_the_sink(text: str) -> None:
    _, out = _journal()
    logging.getLogger("t").error("%s", text)
    assert KEY[:20] not in out.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "remove /var/lib/google-guest-agent/a/rather/long/path/to/some/file/of/the/guest/agent",
        "user ada: useradd failed with status 9: group ada exists",
        "2001:db8:f::/96 dev ens4",
        "instance/guest-attributes/hostkeys/ecdsa-sha2-nistp256 forbidden",
        "https://storage.example/b/o",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert logs.redact(text) == text


@given(st.text(max_size=200))
def test_redaction_never_fails_and_is_stable(text: str) -> None:
    once = logs.redact(text)
    assert logs.redact(once) == once


@pytest.mark.parametrize(
    ("number", "level"),
    [(1, logging.ERROR), (2, logging.WARNING), (3, logging.INFO), (4, logging.DEBUG),
     (0, logging.INFO), (9, logging.INFO)],
)  # fmt: skip
def test_unknown_log_level_means_info(number: int, level: int) -> None:
    assert logs.level_of(number) == level
