"""Package archives: reading the reference's and hostile ones, writing the same bytes each time."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from googet.archive import (
    ArchiveError,
    Member,
    extract,
    extract_member,
    is_portable_name,
    read_archive_spec,
    sha256_of,
    write_archive,
)
from googet.gojson import dumps
from googet.pkgspec import Command, PackageSpec, SpecError, spec_to_json
from google_guest.errors import GuestError

SPEC = PackageSpec("a", "1.0.0@1", "noarch")
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")

# Go's own archive/tar and compress/gzip: spec last, a long name, ids of the building user.
OF_GO = base64.b64decode(
    "H4sIAAAAAAAA/+yYzYrbMBDHfTb0HYTOxRnZlg2BQkvpoZcSCu1dcRRHVJGMLBeHJW+2t32xRU6y+Vi8hwXbWdDv"
    "oIn+GpiRlJFsL4WamUZFVU2CoQAAyCl1luQULu0BAgGhJKYZ0BggAJImWRYgGCyjC5raMhMALBshV9z0+h3H677x"
    "41Re7AeBt8Ii+BROnYdnGla6mEmtyiGb29K4sRDT+HwWOD0BmmcBasdYgFP9jxHrDiE5oIrZzZcx/gjva54eI9ta"
    "f0INwlj1n6XQf/9Den3/J5TExN//Y2B5a6fOwTMdfFvZ3cAxugpP0zfq//b5P0lT8PU/BqWOqn9lXfFiuBiH879/"
    "/xNKXr3/Uer3fwweQoTwL7bleI5wqfFn1//LTS20chKJIIKv5KB/M8XGiUoz96vTfvNKsoLXeI5UI2WnfddqLUVh"
    "r8SF0f/F6trxp6otkxLPkcvDOTHbRbj4LIFDhPad9x8lzv77U6ZivTv3f7SWG8XkwujSsO1pYjjcT73QHo/Hc2c8"
    "BwAA///bQShWABYAAA=="
)


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, 1767312000
    info.uid, info.gid, info.uname, info.gname = 1000, 100, "builder", "users"
    return info


def raw_goo(
    path: Path,
    entries: Sequence[tuple[tarfile.TarInfo, bytes]],
    *,
    spec: Optional[bytes] = None,
    form: int = tarfile.PAX_FORMAT,
) -> Path:
    """An archive as the reference lays it out: the given entries, then the spec."""
    file = io.BytesIO()
    last = dumps(spec_to_json(SPEC), indent=2).encode() if spec is None else spec
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for info, content in [*entries, *([(tar_entry("a.pkgspec"), last)] if last else [])]:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    # Its gzip header: no name, no time, an unknown operating system.
    data = bytearray(gzip.compress(file.getvalue(), mtime=0))
    data[9] = 0xFF
    path.write_bytes(data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def unpacked(path: Path) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        extract(path, Path(folder, "out"))
        return contents(Path(folder, "out"))


@contextlib.contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """What the block does leaves ``folder`` as it is."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    names = sorted(folder.rglob("*"))
    yield
    assert sorted(folder.rglob("*")) == names
    assert {path: path.read_bytes() for path in before} == before


# Reading


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_reference_archive_is_accepted(tmp_path: Path, form: int) -> None:
    path = raw_goo(
        tmp_path / "a.goo",
        [(tar_entry("bin/x.ps1", mode=0o755), b"exit 0"), (tar_entry("n" * 90), b"")],
        form=form,
    )
    assert read_archive_spec(path) == SPEC
    assert extract(path, tmp_path / "out") == ("bin/x.ps1", "n" * 90, "a.pkgspec")
    assert (tmp_path / "out/bin/x.ps1").read_bytes() == b"exit 0"


def test_archive_of_the_go_library_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "go.goo"
    path.write_bytes(OF_GO)
    expected = PackageSpec("go", "1.0.0@1", "noarch", install=Command("bin/run.ps1"))
    assert read_archive_spec(path) == expected
    names = extract(path, tmp_path / "out")
    assert names == ("bin/run.ps1", "doc/" + "long/" * 30 + "ü.txt", "empty", "go.pkgspec")
    assert (tmp_path / "out/bin/run.ps1").read_bytes() == b"exit 0\r\n"
    assert os.stat(tmp_path / "out/bin/run.ps1").st_mtime == 1767312000


@posix_only
def test_modes_of_an_archive_are_kept_but_for_special_bits(tmp_path: Path) -> None:
    path = raw_goo(
        tmp_path / "a.goo",
        [
            (tar_entry("run", mode=0o4755), b""),
            (tar_entry("read", mode=0o440), b""),
            (tar_entry("none", mode=0), b""),
            (tar_entry("d", tarfile.DIRTYPE, 0), b""),
        ],
    )
    extract(path, tmp_path / "out")
    modes = {name: os.stat(tmp_path / "out" / name).st_mode & 0o7777 for name in ("run", "read")}
    assert modes == {"run": 0o755, "read": 0o440}
    # Whoever extracted it can read it.
    assert (tmp_path / "out/none").read_bytes() == b""
    assert os.stat(tmp_path / "out").st_mode & 0o7777 == 0o700
    assert os.stat(tmp_path / "out/d").st_mode & 0o7777 == 0o755


def test_first_spec_anywhere_counts(tmp_path: Path) -> None:
    other = b'{"Name":"other","Version":"2","Arch":"arm"}'
    path = raw_goo(tmp_path / "a.goo", [(tar_entry("deep/.pkgspec"), other)])
    assert read_archive_spec(path).name == "other"


def test_other_suffixes_are_no_spec(tmp_path: Path) -> None:
    entries = [(tar_entry("x.PKGSPEC"), b"no"), (tar_entry("x.pkgspec.txt"), b"no")]
    assert read_archive_spec(raw_goo(tmp_path / "a.goo", entries)) == SPEC


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (b"", "no package spec"),
        (b"{}", "a.pkgspec: Name is missing"),
        (b"{", "a.pkgspec: invalid JSON"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b" " * (5 << 20), "bytes; 4194304 are allowed"),
    ],
)
def test_archive_without_a_valid_spec_is_refused(tmp_path: Path, spec: bytes, message: str) -> None:
    path = raw_goo(tmp_path / "a.goo", [(tar_entry("f"), b"")], spec=spec)
    with pytest.raises(ArchiveError, match=message):
        read_archive_spec(path)


def test_spec_at_the_front_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.goo"
    write_archive(path, SPEC, {"big": Member(random.Random(1).randbytes(1 << 20))})
    path.write_bytes(path.read_bytes()[: 64 << 10])
    assert read_archive_spec(path) == SPEC


# What is damaged


_SOUND = [(tar_entry("f"), random.Random(1).randbytes(5000)), (tar_entry("g"), b"x")]


@pytest.mark.parametrize("kept", [0, 1, 2, 9, 10, 11, 100, 3000, -9, -8, -4, -1])
def test_truncated_archive_is_one_clear_error(tmp_path: Path, kept: int) -> None:
    path = raw_goo(tmp_path / "a.goo", _SOUND)
    path.write_bytes(path.read_bytes()[:kept])
    with nothing_left(tmp_path):
        with pytest.raises(ArchiveError, match=r"a\.goo"):
            extract(path, tmp_path / "out")
        with pytest.raises(ArchiveError, match=r"a\.goo"):
            extract_member(path, "g", tmp_path)


@pytest.mark.parametrize("at", [0, 1, 2, 3, 20, 1000, 3000, 5000, -8, -5, -4, -1])
def test_flipped_byte_is_one_clear_error(tmp_path: Path, at: int) -> None:
    path = raw_goo(tmp_path / "a.goo", _SOUND)
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match=r"a\.goo"):
        extract(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not compressed with gzip"),
        (b"PK\x03\x04", "not compressed with gzip"),
        (gzip.compress(b"no tar", mtime=0), "middle of a header"),
        (gzip.compress(b"x" * 1024, mtime=0), "cannot be used"),
        (gzip.compress(b"", mtime=0) + b"junk", "damaged"),
    ],
)
def test_other_files_are_no_archives(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.goo"
    path.write_bytes(data)
    with nothing_left(tmp_path):
        for use in (
            lambda: extract(path, tmp_path / "out"),
            lambda: extract_member(path, "f", tmp_path),
        ):
            with pytest.raises(ArchiveError, match=message):
                use()


def test_missing_archive_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_archive_spec(tmp_path / "a.goo")
    with pytest.raises(FileNotFoundError):
        extract(tmp_path / "a.goo", tmp_path / "out")
    assert not list(tmp_path.iterdir())


# What is hostile


@pytest.mark.parametrize(
    "name",
    [
        "/abs",
        "//server/share/x",
        "\\abs",
        "C:x",
        "C:/x",
        "c:\\x",
        "../x",
        "..",
        "a/../../x",
        "a\\..\\..\\x",
        "..\\x",
        "../out-evil/x",
        "a:b",
        "file.txt:stream",
        "con",
        "d/NUL.txt",
        "aux .tar.gz",
        "com1",
        "lpt\u00b9.x",
        "CONIN$",
        "a./b",
        "a /b",
        "ends.",
        "ends ",
        "what?",
        "a*",
        'a"b',
        "a<b",
        "a|b",
        "tab\tname",
        "line\nname",
        "\udcff",
    ],
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_hostile_name_fails_the_whole_extraction(tmp_path: Path, name: str, kind: bytes) -> None:
    good = (tar_entry("good"), b"x")
    path = raw_goo(
        tmp_path / "a.goo", [good, (tar_entry(name, kind), b"")], form=tarfile.GNU_FORMAT
    )
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match=r"a\.goo: "):
        extract(path, tmp_path / "out", windows=False)


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        b"S",
        b"Z",
    ],
)
def test_only_files_and_folders_are_extracted(tmp_path: Path, kind: bytes) -> None:
    entry = tar_entry("x", kind)
    entry.linkname = "good"
    path = raw_goo(tmp_path / "a.goo", [(tar_entry("good"), b"x"), (entry, b"")])
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match="only files and folders"):
        extract(path, tmp_path / "out")


def test_names_are_cleaned(tmp_path: Path) -> None:
    names = ["./dot", "foo/../test", "d//e", "w\\x", "./"]
    kinds = [tarfile.REGTYPE] * 4 + [tarfile.DIRTYPE]
    entries = [
        (tar_entry(name, kind), b"x" if kind != tarfile.DIRTYPE else b"")
        for name, kind in zip(names, kinds)
    ]
    path = raw_goo(tmp_path / "a.goo", entries, form=tarfile.GNU_FORMAT)
    assert extract(path, tmp_path / "out") == ("dot", "test", "d/e", "w/x", "a.pkgspec")
    assert sorted(contents(tmp_path / "out")) == ["a.pkgspec", "d/e", "dot", "test", "w/x"]


def test_names_that_differ_in_case_are_one_file_on_windows(tmp_path: Path) -> None:
    entries = [(tar_entry("d/Name"), b"1"), (tar_entry("D/naMe"), b"2")]
    path = raw_goo(tmp_path / "a.goo", entries)
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match="differ only in case"):
        extract(path, tmp_path / "out", windows=True)


@pytest.mark.skipif(sys.platform == "win32", reason="the file system has no such names")
def test_names_that_differ_in_case_are_two_files_elsewhere(tmp_path: Path) -> None:
    entries = [(tar_entry("d/Name"), b"1"), (tar_entry("D/naMe"), b"2")]
    extract(raw_goo(tmp_path / "a.goo", entries), tmp_path / "out", windows=False)
    assert (tmp_path / "out/D/naMe").read_bytes() == b"2"


def test_folders_that_differ_in_case_are_one_folder_on_windows(tmp_path: Path) -> None:
    entries = [(tar_entry("d/x"), b"1"), (tar_entry("D/y"), b"2")]
    names = extract(raw_goo(tmp_path / "a.goo", entries), tmp_path / "out", windows=True)
    assert names == ("d/x", "D/y", "a.pkgspec")


def test_later_entry_of_the_same_name_stands(tmp_path: Path) -> None:
    entries = [(tar_entry("x", mode=0o444), b"first"), (tar_entry("x"), b"2")]
    path = raw_goo(tmp_path / "a.goo", entries)
    assert extract(path, tmp_path / "out") == ("x", "a.pkgspec")
    assert (tmp_path / "out/x").read_bytes() == b"2"


@pytest.mark.parametrize("names", [("x", "x/y"), ("x/y", "x"), ("x/y/z", "x/y"), ("x", "x/y/z")])
def test_file_that_is_also_a_folder_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    path = raw_goo(tmp_path / "a.goo", [(tar_entry(name), b"") for name in names])
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match="both a file and a folder"):
        extract(path, tmp_path / "out")


def test_content_over_the_limit_is_not_extracted(tmp_path: Path) -> None:
    path = raw_goo(tmp_path / "a.goo", [(tar_entry("zeros"), bytes(10 << 20))])
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match="larger than 1048576 bytes"):
        extract(path, tmp_path / "out", limit=1 << 20)


def test_many_empty_entries_are_over_the_limit(tmp_path: Path) -> None:
    entries = [(tar_entry(f"d{number}", tarfile.DIRTYPE), b"") for number in range(50)]
    path = raw_goo(tmp_path / "a.goo", entries)
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match="larger than 20480 bytes"):
        extract(path, tmp_path / "out", limit=40 * 512)


def test_what_follows_the_archive_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.goo"
    path.write_bytes(gzip.compress(bytes(10 << 20)))
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match="larger than"):
        extract(path, tmp_path / "out", limit=1 << 20)


def test_long_path_is_extracted(tmp_path: Path) -> None:
    name = "/".join(["d" * 40] * 7) + "/f"
    path = raw_goo(tmp_path / "a.goo", [(tar_entry(name), b"x")])
    assert extract(path, tmp_path / "out") == (name, "a.pkgspec")
    assert extract_member(path, name, tmp_path) == tmp_path / name


def test_read_only_file_of_an_archive_can_be_replaced(tmp_path: Path) -> None:
    path = raw_goo(tmp_path / "a.goo", [(tar_entry("v", mode=0o444), b"x")])
    for _ in range(2):
        assert extract_member(path, "v", tmp_path).read_bytes() == b"x"


def test_existing_folder_is_left_alone(tmp_path: Path) -> None:
    path = raw_goo(tmp_path / "a.goo", [(tar_entry("x"), b"new")])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").write_bytes(b"mine")
    with nothing_left(tmp_path), pytest.raises(FileExistsError):
        extract(path, tmp_path / "out")


_PARTS = st.sampled_from(
    ["..", ".", "", "a", "b", "C:", "con", "x ", "\\", "..\\..", "e\u0301", "A", ":"]
) | st.text(max_size=4)
_HOSTILE_NAMES = st.lists(_PARTS, min_size=1, max_size=5).map("/".join)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(_HOSTILE_NAMES, _KINDS, st.sampled_from(["..", "a", "/etc"])), max_size=5),
    st.booleans(),
)
def test_no_entry_escapes_its_folder(
    tmp_path: Path, entries: list[tuple[str, bytes, str]], windows: bool
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as scratch:
        top = Path(scratch)
        infos = []
        for name, kind, target in entries:
            info = tar_entry(name.replace("\0", "0"), kind)
            info.linkname = target
            infos.append((info, b"evil" if kind == tarfile.REGTYPE else b""))
        path = raw_goo(top / "a.goo", infos, form=tarfile.GNU_FORMAT)
        out = top / "in" / "out"
        out.parent.mkdir()
        try:
            names = extract(path, out, windows=windows)
        except ArchiveError:
            assert sorted(top.rglob("*")) == [path, out.parent]
            return
        assert sorted(top.iterdir()) == [path, out.parent]
        assert list(out.parent.iterdir()) == [out]
        # On a system that ignores case, names may come back in another one.
        assert len(contents(out)) == len(set(names)) == len(names)
        assert not any(found.is_symlink() for found in out.rglob("*"))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bytes_crash_the_reader(tmp_path: Path, data: st.DataObject) -> None:
    sound = bytearray(OF_GO)
    if data.draw(st.booleans()):
        # Damage that the checksum of gzip does not show.
        sound = bytearray(gzip.decompress(OF_GO))
    for at in data.draw(st.lists(st.integers(0, len(sound) - 1), max_size=4)):
        sound[at] = data.draw(st.integers(0, 255))
    whole = bytes(sound) if sound[:2] == OF_GO[:2] else gzip.compress(bytes(sound))
    path = tmp_path / "fuzz.goo"
    path.write_bytes(whole[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))])
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        for use in (
            lambda: read_archive_spec(path),
            lambda: extract(path, Path(folder, "out")),
            lambda: extract_member(path, "empty", Path(folder)),
        ):
            try:
                use()
            except ArchiveError:
                pass


# One member


def test_one_file_is_extracted_below_a_folder(tmp_path: Path) -> None:
    path = raw_goo(tmp_path / "a.goo", [(tar_entry("bin/v.ps1"), b"v"), (tar_entry("b"), b"")])
    target = extract_member(path, "bin/v.ps1", tmp_path)
    assert target == tmp_path / "bin/v.ps1"
    assert target.read_bytes() == b"v"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.goo", "bin"]


@pytest.mark.parametrize("name", ["nothing", "d", "bin"])
def test_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    entries = [(tar_entry("bin/v.ps1"), b"v"), (tar_entry("d", tarfile.DIRTYPE), b"")]
    path = raw_goo(tmp_path / "a.goo", entries)
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match=f"no file {name}"):
        extract_member(path, name, tmp_path)


def test_member_outside_the_folder_is_refused(tmp_path: Path) -> None:
    path = raw_goo(tmp_path / "a.goo", [])
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match="leads out"):
        extract_member(path, "../x", tmp_path)


# Writing


def write(path: Path, members: dict[str, Member], *, mtime: Optional[int] = 1767312000) -> Path:
    write_archive(path, SPEC, members, mtime=mtime)
    return path


def test_archive_is_read_by_others(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    path = write(
        tmp_path / "a.goo",
        {
            "z/f": Member(tmp_path / "f", 0o755),
            "given": Member(b"x"),
            "ü/" + "n" * 200: Member(b""),
        },
    )
    with tarfile.open(path) as tar:
        entries = tar.getmembers()
        assert [entry.name for entry in entries] == ["a.pkgspec", "given", "z/f", "ü/" + "n" * 200]
        assert all(entry.isreg() for entry in entries)
        assert [entry.mode for entry in entries] == [0o644, 0o644, 0o755, 0o644]
        assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {
            (0, 0, "", "")
        }
        assert {entry.mtime for entry in entries} == {1767312000}
        file = tar.extractfile("z/f")
        assert file is not None
        assert file.read() == b"content"


def test_header_of_the_gzip_stream_is_the_reference_s(tmp_path: Path) -> None:
    data = write(tmp_path / "a.goo", {}).read_bytes()
    assert data[:10] == bytes.fromhex("1f8b08000000000000ff")


def test_short_names_need_no_extension(tmp_path: Path) -> None:
    stream = gzip.decompress(
        write(tmp_path / "a.goo", {"p" * 100 + "/" + "n" * 99: Member(b"")}).read_bytes()
    )
    kinds = {stream[at + 156 : at + 157] for at in (0, 1024)}
    assert kinds == {b"0"}
    assert stream[257:265] == b"ustar\x0000"
    assert stream.endswith(bytes(1024))


def test_spec_is_written_first_with_indents_and_no_final_newline(tmp_path: Path) -> None:
    path = write(tmp_path / "a.goo", {"0": Member(b"")})
    with tarfile.open(path) as tar:
        first = tar.next()
        assert first is not None
        assert first.name == "a.pkgspec"
        file = tar.extractfile(first)
        assert file is not None
        text = file.read().decode()
    assert text.startswith('{\n  "Name": "a",\n  "Version"')
    assert text.endswith("\n}")


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, time in (("one", 1_600_000_000), ("two", 1_700_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_bytes(b"content")
        os.utime(tmp_path / name / "f", (time, time))
    archives = [
        write(tmp_path / f"{name}.goo", dict(sorted(members.items(), reverse=name == "two")))
        for name in ("one", "two")
        for members in [{"f": Member(tmp_path / name / "f", 0o644), "g": Member(b"x")}]
    ]
    assert sha256_of(archives[0]) == sha256_of(archives[1])


def test_source_date_is_the_time_of_all_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    (tmp_path / "f").write_bytes(b"")
    with tarfile.open(write(tmp_path / "a.goo", {"f": Member(tmp_path / "f")}, mtime=None)) as tar:
        assert {entry.mtime for entry in tar.getmembers()} == {1234567890}


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 11, "99999999999"])
def test_wrong_source_date_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match="SOURCE_DATE_EPOCH"):
        write(tmp_path / "a.goo", {}, mtime=None)


def test_without_a_source_date_the_files_times_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    for name, time in (("f", 1_600_000_000.9), ("g", 1_700_000_000)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time, time))
    members = {name: Member(tmp_path / name) for name in ("f", "g")}
    with tarfile.open(write(tmp_path / "a.goo", members, mtime=None)) as tar:
        times = {entry.name: entry.mtime for entry in tar.getmembers()}
    assert times == {"f": 1_600_000_000, "g": 1_700_000_000, "a.pkgspec": 1_700_000_000}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/abs", "clean relative path"),
        ("../up", "clean relative path"),
        ("a/../b", "clean relative path"),
        ("a//b", "clean relative path"),
        ("./a", "clean relative path"),
        ("a/", "clean relative path"),
        (".", "clean relative path"),
        ("", "clean relative path"),
        ("a\\b", "clean relative path"),
        ("C:x", "clean relative path"),
        ("ab:c", "on Windows"),
        ("con", "on Windows"),
        ("d/nul.txt", "on Windows"),
        ("a.", "on Windows"),
        ("\udcff", "on Windows"),
        ("x.pkgspec", "taken for the spec"),
        ("d/x.pkgspec", "taken for the spec"),
        ("A.PKGSPEC", "taken for the spec"),
        ("a.pkgspec/x", "both a file and a folder"),
    ],
)
def test_name_that_cannot_be_packed_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match=message):
        write(tmp_path / "a.goo", {name: Member(b"")})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a/F", "a/f"), "differ only in case"),
        (("Ä", "ä"), "differ only in case"),
        (("x", "x/y"), "both a file and a folder"),
        (("X", "x/y"), "both a file and a folder"),
    ],
)
def test_names_that_exclude_each_other_are_refused(
    tmp_path: Path, names: tuple[str, str], message: str
) -> None:
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match=message):
        write(tmp_path / "a.goo", {name: Member(b"") for name in names})


def test_spec_with_another_name_is_refused(tmp_path: Path) -> None:
    with nothing_left(tmp_path), pytest.raises(SpecError, match="package name"):
        write_archive(tmp_path / "x.goo", PackageSpec("a.b", "1", "noarch"), {})


def test_failure_leaves_the_old_archive(tmp_path: Path) -> None:
    path = write(tmp_path / "a.goo", {"old": Member(b"")})
    with nothing_left(tmp_path):
        with pytest.raises(FileNotFoundError):
            write(path, {"a": Member(b"x"), "b": Member(tmp_path / "missing")})
        with pytest.raises(ArchiveError, match="no regular file"):
            write(path, {"b": Member(tmp_path)})


@posix_only
def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArchiveError, match="no regular file"):
        write(tmp_path / "a.goo", {"p": Member(tmp_path / "pipe")})


@posix_only
@pytest.mark.parametrize("kernel_file", ["/proc/self/status"])
def test_file_that_is_longer_than_it_says_is_refused(tmp_path: Path, kernel_file: str) -> None:
    with nothing_left(tmp_path), pytest.raises(ArchiveError, match="changed while it was packed"):
        write(tmp_path / "a.goo", {"p": Member(Path(kernel_file))})


@posix_only
def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    (tmp_path / "link").symlink_to("f")
    path = write(tmp_path / "a.goo", {"l": Member(tmp_path / "link")})
    assert unpacked(path)["l"] == b"content"


def test_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


@posix_only
def test_large_file_needs_little_memory(tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.truncate(256 << 20)
    program = """
import pathlib, resource, sys
from googet.archive import Member, extract, write_archive
from googet.pkgspec import PackageSpec
resource.setrlimit(resource.RLIMIT_DATA, (96 << 20, 96 << 20))
top = pathlib.Path(sys.argv[1])
write_archive(top / "a.goo", PackageSpec("a", "1", "noarch"), {"big": Member(top / "big")})
extract(top / "a.goo", top / "out")
print((top / "out/big").stat().st_size)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == (f"{256 << 20}\n", "")


_CLEAN = st.lists(
    st.text("abcXYZ0 .-_üß\u4e2d", min_size=1, max_size=5), min_size=1, max_size=4
).map("/".join)
_MEMBERS = st.dictionaries(
    _CLEAN.filter(
        lambda name: (
            is_portable_name(name) and ".." not in name.split("/") and "." not in name.split("/")
        )
    ),
    st.binary(max_size=2000),
    max_size=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_MEMBERS)
@example({})
def test_what_is_written_reads_back(tmp_path: Path, members: dict[str, bytes]) -> None:
    path = tmp_path / "a.goo"
    path.unlink(missing_ok=True)
    try:
        write(path, {name: Member(content) for name, content in members.items()})
    except GuestError:
        assert not path.exists()
        return
    assert read_archive_spec(path) == SPEC
    found = unpacked(path)
    assert found.pop("a.pkgspec").startswith(b"{\n")
    assert found == members
