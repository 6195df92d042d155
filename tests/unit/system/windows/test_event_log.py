"""The event log: identifier, types, texts."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.system.windows.event_log import (
    ERROR,
    EVENT_ID,
    INFORMATION,
    LONGEST_TEXT,
    WARNING,
    entry_text,
    event_type,
)


def test_identifier_is_that_of_the_reference() -> None:
    assert EVENT_ID == 882


@pytest.mark.parametrize(
    ("level", "kind"),
    [
        (logging.DEBUG, INFORMATION),
        (logging.INFO, INFORMATION),
        (logging.WARNING, WARNING),
        (logging.ERROR, ERROR),
        (logging.CRITICAL, ERROR),
    ],
)
def test_level_decides_the_type(level: int, kind: int) -> None:
    assert event_type(level) == kind


@given(st.text(alphabet=st.characters(), max_size=100), st.integers(0, LONGEST_TEXT))
def test_text_always_fits(text: str, more: int) -> None:
    fitted = entry_text(text + "\U0001f600" * more)
    assert len(fitted.encode("utf-16-le")) <= 2 * LONGEST_TEXT
    assert "\0" not in fitted


def test_long_text_is_cut_between_characters() -> None:
    assert entry_text("x" + "\U0001f600" * LONGEST_TEXT) == "x" + "\U0001f600" * (LONGEST_TEXT // 2)


def test_ordinary_text_is_left_alone() -> None:
    assert entry_text("GCE agent: größer\nsecond line") == "GCE agent: größer\nsecond line"
