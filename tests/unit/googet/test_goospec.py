"""Goospecs: what they render to, and how their mistakes are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet.goospec import Build, GooSpec, GooSpecError, Source, parse_goospec, read_goospec
from googet.pkgspec import Command, PackageSpec, SpecError
from google_guest.errors import GuestError

PLAIN = {"name": "a", "version": "1.0.0", "arch": "noarch"}


def parsed(**more: Any) -> GooSpec:
    return parse_goospec(json.dumps({**PLAIN, **more}), {})


def test_goospec_fills_exactly_the_fields_it_has() -> None:
    text = """{
      "name": "pkg", "version": "1.2.3@4", "arch": "noarch",
      "releaseNotes": ["1.2.3@4 - something new", "1.2.3@4 - something"],
      "description": "blah blah", "owners": "someone", "install": {"path": "install.ps1"},
      "sources": [{"include": ["**"], "exclude": ["x"], "target": "t", "root": "some/place"}]
    }"""
    assert parse_goospec(text, {}) == GooSpec(
        PackageSpec(
            "pkg",
            "1.2.3@4",
            "noarch",
            release_notes=("1.2.3@4 - something new", "1.2.3@4 - something"),
            description="blah blah",
            owners="someone",
            install=Command("install.ps1"),
        ),
        sources=(Source(("**",), ("x",), "t", "some/place"),),
    )


def test_build_commands_are_read_in_any_case() -> None:
    build = {"WINDOWS": "b.cmd", "linux": "b.sh", "windowsargs": ["/x"], "LinuxArgs": ["-x"]}
    read = parsed(BUILD=build, SOURCES=None)
    assert (read.windows, read.linux) == (Build("b.cmd", ("/x",)), Build("b.sh", ("-x",)))


def test_variables_are_filled_in() -> None:
    text = '{"name": "a", "version": "{{.v}}.0@1", "arch": "noarch", "license": "{{.missing}}"}'
    assert parse_goospec(text, {"v": "20260102.00"}).spec == PackageSpec(
        "a", "20260102.00.0@1", "noarch"
    )


def test_directives_may_come_before_the_json() -> None:
    text = '{{$v := "1.0.0" -}}\n{"name": "a", "version": "{{$v}}", "arch": "arm"}\n'
    assert parse_goospec(text, {}).spec.version == "1.0.0"


def test_unknown_keys_are_not_packed() -> None:
    assert parsed(comment="x", build={"x": 1}).spec.extra == {}


def test_keys_of_files_are_kept_as_written() -> None:
    read = parsed(files={"lic/": "/x", "bin\\y": "/y"})
    assert read.file_keys == ("bin/y", "lic/")
    assert read.spec.files == {"lic": "/x", "bin/y": "/y"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", "JSON object"),
        ("[]", "JSON object"),
        (json.dumps({**PLAIN, "name": "n/../../zz"}), "package name"),
        (json.dumps({**PLAIN, "name": "a.b"}), "package name 'a.b' is not a letter"),
        (json.dumps({**PLAIN, "arch": "amd64"}), "Arch 'amd64'"),
        (json.dumps({**PLAIN, "tags": {str(n): "" for n in range(11)}}), "Tags has 11"),
        (json.dumps({**PLAIN, "install": {"path": "/abs"}}), "absolute"),
        (json.dumps({**PLAIN, "sources": {}}), "Sources must be a list of objects"),
        (json.dumps({**PLAIN, "sources": ["x"]}), "Sources must be a list of objects"),
        (json.dumps({**PLAIN, "sources": [None, {"include": "x"}]}), r"Sources\[1\]\.Include must"),
        (json.dumps({**PLAIN, "build": []}), "Build must be an object"),
        (json.dumps({**PLAIN, "build": {"linux": 1}}), r"Build\.Linux must be a string"),
    ],
)
def test_wrong_goospec_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_goospec(text, {})


def test_syntax_error_is_shown_in_its_lines() -> None:
    text = '{\n "name": "a",\n "version": "1",\n "arch" "noarch",\n "files": {},\n 1\n}'
    with pytest.raises(GooSpecError) as caught:
        parse_goospec(text, {})
    first, *place = str(caught.value).split("\n")
    assert first.startswith("invalid JSON in line 4: ")
    assert place == [
        ' "name": "a",',
        ' "version": "1",',
        ' "arch" "noarch",',
        "        ^",
        ' "files": {},',
        " 1",
    ]


def test_comment_is_a_syntax_error() -> None:
    with pytest.raises(GooSpecError, match="line 2"):
        parse_goospec('{\n// no\n"name": "a"}', {})


def test_error_without_a_place_is_shown_alone() -> None:
    with pytest.raises(GooSpecError, match="NaN is no JSON value$"):
        parse_goospec('{"name": NaN}', {})


def test_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.goospec"
    for content in (b"{{", b"{", b"null", b"\xef\xbb\xbf{}", b"{}" + bytes(5 << 20)):
        path.write_bytes(content)
        with pytest.raises(GooSpecError, match=r"x\.goospec"):
            read_goospec(path, {})


def test_missing_goospec_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_goospec(tmp_path / "x.goospec", {})


@given(st.text() | st.text('{}[]",:\\anme 1\n'), st.dictionaries(st.text(), st.text()))
def test_any_text_is_a_goospec_or_refused(text: str, variables: dict[str, str]) -> None:
    try:
        parse_goospec(text, variables)
    except GuestError:
        pass
