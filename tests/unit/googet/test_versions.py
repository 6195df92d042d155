"""Package versions: the reference's tables, the order, and texts that are none."""

from __future__ import annotations

import functools
import logging

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from googet.versions import (
    Version,
    VersionError,
    compare_priority_versions,
    compare_versions,
    parse_version,
    sorted_versions,
)


@pytest.mark.parametrize(
    ("text", "semver", "release"),
    [
        ("1.2.3@4", "1.2.3", 4),
        ("1.2.3", "1.2.3", 0),
        ("1.02.3", "1.2.3", 0),
        ("1.2@7", "0.1.2", 7),
        ("1.2.0", "1.2.0", 0),
        ("1.2.3+1", "1.2.3+1", 0),
        ("1.2.03-1", "1.2.3-1", 0),
        ("1.2.3+4@5", "1.2.3+4", 5),
        ("", "0.0.0", 0),
        ("0", "0.0.0", 0),
        (".", "0.0.0", 0),
        ("..", "0.0.0", 0),
        ("000.000.000", "0.0.0", 0),
        ("@5", "0.0.0", 5),
        ("1..3", "1.0.3", 0),
        ("1.2.", "1.2.0", 0),
        ("1.2-3", "0.1.2-3", 0),
        ("-1", "0.0.0-1", 0),
        ("1.2.3-0a", "1.2.3-0a", 0),
        ("1.2.3+a-b", "1.2.3+a-b", 0),
        ("1.2.3-a+b", "1.2.3-a+b", 0),
        ("1.2.3@-4", "1.2.3", -4),
        ("1.2.3@+4", "1.2.3", 4),
        ("1.2.3@007", "1.2.3", 7),
        ("1.2.3+win@1", "1.2.3+win", 1),
        ("20241209.00@1", "0.20241209.0", 1),
        ("20241209.01.0@1", "20241209.1.0", 1),
        ("18446744073709551615.0.0", "18446744073709551615.0.0", 0),
        ("1.2.3@9223372036854775807", "1.2.3", 9223372036854775807),
        ("1.2.3@-9223372036854775808", "1.2.3", -9223372036854775808),
        ("1.2.3-0.a.0", "1.2.3-0.a.0", 0),
        ("1.2.3+00.01", "1.2.3+00.01", 0),
        ("0" * 5000 + "1.2.3@" + "0" * 5000 + "4", "1.2.3", 4),
    ],
)
def test_version_is_repaired_from_the_left(text: str, semver: str, release: int) -> None:
    version = parse_version(text)
    assert (version.semver, version.release) == (semver, release)


@pytest.mark.parametrize(
    "text",
    [
        "1.2.d3@4",
        "1.2.3@4d",
        "1.2.3.4@4",
        "1.2.3:4d",
        "1.2.3h@4",
        "1.2a.3",
        "v1.2.3",
        " 1.2.3",
        "1.2.3 ",
        "1.2.3@",
        "1.2.3@4@5",
        "1.2.3@ 4",
        "1.2.3@1_0",
        "1.2.3@4\n",
        "1.2.3\n",
        "1.2.3-",
        "1.2.3+",
        "1.2.3-a..b",
        "1.2.3-01",
        "1.2.3-a_b",
        "1.2.3-a+b+c",
        "1.2.3-18446744073709551616",
        "18446744073709551616.0.0",
        "1.2.3@9223372036854775808",
        "1.2.3@-9223372036854775809",
        "1.2.٣",
        "1.2.3@٣",
        "1.2.3-é",
        "9" * 5000,
        "1.2.3@" + "9" * 5000,
    ],
)
def test_text_that_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(VersionError, match=r"(?s)invalid version"):
        parse_version(text)


def test_refusal_names_the_text() -> None:
    with pytest.raises(VersionError, match=r"'1\.2\.x'"):
        parse_version("1.2.x")


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ("1.2.3@1", "1.2.3@2", -1),
        ("1.2.4@1", "1.2.3@2", 1),
        ("1.2.3", "1.2.3", 0),
        ("1", "0.0.1", 0),
        ("1.0", "1.0.0", -1),
        ("1.0", "0.1.0", 0),
        ("1.2.3-1@9", "1.2.3@0", -1),
        ("1.2.3-2", "1.2.3-10", -1),
        ("1.2.3-a", "1.2.3-1", 1),
        ("1.2.3@-1", "1.2.3", -1),
        ("1.2.3-alpha", "1.2.3-alpha.1", -1),
        ("1.2.3-A", "1.2.3-a", -1),
        ("1.2.3+1", "1.2.3+2", 0),
        ("1.2.3+1@1", "1.2.3@2", -1),
        ("1.10.0", "1.9.0", 1),
        ("20240101.00", "1.0.0", -1),
        ("20240101.00", "20240101.00.0", -1),
        ("1.2.3-a+1", "1.2.3-a+2", 0),
        ("1.2.3-10", "1.2.3-a", -1),
        ("1.2.3--", "1.2.3-0", 1),
    ],
)
def test_order_of_two_versions(a: str, b: str, result: int) -> None:
    assert (compare_versions(a, b), compare_versions(b, a)) == (result, -result)


@pytest.mark.parametrize(("a", "b"), [("1.2a.3", "1.2.3"), ("1.2.3", "1.2a.3")])
def test_no_version_has_no_place_in_the_order(a: str, b: str) -> None:
    with pytest.raises(VersionError):
        compare_versions(a, b)


_PAIRS = [
    ("1.2.3@1", "1.2.3@2", -1),
    ("1.2.3@1", "1.2.4@2", -1),
    ("1.2.4@1", "1.2.3@2", 1),
    ("1.2.3@1", "1.2.3@1", 0),
]


@pytest.mark.parametrize(("a", "b", "result"), _PAIRS)
def test_equal_priorities_leave_it_to_the_versions(a: str, b: str, result: int) -> None:
    assert compare_priority_versions(500, a, 500, b) == result


@pytest.mark.parametrize(("a", "b", "_"), _PAIRS)
def test_higher_priority_wins_over_any_version(a: str, b: str, _: int) -> None:
    assert compare_priority_versions(500, a, 1000, b) == -1
    assert compare_priority_versions(1000, a, 500, b) == 1


def test_sorting_drops_what_is_no_version(caplog: pytest.LogCaptureFixture) -> None:
    given = ["1.2.3@4", "1.5.0", "1.0.0", "1.0", "1.2.A", "1.2.3@1"]
    with caplog.at_level(logging.WARNING):
        assert sorted_versions(given) == ["1.0", "1.0.0", "1.2.3@1", "1.2.3@4", "1.5.0"]
    assert "'1.2.A'" in caplog.text


def test_text_of_a_version_has_its_release() -> None:
    assert str(Version(1, 2, 3, ("a", "1"), ("b",))) == "1.2.3-a.1+b@0"


_NUMBERS = st.integers(0, 3) | st.integers(0, 2**64 - 1)
_WORDS = st.text("ab-A01", min_size=1, max_size=3).filter(lambda word: not word.isdigit())
_IDENTIFIERS = st.one_of(st.integers(0, 20).map(str), _WORDS)
_VERSIONS = st.builds(
    Version,
    _NUMBERS,
    _NUMBERS,
    _NUMBERS,
    st.lists(_IDENTIFIERS, max_size=3).map(tuple),
    st.lists(_WORDS, max_size=2).map(tuple),
    st.integers(-2, 2) | st.integers(-(2**63), 2**63 - 1),
)


def _ordered(a: Version, b: Version) -> int:
    """The order as the specification tells it, step by step."""
    for mine, other in ((a.major, b.major), (a.minor, b.minor), (a.patch, b.patch)):
        if mine != other:
            return 1 if mine > other else -1
    if bool(a.prerelease) != bool(b.prerelease):
        return -1 if a.prerelease else 1
    for mine, other in zip(a.prerelease, b.prerelease):
        if mine == other:
            continue
        if mine.isdigit() and other.isdigit():
            return 1 if int(mine) > int(other) else -1
        if mine.isdigit() or other.isdigit():
            return -1 if mine.isdigit() else 1
        return 1 if mine.encode() > other.encode() else -1
    if len(a.prerelease) != len(b.prerelease):
        return 1 if len(a.prerelease) > len(b.prerelease) else -1
    return (a.release > b.release) - (a.release < b.release)


@given(_VERSIONS, _VERSIONS)
def test_order_is_that_of_the_specification(a: Version, b: Version) -> None:
    assert compare_versions(str(a), str(b)) == _ordered(a, b)


@given(_VERSIONS)
def test_written_version_reads_back(version: Version) -> None:
    assert parse_version(str(version)) == version


@given(st.lists(_VERSIONS.map(str), max_size=6))
def test_order_is_total(texts: list[str]) -> None:
    expected = sorted(texts, key=functools.cmp_to_key(compare_versions))
    assert sorted_versions(texts) == expected
    assert [compare_versions(text, text) for text in texts] == [0] * len(texts)


@given(st.text() | st.text("0123456789.-+@ a"))
@example("0" * 10000)
@example("\ud800")
def test_any_text_is_a_version_or_refused(text: str) -> None:
    try:
        version = parse_version(text)
    except VersionError:
        return
    assert parse_version(str(version)) == version
