"""Marked blocks: what is taken out, and what survives damage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.features.linux.oslogin.blocks import (
    END,
    OLD_MARKER,
    START,
    block,
    ended,
    without_blocks,
)


def removed(*lines: str) -> list[str]:
    text = "".join(f"{line}\n" for line in lines)
    return without_blocks(text, lambda line: line == "ours").splitlines()


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["a", OLD_MARKER, "x", "b", START, "y", "z", END, "c"], ["a", "b", "c"]),
        (["a", END, "b"], ["a", "b"]),
        ([START, "x", END, "b"], ["b"]),
        ([START, "x", START, "y", END, "l3", END, "l4"], ["l3", "l4"]),
        ([END, START, "x", "y", OLD_MARKER, END, "l3"], ["l3"]),
        (["a", START, END], ["a"]),
        ([START, END, "a"], ["a"]),
        ([], []),
        (["a", f"  {START}  ", "x", f"\t{END}", "b"], ["a", "b"]),
        (["a", OLD_MARKER], ["a"]),
    ],
)
def test_removal(lines: list[str], left: list[str]) -> None:
    assert removed(*lines) == left


def test_without_an_end_only_our_lines_go() -> None:
    assert removed("a", START, "ours", "ours", "theirs", "ours") == ["a", "theirs", "ours"]


def test_a_header_that_lost_its_end_leaves_the_lines_before_the_footer() -> None:
    assert removed(START, "ours", "a", "b", START, "ours", END, "c") == ["a", "b", "c"]
    assert removed(START, START, "ours", END, "c") == ["c"]


def test_no_lines_make_no_marks() -> None:
    assert block([]) == ""


plain = st.text(st.characters(blacklist_characters="\r\x0b\x0c\x1c\x1d\x1e\x85")).filter(
    lambda text: START not in text and END not in text and OLD_MARKER not in text
)


@given(plain)
def test_what_has_no_marks_is_left_as_it_is(text: str) -> None:
    assert without_blocks(text, lambda line: True) == text


@given(plain)
def test_a_block_comes_out_without_a_trace(text: str) -> None:
    whole = block(["ours"]) + ended(text) + block(["ours"])
    assert without_blocks(whole, lambda line: True) == ended(text)


@given(st.lists(st.sampled_from([START, END, OLD_MARKER, "ours", "theirs", ""])))
def test_removal_is_finished_at_once(lines: list[str]) -> None:
    text = "\n".join(lines)
    once = without_blocks(text, lambda line: line == "ours")
    assert START not in once and END not in once
    assert without_blocks(once, lambda line: line == "ours") == once
