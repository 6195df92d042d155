"""Package specs: reading, normalising, every rule with its own error, and writing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from googet.pkgspec import (
    Command,
    PackageName,
    PackageSpec,
    SpecError,
    check_packable,
    clean_path,
    file_name,
    is_absolute,
    read_spec,
    spec_from_json,
    spec_to_json,
    split_name,
)
from google_guest.errors import GuestError
from google_guest.records import replace

PLAIN = {"Name": "a", "Version": "1.0.0@1", "Arch": "noarch"}


def spec(**more: Any) -> PackageSpec:
    return spec_from_json({**PLAIN, **more})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo", PackageName("foo")),
        ("foo.noarch", PackageName("foo", "noarch")),
        ("foo.noarch.1.2.3@4", PackageName("foo", "noarch", "1.2.3@4")),
        (" foo.x86_64.1 \n", PackageName("foo", "x86_64", "1")),
        ("", PackageName("")),
        ("a..b", PackageName("a", "", "b")),
    ],
)
def test_name_is_split_into_three_parts_at_most(text: str, expected: PackageName) -> None:
    assert split_name(text) == expected


def test_name_joins_what_is_given() -> None:
    assert str(PackageName("foo", "noarch", "1.2.3@4")) == "foo.noarch.1.2.3@4"
    assert str(PackageName("foo", "noarch")) == "foo.noarch"
    assert str(PackageName("foo")) == "foo"


def test_archive_is_named_after_the_package() -> None:
    certgen = spec(Name="certgen", Arch="x86_64", Version="20260102.00.0@1")
    assert certgen.package == PackageName("certgen", "x86_64", "20260102.00.0@1")
    assert file_name(certgen) == "certgen.x86_64.20260102.00.0@1.goo"


def test_all_keys_are_read() -> None:
    value = {
        "Name": "a",
        "Version": "1.0.0@1",
        "Arch": "noarch",
        "LockArch": True,
        "ReleaseNotes": ["first", "second"],
        "Description": "d",
        "License": "l",
        "Authors": "au",
        "Owners": "o",
        "Source": "s",
        "Tags": {"t": base64.b64encode(b"\x00tag").decode()},
        "PkgDependencies": {"b": "1.0.0", "c.noarch": ""},
        "Replaces": ["d"],
        "Conflicts": ["e.noarch.2"],
        "Provides": ["f=1.0"],
        "Install": {"Path": "i.ps1", "Args": ["-x"], "ExitCodes": [3010]},
        "Uninstall": {"Path": "u.ps1"},
        "Verify": {"Path": "v.ps1", "ExitCodes": [1, -1]},
        "Files": {"bin": "<ProgramFiles>/x"},
        "ExternalProgramName": "A",
    }
    assert spec_from_json(value) == PackageSpec(
        name="a",
        version="1.0.0@1",
        arch="noarch",
        lock_arch=True,
        release_notes=("first", "second"),
        description="d",
        license="l",
        authors="au",
        owners="o",
        source="s",
        tags={"t": b"\x00tag"},
        dependencies={"b": "1.0.0", "c.noarch": ""},
        replaces=("d",),
        conflicts=("e.noarch.2",),
        provides=("f=1.0",),
        install=Command("i.ps1", ("-x",), (3010,)),
        uninstall=Command("u.ps1"),
        verify=Command("v.ps1", (), (1, -1)),
        files={"bin": "<ProgramFiles>/x"},
        external_program_name="A",
    )


def test_keys_are_read_in_any_case() -> None:
    data = b'{"NAME":"a","verSION":"1.0.0","arch":"arm","install":{"PATH":"x","exitcodes":[1]}}'
    assert read_spec(data) == PackageSpec(
        "a", "1.0.0", "arm", install=Command("x", exit_codes=(1,))
    )


def test_byte_order_mark_is_refused() -> None:
    with pytest.raises(GuestError, match="byte order mark"):
        read_spec(b"\xef\xbb\xbf" + json.dumps(PLAIN).encode())


def test_null_is_as_good_as_nothing() -> None:
    value = {key: None for key in ("Tags", "Replaces", "Install", "Files", "LockArch", "License")}
    assert spec(**value) == spec()
    assert spec(Install={"Path": None, "Args": None}, Replaces=[None]) == spec(Replaces=[""])


def test_unknown_keys_are_kept() -> None:
    read = spec(Later={"a": 1})
    assert read.extra == {"Later": {"a": 1}}
    assert list(spec_to_json(read).items())[-1] == ("Later", {"a": 1})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "JSON object"),
        ([], "JSON object"),
        ("a", "JSON object"),
        ({"Version": "1", "Arch": "noarch"}, "Name is missing"),
        ({**PLAIN, "Name": ""}, "Name is missing"),
        ({**PLAIN, "Name": None}, "Name is missing"),
        ({**PLAIN, "Name": "a/b"}, "package name 'a/b'"),
        ({**PLAIN, "Name": "a\\b"}, "package name"),
        ({**PLAIN, "Name": "C:a"}, "package name"),
        ({**PLAIN, "Name": ".."}, "package name"),
        ({**PLAIN, "Name": "n..x"}, "package name"),
        ({**PLAIN, "Name": "n\0"}, "package name"),
        ({**PLAIN, "Version": ""}, "Version is missing"),
        ({**PLAIN, "Version": "1.2.x"}, r"Version: invalid version '1\.2\.x'"),
        ({**PLAIN, "Version": "../1"}, "Version: invalid version"),
        ({**PLAIN, "Arch": ""}, "Arch is missing"),
        ({**PLAIN, "Arch": "amd64"}, "Arch 'amd64'"),
        ({**PLAIN, "Arch": "NOARCH"}, "Arch 'NOARCH'"),
        ({**PLAIN, "Tags": {str(number): "" for number in range(11)}}, "Tags has 11 entries"),
        ({**PLAIN, "Tags": {"k" * 128: ""}}, "longer than 127 bytes"),
        ({**PLAIN, "Tags": {"ü" * 64: ""}}, "longer than 127 bytes"),
        (
            {**PLAIN, "Tags": {"k": base64.b64encode(bytes(10241)).decode()}},
            "Tags value of 'k' is larger than 10240 bytes",
        ),
        ({**PLAIN, "Tags": {"k": "*"}}, "Tags must be .* base64"),
        ({**PLAIN, "Tags": {"k": "YQ"}}, "Tags must be .* base64"),
        ({**PLAIN, "Tags": {"k": "é"}}, "Tags must be .* base64"),
        ({**PLAIN, "PkgDependencies": {"b": "x"}}, "PkgDependencies 'b': invalid version"),
        ({**PLAIN, "Files": {"/abs": "x"}}, "Files key '/abs' is absolute"),
        ({**PLAIN, "Files": {"\\abs": "x"}}, "is absolute"),
        ({**PLAIN, "Files": {"C:\\abs": "x"}}, "is absolute"),
        ({**PLAIN, "Files": {"C:rel": "x"}}, "is absolute"),
        ({**PLAIN, "Files": {"../up": "x"}}, "Files key '../up' leads out"),
        ({**PLAIN, "Files": {"a/../..": "x"}}, "leads out"),
        ({**PLAIN, "Files": {"a\\..\\..\\b": "x"}}, "leads out"),
        ({**PLAIN, "Files": {"lic": "x", "lic/": "y"}}, "Files names 'lic' twice"),
        ({**PLAIN, "Install": {"Path": "/i.ps1"}}, "Install.Path '/i.ps1' is absolute"),
        ({**PLAIN, "Install": {"Path": "C:\\i.ps1"}}, "Install.Path .* is absolute"),
        ({**PLAIN, "Uninstall": {"Path": "/u"}}, "Uninstall.Path '/u' is absolute"),
        ({**PLAIN, "Verify": {"Path": "/v"}}, "Verify.Path '/v' is absolute"),
        ({**PLAIN, "Install": {"Path": "./.."}}, "Install.Path './..' does not name a file"),
        ({**PLAIN, "Install": {"Path": "a\0b"}}, "Install.Path .* zero character"),
        ({**PLAIN, "Name": 5}, "Name must be a string"),
        ({**PLAIN, "LockArch": "true"}, "LockArch must be true or false"),
        ({**PLAIN, "LockArch": 1}, "LockArch must be true or false"),
        ({**PLAIN, "ReleaseNotes": "x"}, "ReleaseNotes must be a list of strings"),
        ({**PLAIN, "ReleaseNotes": [1]}, "ReleaseNotes must be a list of strings"),
        ({**PLAIN, "Files": []}, "Files must be an object of strings"),
        ({**PLAIN, "Files": {"a": 1}}, "Files must be an object of strings"),
        ({**PLAIN, "Install": "x"}, "Install must be an object"),
        ({**PLAIN, "Install": {"Path": 1}}, r"Install\.Path must be a string"),
        ({**PLAIN, "Install": {"ExitCodes": [1.0]}}, r"Install\.ExitCodes must be a list of int"),
        ({**PLAIN, "Install": {"ExitCodes": [True]}}, r"Install\.ExitCodes must be a list of int"),
        ({**PLAIN, "Install": {"ExitCodes": [2**63]}}, r"Install\.ExitCodes must be a list of"),
    ],
)
def test_each_broken_rule_has_its_own_error(value: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec_from_json(value)


@pytest.mark.parametrize(
    "more",
    [
        {"Tags": {str(number): "" for number in range(10)}},
        {"Tags": {"k" * 127: base64.b64encode(bytes(10240)).decode()}},
        {"Tags": {"k": "YW\r\nJj"}},
        {"PkgDependencies": {"b": ""}},
        {"Name": "a.b"},
        {"Name": "naïve name"},
        {"Conflicts": ["what.ever.this is"]},
    ],
)
def test_what_is_just_allowed_is_read(more: Any) -> None:
    spec(**more)


@pytest.mark.parametrize("key", ["Install", "Uninstall", "Verify"])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("../../x.ps1", "x.ps1"),
        ("./a/..//b/../x", "x"),
        ("..\\..\\x.ps1", "x.ps1"),
        ("a/b.ps1", "a/b.ps1"),
        ("a\\b.ps1", "a/b.ps1"),
        ("a/../../b", "b"),
        ("", ""),
    ],
)
def test_command_path_stays_in_the_package(key: str, path: str, expected: str) -> None:
    command = spec_to_json(spec(**{key: {"Path": path}}))[key]
    assert command.get("Path", "") == expected


@pytest.mark.parametrize(
    ("key", "cleaned"),
    [
        ("lic/", "lic"),
        ("./", "."),
        ("", "."),
        (".", "."),
        ("./a//b/", "a/b"),
        ("a/../b", "b"),
        ("a\\b", "a/b"),
        ("..a", "..a"),
    ],
)
def test_files_key_is_cleaned(key: str, cleaned: str) -> None:
    assert spec(Files={key: "/x"}).files == {cleaned: "/x"}


def test_files_that_say_the_same_twice_are_one() -> None:
    assert spec(Files={"lic": "/x", "lic/": "/x"}).files == {"lic": "/x"}


def test_spec_is_written_in_the_reference_order() -> None:
    full = spec(
        LockArch=True,
        ReleaseNotes=["n"],
        Description="d",
        License="l",
        Authors="au",
        Owners="o",
        Source="s",
        Tags={"z": "YQ==", "a": "Yg=="},
        PkgDependencies={"z": "1", "b": "1"},
        Replaces=["r"],
        Conflicts=["c"],
        Provides=["p"],
        Install={"Path": "i", "Args": ["x"], "ExitCodes": [1]},
        Files={"b": "y", "a": "x"},
        ExternalProgramName="E",
    )
    written = spec_to_json(full)
    assert " ".join(written) == (
        "Name Version Arch LockArch ReleaseNotes Description License Authors Owners Source Tags"
        " PkgDependencies Replaces Conflicts Provides Install Uninstall Verify Files"
        " ExternalProgramName"
    )
    assert written["Tags"] == {"a": "Yg==", "z": "YQ=="}
    assert [list(written[key]) for key in ("Tags", "PkgDependencies", "Files")] == [
        ["a", "z"],
        ["b", "z"],
        ["a", "b"],
    ]
    assert list(written["Install"]) == ["Path", "Args", "ExitCodes"]


def test_what_is_empty_is_left_out_null_or_an_object() -> None:
    assert spec_to_json(spec()) == {
        **PLAIN,
        "Replaces": None,
        "Conflicts": None,
        "Provides": None,
        "Install": {},
        "Uninstall": {},
        "Verify": {},
        "ExternalProgramName": "",
    }


@pytest.mark.parametrize("name", ["a", "A1", "libstdc++", "a_b-c", "9"])
def test_strict_name_is_packable(name: str) -> None:
    check_packable(spec(Name=name))


@pytest.mark.parametrize("name", ["a.b", "-a", "_a", "+a", "a b", "ä", "a\n"])
def test_other_names_are_not_packable(name: str) -> None:
    with pytest.raises(SpecError, match="package name"):
        check_packable(PackageSpec(name, "1", "noarch"))


@pytest.mark.parametrize("path", ["/a", "\\a", "C:\\a", "c:a", "//server/share"])
def test_absolute_path_of_any_system_is_known(path: str) -> None:
    assert is_absolute(path)


@pytest.mark.parametrize("path", ["", ".", "a", "a/b", "ab:c/d:", "1:"])
def test_relative_path_is_known(path: str) -> None:
    assert not is_absolute(path)


@given(st.text("./\\a b"))
def test_clean_path_is_clean(text: str) -> None:
    cleaned = clean_path(text)
    assert clean_path(cleaned) == cleaned
    parts = cleaned.split("/")
    assert cleaned == "." or not {"", "."} & set(parts)
    # What leads out of the archive does so at the beginning.
    inner = parts[next((at for at, part in enumerate(parts) if part != ".."), len(parts)) :]
    assert ".." not in inner


_TEXTS = st.text(max_size=8)
_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,6}", fullmatch=True)
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_COMMANDS = st.builds(
    Command,
    st.just("") | _PATHS,
    st.lists(_TEXTS, max_size=2).map(tuple),
    st.lists(st.integers(-1, 2**32), max_size=2).map(tuple),
)
SPECS = st.builds(
    PackageSpec,
    _NAMES,
    st.sampled_from(["1.0.0", "20260102.00.0@1", "1", "1.2.3-a+b@4"]),
    st.sampled_from(["noarch", "x86_64", "x86_32", "arm", "arm64"]),
    st.booleans(),
    st.lists(_TEXTS, max_size=2).map(tuple),
    _TEXTS,
    _TEXTS,
    _TEXTS,
    _TEXTS,
    _TEXTS,
    st.dictionaries(_NAMES, st.binary(max_size=8), max_size=3),
    st.dictionaries(_NAMES, st.sampled_from(["", "1", "1.2.3@4"]), max_size=3),
    st.lists(_NAMES, max_size=2).map(tuple),
    st.lists(_NAMES, max_size=2).map(tuple),
    st.lists(_NAMES, max_size=2).map(tuple),
    _COMMANDS,
    _COMMANDS,
    _COMMANDS,
    st.dictionaries(_PATHS, _TEXTS, max_size=3),
    _TEXTS,
)


@given(SPECS)
def test_written_spec_reads_back(original: PackageSpec) -> None:
    data = json.dumps(spec_to_json(original)).encode()
    assert read_spec(data) == original


@given(SPECS)
def test_reading_again_changes_nothing(original: PackageSpec) -> None:
    once = spec_from_json(spec_to_json(replace(original, extra={"other": 1})))
    assert spec_from_json(spec_to_json(once)) == once


_KEYS = st.sampled_from(
    [*spec_to_json(PackageSpec("a", "1", "noarch")), "Tags", "Files", "PkgDependencies", "path"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_KEYS, _JSON).map(lambda more: {**PLAIN, **more}) | _JSON)
@example({**PLAIN, "Files": {"\ud800": "\ud800"}})
def test_any_value_is_a_spec_or_refused(value: Any) -> None:
    try:
        spec_from_json(value)
    except SpecError:
        pass


@given(st.binary())
def test_any_bytes_are_a_spec_or_refused(data: bytes) -> None:
    try:
        read_spec(data)
    except GuestError:
        pass
