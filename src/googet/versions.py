"""Package versions: what may be written as one, and which of two is newer.

A version is a semantic version that may be incomplete, optionally followed by ``@`` and a release
number: ``1.2.3-rc1+build@4``. What is incomplete is filled up from the left: ``1.2`` is 0.1.2, so a
date version ranks as intended only with three fields (``20260102.00.0``).

Facts: googet: goolib/goospec.go (repair of incomplete versions, release, order), github.com/blang/
semver v3 (strict SemVer 2 after the repair).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

from google_guest.errors import GuestError
from google_guest.records import record

_LOG = logging.getLogger(__name__)

_FIELDS = 3
_UINT64_MAX = (1 << 64) - 1
_INT64_MIN = -(1 << 63)
_INT64_MAX = (1 << 63) - 1
_MOST_DIGITS = 20  # of 2^64 - 1
_DIGITS = re.compile(r"[0-9]+")
_RELEASE = re.compile(r"([+-]?)0*([0-9]+)")
_IDENTIFIER = re.compile(r"[0-9A-Za-z-]+")


class VersionError(GuestError):
    """A text is no version; the message names it."""


@record
class Version:
    """A version in its repaired form."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    """Counts for nothing in the order."""
    release: int = 0
    """The number after ``@``, a signed 64-bit integer."""

    @property
    def semver(self) -> str:
        """The version without its release: ``1.2.3-a+b``."""
        text = f"{self.major}.{self.minor}.{self.patch}"
        if self.prerelease:
            text += "-" + ".".join(self.prerelease)
        if self.build:
            text += "+" + ".".join(self.build)
        return text

    def __str__(self) -> str:
        return f"{self.semver}@{self.release}"

    @property
    def sort_key(self) -> Any:
        """What versions are ordered by; equal keys are equal versions, whatever their builds."""
        return (
            (self.major, self.minor, self.patch),
            not self.prerelease,
            tuple(_identifier_key(identifier) for identifier in self.prerelease),
            self.release,
        )


def parse_version(text: str) -> Version:
    """Return the version that ``text`` stands for.

    Raises:
        VersionError: it is none; surrounding spaces and a leading ``v`` are not accepted either.
    """
    semver, at, release = text.partition("@")
    head, suffix = _split_suffix(semver)
    fields = head.split(".", _FIELDS - 1)
    missing = [0] * (_FIELDS - len(fields))
    major, minor, patch = missing + [_number(field, text) for field in fields]
    prerelease, build = _suffixes(suffix, text)
    return Version(major, minor, patch, prerelease, build, _release(release, text) if at else 0)


def compare_versions(a: str, b: str) -> int:
    """Return -1, 0 or 1: whether ``a`` is older than, as good as or newer than ``b``.

    Raises:
        VersionError: one of them is no version.
    """
    return _compare(parse_version(a).sort_key, parse_version(b).sort_key)


def compare_priority_versions(priority_a: int, a: str, priority_b: int, b: str) -> int:
    """Compare as :func:`compare_versions` does, but a higher priority wins over any version.

    Raises:
        VersionError: one of them is no version.
    """
    return _compare(
        (priority_a, parse_version(a).sort_key), (priority_b, parse_version(b).sort_key)
    )


def sorted_versions(texts: Iterable[str]) -> list[str]:
    """Return the versions, oldest first; what is no version is dropped with a warning."""
    keyed = []
    for text in texts:
        try:
            keyed.append((parse_version(text).sort_key, text))
        except VersionError as error:
            _LOG.warning("%s; it is left out", error)
    keyed.sort(key=lambda pair: pair[0])
    return [text for _, text in keyed]


def _split_suffix(semver: str) -> tuple[str, str]:
    match = re.search(r"[+-]", semver)
    at = match.start() if match else len(semver)
    return semver[:at], semver[at:]


def _number(field: str, text: str) -> int:
    # An empty field is a zero: ``1..3`` is 1.0.3.
    digits = field.lstrip("0") or "0"
    if not _DIGITS.fullmatch(digits):
        raise VersionError(f"invalid version {text!r}: {field!r} is not a number")
    return _in_range(digits, text)


def _in_range(digits: str, text: str) -> int:
    # Python refuses, or takes very long, to convert thousands of digits.
    if len(digits) > _MOST_DIGITS or int(digits) > _UINT64_MAX:
        raise VersionError(f"invalid version {text!r}: a number is larger than {_UINT64_MAX}")
    return int(digits)


def _suffixes(suffix: str, text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    head, plus, tail = suffix.partition("+")
    prerelease = tuple(head[1:].split(".")) if head else ()
    build = tuple(tail.split(".")) if plus else ()
    for identifier in prerelease + build:
        if not _IDENTIFIER.fullmatch(identifier):
            raise VersionError(
                f"invalid version {text!r}: {identifier!r} after the numbers is not made of "
                "letters, digits and dashes"
            )
    for identifier in prerelease:
        if _DIGITS.fullmatch(identifier):
            if identifier != "0" and identifier.startswith("0"):
                raise VersionError(
                    f"invalid version {text!r}: pre-release number {identifier} begins with a zero"
                )
            _in_range(identifier, text)
    return prerelease, build


def _release(release: str, text: str) -> int:
    match = _RELEASE.fullmatch(release)
    if match is None:
        raise VersionError(f"invalid version {text!r}: release {release!r} is not an integer")
    digits = match[2]
    number = int(match[1] + digits) if len(digits) <= _MOST_DIGITS else _INT64_MAX + 1
    if not _INT64_MIN <= number <= _INT64_MAX:
        raise VersionError(f"invalid version {text!r}: release {release} is out of range")
    return number


def _identifier_key(identifier: str) -> tuple[int, int, str]:
    # Numbers come before words.
    return (0, int(identifier), "") if _DIGITS.fullmatch(identifier) else (1, 0, identifier)


def _compare(a: Any, b: Any) -> int:
    return int(a > b) - int(a < b)
