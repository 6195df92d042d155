"""Indexes: what is read, what is skipped, packing, limits, writing, and any bytes."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.googet.goos import document, make_goo, spec

from googet import index
from googet.index import (
    IndexEntry,
    IndexFormatError,
    entry_of,
    packed,
    read_index,
    unpacked,
    write_index,
)
from google_guest.errors import GuestError


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def names(data: bytes) -> list[str]:
    return [entry.spec.name for entry in read_index(data)]


def test_entries_are_read_in_their_order() -> None:
    entries = read_index(encoded([document("b", "2.0.0@1", "x86_64"), document("a")]))
    assert [entry.spec.full_name for entry in entries] == ["b.x86_64.2.0.0@1", "a.noarch.1.0.0@1"]
    assert entries[0].source == "packages/b.x86_64.2.0.0@1.goo"
    assert entries[0].checksum == "a" * 64


@pytest.mark.parametrize("data", [b"null", b"[]", b" \n[ ]\n"])
def test_empty_index(data: bytes) -> None:
    assert read_index(data) == ()


def test_keys_in_any_case_and_unknown_keys() -> None:
    entry = {"CHECKSUM": "A" * 64, "source": "s", "packagespec": spec("a"), "Extra": 1}
    (found,) = read_index(encoded([entry]))
    assert (found.checksum, found.source, found.spec.name) == ("a" * 64, "s", "a")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (None, "no object"),
        (1, "no object"),
        ([], "no object"),
        ({}, "no PackageSpec"),
        ({**document("x"), "PackageSpec": None}, "no PackageSpec"),
        ({**document("x"), "PackageSpec": []}, ""),
        ({**document("x"), "Checksum": "abc"}, "no SHA-256"),
        ({**document("x"), "Checksum": ""}, "no SHA-256"),
        ({**document("x"), "Checksum": None}, "no SHA-256"),
        ({**document("x"), "Source": ""}, "no Source"),
        ({**document("x"), "Source": 7}, "no Source"),
        (document("x", "not a version"), "not a version"),
        (document("x", arch="amd64"), "amd64"),
        (document("../x"), ""),
        (document("x", Install={"Path": "/abs/x.ps1"}), ""),
    ],
)
def test_bad_entry_is_skipped_and_the_others_stay(
    caplog: pytest.LogCaptureFixture, bad: object, why: str
) -> None:
    assert names(encoded([document("a"), bad, document("b")])) == ["a", "b"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("entry 2 of the index is skipped: ")
    assert why in record.getMessage()


def test_install_path_that_climbs_stays_inside_the_package() -> None:
    bad = document("a", Install={"Path": "../../x.ps1"})
    (entry,) = read_index(encoded([bad]))
    assert entry.spec.install.path == "x.ps1"


def test_many_bad_entries_are_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    assert read_index(encoded([{}] * 1000)) == ()
    assert len(caplog.records) == 21
    assert caplog.records[-1].getMessage() == "980 more entries are skipped"


def test_gzip_is_recognised_by_its_content() -> None:
    assert names(gzip.compress(encoded([document("a")]))) == ["a"]


def test_index_packed_twice_by_a_server() -> None:
    assert names(gzip.compress(gzip.compress(encoded([document("a")])))) == ["a"]


def test_gzip_in_several_members_with_padding() -> None:
    data = encoded([document("a")])
    packed_data = gzip.compress(data[:20]) + gzip.compress(data[20:]) + b"\0" * 512
    assert names(packed_data) == ["a"]


@pytest.mark.parametrize("cut", [3, 10, 40, -1, -9])
def test_truncated_gzip(cut: int) -> None:
    with pytest.raises(IndexFormatError, match="truncated|damaged"):
        read_index(gzip.compress(encoded([document("a")]))[:cut])


def test_damaged_gzip() -> None:
    data = bytearray(gzip.compress(encoded([document("a")])))
    data[-5] ^= 1
    with pytest.raises(IndexFormatError, match="damaged"):
        read_index(bytes(data))


def test_something_after_the_gzip_data() -> None:
    with pytest.raises(IndexFormatError, match="something else after"):
        read_index(gzip.compress(b"[]") + b"x")


def test_very_many_members() -> None:
    with pytest.raises(IndexFormatError, match="too many pieces"):
        read_index(gzip.compress(b"") * 5000)


def test_bomb_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SIZE_LIMIT", 1 << 20)
    assert len(unpacked(gzip.compress(b" " * (1 << 20)))) == 1 << 20
    with pytest.raises(IndexFormatError, match="larger than 1 MiB"):
        read_index(gzip.compress(b" " * ((1 << 20) + 1)))
    with pytest.raises(IndexFormatError, match="larger than 1 MiB"):
        read_index(b" " * ((1 << 20) + 1))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_explained(encoding: str) -> None:
    with pytest.raises(IndexFormatError, match="UTF-16"):
        read_index('[{"Checksum": "a"}]'.encode(encoding))


def test_powershell_redirection_gets_a_hint() -> None:
    with pytest.raises(IndexFormatError, match="PowerShell.*gooserve -save_index"):
        read_index("[]".encode("utf-16"))


def test_byte_order_mark_is_explained() -> None:
    with pytest.raises(IndexFormatError, match="byte order mark"):
        read_index(b"\xef\xbb\xbf[]")


@pytest.mark.parametrize("data", [b"", b"{}", b"1", b'"x"', b"[", b"[1,]", b"<html>", b"[" * 99999])
def test_what_is_no_index(data: bytes) -> None:
    with pytest.raises(IndexFormatError):
        read_index(data)


def test_written_index_is_sorted_and_has_the_form_of_the_reference() -> None:
    texts = [
        ("b", "1.0.0@1", "noarch"),
        ("a", "1.10.0@1", "x86_64"),
        ("a", "1.9.0@1", "x86_64"),
        ("a", "2.0.0@1", "noarch"),
    ]
    entries = read_index(encoded([document(*text) for text in texts]))
    data = write_index(entries)
    found = json.loads(data)
    assert [(one["PackageSpec"]["Name"], one["PackageSpec"]["Version"]) for one in found] == [
        ("a", "2.0.0@1"),
        ("a", "1.9.0@1"),
        ("a", "1.10.0@1"),
        ("b", "1.0.0@1"),
    ]
    assert list(found[0]) == ["Checksum", "Source", "PackageSpec"]
    assert data.startswith(b'[\n  {\n    "Checksum": "aaaa')
    assert data.endswith(b"}\n]\n")


def test_writing_does_not_depend_on_the_order() -> None:
    entries = read_index(encoded([document("a"), document("b"), document("c")]))
    assert write_index(entries) == write_index(entries[::-1])
    assert packed(write_index(entries)) == packed(write_index(entries[::-1]))


def test_written_index_is_read_back() -> None:
    what = document("a", Description="<b> & \u00e4\u2028", Tags={"t": "Zm9v"}, Provides=["v=1.0.0"])
    entries = read_index(encoded([what]))
    assert read_index(write_index(entries)) == entries
    assert read_index(packed(write_index(entries))) == entries


def test_packed_index_has_no_time_and_no_name() -> None:
    data = packed(b"[]")
    assert data[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
    assert gzip.decompress(data) == b"[]"


def test_entry_of_a_package(tmp_path: Path) -> None:
    path = make_goo(tmp_path, "a")
    entry = entry_of(path, "packages/a.goo")
    assert entry.spec.full_name == "a.noarch.1.0.0@1"
    assert isinstance(entry, IndexEntry)
    assert entry.checksum == index.sha256_of(path)


def test_package_under_another_name_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_goo(tmp_path, "a").rename(tmp_path / "b.goo")
    entry_of(path, "b.goo")
    assert "b.goo: the package inside is a.noarch.1.0.0@1.goo" in caplog.text


_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.text(max_size=4),
                st.sampled_from(["Checksum", "source", "PackageSpec", "Name", "Version", "Arch"])
                | st.sampled_from(["Install", "Path", "Tags", "Files", "Provides", "ExitCodes"]),
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=8,
)


def _entry_with(changes: dict[str, Any]) -> dict[str, Any]:
    entry = document("a")
    entry["PackageSpec"].update(changes)
    return entry


_SPECS = st.dictionaries(
    st.sampled_from(["Name", "Version", "Arch", "Install", "Verify", "Tags", "Files", "LockArch"])
    | st.sampled_from(["PkgDependencies", "Replaces", "Conflicts", "Provides", "ReleaseNotes"]),
    _VALUES,
    max_size=3,
).map(_entry_with)


@given(
    st.one_of(
        st.binary(),
        st.binary().map(gzip.compress),
        st.binary().map(lambda tail: b"\x1f\x8b\x08\x00" + tail),
        _VALUES.map(lambda value: encoded([value])),
        st.lists(_SPECS, max_size=3).map(encoded),
    )
)
def test_no_bytes_crash(data: bytes) -> None:
    try:
        entries = read_index(data)
    except GuestError as error:
        assert str(error)
        return
    assert read_index(write_index(entries)) == tuple(sorted(entries, key=index.sort_key))
