from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.goo_machine import make_spec

from googet.cli.info import WIDTH, describe, short_repository, wrap


def test_labels_are_padded_to_one_column() -> None:
    lines = describe(make_spec("foo", "1.2.3@4", source="https://h/x"), "installed")
    assert lines == [
        "Name         : foo",
        "Arch         : noarch",
        "Version      : 1.2.3@4",
        "Repo         : installed",
        "Authors      : ",
        "Owners       : ",
        "Source       : https://h/x",
        "Description  : ",
        "Dependencies : None",
        "ReleaseNotes : ",
    ]


def test_dependencies_are_sorted_one_a_line() -> None:
    spec = make_spec("foo", dependencies={"b": "2", "a": "", "c.x86_64": "1.0.0"})
    assert describe(spec, "r")[8:11] == [
        "Dependencies : a",
        "             : b 2",
        "             : c.x86_64 1.0.0",
    ]


def test_three_notes_are_three_lines() -> None:
    spec = make_spec("foo", release_notes=("one", "two", "three"))
    assert describe(spec, "r")[-3:] == [
        "ReleaseNotes : one",
        "             : two",
        "             : three",
    ]


def test_long_description_is_broken_into_even_lines() -> None:
    text = (
        "This package has a description that is one hundred characters in length and will"
        " end in two lines."
    )
    lines = wrap(text)
    assert " ".join(lines) == text
    assert len(lines) == 2
    assert all(len(line) <= WIDTH for line in lines)


def test_raggedness_beats_filling_every_line() -> None:
    # Greedily the second line would be "bb cc" with "ddddd" alone and far too short a line before.
    assert wrap("aaa bb cc ddddd", 6) == ["aaa", "bb cc", "ddddd"]


def test_own_line_breaks_stay() -> None:
    assert wrap("one\n\ntwo words", 64) == ["one", "", "two words"]


@pytest.mark.parametrize("text", ["", "   "])
def test_nothing_is_one_empty_line(text: str) -> None:
    assert wrap(text) == [""]


def test_word_longer_than_a_line_has_one_to_itself() -> None:
    assert wrap(f"a {'x' * 10} b", 4) == ["a", "x" * 10, "b"]


@given(st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, max_size=9))
def test_no_other_breaking_is_less_ragged(words: list[str]) -> None:
    width = 8
    lines = wrap(" ".join(words), width)
    assert " ".join(lines).split() == words
    assert all(len(line) <= width for line in lines)
    assert _raggedness(lines, width) == min(
        _raggedness(broken, width) for broken in _all_breakings(words, width)
    )


def _raggedness(lines: list[str], width: int) -> int:
    return sum((width - len(line)) ** 2 for line in lines[:-1])


def _all_breakings(words: list[str], width: int) -> list[list[str]]:
    found = []
    for count in range(len(words)):
        for cuts in combinations(range(1, len(words)), count):
            ends = [0, *cuts, len(words)]
            lines = [" ".join(words[a:b]) for a, b in zip(ends, ends[1:])]
            if all(len(line) <= width for line in lines):
                found.append(lines)
    return found


@pytest.mark.parametrize(
    ("url", "short"),
    [
        ("https://h/repos/stable", "stable"),
        ("https://h/repos/stable/", "stable"),
        ("gs://bucket", "bucket"),
        ("C:\\repos\\mine", "mine"),
    ],
)
def test_repository_is_shown_by_its_last_component(url: str, short: str) -> None:
    assert short_repository(url) == short
