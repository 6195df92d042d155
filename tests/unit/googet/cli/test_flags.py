"""Command lines as Go's flag package takes them apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet.cli.flags import Flags, HelpRequested, UsageError


def flags() -> Flags:
    known = Flags("program [flags] [arguments]")
    known.boolean("b", "a boolean")
    known.boolean("on", "another boolean", default=True)
    known.string("s", "a text", default="x")
    known.integer("n", "a number", default=7)
    known.duration("d", "a duration", default="1h30m")
    return known


def values(*arguments: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The values that differ from the defaults, and the positional arguments."""
    parsed = flags().parse(arguments)
    defaults = flags().parse([]).values
    changed = {name: value for name, value in parsed.values.items() if value != defaults[name]}
    return changed, parsed.positionals


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ({}, ())),
        (["-b"], ({"b": True}, ())),
        (["--b"], ({"b": True}, ())),
        (["-b", "-on=false"], ({"b": True, "on": False}, ())),
        (["-b", "false"], ({"b": True}, ("false",))),
        (["-s", "v", "a", "b"], ({"s": "v"}, ("a", "b"))),
        (["--s=v=w", "a"], ({"s": "v=w"}, ("a",))),
        (["-s="], ({"s": ""}, ())),
        (["-s", "-b"], ({"s": "-b"}, ())),
        (["-s", "--"], ({"s": "--"}, ())),
        (["-s", "1", "-s", "2"], ({"s": "2"}, ())),
        (["-n", "-5"], ({"n": -5}, ())),
        (["-n=0x10"], ({"n": 16}, ())),
        (["-n=010"], ({"n": 8}, ())),
        (["-n=0o17"], ({"n": 15}, ())),
        (["-n=9223372036854775807"], ({"n": 2**63 - 1}, ())),
        (["-d", "1m"], ({"d": 60.0}, ())),
        (["-"], ({}, ("-",))),
        (["a", "-"], ({}, ("a", "-"))),
        (["--", "-b"], ({}, ("-b",))),
        (["-b", "--", "--"], ({"b": True}, ("--",))),
        (["a", "--", "-b"], ({}, ("a", "-b"))),
        ([""], ({}, ("",))),
    ],
)
def test_command_line_is_taken_apart(
    arguments: list[str], expected: tuple[dict[str, Any], tuple[str, ...]]
) -> None:
    assert values(*arguments) == expected


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_boolean_is_true(text: str) -> None:
    assert flags().parse([f"-b={text}"]).flag("b")


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False"])
def test_boolean_is_false(text: str) -> None:
    assert not flags().parse([f"-on={text}"]).flag("on")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-z"], "flag -z is not known"),
        (["-z=1"], "flag -z is not known"),
        (["-s"], "flag -s needs a value"),
        (["-b=yes"], "flag -b: 'yes' is neither true nor false"),
        (["-b="], "flag -b: '' is neither"),
        (["-b=tRUE"], "neither true nor false"),
        (["-n", "x"], "flag -n: 'x' is not an integer"),
        (["-n", "1.0"], "not an integer"),
        (["-n", " 1"], "not an integer"),
        (["-n", "9223372036854775808"], "not an integer"),
        (["-n", "08"], "not an integer"),
        (["-d", "1"], "flag -d: '1' is not a duration"),
        (["---b"], "---b is neither a flag nor an argument"),
        (["-=x"], "-=x is neither"),
        (["--=x"], "--=x is neither"),
        (["a", "-b"], "flag -b comes after 'a'; put flags before the first argument, or --"),
        (["a", "b", "--s=x"], "flag --s=x comes after 'b'"),
        (["a", "-unknown"], "flag -unknown comes after 'a'"),
    ],
)
def test_wrong_command_line_is_told(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        flags().parse(arguments)


@pytest.mark.parametrize("argument", ["-h", "--h", "-help", "--help"])
def test_help_is_asked_for(argument: str) -> None:
    with pytest.raises(HelpRequested):
        flags().parse(["-b", argument])


def test_flag_called_help_is_a_flag() -> None:
    known = flags()
    known.boolean("help", "not the usual one")
    assert known.parse(["-help"]).flag("help")


def test_arguments_of_a_command_are_left_to_it() -> None:
    parsed = flags().parse(["-b", "install", "-reinstall", "--", "x"], has_command=True)
    assert parsed.positionals == ("install", "-reinstall", "--", "x")


def test_given_flags_are_known_even_with_their_default() -> None:
    parsed = flags().parse(["-s", "x", "-on"])
    assert parsed.given == {"s", "on"}


def test_values_have_their_types() -> None:
    parsed = flags().parse([])
    assert (parsed.text("s"), parsed.integer("n"), parsed.seconds("d")) == ("x", 7, 5400.0)


def test_usage_lists_the_flags_by_name() -> None:
    assert flags().usage() == (
        "Usage: program [flags] [arguments]\n"
        "  -b\n    \ta boolean\n"
        "  -d duration\n    \ta duration (default 5400s)\n"
        "  -n int\n    \ta number (default 7)\n"
        "  -on\n    \tanother boolean (default true)\n"
        '  -s string\n    \ta text (default "x")\n'
    )


def test_flag_cannot_be_declared_twice() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        flags().boolean("b", "again")


@given(
    st.lists(st.sampled_from(["-b", "-s", "-n=1", "--", "-", "a", "-z", "=", "-s=x"]) | st.text())
)
def test_any_command_line_is_taken_apart_or_refused(arguments: list[str]) -> None:
    for has_command in (False, True):
        try:
            flags().parse(arguments, has_command=has_command)
        except (UsageError, HelpRequested):
            pass
