"""Tar streams: what real writers give, and every way in which a stream is not sound."""

from __future__ import annotations

import io
import tarfile
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet.tarstream import BLOCK, TarEntry, TarError, TarReader


def stream(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytearray:
    """A tar stream as Python's own writer gives it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return bytearray(file.getvalue())


def entry(name: str = "f", kind: bytes = tarfile.REGTYPE, **facts: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info


def with_checksum(data: bytearray, at: int = 0) -> bytearray:
    """Make the checksum of the header at ``at`` right again."""
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 155] = b"%06o\0" % sum(data[at : at + BLOCK])
    return data


def read(data: bytes) -> list[tuple[TarEntry, bytes]]:
    tar = TarReader(io.BytesIO(data))
    return [(found, tar.read_all(1 << 20)) for found in tar]


@pytest.mark.parametrize(
    "form",
    [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT],
    ids=["ustar", "pax", "gnu"],
)
def test_entries_of_every_dialect_are_read(form: int) -> None:
    data = stream(
        (entry("d/f", mode=0o4755, mtime=1767312000), b"x" * 513),
        (entry("d", tarfile.DIRTYPE), b""),
        (entry("empty", mtime=0), b""),
        form=form,
    )
    assert read(data) == [
        (TarEntry("d/f", "file", 513, 0o755, 1767312000), b"x" * 513),
        (TarEntry("d/", "folder", 0, 0o644, 0), b""),
        (TarEntry("empty", "file", 0, 0o644, 0), b""),
    ]


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (tarfile.USTAR_FORMAT, "a" * 100),
        (tarfile.USTAR_FORMAT, "p" * 120 + "/" + "n" * 90),
        (tarfile.PAX_FORMAT, "p" * 300 + "/ü"),
        (tarfile.GNU_FORMAT, "p" * 300 + "/ü"),
    ],
)
def test_long_name_is_read(form: int, name: str) -> None:
    [(found, content)] = read(stream((entry(name), b"x"), form=form))
    assert (found.name, content) == (name, b"x")


def test_long_target_of_a_link_is_passed_over() -> None:
    link = entry("l", tarfile.SYMTYPE, linkname="t" * 300)
    found = read(stream((link, b""), (entry("f"), b"x"), form=tarfile.GNU_FORMAT))
    assert [each.name for each, _ in found] == ["l", "f"]


def test_time_with_a_fraction_loses_it() -> None:
    [(found, _)] = read(stream((entry(mtime=1.9), b""), form=tarfile.PAX_FORMAT))
    assert found.modified == 1


def test_time_before_1970_is_read() -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        [(found, _)] = read(stream((entry(mtime=-5), b""), form=form))
        assert found.modified == -5


def test_global_header_is_passed_over() -> None:
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "c"}
    ) as tar:
        tar.addfile(entry("f"), io.BytesIO())
    assert [found.name for found, _ in read(file.getvalue())] == ["f"]


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "pipe"),
        (b"Z", "entry of an unknown kind"),
        (tarfile.GNUTYPE_SPARSE, "sparse file"),
        (tarfile.CONTTYPE, "file"),
        (tarfile.AREGTYPE, "file"),
    ],
)
def test_kind_of_an_entry_is_told(kind: bytes, shown: str) -> None:
    data = with_checksum(stream((entry("x"), b"")))
    data[156:157] = kind
    [(found, _)] = read(with_checksum(data))
    assert found.kind == shown


def test_size_of_a_link_is_no_content() -> None:
    link = entry("l", tarfile.LNKTYPE, linkname="f")
    data = stream((link, b""), (entry("f"), b"x"))
    data[124:136] = b"%011o\0" % 1000
    assert [found.name for found, _ in read(with_checksum(data))] == ["l", "f"]


def test_name_that_ends_with_a_slash_is_a_folder() -> None:
    data = stream((entry("d"), b""))
    data[:2] = b"d/"
    [(found, _)] = read(with_checksum(data))
    assert found.kind == "folder"


def test_pax_size_counts() -> None:
    info = entry("f")
    data = stream((info, b"abc"))
    data[124:136] = b"%011o\0" % 0
    header = io.BytesIO()
    with tarfile.open(fileobj=header, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry("x", pax_headers={"size": "3"}), io.BytesIO())
    extension = header.getvalue()[: 2 * BLOCK]
    [(found, content)] = read(extension + with_checksum(data))
    assert (found.size, content) == (3, b"abc")


def test_signed_checksum_is_accepted() -> None:
    data = stream((entry("ü"), b""))
    data[148:156] = b" " * 8
    signed = sum(byte - 256 * (byte > 127) for byte in data[:BLOCK])
    data[148:155] = b"%06o\0" % signed
    assert [found.name for found, _ in read(data)] == ["ü"]


def test_name_that_is_no_utf8_is_kept_apart() -> None:
    data = stream((entry("f"), b""))
    data[0] = 0xFF
    [(found, _)] = read(with_checksum(data))
    assert found.name == "\udcff"


def test_archive_without_final_blocks_is_sound() -> None:
    data = stream((entry("f"), b"abc"))
    assert len(read(data[: 2 * BLOCK])) == 1
    # Even the padding of the last entry may be missing.
    assert len(read(data[: BLOCK + 3])) == 1


def _damaged(at: int, new: bytes, *, checksum: bool = True) -> bytes:
    data = stream((entry("f"), b"abc"), (entry("g"), b"def"))
    data[at : at + len(new)] = new
    return bytes(with_checksum(data, at // BLOCK * BLOCK) if checksum else data)


def _with_pax(record: bytes, after: Optional[bytes] = None) -> bytes:
    """A stream whose first entry has this extended header."""
    header = stream((entry("x"), record))
    header[156:157] = b"x"
    with_checksum(header)
    following = stream((entry("f"), b"abc")) if after is None else after
    return bytes(header[: BLOCK + -(-len(record) // BLOCK) * BLOCK]) + bytes(following)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_damaged(0, b"z", checksum=False), "header is damaged"),
        (_damaged(2 * BLOCK, b"z", checksum=False), "header is damaged"),
        (_damaged(124, b"9"), "number in a header"),
        (_damaged(124, b"\xff" * 12), "negative size"),
        (_damaged(124, b"\x80" + b"\xff" * 11), "too large"),
        (_damaged(148, b"z", checksum=False), "number in a header"),
        (_damaged(0, b"")[: BLOCK + 2], "middle of a file"),
        (_damaged(0, b"")[: BLOCK - 1], "middle of a header"),
        (_damaged(0, b"")[: 2 * BLOCK + 1], "middle of a header"),
        (b"x" * 1000, "number in a header"),
        (_with_pax(b"13 path=long\n", b""), "after the long name"),
        (_with_pax(b"99 path=long\n"), "extended header"),
        (_with_pax(b"path=long\n"), "extended header"),
        (_with_pax(b"8 pathx\n"), "extended header"),
        (_with_pax(b"6 =a\n\n"), "extended header"),
        (_with_pax(b"9 size=x\n"), "wrong size"),
        (_with_pax(b"11 size=-1\n"), "wrong size"),
        (_with_pax(b"28 size=9999999999999999999\n"), "wrong size"),
        (_with_pax(bytes(1 << 21)), "2097152 bytes"),
    ],
)
def test_unsound_stream_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(TarError, match=message):
        read(data)


def test_sparse_file_of_pax_is_no_file() -> None:
    [(found, _)] = read(_with_pax(b"22 GNU.sparse.major=1\n"))
    assert found.kind == "sparse file"


def test_content_over_the_limit_is_not_read() -> None:
    tar = TarReader(io.BytesIO(stream((entry("f"), b"abc"))))
    next(iter(tar))
    with pytest.raises(TarError, match="3 bytes; 2 are allowed"):
        tar.read_all(2)


class _Dripping:
    """A stream that gives a byte at a time."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, 1))


def test_stream_may_give_less_than_asked() -> None:
    tar = TarReader(_Dripping(bytes(stream((entry("f"), b"abc"), (entry("g"), b"d")))))
    assert [(found.name, tar.read_all(9)) for found in tar] == [("f", b"abc"), ("g", b"d")]


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300)


@given(
    st.lists(st.tuples(_NAMES, st.binary(max_size=2000), st.integers(0, 2**33))),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_what_python_writes_is_read(files: list[tuple[str, bytes, int]], form: int) -> None:
    written = [(name, content, time) for name, content, time in files if not name.endswith("/")]
    data = stream(
        *((entry(name, mtime=time), content) for name, content, time in written), form=form
    )
    found = [(each.name, content, each.modified) for each, content in read(data)]
    assert found == written


@given(st.data())
def test_any_damage_is_refused_or_read(data: st.DataObject) -> None:
    sound = stream((entry("f"), b"abc"), (entry("n" * 200), b"d"), form=tarfile.PAX_FORMAT)[
        : 9 * BLOCK
    ]
    for at in data.draw(st.lists(st.integers(0, len(sound) - 1), min_size=1, max_size=4)):
        sound[at] = data.draw(st.integers(0, 255))
    header = data.draw(st.sampled_from([0, 2 * BLOCK]))
    try:
        read(with_checksum(sound, header))
    except TarError:
        pass
