"""Which files a goospec's ``sources`` pack, and under which names.

Paths are relative to the folder that packing works in. An include without ``*`` is one file, which
excludes do not touch; one with ``*`` is matched against all files below the last folder before it,
links followed. ``*`` stands for any text without ``/``, ``**`` for any text. A file's folder in the
archive is the target plus the file's folder without the root as it was written: what the reference
makes of roots such as ``sub/`` or ``./sub`` is kept, with a warning, so that one goospec has one
layout whichever program packs it.

Facts: googet: goopack/goopack.go. Here ``**`` also works without a root, a file that is included
twice is packed once, and two files of one name in the archive are an error.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from googet.goospec import Source
from googet.pkgspec import clean_path, is_absolute
from google_guest.errors import GuestError

_LOG = logging.getLogger(__name__)

_ON_WINDOWS = sys.platform == "win32"


class CollectError(GuestError):
    """The sources of a goospec cannot be packed; the message names the path."""


def collect(
    sources: Iterable[Source], base: Path, *, windows: bool = _ON_WINDOWS
) -> dict[str, Path]:
    """Return the files that ``sources`` name: name in the archive to the file.

    Args:
        base: the folder that relative paths start from.
        windows: globs as on Windows, where ``*`` crosses folders, too.

    Raises:
        CollectError: a file or folder is missing, a glob is malformed, or two files would have one
            name.
    """
    collected: dict[str, Path] = {}
    for source in sources:
        root = _cleaned(source.root) if _cleaned(source.root) != "." else ""
        moved: list[tuple[str, str]] = []
        for path in _files(source, base, windows=windows):
            name = _archive_name(source.target, path, source.root)
            file = base / path
            other = collected.setdefault(name, file)
            if not _is_same(other, file):
                raise CollectError(f"{other} and {file} would both be {name} in the package")
            expected = _archive_name(source.target, path, root)
            if name != expected:
                moved.append((name, expected))
        if moved:
            _LOG.warning(
                "root %r is not %r: it makes %s of what would be %s (%d such files)",
                source.root,
                root,
                *moved[0],
                len(moved),
            )
    return collected


def missing_files(keys: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return those ``Files`` keys that are neither a packed name nor a folder above one."""
    packed = set()
    for name in names:
        packed.add(name)
        # A file at the root is in the folder ".".
        folder = posixpath.dirname(name) or "."
        while folder and folder not in packed:
            packed.add(folder)
            folder = posixpath.dirname(folder)
    return sorted(key for key in keys if key not in packed)


def matches(pattern: str, path: str, *, windows: bool = False) -> bool:
    """Return whether a glob matches a path, ``/`` between the parts of both.

    Raises:
        CollectError: the glob has three ``*`` in a row.
    """
    return compiled(pattern, windows=windows).search(path) is not None


def compiled(pattern: str, *, windows: bool = False) -> re.Pattern[str]:
    """Return a glob as a regular expression to search with.

    ``|`` separates alternatives, of which the first is held to the beginning of the path and the
    last to its end, as in the reference.

    Raises:
        CollectError: the glob has three ``*`` in a row.
    """
    if "***" in pattern:
        raise CollectError(f"{pattern!r} is no glob: it has three * in a row")
    one = ".*" if windows else "[^/]*"
    pieces = re.split(r"(\*\*|\*|\|)", pattern)
    meanings = {"**": ".*", "*": one, "|": "|"}
    return re.compile(
        r"\A" + "".join(meanings.get(piece) or re.escape(piece) for piece in pieces) + r"\Z",
        re.DOTALL,
    )


def walk_roots(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the folders to walk for globs: none of them is below another one.

    Patterns without ``*`` need no walk. ``.`` is the current folder.
    """
    folders = sorted({_fixed_folder(pattern) for pattern in patterns if "*" in pattern})
    return tuple(
        folder
        for folder in folders
        if not any(other != folder and _is_below(folder, other) for other in folders)
    )


def _files(source: Source, base: Path, *, windows: bool) -> Iterator[str]:
    """Yield the clean paths of the files of one source, each once."""
    includes = [_pattern(source.root, include) for include in source.include]
    excludes = [
        compiled(_pattern(source.root, exclude), windows=windows) for exclude in source.exclude
    ]
    seen = set()
    for path in includes:
        if "*" not in path and path not in seen:
            seen.add(path)
            _check_file(path, base)
            yield path
    globs = [compiled(glob, windows=windows) for glob in includes if "*" in glob]
    for folder in walk_roots(includes):
        for path in _walk(folder, base, ()):
            if path in seen or not any(glob.search(path) for glob in globs):
                continue
            if not any(exclude.search(path) for exclude in excludes):
                seen.add(path)
                yield path


def _pattern(root: str, glob: str) -> str:
    """Return root and glob joined and cleaned, with ``/`` between the parts."""
    if "\0" in root + glob:
        raise CollectError(f"{root + glob!r} holds a zero character, which no file name has")
    return _cleaned(f"{_cleaned(root)}/{glob}")


def _cleaned(path: str) -> str:
    # On Linux a backslash in a goospec is a separator as well: it was meant for both.
    cleaned = posixpath.normpath(path.replace("\\", "/"))
    return "/" + cleaned.lstrip("/") if cleaned.startswith("//") else cleaned


def _fixed_folder(pattern: str) -> str:
    parts = pattern[: pattern.index("*")].split("/")
    return "/".join(parts[:-1]) or ("/" if pattern.startswith("/") else ".")


def _is_below(folder: str, other: str) -> bool:
    if other == ".":
        return not folder.startswith(("/", "..")) and ":" not in folder[:2]
    return folder.startswith(other.rstrip("/") + "/")


def _check_file(path: str, base: Path) -> None:
    file = base / path
    if not file.exists():
        raise CollectError(f"{path} is included but does not exist")
    if not file.is_file():
        raise CollectError(f"{path} is included but is no file; a folder is included as {path}/**")


def _walk(folder: str, base: Path, above: tuple[str, ...]) -> Iterator[str]:
    """Yield the paths of the files below a folder, sorted; links are followed."""
    place = os.path.realpath(base / folder)
    if place in above:
        raise CollectError(f"{folder} is a link to a folder that it is in")
    try:
        with os.scandir(base / folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise CollectError(f"{folder} cannot be searched: {error.strerror}") from error
    for entry in found:
        path = entry.name if folder == "." else f"{folder.rstrip('/')}/{entry.name}"
        if entry.is_dir():
            yield from _walk(path, base, (*above, place))
        else:
            yield path


def _archive_name(target: str, path: str, root: str) -> str:
    folder = _without_root(posixpath.dirname(path) or ".", root.replace("\\", "/"))
    name = clean_path(f"{target}/{folder}/{posixpath.basename(path)}")
    if is_absolute(target) or name.startswith("../"):
        raise CollectError(f"target {target!r} leads out of the package")
    return name


def _without_root(folder: str, root: str) -> str:
    """Return a folder without the root as written and one separator, as the reference does."""
    if folder.startswith(root):
        folder = folder[len(root) :]
    return folder[1:] if folder.startswith("/") else folder


def _is_same(file: Path, other: Path) -> bool:
    return file == other or os.path.samefile(file, other)
