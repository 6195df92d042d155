"""A tar stream read entry by entry, forwards only: USTAR, PAX and GNU, as Go's archive/tar reads.

The standard library's reader ends silently at a damaged header and differs between the versions of
Python; here whatever is not a sound archive is an error, and nothing is kept of entries passed.

Facts: POSIX.1-2017 pax(1) (ustar and pax interchange formats), the GNU tar manual (base-256
numbers, long names), the Go standard library, archive/tar (what readers accept).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Optional, Protocol

from google_guest.errors import GuestError
from google_guest.records import record

BLOCK = 512
_NOTHING = bytes(BLOCK)
_READ_SIZE = 1 << 16
_LARGEST_EXTENSION = 1 << 20
_LARGEST_NUMBER = (1 << 63) - 1
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?[0-9]{1,18})(?:\.[0-9]*)?")
_PAX_LENGTH = re.compile(rb"[0-9]{1,7} ")

_FILES = (b"0", b"\0", b"7")
_FOLDER = b"5"
_HEADER_ONLY = {
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "device",
    b"4": "device",
    b"6": "pipe",
}


class TarError(GuestError):
    """The stream is no sound tar archive."""


class Stream(Protocol):
    """What an archive is read from."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, fewer only at the end."""


@record
class TarEntry:
    """What a header says of an entry."""

    name: str
    """As written; bytes that are no UTF-8 are lone surrogates."""
    kind: str
    """``file``, ``folder`` or what else it is, for a message."""
    size: int
    """Bytes of content that follow."""
    mode: int
    """Permission bits."""
    modified: int
    """Whole seconds since 1970; may be negative."""


class TarReader:
    """Iterates over the entries of a stream; :meth:`read` gives the content of the last one."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[TarEntry]:
        """Yield the entries; what was not read of their content is passed over.

        Raises:
            TarError: the stream is not sound. What the stream itself raises is passed on.
        """
        while True:
            entry = self._next()
            if entry is None:
                return
            yield entry

    def read(self, size: int = _READ_SIZE) -> bytes:
        """Return the next bytes of the content of the current entry, none at its end."""
        if self._left == 0:
            return b""
        data = self._stream.read(min(size, self._left))
        if not data:
            raise TarError("it ends in the middle of a file")
        self._left -= len(data)
        return data

    def read_all(self, limit: int) -> bytes:
        """Return the whole content of the current entry.

        Raises:
            TarError: it has more than ``limit`` bytes.
        """
        if self._left > limit:
            raise TarError(f"an entry has {self._left} bytes; {limit} are allowed")
        data = bytearray()
        while self._left:
            data += self.read()
        return bytes(data)

    def _next(self) -> Optional[TarEntry]:
        name: Optional[str] = None
        extensions: dict[bytes, bytes] = {}
        while True:
            self._pass_over()
            header = self._header()
            if header is None:
                if name is not None or extensions:
                    raise TarError("it ends after the long name of an entry")
                return None
            kind = header[156:157]
            size = _number(header[124:136])
            if kind == b"x":
                self._enter(size)
                extensions = _pax_records(self.read_all(_LARGEST_EXTENSION))
            elif kind in (b"L", b"K", b"g"):
                self._enter(size)
                content = self.read_all(_LARGEST_EXTENSION)
                if kind == b"L":
                    name = _text(content)
            else:
                return self._entry(header, kind, size, name, extensions)

    def _entry(
        self,
        header: bytes,
        kind: bytes,
        size: int,
        name: Optional[str],
        extensions: dict[bytes, bytes],
    ) -> TarEntry:
        if any(key.startswith(b"GNU.sparse.") for key in extensions):
            kind = b"S"
        if b"size" in extensions:
            size = _decimal(extensions[b"size"])
        if b"path" in extensions:
            name = _text(extensions[b"path"])
        modified = _TIME.fullmatch(extensions.get(b"mtime", b""))
        if name is None:
            name = _name(header)
        if kind in _FILES and name.endswith("/"):
            kind = _FOLDER
        if kind == _FOLDER or kind in _HEADER_ONLY:
            size = 0
        self._enter(size)
        return TarEntry(
            name,
            _kind(kind),
            size,
            _number(header[100:108]) & 0o777,
            int(modified[1]) if modified else _number(header[136:148]),
        )

    def _enter(self, size: int) -> None:
        if size < 0:
            raise TarError("an entry has a negative size")
        self._left = size
        self._padding = -size % BLOCK

    def _pass_over(self) -> None:
        while self._left:
            self.read()
        if self._padding:
            # The padding of the last entry may be missing, as Go's reader allows.
            self._read_block(self._padding)
            self._padding = 0

    def _header(self) -> Optional[bytes]:
        block = self._read_block(BLOCK)
        if not block or block == _NOTHING:
            return None
        if len(block) < BLOCK:
            raise TarError("it ends in the middle of a header")
        stored = _number(block[148:156])
        others = block[:148] + b" " * 8 + block[156:]
        signed = sum(others) - 256 * sum(byte > 127 for byte in others)
        if stored not in (sum(others), signed):
            raise TarError("a header is damaged")
        return block

    def _read_block(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                break
            data += more
        return data


def _kind(kind: bytes) -> str:
    if kind in _FILES:
        return "file"
    if kind == _FOLDER:
        return "folder"
    return _HEADER_ONLY.get(kind, "sparse file" if kind == b"S" else "entry of an unknown kind")


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    # GNU tar and older ones keep other things where USTAR has the prefix.
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        # Base 256: a big-endian two's complement number below the first bit.
        number = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            number -= 1 << (8 * len(field) - 1)
    else:
        match = _OCTAL.fullmatch(field)
        if match is None:
            raise TarError("a number in a header is damaged")
        number = int(match[1] or b"0", 8)
    if abs(number) > _LARGEST_NUMBER:
        raise TarError("a number in a header is too large")
    return number


def _decimal(text: bytes) -> int:
    if not _DECIMAL.fullmatch(text) or int(text) > _LARGEST_NUMBER:
        raise TarError("an extended header has a wrong size")
    return int(text)


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    while data:
        match = _PAX_LENGTH.match(data)
        length = int(match[0]) if match else 0
        line = data[:length]
        key, sign, value = line[match.end() if match else 0 : -1].partition(b"=")
        if not line.endswith(b"\n") or len(line) < length or not sign or not key:
            raise TarError("an extended header is damaged")
        records[key] = value
        data = data[length:]
    return records
