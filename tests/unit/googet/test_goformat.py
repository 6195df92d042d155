"""Values as Go prints them; the expectations were printed by Go."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet.goformat import FormatError, quoted, shown, sprint, sprintf, sprintln


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", "a b"),
        (True, "true"),
        (-3, "-3"),
        (0.0, "0"),
        (-0.0, "-0"),
        (1.5, "1.5"),
        (2.0, "2"),
        (100000.0, "100000"),
        (1e6, "1e+06"),
        (123456789.0, "1.23456789e+08"),
        (1e21, "1e+21"),
        (1e100, "1e+100"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (1.25e-7, "1.25e-07"),
        ({"b": "2", "a": "x y"}, "map[a:x y b:2]"),
        ({}, "map[]"),
    ],
)
def test_value_is_shown_as_go_does(value: Any, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((), ""),
        (("a", "b"), "ab"),
        ((1, 2), "1 2"),
        ((1, "a", 2), "1a2"),
        ((True, 1.5), "true 1.5"),
    ],
)
def test_print_puts_spaces_between_what_is_no_string(values: tuple[Any, ...], text: str) -> None:
    assert sprint(values) == text


def test_println_puts_spaces_between_all() -> None:
    assert sprintln(("a", 1, "b")) == "a 1 b\n"
    assert sprintln(()) == "\n"


@pytest.mark.parametrize(
    ("form", "values", "text"),
    [
        ("%s.0+win@1", ("20260102.00",), "20260102.00.0+win@1"),
        ("%v-%v", ("a", 1), "a-1"),
        ("100%%", (), "100%"),
        ("%q", ('a"b\\\n\x01\u00e9\u200b',), '"a\\"b\\\\\\n\\x01é\\u200b"'),
        ("%5s|%-5s|%05d", ("ab", "ab", -42), "   ab|ab   |-0042"),
        ("%.2s", ("abc",), "ab"),
        ("%x %X", ("aü", "k"), "61c3bc 6B"),
        ("%d %+d % d %b %o %x %X %c", (1, 1, 1, 5, 8, 255, 255, 65), "1 +1  1 101 10 ff FF A"),
        ("%t", (True,), "true"),
        ("%f %.2f %e %g %G", (1.5, 1.255, 1.5, 1e6, 1e6), "1.500000 1.25 1.500000e+00 1e+06 1E+06"),
        ("%05.1f", (-1.25,), "-01.2"),
        ("%.3v", (7,), "007"),
        ("%v", ({"a": "b"},), "map[a:b]"),
    ],
)
def test_format_is_filled(form: str, values: tuple[Any, ...], text: str) -> None:
    assert sprintf(form, values) == text


@pytest.mark.parametrize(
    ("form", "values", "message"),
    [
        ("%d", ("1",), "%d does not print a string"),
        ("%s", (1,), "%s does not print an integer"),
        ("%t", (1,), "%t does not print an integer"),
        ("%x", (True,), "%x does not print a boolean"),
        ("%z", ("a",), "%z does not print a string"),
        ("%5v", ({},), "does not print a map"),
        ("%#x", (1,), "not supported"),
        ("%c", (-1,), "%c does not print"),
        ("%s", (), "more directives than values"),
        ("x", ("a",), "fewer directives than values"),
        ("%", ("a",), "ends within a directive"),
        ("%99999999999d", (1,), "more than 10000 characters"),
        ("%.99999d", (1,), "more than 10000 characters"),
        ("%[1]s", ("a",), "does not print"),
        ("%*d", (1, 2), "does not print"),
    ],
)
def test_format_that_does_not_fit_is_refused(
    form: str, values: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        sprintf(form, values)


def test_quoted_text_escapes_what_is_not_printable() -> None:
    assert quoted("\U000e0001") == '"\\U000e0001"'


_VALUES = st.one_of(
    st.text(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
)


@given(st.text("%sdvqxft+-# 0.129zab"), st.lists(_VALUES, max_size=3))
def test_any_format_is_filled_or_refused(form: str, values: list[Any]) -> None:
    try:
        sprintf(form, values)
    except FormatError:
        pass


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_shown_number_reads_back(number: float) -> None:
    assert float(shown(number)) == number
