"""What is inside artifacts, and where two of them differ."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import artifact_files
import pytest


def tarball(path: Path, files: dict[str, bytes], *, mtime: int = 0) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), mtime
            archive.addfile(entry, io.BytesIO(content))
    return path


def ar_archive(*parts: tuple[str, bytes]) -> bytes:
    text = b"!<arch>\n"
    for name, content in parts:
        text += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        text += content + b"\n" * (len(content) % 2)
    return text


def test_parts_of_an_ar_archive_have_their_content() -> None:
    parts = (("debian-binary", b"2.0\n"), ("odd", b"abc"), ("last", b"xy"))
    assert tuple(artifact_files.ar_parts(ar_archive(*parts))) == parts


def test_another_file_is_no_ar_archive() -> None:
    with pytest.raises(ValueError, match="not an ar archive"):
        list(artifact_files.ar_parts(b"PK\x03\x04"))


def test_files_of_a_debian_package_are_without_its_control_area(tmp_path: Path) -> None:
    control = tarball(tmp_path / "control.tar.gz", {"./control": b"Package: x\n"}).read_bytes()
    data = tarball(tmp_path / "data.tar.gz", {"./usr/bin/x": b"x"}).read_bytes()
    deb = tmp_path / "x.deb"
    parts = (("debian-binary", b"2.0\n"), ("control.tar.gz", control), ("data.tar.gz", data))
    deb.write_bytes(ar_archive(*parts))
    assert [one.name for one in artifact_files.members(deb)] == ["DEBIAN/control", "usr/bin/x"]
    assert [one.name for one in artifact_files.installed_files(deb)] == ["usr/bin/x"]


def test_digests_are_those_of_the_content(tmp_path: Path) -> None:
    (member,) = artifact_files.members(tarball(tmp_path / "a.tar.gz", {"a": b"hello\n"}))
    assert member.sha1 == "f572d396fae9206628714fb2ce00f72e94f2258f"
    assert member.sha256 == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


@pytest.mark.parametrize(
    ("first", "second", "hint"),
    [
        ({"a": b"x"}, {"a": b"x", "b": b""}, "b is in one of them alone"),
        ({"a": b"1\n2\n"}, {"a": b"1\n3\n"}, "a: line 2: '2' and '3'"),
        ({"a": b"\xff\x00"}, {"a": b"\xff\x01"}, "a: byte 1 of 2: 0x00 and 0x01"),
        ({"a": b"1\n"}, {"a": b"1\n2\n"}, "a: 2 and 4 bytes"),
        ({"a": b"", "b": b""}, {"b": b"", "a": b""}, "the same members in another order"),
    ],
)
def test_difference_names_the_member(
    tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes], hint: str
) -> None:
    one, other = tarball(tmp_path / "1.tar.gz", first), tarball(tmp_path / "2.tar.gz", second)
    assert artifact_files.difference(one, other) == hint


def test_difference_names_the_time_of_a_member(tmp_path: Path) -> None:
    one = tarball(tmp_path / "1.tar.gz", {"a": b""}, mtime=1)
    other = tarball(tmp_path / "2.tar.gz", {"a": b""}, mtime=2)
    hint = artifact_files.difference(one, other)
    assert hint == "a: mode 644, time 1, owner 0:0 and mode 644, time 2, owner 0:0"


def test_members_of_a_wheel_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("x/__init__.py", b"a = 1\n")
    (member,) = artifact_files.members(tmp_path / "x.whl")
    assert (member.name, member.content) == ("x/__init__.py", b"a = 1\n")


def test_equal_files_have_no_difference(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).write_bytes(b"same")
    assert artifact_files.difference(tmp_path / "1", tmp_path / "2") == ""
