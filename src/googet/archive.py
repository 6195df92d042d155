"""Package archives (``.goo``): a gzip stream around one tar stream of files and a package spec.

Reading takes what Google's goopack writes, where the spec is the last entry. Writing puts it first,
so that an index of a thousand packages reads a few kilobytes of each, and gives the same bytes for
the same content, whoever builds where.

An archive comes from a network: nothing but files and folders is extracted, below a new folder
only, under names that every system understands in the same way, and either all of it or nothing.

Facts: googet: goopack/goopack.go (what is written), googet: goolib/goospec.go (finding the spec),
googet: download/download.go (extraction).
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import re
import shutil
import stat
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Optional, Union

from googet.atomic import move, replacing
from googet.gojson import JsonError, dumps
from googet.host.paths import WINDOWS_PATHS, PathError, with_long_prefix
from googet.pkgspec import (
    SPEC_SUFFIX,
    PackageSpec,
    SpecError,
    check_packable,
    clean_path,
    is_absolute,
    read_spec,
    spec_to_json,
)
from googet.tarstream import BLOCK, TarEntry, TarError, TarReader
from google_guest.errors import GuestError
from google_guest.records import record

EXTRACTION_LIMIT = 8 << 30
"""Bytes that the content of one archive may have, headers included."""
LARGEST_SPEC = 4 << 20

_GZIP_MAGIC = b"\x1f\x8b"
_READ_SIZE = 1 << 20
_SURROGATES = re.compile("[\ud800-\udfff]")
_NEW_FILE = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
)
_COMPRESSION_LEVEL = 6
_ON_WINDOWS = sys.platform == "win32"
_LATEST_TIME = (1 << 33) - 1  # USTAR has eleven octal digits for it


class ArchiveError(GuestError):
    """An archive is damaged, hostile or cannot be written; the message names it."""


@record
class Member:
    """A file to pack."""

    source: Union[Path, bytes]
    """The file (links are followed) or its content."""
    mode: Optional[int] = None
    """Permission bits; None takes those of the file, 0644 for given content."""


def read_archive_spec(path: Path) -> PackageSpec:
    """Return the spec of an archive: its first entry whose name ends with ``.pkgspec``.

    Raises:
        ArchiveError: it is no archive, or has no valid spec.
        OSError: it cannot be read.
    """
    with _opened(path, EXTRACTION_LIMIT) as entries:
        for entry in entries:
            if entry.kind == "file" and entry.name.endswith(SPEC_SUFFIX):
                try:
                    return read_spec(entries.tar.read_all(LARGEST_SPEC))
                except (JsonError, SpecError) as error:
                    raise ArchiveError(f"{path}: its {entry.name}: {error}") from error
    raise ArchiveError(f"{path} has no package spec (NAME{SPEC_SUFFIX})")


def extract(
    path: Path, folder: Path, *, limit: int = EXTRACTION_LIMIT, windows: bool = _ON_WINDOWS
) -> tuple[str, ...]:
    """Extract an archive into ``folder``, which must not exist and is created with mode 0700.

    Args:
        limit: most bytes to extract.
        windows: names that differ only in case are the same file.

    Returns:
        the names of the files in the archive's order, ``/`` between their parts.

    Raises:
        ArchiveError: the archive is damaged or has something that may not be extracted.
        OSError: the disk is full, ``folder`` exists, or the like.
        In both cases nothing is left behind.
    """
    if os.path.lexists(_system_path(folder)):
        raise FileExistsError(errno.EEXIST, "exists already", str(folder))
    scratch = folder.with_name(f".{folder.name}.googet-{os.urandom(6).hex()}")
    os.mkdir(_system_path(scratch), 0o700)
    try:
        names = _Extraction(path, scratch, windows=windows).run(limit)
        # After a power failure it would be extracted anew.
        move(Path(_system_path(scratch)), Path(_system_path(folder)), sync=False)
    except BaseException:
        shutil.rmtree(_system_path(scratch), ignore_errors=True)
        raise
    return names


def extract_member(path: Path, name: str, folder: Path) -> Path:
    """Extract one file below the existing ``folder`` and return where it is.

    Raises:
        ArchiveError: the archive is damaged or has no such file.
        OSError: the file cannot be written.
    """
    wanted = _entry_name(name, path)
    target = folder.joinpath(*wanted.split("/"))
    file: Optional[BinaryIO] = None
    with contextlib.ExitStack() as stack:
        entries = stack.enter_context(_opened(path, EXTRACTION_LIMIT))
        for entry in entries:
            if entry.kind != "file" or _entry_name(entry.name, path) != wanted:
                continue
            if file is None:
                os.makedirs(_system_path(target.parent), exist_ok=True)
                # It becomes the file only when the archive has proved to be sound to its end.
                new = replacing(Path(_system_path(target)), mode=_mode(entry))
                file = stack.enter_context(new)
            file.seek(0)
            file.truncate()
            _copy(entries.tar, file)
        if file is None:
            raise ArchiveError(f"{path} has no file {wanted}")
    return target


def write_archive(
    path: Path, spec: PackageSpec, members: Mapping[str, Member], *, mtime: Optional[int] = None
) -> None:
    """Write an archive with the spec and ``members`` (name in the archive to file).

    The same spec and content give the same bytes. ``mtime`` (whole seconds since 1970) is the time
    of all entries; without it that is the environment's SOURCE_DATE_EPOCH, else each file's own.

    Raises:
        ArchiveError: a member cannot be packed under its name.
        OSError: a file cannot be read or ``path`` not be written. ``path`` is unchanged then.
    """
    check_packable(spec)
    spec_name = spec.name + SPEC_SUFFIX
    _check_members(members, spec_name)
    moment = _source_date() if mtime is None else mtime
    content = Member(dumps(spec_to_json(spec), indent=2).encode("utf-8", "replace"))
    latest = max((_modified(member) for member in members.values()), default=0)
    # Content without a file is as old as the newest file: the same files give the same archive.
    otherwise = latest or int(time.time())
    with replacing(Path(_system_path(path))) as raw:
        packed = gzip.GzipFile(
            filename="", mode="wb", compresslevel=_COMPRESSION_LEVEL, fileobj=raw, mtime=0
        )
        with packed:
            for name in (spec_name, *sorted(members)):
                _add(packed, name, members.get(name, content), moment, otherwise)
            packed.write(bytes(2 * BLOCK))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as lower-case hexadecimal digits."""
    digest = hashlib.sha256()
    with open(_system_path(path), "rb") as file:
        for chunk in iter(lambda: file.read(_READ_SIZE), b""):
            digest.update(chunk)
    return digest.hexdigest()


class _Entries:
    """The entries of an opened archive; everything unpacked is counted against a limit."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self.tar = TarReader(stream)
        self._stream = stream
        self._limit = limit

    def __iter__(self) -> Iterator[TarEntry]:
        total = 0
        for entry in self.tar:
            total = self._counted(total + BLOCK + entry.size)
            yield entry
        # Only at the end of the stream its checksum is verified.
        while data := self._stream.read(_READ_SIZE):
            total = self._counted(total + len(data))

    def _counted(self, total: int) -> int:
        if total > self._limit:
            raise TarError(f"its content is larger than {self._limit} bytes")
        return total


@contextlib.contextmanager
def _opened(path: Path, limit: int) -> Iterator[_Entries]:
    with open(_system_path(path), "rb") as raw:
        if raw.read(2) != _GZIP_MAGIC:
            raise ArchiveError(f"{path} is no package archive: it is not compressed with gzip")
        raw.seek(0)
        with gzip.GzipFile(fileobj=raw) as unpacked:
            try:
                yield _Entries(unpacked, limit)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ArchiveError(f"{path} is damaged: {error}") from error
            except TarError as error:
                raise ArchiveError(f"{path} cannot be used: {error}") from error


class _Names:
    """The files and folders of an archive; refuses what would become one of another."""

    def __init__(self, archive: Optional[Path], *, ignores_case: bool) -> None:
        self._prefix = f"{archive}: " if archive else ""
        self._key = WINDOWS_PATHS.key if ignores_case else str
        self._files: dict[str, str] = {}
        self._folders: set[str] = set()

    def add_file(self, name: str) -> bool:
        """Take a file and the folders above it; return whether it is new."""
        key = self._key(name)
        known = self._files.get(key)
        if known is not None and known != name:
            raise ArchiveError(f"{self._prefix}{known!r} and {name!r} differ only in case")
        if key in self._folders:
            raise self._is_both(name)
        self._files[key] = name
        self.add_folder(name.rpartition("/")[0])
        return known is None

    def add_folder(self, name: str) -> None:
        """Take a folder and the folders above it."""
        while name and self._key(name) not in self._folders:
            if self._key(name) in self._files:
                raise self._is_both(name)
            self._folders.add(self._key(name))
            name = name.rpartition("/")[0]

    def files(self) -> tuple[str, ...]:
        """Return the files in the order in which they came first."""
        return tuple(self._files.values())

    def _is_both(self, name: str) -> ArchiveError:
        return ArchiveError(f"{self._prefix}{name!r} is both a file and a folder")


class _Extraction:
    """One extraction into a new folder."""

    def __init__(self, path: Path, folder: Path, *, windows: bool) -> None:
        self._path = path
        self._folder = folder
        self._names = _Names(path, ignores_case=windows)

    def run(self, limit: int) -> tuple[str, ...]:
        with _opened(self._path, limit) as entries:
            for entry in entries:
                name = _entry_name(entry.name, self._path)
                target = _system_path(self._folder.joinpath(*name.split("/")))
                if entry.kind == "folder":
                    self._names.add_folder("" if name == "." else name)
                    os.makedirs(target, 0o755, exist_ok=True)
                elif entry.kind == "file" and name != ".":
                    self._write(entry, name, target, entries.tar)
                else:
                    raise ArchiveError(
                        f"{self._path}: {entry.name!r} is a {entry.kind}; only files and folders"
                        " are extracted"
                    )
        return self._names.files()

    def _write(self, entry: TarEntry, name: str, target: str, tar: TarReader) -> None:
        if self._names.add_file(name):
            os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        else:
            os.unlink(target)
        with open(os.open(target, _NEW_FILE, 0o600), "wb") as file:
            _copy(tar, file)
            if sys.platform != "win32":
                os.fchmod(file.fileno(), _mode(entry))
        if 0 <= entry.modified <= _LATEST_TIME:
            os.utime(target, (entry.modified, entry.modified))


def _entry_name(name: str, path: Path) -> str:
    """Return the name of an entry without ``.`` and empty parts."""
    if is_absolute(name):
        raise ArchiveError(f"{path}: {name!r} is an absolute name")
    cleaned = clean_path(name)
    if cleaned == ".." or cleaned.startswith("../"):
        raise ArchiveError(f"{path}: {name!r} leads out of the archive")
    if not is_portable_name(cleaned):
        raise ArchiveError(f"{path}: {name!r} is no name that files can have on Windows")
    return cleaned


def is_portable_name(name: str) -> bool:
    """Say whether every system can have a file of this clean relative name, and means the same."""
    if "\0" in name or _SURROGATES.search(name):
        return False
    try:
        return name == "." or WINDOWS_PATHS.cleaned("C:\\" + name) != ""
    except PathError:
        return False


def _mode(entry: TarEntry) -> int:
    # On Windows a file without its write bit could not even be deleted.
    return entry.mode | (0o600 if _ON_WINDOWS else 0o400)


def _copy(tar: TarReader, file: BinaryIO) -> None:
    while data := tar.read():
        file.write(data)


def _system_path(path: Path) -> str:
    """Return what the system is asked for: on Windows a path without a limit of its length."""
    if _ON_WINDOWS:
        return with_long_prefix(WINDOWS_PATHS.cleaned(os.path.abspath(path)))
    return os.fspath(path)


def _check_members(members: Mapping[str, Member], spec_name: str) -> None:
    names = _Names(None, ignores_case=True)
    names.add_file(spec_name)
    for name in members:
        if name != clean_path(name) or name == "." or name.startswith("..") or is_absolute(name):
            raise ArchiveError(f"{name!r} is no clean relative path for a file in an archive")
        if not is_portable_name(name):
            raise ArchiveError(f"{name!r} is no name that files can have on Windows")
        if name.lower().endswith(SPEC_SUFFIX):
            raise ArchiveError(
                f"{name!r} cannot be packed: a file {SPEC_SUFFIX} would be taken for the spec"
            )
        names.add_file(name)


def _source_date() -> Optional[int]:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _LATEST_TIME:
        raise ArchiveError(f"SOURCE_DATE_EPOCH is {text!r}; it must be seconds since 1970")
    return int(text)


def _modified(member: Member) -> int:
    if isinstance(member.source, bytes):
        return 0
    return min(max(int(os.stat(_system_path(member.source)).st_mtime), 0), _LATEST_TIME)


def _add(
    packed: gzip.GzipFile, name: str, member: Member, moment: Optional[int], otherwise: int
) -> None:
    if isinstance(member.source, bytes):
        mode = 0o644 if member.mode is None else member.mode
        time_of_entry = otherwise if moment is None else moment
        packed.write(_header(name, len(member.source), mode, time_of_entry))
        packed.write(member.source)
        packed.write(bytes(-len(member.source) % BLOCK))
        return
    source = _system_path(member.source)
    # A pipe would block when it is opened.
    if not stat.S_ISREG(os.stat(source).st_mode):
        raise ArchiveError(f"{member.source} is no regular file")
    with open(source, "rb") as file:
        facts = os.fstat(file.fileno())
        mode = facts.st_mode if member.mode is None else member.mode
        time_of_entry = _modified(member) if moment is None else moment
        packed.write(_header(name, facts.st_size, mode, time_of_entry))
        left = facts.st_size
        while data := file.read(_READ_SIZE):
            left -= len(data)
            if left < 0:
                break
            packed.write(data)
    if left:
        raise ArchiveError(f"{member.source} changed while it was packed")
    packed.write(bytes(-facts.st_size % BLOCK))


def _header(name: str, size: int, mode: int, modified: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = mode & 0o777
    entry.mtime = modified
    try:
        return entry.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    except ValueError:
        # A long or non-ASCII name, or eight gibibytes.
        return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
