"""Booleans as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.booleans import parse_boolean


@pytest.mark.parametrize(
    ("value", "expected"),
    [(word, True) for word in ("true", " TRUE\n", "t", "1", "Yes", "y", "on", True, 1)]
    + [(word, False) for word in ("false", "False ", "f", "0", "no", "N", "off", False, 0)]
    + [(word, None) for word in ("", "maybe", "2", "truee", None, 2, 1.0, [], {})],
)
def test_words(value: object, expected: object) -> None:
    assert parse_boolean(value) is expected


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.integers())))
def test_nothing_raises(value: object) -> None:
    assert parse_boolean(value) in (True, False, None)
