"""Making a repository: packages in a folder become an index that clients can use.

ROOT/PACKAGE_PATH holds the ``.goo`` files, ROOT/REPO_NAME their ``index``, ``index.gz`` and, if
there is a key, ``index.sig`` (see ``googet.signing``). Any web server or object store that serves
ROOT as it is serves the repository ``.../REPO_NAME``.

The index is sorted and depends on the packages alone. ``Source`` is ``PACKAGE_PATH/FILE``, always
with ``/``, because clients start from the folder that holds REPO_NAME.

Source: googet ``server/gooserve.go``, whose ``Source`` holds the scanned folder's own path and so
is right for the current folder only.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Optional

from googet.atomic import replace_file
from googet.index import SUFFIX, IndexEntry, entry_of, packed, write_index
from googet.signing import LIFETIME, sign_index
from google_guest.errors import GuestError
from google_guest.records import record

_SEGMENT = re.compile(r"[^\x00-\x1f/\\:*?\"<>|]+")

_logger = logging.getLogger(__name__)


class PublishingError(GuestError):
    """The repository cannot be made."""


@record
class Layout:
    """Where things are below ROOT, with ``/``; see :func:`layout`."""

    package_path: str = "packages"
    """May be empty: the packages are in ROOT itself."""
    repo_name: str = "repo"

    def source(self, file_name: str) -> str:
        """Return the ``Source`` of a package; clients decode ``%XX`` in it."""
        up = "../" * self.repo_name.count("/")
        folder = f"{self.package_path}/" if self.package_path else ""
        return f"{up}{folder}{file_name}".replace("%", "%25")


@record
class Signer:
    """The key that vouches for the index, and for how long, in seconds."""

    key: Path
    lifetime: int = LIFETIME

    def sign(self, index: bytes, *, now: int) -> bytes:
        """Return ``index.sig``; its serial is ``now``, in Unix time."""
        return sign_index(index, self.key, serial=now, lifetime=self.lifetime)


def layout(package_path: str, repo_name: str) -> Layout:
    """Return the layout that two command-line values mean.

    Raises:
        PublishingError: one of them leaves ROOT, or there is no name.
    """
    packages, name = (_relative(text) for text in (package_path, repo_name))
    if not name:
        raise PublishingError("the repository needs a name")
    return Layout(packages, name)


class Scanner:
    """Reads the packages of a folder; what has not changed since the last time is not read again.

    Changes are seen by size and time of modification.
    """

    def __init__(self, root: Path, layout: Layout) -> None:
        self.folder = root / layout.package_path
        self._layout = layout
        self._known: dict[str, tuple[tuple[int, int], IndexEntry]] = {}

    def scan(self) -> tuple[IndexEntry, ...]:
        """Return the entries of all packages that can be read; the others are logged.

        The folder is created if it is missing.

        Raises:
            PublishingError: the folder cannot be read.
        """
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            with os.scandir(self.folder) as files:
                names = sorted(file.name for file in files if file.name.endswith(SUFFIX))
        except OSError as error:
            raise PublishingError(f"{self.folder} cannot be read: {error.strerror}") from error
        found = {}
        for name in names:
            known = self._entry(name)
            if known is not None:
                found[name] = known
        self._known = found
        entries = tuple(entry for _, entry in found.values())
        _warn_of_duplicates(entries)
        return entries

    def _entry(self, name: str) -> Optional[tuple[tuple[int, int], IndexEntry]]:
        path = self.folder / name
        try:
            before = _version(path)
            known = self._known.get(name)
            if known is not None and known[0] == before:
                return known
            entry = entry_of(path, self._layout.source(name))
            if _version(path) != before:
                _logger.warning("%s is being written and is left out for now", path)
                return None
        except OSError as error:
            _logger.error("%s is left out: %s", path, error.strerror)
            return None
        except GuestError as error:
            _logger.error("%s is left out: %s", path, error)
            return None
        return before, entry


def repository_files(
    entries: Iterable[IndexEntry], *, signer: Optional[Signer] = None, now: int
) -> Mapping[str, bytes]:
    """Return the files of ROOT/REPO_NAME by name."""
    index = write_index(entries)
    files = {"index": index, "index.gz": packed(index)}
    if signer is not None:
        files["index.sig"] = signer.sign(index, now=now)
    return files


def save(root: Path, layout: Layout, files: Mapping[str, bytes]) -> Path:
    """Write the files of a repository, each of them atomically, and return their folder.

    Raises:
        PublishingError: they cannot be written.
    """
    folder = root / layout.repo_name
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, data in files.items():
            replace_file(folder / name, data)
        if "index.sig" not in files:
            # It would be about an earlier index.
            (folder / "index.sig").unlink(missing_ok=True)
    except OSError as error:
        raise PublishingError(f"{folder} cannot be written: {error.strerror}") from error
    return folder


def publish(
    root: Path,
    *,
    package_path: str = "packages",
    repo_name: str = "repo",
    signer: Optional[Signer] = None,
    now: Optional[int] = None,
) -> tuple[IndexEntry, ...]:
    """Write the index of the packages in ``root/package_path``; return its entries.

    The same packages give the same ``index`` and ``index.gz``, the same ``now`` (Unix time, which
    is the signature's serial) also the same ``index.sig``.

    Raises:
        PublishingError: the folders cannot be read or written.
        SigningError: the index cannot be signed.
    """
    where = layout(package_path, repo_name)
    entries = Scanner(root, where).scan()
    moment = int(time.time()) if now is None else now
    save(root, where, repository_files(entries, signer=signer, now=moment))
    return entries


def _relative(text: str) -> str:
    segments = [part for part in re.split(r"[/\\]", text) if part not in ("", ".")]
    if any(part == ".." or not _SEGMENT.fullmatch(part) for part in segments):
        raise PublishingError(f"{text!r} is no path below the root")
    return "/".join(segments)


def _version(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _warn_of_duplicates(entries: Iterable[IndexEntry]) -> None:
    seen: dict[str, IndexEntry] = {}
    for entry in entries:
        first = seen.setdefault(entry.spec.full_name, entry)
        if first is not entry:
            _logger.warning(
                "%s and %s are both %s", first.source, entry.source, entry.spec.full_name
            )
