"""The journal of a transaction: ``ROOT/cache/txn-*.json``.

It says beforehand everything that a transaction may do to files and to the database, with the
names of temporary files and backups. With it and a look at the disk every step can be undone or
finished, wherever the process ended. It is replaced atomically, so it is never half written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional, TypeVar

from googet import atomic
from googet.host import Host
from googet.host.paths import PathError
from google_guest.errors import GuestError
from google_guest.records import as_dict, record

VERSION = 1
_LIMIT = 256 << 20
_T = TypeVar("_T")


class JournalError(GuestError):
    """A journal that cannot be read, or is none."""


@record
class FileStep:
    """A file that takes the place ``path``: written as ``temporary``, the old one to ``backup``."""

    path: str
    temporary: str
    backup: str
    existed: bool


@record
class MovedFile:
    """An obsolete file that stands where a folder has to be: it moves to ``backup``."""

    path: str
    backup: str


@record
class ClearedFolder:
    """An obsolete, empty folder that stands where a file has to be; ``mode`` to make it again."""

    path: str
    mode: int


@record
class Stage:
    """What one package does to the files.

    ``folders`` are made, parents first. Only with ``switching`` may files have taken their places;
    all temporary files are complete then.
    """

    moved: tuple[MovedFile, ...]
    cleared: tuple[ClearedFolder, ...]
    folders: tuple[str, ...]
    files: tuple[FileStep, ...]
    switching: bool = False


@record
class RowStep:
    """A row of the database: SHA-256 of the stored record before and after (empty: no row)."""

    name: str
    arch: str
    before: str
    after: str


@record
class Scratch:
    """A folder that goes in any case, and the ``N.A.V`` under which its logs are kept."""

    folder: str
    package: str


@record
class Journal:
    """One transaction. All paths are host paths."""

    title: str
    stages: tuple[Stage, ...] = ()
    rows: tuple[RowStep, ...] = ()
    files: tuple[str, ...] = ()
    """Deleted once the transaction is committed."""
    folders: tuple[str, ...] = ()
    """Deleted after that if they are empty, in this order."""
    scratch: tuple[Scratch, ...] = ()
    committed: bool = False


def find(cache: Path) -> tuple[Path, ...]:
    """Return the journals below ``cache``, the newest first."""
    found = [path for path in cache.glob("txn-*.json") if path.is_file()]
    return tuple(sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path.name)))


def new_path(cache: Path) -> Path:
    """Return the path of a new journal; its stem also begins the names of its backups."""
    return cache / f"txn-{os.urandom(6).hex()}.json"


def write(path: Path, journal: Journal, *, sync: bool = True) -> None:
    """Replace the journal at ``path``; with ``sync`` it outlasts a power failure at once.

    Raises:
        OSError: it is as it was.
    """
    atomic.replace_file(path, json.dumps(_plain(journal)).encode(), mode=0o600, sync=sync)


def read(path: Path, host: Host) -> Journal:
    """Return the journal at ``path``.

    Raises:
        JournalError: it cannot be read, or is none that this version wrote.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return parse(data, host)
    except JournalError as error:
        raise JournalError(f"{path} is damaged: {error}") from error


def parse(data: bytes, host: Host) -> Journal:
    """Return the journal that ``data`` holds; see :func:`read`."""
    try:
        value = json.loads(data) if len(data) <= _LIMIT else None
    except (ValueError, RecursionError) as error:
        raise JournalError("it is no JSON") from error
    fields = _Fields(value, host)
    if fields.number("version") != VERSION:
        raise JournalError("it was written by another version of googet")
    return Journal(
        title=fields.text("title"),
        stages=fields.each("stages", _stage),
        rows=fields.each("rows", _row),
        files=fields.paths("files"),
        folders=fields.paths("folders"),
        scratch=fields.each("scratch", _scratch),
        committed=fields.flag("committed"),
    )


def _plain(journal: Journal) -> dict[str, Any]:
    return {"version": VERSION, **_value(journal)}


def _value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_value(each) for each in value]
    if isinstance(value, (str, int, bool)):
        return value
    return {name: _value(each) for name, each in as_dict(value).items()}


def _stage(fields: _Fields) -> Stage:
    return Stage(
        moved=fields.each("moved", lambda each: MovedFile(each.path("path"), each.path("backup"))),
        cleared=fields.each(
            "cleared", lambda each: ClearedFolder(each.path("path"), each.number("mode"))
        ),
        folders=fields.paths("folders"),
        files=fields.each("files", _file_step),
        switching=fields.flag("switching"),
    )


def _file_step(fields: _Fields) -> FileStep:
    return FileStep(
        fields.path("path"), fields.path("temporary"), fields.path("backup"), fields.flag("existed")
    )


def _row(fields: _Fields) -> RowStep:
    return RowStep(
        fields.text("name"), fields.text("arch"), fields.text("before"), fields.text("after")
    )


def _scratch(fields: _Fields) -> Scratch:
    return Scratch(fields.path("folder"), fields.text("package"))


class _Fields:
    """The fields of one JSON object, each of exactly one kind."""

    def __init__(self, value: Any, host: Host) -> None:
        if not isinstance(value, Mapping):
            raise JournalError("an object is missing")
        self._value = value
        self._host = host

    def text(self, name: str) -> str:
        return self._of(name, str)

    def number(self, name: str) -> int:
        return self._of(name, int)

    def flag(self, name: str) -> bool:
        return self._of(name, bool)

    def path(self, name: str) -> str:
        return self._checked(self.text(name))

    def paths(self, name: str) -> tuple[str, ...]:
        return tuple(self._checked(each) for each in self._of(name, list))

    def each(self, name: str, parse_one: Callable[[_Fields], _T]) -> tuple[_T, ...]:
        return tuple(parse_one(_Fields(each, self._host)) for each in self._of(name, list))

    def _of(self, name: str, kind: type[_T]) -> _T:
        value: Optional[Any] = self._value.get(name)
        if type(value) is not kind:
            raise JournalError(f"{name!r} is missing or no {kind.__name__}")
        return value

    def _checked(self, text: Any) -> str:
        try:
            if isinstance(text, str) and self._host.paths.cleaned(text) == text:
                return text
        except PathError:
            pass
        raise JournalError(f"{text!r} is no path")
