"""JSON as Go reads and writes it: strictness, keys in any case, escapes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from googet.gojson import JsonError, dumps, fold_keys, load


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"null", None),
        (b' {"a": [1, 2.5, true, "x"]} \r\n', {"a": [1, 2.5, True, "x"]}),
        ('"ü"'.encode(), "ü"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\ud83dx"', "\ufffdx"),
        (b'"\\ude00\\ud83d"', "\ufffd\ufffd"),
        (b'"\\\\ud83d"', "\\ud83d"),
        (b'"\\uD83D\\uD83D\\uDE00"', "\ufffd\U0001f600"),
        (b'"\xff"', "\ufffd"),
        ('"\ud800"', "\ufffd"),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"-0", 0),
    ],
)
def test_value_is_read(data: Any, value: Any) -> None:
    assert load(data) == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "line 1"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("\ufeff{}", "byte order mark"),
        ("{}".encode("utf-16"), "UTF-16"),
        ("{}".encode("utf-16-be"), "UTF-16"),
        (b'{"a": 1,}', "line 1"),
        (b'{\n// no\n"a": 1}', "line 2"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e999]", "too large"),
        (b"[01]", "line 1"),
        (b"{'a': 1}", "line 1"),
        (b'"a\nb"', "control character"),
        (b"{} {}", "extra data"),
        (b"[" * 100_000, "deeply"),
        (b"9" * 5000, "5000 digits"),
        (b'"\xff\n', "line 1"),
    ],
)
def test_what_go_refuses_is_refused(data: Any, reason: str) -> None:
    with pytest.raises(JsonError, match=reason):
        load(data)


def test_error_knows_its_place() -> None:
    with pytest.raises(JsonError) as caught:
        load('{\n "a" 1}')
    assert (caught.value.line, caught.value.column) == (2, 6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"NAME": 1, "verSION": 2, "other": 3}', {"Name": 1, "Version": 2, "other": 3}),
        ('{"name": 1, "Name": 2}', {"Name": 2}),
        ('{"Name": 2, "name": 1}', {"Name": 1}),
        ('{"name": 1, "NAME": 2, "name": 3}', {"Name": 3}),
        ('{"ver\u017fion": 1}', {"Version": 1}),
        ('{"nam": 1}', {"nam": 1}),
    ],
)
def test_last_of_equal_keys_in_any_case_stands(text: str, expected: dict[str, int]) -> None:
    assert fold_keys(load(text), ("Name", "Version")) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None]}, '{"b":1,"a":[true,null]}'),
        ("<a> & b", '"\\u003ca\\u003e \\u0026 b"'),
        ("\u2028\u2029", '"\\u2028\\u2029"'),
        ("ü\U0001f600", '"ü\U0001f600"'),
        ("\n\t\x01", '"\\n\\t\\u0001"'),
        ("\ud800", '"\ufffd"'),
        ({}, "{}"),
    ],
)
def test_text_is_compact_and_escaped(value: Any, text: str) -> None:
    assert dumps(value) == text


def test_indented_text_has_one_value_a_line() -> None:
    expected = '{\n  "a": [\n    1\n  ],\n  "b": {},\n  "c": []\n}'
    assert dumps({"a": [1], "b": {}, "c": []}, indent=2) == expected


_SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text()
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


@given(_VALUES)
def test_written_value_reads_back(value: Any) -> None:
    assert load(dumps(value)) == value
    assert load(dumps(value, indent=2).encode()) == value


@given(_VALUES)
def test_any_json_of_others_is_read(value: Any) -> None:
    assert load(json.dumps(value)) == value


@given(st.binary() | st.text('{}[]",:\\ud8e0 1-.e\n').map(str.encode))
@example(b'{"a":' * 3000)
@example(b'"\\u')
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        load(data)
    except JsonError:
        pass
