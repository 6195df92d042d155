"""The operating system's name and version, from ``os-release``.

Reads ``/etc/os-release``, else ``/usr/lib/os-release``. Writes nothing.

Source: os-release(5). Values are shell assignments without expansion: optional single or double
quotes, and a backslash in front of ``$``, quotes, backslash and backtick. A line that is none of
that is skipped, so a damaged file costs only the damaged lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Optional

from google_guest.records import record
from google_guest.system.files import Files

OS_RELEASE_PATHS = ("/etc/os-release", "/usr/lib/os-release")
_LIMIT = 64 << 10
_ASSIGNMENT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_SINGLE_QUOTED = re.compile(r"'([^']*)'\s*")
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*', re.DOTALL)
_ESCAPED_IN_QUOTES = re.compile(r"\\([$\"'\\`])")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@record
class OsRelease:
    """What the distribution says of itself; the defaults are those of os-release(5)."""

    id: str = "linux"
    """Lower-case short name: ``debian``."""
    version_id: str = ""
    """``12``; empty for rolling distributions."""
    pretty_name: str = "Linux"
    """For people: ``Debian GNU/Linux 12 (bookworm)``."""
    id_like: tuple[str, ...] = ()
    """Distributions that this one derives from, closest first."""


def parse_os_release(text: str) -> Mapping[str, str]:
    """Return the variables that ``text`` assigns; the last assignment of a name stands."""
    values = {}
    for line in text.split("\n"):
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            continue
        value = _unquoted(match[2].strip())
        if value is not None:
            values[match[1]] = value
    return values


def read_os_release(files: Files) -> OsRelease:
    """Return what the first readable file says; the defaults where it says nothing."""
    for path in OS_RELEASE_PATHS:
        try:
            text = files.read_text(path, limit=_LIMIT)
        except OSError:
            # A link to nowhere or a directory: the other place may be better.
            continue
        if text is not None:
            return _os_release(parse_os_release(text))
    return OsRelease()


def _os_release(values: Mapping[str, str]) -> OsRelease:
    return OsRelease(
        id=values.get("ID") or OsRelease.id,
        version_id=values.get("VERSION_ID", ""),
        pretty_name=values.get("PRETTY_NAME") or values.get("NAME") or OsRelease.pretty_name,
        id_like=tuple(values.get("ID_LIKE", "").split()),
    )


def _unquoted(raw: str) -> Optional[str]:
    if raw.startswith("'"):
        match = _SINGLE_QUOTED.fullmatch(raw)
        return match[1] if match else None
    if raw.startswith('"'):
        match = _DOUBLE_QUOTED.fullmatch(raw)
        return _ESCAPED_IN_QUOTES.sub(r"\1", match[1]) if match else None
    return _ESCAPED.sub(r"\1", raw)
