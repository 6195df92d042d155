"""The rules of file paths on either system, as pure functions on text.

Both sets of rules work on every system, so that what Windows does to a path is tested on Linux
too. Facts: "Naming Files, Paths, and Namespaces" (Microsoft), path_resolution(7).
"""

from __future__ import annotations

import ntpath
import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator

from google_guest.errors import GuestError

_DEVICE_NAMES = re.compile(
    r"(?i)(?:con|prn|aux|nul|conin\$|conout\$|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])"
    r"\s*(?:\..*)?"
)
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')
_DRIVE_ROOT = re.compile(r"[A-Za-z]:\\")


class PathError(GuestError):
    """A path that names no place on this system."""


class PathRules(ABC):
    """What a path is on one system; ``WINDOWS_PATHS`` and ``POSIX_PATHS`` are the two."""

    separator = "/"

    @abstractmethod
    def is_absolute(self, text: str) -> bool:
        """Return whether ``text`` names a place whatever the current folder and drive are."""

    @abstractmethod
    def cleaned(self, text: str) -> str:
        """Return the absolute path ``text`` without ``.``, ``..`` and doubled separators.

        Raises:
            PathError: it is not absolute, or no file can have that name.
        """

    @abstractmethod
    def key(self, path: str) -> str:
        """Return what equals for two cleaned paths exactly if they name the same file."""

    @abstractmethod
    def parent(self, path: str) -> str:
        """Return the folder of a cleaned path; that of a root is itself."""

    @abstractmethod
    def name(self, path: str) -> str:
        """Return the last component of a cleaned path; empty for a root."""

    def join(self, folder: str, *names: str) -> str:
        """Return the path of ``names`` below the cleaned path ``folder``."""
        return self.separator.join([folder.rstrip(self.separator), *names])

    def ancestors(self, path: str) -> Iterator[str]:
        """Yield the folders above a cleaned path, the nearest first, its root last."""
        while self.parent(path) != path:
            path = self.parent(path)
            yield path

    def is_root(self, path: str) -> bool:
        """Return whether a cleaned path is the root of a file system or drive."""
        return self.parent(path) == path


class _PosixPaths(PathRules):
    def is_absolute(self, text: str) -> bool:
        return text.startswith("/")

    def cleaned(self, text: str) -> str:
        if not self.is_absolute(text):
            raise PathError(f"{text!r} is not an absolute path")
        if "\0" in text:
            raise PathError(f"{text!r} contains a null character")
        return "/" + posixpath.normpath(text).lstrip("/")

    def key(self, path: str) -> str:
        return path

    def parent(self, path: str) -> str:
        return posixpath.dirname(path)

    def name(self, path: str) -> str:
        return posixpath.basename(path)


class _WindowsPaths(PathRules):
    separator = "\\"

    def is_absolute(self, text: str) -> bool:
        # ntpath.isabs accepts a path without a drive on the older of the supported Pythons.
        drive, rest = ntpath.splitdrive(text.replace("/", "\\"))
        return bool(drive) and rest.startswith("\\")

    def cleaned(self, text: str) -> str:
        path = _without_prefix(text.replace("/", "\\"))
        if not self.is_absolute(path):
            raise PathError(f"{text!r} is not an absolute path with a drive or a server")
        drive, rest = ntpath.splitdrive(ntpath.normpath(path))
        if drive.startswith("\\\\"):
            _check_server(drive, text)
        elif not _DRIVE_ROOT.fullmatch(drive + "\\"):
            raise PathError(f"{text!r} names no drive")
        names = [name for name in rest.split("\\") if name]
        for name in names:
            _check_name(name, text)
        return drive + "\\" + "\\".join(names)

    def key(self, path: str) -> str:
        # Windows compares character by character; "ß" is not "SS" there.
        return "".join(_upper(character) for character in path)

    def parent(self, path: str) -> str:
        drive, rest = ntpath.splitdrive(path)
        return drive + (ntpath.dirname(rest) or "\\")

    def name(self, path: str) -> str:
        return ntpath.basename(path)


def _upper(character: str) -> str:
    upper = character.upper()
    return upper if len(upper) == 1 else character


def _without_prefix(path: str) -> str:
    for prefix, plain in (("\\\\?\\UNC\\", "\\\\"), ("\\\\?\\", "")):
        if path[: len(prefix)].upper() == prefix:
            return plain + path[len(prefix) :]
    return path


def _check_server(drive: str, text: str) -> None:
    names = drive[2:].split("\\")
    if len(names) != 2 or not all(names) or names[0] in ("?", "."):
        raise PathError(f"{text!r} names no share of a server")
    for name in names:
        _check_name(name, text)


def _check_name(name: str, text: str) -> None:
    if _FORBIDDEN.search(name):
        raise PathError(f"{text!r} contains a character that no file name has: {name!r}")
    if name != name.rstrip(". "):
        raise PathError(f"{text!r} contains a name that ends with a dot or a space: {name!r}")
    if _DEVICE_NAMES.fullmatch(name):
        raise PathError(f"{text!r} contains the name of a device: {name!r}")


def with_long_prefix(path: str) -> str:
    r"""Return a cleaned Windows path in the form without a length limit (``\\?\``)."""
    if path.startswith("\\\\?\\"):
        return path
    if path.startswith("\\\\"):
        return "\\\\?\\UNC\\" + path[2:]
    return "\\\\?\\" + path


POSIX_PATHS: PathRules = _PosixPaths()
WINDOWS_PATHS: PathRules = _WindowsPaths()
