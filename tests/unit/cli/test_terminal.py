"""Text for people and for pipes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.cli.terminal import GREEN, Terminal, ago, printable

ROWS = [("accounts", "on"), ("forwarded-addresses", "off")]


def _written(*, is_terminal: bool) -> str:
    stream = io.StringIO()
    Terminal(stream, is_terminal=is_terminal).table(("FEATURE", "STATE"), ROWS)
    return stream.getvalue()


def test_pipe_gets_tabs_and_no_escapes() -> None:
    assert _written(is_terminal=False) == "accounts\ton\nforwarded-addresses\toff\n"


def test_terminal_gets_aligned_columns_and_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = _written(is_terminal=True).splitlines()
    assert lines[0].startswith("\x1b[1mFEATURE")
    assert lines[1].index("on") == lines[2].index("off")


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    terminal = Terminal(stream, is_terminal=True)
    terminal.line(terminal.paint("x", GREEN))
    assert stream.getvalue() == "x\n"


@given(st.text())
def test_no_content_drives_the_terminal(text: str) -> None:
    assert all(char.isprintable() or char in "\t�" for char in printable(text))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_distance_in_time_is_in_one_unit(seconds: float, text: str) -> None:
    assert ago(1_000_000.0, now=1_000_000.0 + seconds) == text


def test_never() -> None:
    assert ago(None) == "never"
