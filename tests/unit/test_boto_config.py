"""boto's configuration: merged line by line, read back by the parser that boto itself uses."""

from __future__ import annotations

import configparser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.boto_config import BotoSetting, merge_boto, parse_boto

PROJECT = BotoSetting("GSUtil", "default_project_id", "sample-proj")

names = st.text(alphabet="abcXYZ_019", min_size=1, max_size=8)
values = st.text(alphabet="abc /:;#=[]%-", max_size=12).map(str.strip)
settings_lists = st.lists(st.builds(BotoSetting, names, names, values), max_size=6).map(tuple)
lines = st.one_of(
    st.builds("[{}]".format, names),
    st.builds("{} = {}".format, names, values),
    st.builds("{}:{}".format, names, values),
    st.builds("# {}".format, values),
    st.builds("  {}".format, names),
    st.just(""),
)
texts = st.lists(lines, max_size=12).map("\n".join)


def parsed(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, empty_lines_in_values=False)
    parser.read_string(text)
    return parser


def test_empty_file_gets_the_section() -> None:
    assert merge_boto("", (PROJECT,)) == "[GSUtil]\ndefault_project_id = sample-proj\n"


def test_value_is_replaced_in_its_line() -> None:
    text = "[GSUtil]\n# project\nDefault_Project_Id: other\nx = 1\n"
    assert merge_boto(text, (PROJECT,)) == (
        "[GSUtil]\n# project\ndefault_project_id = sample-proj\nx = 1\n"
    )


def test_equal_value_is_left_as_it_is_written() -> None:
    text = "[GSUtil]\nDEFAULT_PROJECT_ID:sample-proj\n"
    assert merge_boto(text, (PROJECT,)) == text


def test_value_of_several_lines_is_replaced_as_a_whole() -> None:
    text = "[GSUtil]\ndefault_project_id = a\n  b\n\tc\nx = 1\n"
    assert merge_boto(text, (PROJECT,)) == ("[GSUtil]\ndefault_project_id = sample-proj\nx = 1\n")


def test_new_key_goes_to_the_end_of_its_section() -> None:
    text = "[GSUtil]\nx = 1\n\n[Boto]\ny = 2\n"
    assert merge_boto(text, (PROJECT,)) == (
        "[GSUtil]\nx = 1\ndefault_project_id = sample-proj\n\n[Boto]\ny = 2\n"
    )


def test_key_of_another_section_is_not_touched() -> None:
    text = "[Other]\ndefault_project_id = a\n"
    assert merge_boto(text, (PROJECT,)).startswith(text)


def test_last_duplicate_is_the_one_in_force() -> None:
    text = "[GSUtil]\ndefault_project_id = a\ndefault_project_id = b\n"
    merged = merge_boto(text, (PROJECT,))
    assert parsed(merged)["GSUtil"]["default_project_id"] == "sample-proj"


def test_settings_of_a_file_are_read_with_their_further_lines() -> None:
    text = "stray = 1\n[A]\nb = 1\n  2\n# c = 3\n; d = 4\ne: 5\nnothing\n"
    assert parse_boto(text) == (BotoSetting("A", "b", "1\n  2"), BotoSetting("A", "e", "5"))


@pytest.mark.parametrize("text", ["no section", "# only a comment\n", "[]\nx = 1\n", "\ufeff\n"])
def test_text_without_sections_is_kept(text: str) -> None:
    assert merge_boto(text, (PROJECT,)).startswith(text.rstrip("\n"))


@given(texts, settings_lists)
def test_merging_twice_changes_nothing(text: str, settings: tuple[BotoSetting, ...]) -> None:
    # Of several settings of one key only the last can be in force afterwards.
    unique = {(item.section, item.key.lower()): item for item in settings}
    wanted = tuple(unique.values())
    once = merge_boto(text, wanted)
    assert merge_boto(once, wanted) == once


@given(texts, settings_lists)
def test_comments_and_foreign_lines_stay(text: str, settings: tuple[BotoSetting, ...]) -> None:
    merged = merge_boto(text, settings).split("\n")
    for line in text.split("\n"):
        if line.startswith(("#", "[")):
            assert line in merged


@given(settings_lists, settings_lists)
def test_merged_settings_are_in_force_for_boto(
    before: tuple[BotoSetting, ...], settings: tuple[BotoSetting, ...]
) -> None:
    merged = parsed(merge_boto(merge_boto("", before), settings))
    last = {(item.section, item.key.lower()): item.value for item in settings}
    for (section, key), value in last.items():
        assert merged[section][key] == value


@given(st.text(), settings_lists)
def test_any_text_is_merged(text: str, settings: tuple[BotoSetting, ...]) -> None:
    assert isinstance(merge_boto(text, settings), str)
