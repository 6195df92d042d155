"""The index of a repository: ``REPO/index.gz`` or ``REPO/index``.

One JSON array (or ``null``) of ``{"Checksum": SHA-256 of the .goo in hexadecimal, "Source": path,
"PackageSpec": {...}}``, all versions and architectures in any order. Keys are read in any case,
unknown ones are ignored. An entry that cannot be used, because its spec is missing or breaks a rule
or because its checksum is none, is skipped with a line in the log; the others count. gzip is
recognised by its first bytes, not by the file's name: a web server may have packed or unpacked the
answer on the way.

Indexes that are written here are sorted by name, architecture, version and ``Source``, and depend
on nothing but the packages: the same packages give the same bytes.

Source: googet ``goolib/goolib.go`` (``RepoSpec``), ``client/client.go`` (reading),
``server/gooserve.go`` (writing); RFC 1952 for gzip.
"""

from __future__ import annotations

import gzip
import io
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from googet.archive import read_archive_spec, sha256_of
from googet.gojson import JsonError, dumps, fold_keys, load
from googet.pkgspec import PackageSpec, SpecError, file_name, spec_from_json, spec_to_json
from googet.versions import parse_version
from google_guest.errors import GuestError
from google_guest.records import record

SIZE_LIMIT = 256 << 20
"""Largest index, unpacked, in bytes."""
SUFFIX = ".goo"
_KEYS = frozenset({"Checksum", "Source", "PackageSpec"})
_GZIP = b"\x1f\x8b"
_MOST_LAYERS = 2
"""Of gzip: the file's own, and a server's."""
_MOST_MEMBERS = 1000
"""Of one gzip file."""
_MOST_COMPLAINTS = 20
_CHECKSUM = re.compile(r"[0-9A-Fa-f]{64}")

_logger = logging.getLogger(__name__)


class IndexFormatError(GuestError):
    """The file is no index."""


@record
class IndexEntry:
    """A package of a repository."""

    checksum: str
    """SHA-256 of the .goo, lower-case hexadecimal."""
    source: str
    """Where it is: see ``googet.urls.package_url``."""
    spec: PackageSpec


def read_index(data: bytes) -> tuple[IndexEntry, ...]:
    """Return the usable entries of an index, packed or not.

    Raises:
        IndexFormatError: it is no index, truncated, or larger than ``SIZE_LIMIT``.
    """
    return tuple(entry for entry, _ in read_documents(data))


def read_documents(data: bytes) -> tuple[tuple[IndexEntry, Mapping[str, Any]], ...]:
    """Return the usable entries of an index, each with the JSON object that it was made from.

    Raises:
        IndexFormatError: as for :func:`read_index`.
    """
    data = unpacked(data)
    for mark, encoding in ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")):
        if data.startswith(mark):
            raise IndexFormatError(
                f"the index is {encoding}, as PowerShell's redirection writes it;"
                " write it with gooserve -save_index"
            )
    if data.startswith(b"\xef\xbb\xbf"):
        raise IndexFormatError("the index begins with a byte order mark; save it without one")
    try:
        document = load(data)
    except JsonError as error:
        raise IndexFormatError(f"the index is no index: {error}") from error
    if document is None:
        return ()
    if not isinstance(document, list):
        raise IndexFormatError("the index is no JSON array")
    return tuple(_usable(document))


def unpacked(data: bytes) -> bytes:
    """Return ``data`` without the gzip around it, if there is any.

    Raises:
        IndexFormatError: the stream is broken, or its content larger than ``SIZE_LIMIT``.
    """
    for _ in range(_MOST_LAYERS):
        if not data.startswith(_GZIP):
            break
        data = _gunzipped(data)
    if len(data) > SIZE_LIMIT:
        raise IndexFormatError(f"the index is larger than {SIZE_LIMIT >> 20} MiB")
    return data


def packed(data: bytes) -> bytes:
    """Return ``data`` as a gzip file that depends on nothing else."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def write_index(entries: Iterable[IndexEntry]) -> bytes:
    """Return the index of ``entries``: sorted, indented JSON in UTF-8 without a byte order mark."""
    documents = [
        {
            "Checksum": entry.checksum,
            "Source": entry.source,
            "PackageSpec": spec_to_json(entry.spec),
        }
        for entry in sorted(entries, key=sort_key)
    ]
    return f"{dumps(documents, indent=2)}\n".encode()


def entry_of(path: Path, source: str) -> IndexEntry:
    """Return the entry of the package ``path``.

    Raises:
        GuestError: it is no package.
        OSError: it cannot be read.
    """
    spec = read_archive_spec(path)
    if path.name != file_name(spec):
        _logger.warning("%s: the package inside is %s", path, file_name(spec))
    return IndexEntry(sha256_of(path), source, spec)


def sort_key(entry: IndexEntry) -> Any:
    """Return what entries are sorted by."""
    spec = entry.spec
    return spec.name, spec.arch, parse_version(spec.version).sort_key, entry.source


def _usable(items: Iterable[Any]) -> Iterator[tuple[IndexEntry, Mapping[str, Any]]]:
    complaints = 0
    for number, item in enumerate(items, start=1):
        try:
            yield _entry(item), item
        except (IndexFormatError, SpecError) as error:
            complaints += 1
            if complaints <= _MOST_COMPLAINTS:
                _logger.warning("entry %d of the index is skipped: %s", number, error)
    if complaints > _MOST_COMPLAINTS:
        _logger.warning("%d more entries are skipped", complaints - _MOST_COMPLAINTS)


def _entry(item: Any) -> IndexEntry:
    if not isinstance(item, dict):
        raise IndexFormatError("it is no object")
    values = item if item.keys() == _KEYS else fold_keys(item, _KEYS)
    spec = values.get("PackageSpec")
    if spec is None:
        raise IndexFormatError("it has no PackageSpec")
    checksum, source = values.get("Checksum"), values.get("Source")
    if not isinstance(checksum, str) or not _CHECKSUM.fullmatch(checksum):
        raise IndexFormatError("its Checksum is no SHA-256")
    if not isinstance(source, str) or not source:
        raise IndexFormatError("it has no Source")
    return IndexEntry(checksum.lower(), source, spec_from_json(spec))


def _gunzipped(data: bytes) -> bytes:
    """Return the content of a gzip file of one or more members; zeros after it are padding."""
    content: list[bytes] = []
    left = SIZE_LIMIT
    rest = data
    while rest.startswith(_GZIP):
        if len(content) == _MOST_MEMBERS:
            raise IndexFormatError("the gzip data of the index is in too many pieces")
        stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            piece = stream.decompress(rest, left + 1)
        except zlib.error as error:
            raise IndexFormatError("the gzip data of the index is damaged") from error
        left -= len(piece)
        if left < 0:
            raise IndexFormatError(f"the index is larger than {SIZE_LIMIT >> 20} MiB")
        if not stream.eof:
            raise IndexFormatError("the gzip data of the index is truncated")
        content.append(piece)
        rest = stream.unused_data
    if rest.strip(b"\0"):
        raise IndexFormatError("there is something else after the gzip data of the index")
    return b"".join(content)
