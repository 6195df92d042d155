"""os-release: quoting, precedence of the two places, and files that are not what they should be."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import tree

from google_guest.os_release import OsRelease, parse_os_release, read_os_release

DEBIAN = (
    'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n'
    'VERSION_ID="12"\nID=debian\n'
)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("ID=debian", "debian"),
        ('ID="debian"', "debian"),
        ("ID='debian'", "debian"),
        ('ID="rocky"  ', "rocky"),
        ("  ID=arch", "arch"),
        ('ID="a \\"b\\" \\$c \\\\ \\`d"', 'a "b" $c \\ `d'),
        ("ID='a \\$ b'", "a \\$ b"),
        ('ID="a \\n b"', "a \\n b"),
        ("ID=a\\ b", "a b"),
        ("ID=", ""),
        ('ID=""', ""),
        ("ID=a=b", "a=b"),
        ("ID=x\r", "x"),
    ],
)
def test_value_is_unquoted_as_a_shell_does(line: str, value: str) -> None:
    assert parse_os_release(line) == {"ID": value}


@pytest.mark.parametrize(
    "line", ["", "# ID=x", "ID", "=x", "1ID=x", 'ID="x', "ID='x", 'ID="x" y', "ID-LIKE=x", "[ID]"]
)
def test_line_that_is_no_assignment_is_skipped(line: str) -> None:
    assert parse_os_release(f"{line}\nNAME=ok") == {"NAME": "ok"}


def test_last_assignment_stands() -> None:
    assert parse_os_release("ID=a\nID=b") == {"ID": "b"}


def test_etc_comes_before_usr_lib(tmp_path: Path) -> None:
    system = tree(tmp_path, {"/etc/os-release": DEBIAN, "/usr/lib/os-release": "ID=other"})
    assert read_os_release(system.files) == OsRelease(
        "debian", "12", "Debian GNU/Linux 12 (bookworm)"
    )


def test_usr_lib_serves_where_etc_has_none(tmp_path: Path) -> None:
    system = tree(tmp_path, {"/usr/lib/os-release": "ID=arch\nID_LIKE='a b'\nNAME=Arch"})
    assert read_os_release(system.files) == OsRelease("arch", "", "Arch", ("a", "b"))


def test_usr_lib_serves_where_etc_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "etc/os-release").mkdir(parents=True)
    system = tree(tmp_path, {"/usr/lib/os-release": "ID=arch"})
    assert read_os_release(system.files).id == "arch"


def test_machine_without_the_file_has_the_documented_defaults(tmp_path: Path) -> None:
    assert read_os_release(tree(tmp_path).files) == OsRelease("linux", "", "Linux")


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert all("\n" not in value for value in parse_os_release(text).values())


@given(st.text(alphabet=st.characters(blacklist_characters="\n\r", blacklist_categories=["Cs"])))
def test_what_a_shell_quotes_in_single_quotes_comes_back(text: str) -> None:
    quoted = shlex.quote(text)
    if quoted == f"'{text}'":
        assert parse_os_release(f"NAME={quoted}") == {"NAME": text}


@given(st.text(alphabet=st.characters(blacklist_characters="\n", blacklist_categories=["Cs"])))
def test_what_is_escaped_in_double_quotes_comes_back(text: str) -> None:
    escaped = "".join(f"\\{char}" if char in '$"\\`' else char for char in text)
    assert parse_os_release(f'NAME="{escaped}"') == {"NAME": text}
