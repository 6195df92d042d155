"""Command lines of Windows, made and taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet.host.quoting import powershell_text, quote_arguments, split_arguments


def parsed_by_the_c_runtime(line: str) -> list[str]:
    """Take ``line`` apart as the documentation of the C runtime says, in its own words.

    2n backslashes before a quote are n backslashes and a quote that opens or closes; 2n+1 are n
    backslashes and a literal quote; others are themselves. Two quotes inside quotes are one.
    """
    arguments = []
    position = 0
    while True:
        while position < len(line) and line[position] in " \t":
            position += 1
        if position >= len(line):
            return arguments
        argument, quoted = "", False
        while position < len(line) and (quoted or line[position] not in " \t"):
            backslashes = 0
            while position < len(line) and line[position] == "\\":
                backslashes += 1
                position += 1
            if position < len(line) and line[position] == '"':
                argument += "\\" * (backslashes // 2)
                if backslashes % 2:
                    argument += '"'
                elif quoted and line[position + 1 : position + 2] == '"':
                    argument += '"'
                    position += 1
                else:
                    quoted = not quoted
                position += 1
            else:
                argument += "\\" * backslashes
                if position < len(line) and (quoted or line[position] not in " \t"):
                    argument += line[position]
                    position += 1
        arguments.append(argument)


ARGUMENT = st.text(
    alphabet=st.one_of(
        st.sampled_from('\\" \tab='),
        st.characters(min_codepoint=32, max_codepoint=0xD7FF),
    )
)


@given(st.lists(ARGUMENT, min_size=1))
def test_quoted_arguments_reach_the_program(arguments: list[str]) -> None:
    assert parsed_by_the_c_runtime(quote_arguments(arguments)) == arguments


@given(st.lists(ARGUMENT, min_size=1))
def test_quoted_arguments_are_split_again(arguments: list[str]) -> None:
    assert split_arguments(quote_arguments(arguments)) == arguments


@given(st.text(alphabet='\\" \tab=', max_size=12))
def test_any_line_is_split_as_the_c_runtime_does(line: str) -> None:
    assert split_arguments(line) == parsed_by_the_c_runtime(line)


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        ("", '""'),
        ("plain", "plain"),
        ("PROP=a b", '"PROP=a b"'),
        ('say "x"', '"say \\"x\\""'),
        ("C:\\a b\\", '"C:\\a b\\\\"'),
        ("C:\\ab\\", "C:\\ab\\"),
    ],
)
def test_argument_is_quoted(argument: str, quoted: str) -> None:
    assert quote_arguments([argument]) == quoted


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("C:\\a b\\x.ps1", "'C:\\a b\\x.ps1'"),
        ("it's", "'it''s'"),
        ("a\u2019b", "'a\u2019\u2019b'"),
        ("$(evil)", "'$(evil)'"),
    ],
)
def test_literal_of_powershell(text: str, literal: str) -> None:
    assert powershell_text(text) == literal
