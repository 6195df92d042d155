"""Addresses of repositories, their indexes and packages, and which of them are in Cloud Storage.

An address is one of

* ``https://HOST/PATH`` or ``http://...``; a query stays with every address made from it,
* a place in Cloud Storage, see :func:`parse_storage`; names of objects are literal, never decoded,
* ``file:///PATH`` or an absolute folder (``/srv/repo``, ``C:\\repo``, ``\\\\server\\share\\repo``),

each optionally behind ``oauth-``, which asks for credentials.

A package is at the repository's path minus its last component plus ``Source`` from the index, in
which ``%XX`` is decoded and dot segments are resolved; it never leaves the host, the bucket or the
drive of its repository.

Source: googet ``goolib/goolib.go`` (Cloud Storage), ``download/download.go`` (joining); Go's
``net/url`` for what is encoded in a path.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Optional
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.scripts.storage_url import shown_url

if TYPE_CHECKING:
    from googet.repofiles import Repository

OAUTH = "oauth-"
STORAGE = "https://storage.googleapis.com"
_SAFE = "$&+,:;=@~"
"""What a component of a path may hold as it is, letters, digits and ``-_.`` aside."""
_BUCKET = r"[a-z0-9][-_.a-z0-9]*"
_STORAGE_FORMS = (
    re.compile(rf"gs://(?P<bucket>{_BUCKET})(?:/(?P<object>.*))?"),
    re.compile(
        rf"https?://(?P<bucket>{_BUCKET})\.(?i:storage\.googleapis\.com)(?:/(?P<object>.*[^/]/*))?"
    ),
    re.compile(
        r"https?://(?i:storage\.cloud\.google\.com|(?:commondata)?storage\.googleapis\.com)"
        rf"/(?P<bucket>{_BUCKET})(?:/(?P<object>.*[^/]/*))?"
    ),
)
_WEB = re.compile(r"(?i)(?P<host>https?://[^/?#]+)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?")
_FILE = re.compile(r"(?i)(?P<host>file://[^/]*(?:/[A-Z](?::|%3A)(?=/))?)(?P<path>/.*)")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_LOCAL_HOSTS = ("", "localhost")


class UrlError(GuestError):
    """The text is no address of a repository or package."""


@record
class StorageLocation:
    """A place in Cloud Storage; ``object`` is the literal name, empty for the bucket itself."""

    bucket: str
    object: str = ""

    def url(self, endpoint: str = STORAGE) -> str:
        """Return where the content is read over https."""
        parts = [quote(part, safe="", errors="surrogatepass") for part in self.object.split("/")]
        # HTTP clients resolve "." and ".." before they send a path; encoded, they stay names.
        parts = [part if part.strip(".") else part.replace(".", "%2E") for part in parts]
        return f"{endpoint}/{self.bucket}/{'/'.join(parts)}"

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.object}" if self.object else f"gs://{self.bucket}"


def parse_storage(url: str) -> Optional[StorageLocation]:
    """Return the place in Cloud Storage that ``url`` names; None for every other address.

    ``gs://B[/O]``, ``http(s)://B.storage.googleapis.com[/O]``,
    ``http(s)://storage.cloud.google.com/B[/O]`` and
    ``http(s)://[commondata]storage.googleapis.com/B[/O]``; hosts in any case, slashes at the end of
    O dropped.
    """
    match = _storage_match(url)
    return match and StorageLocation(match["bucket"], (match["object"] or "").rstrip("/"))


def split_oauth(url: str) -> tuple[str, bool]:
    """Return the address without ``oauth-`` and whether it had it."""
    return (url[len(OAUTH) :], True) if url.startswith(OAUTH) else (url, False)


def is_web(url: str) -> bool:
    """Return whether ``url`` is http or https and not in Cloud Storage."""
    plain, _ = split_oauth(url)
    return bool(_WEB.match(plain)) and parse_storage(plain) is None


def local_path(url: str) -> Optional[Path]:
    """Return the path that a ``file://`` address or an absolute path names; None for others.

    Raises:
        UrlError: a ``file://`` address names another machine or no absolute path.
    """
    if not url.lower().startswith("file:"):
        return Path(url) if is_absolute_path(url) else None
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UrlError(f"{shown(url)} is no file URL") from error
    path = unquote(parts.path)
    host = parts.netloc
    if sys.platform == "win32":
        if host.lower() not in _LOCAL_HOSTS:
            return Path(f"//{host}{path}")
        path = path[1:] if _DRIVE.match(path[1:]) else path
    elif host.lower() not in _LOCAL_HOSTS:
        raise UrlError(f"{shown(url)} names a file of another machine")
    if not is_absolute_path(path) or "\0" in path:
        raise UrlError(f"{shown(url)} names no absolute path")
    return Path(path)


def is_absolute_path(text: str) -> bool:
    """Return whether ``text`` is an absolute path of this system."""
    if sys.platform == "win32":
        return bool(_DRIVE.match(text)) or text.startswith(("\\\\", "//"))
    return text.startswith("/")


def is_safe(url: str) -> bool:
    """Return whether a repository is acceptable without ``allowunsafeurl``.

    That is https, Cloud Storage (which is always read over https), and folders of this machine;
    another machine's folder comes without any proof of who sends it.
    """
    url, _ = split_oauth(url)
    if parse_storage(url) is not None:
        return True
    if _WEB.match(url):
        return url.lower().startswith("https:")
    try:
        path = local_path(url)
    except UrlError:
        return False
    return path is not None and not str(path).startswith(("\\\\", "//"))


def check_repository_url(url: str) -> None:
    """Raise ``UrlError`` unless ``url`` has a form that can be read at all."""
    plain, _ = split_oauth(url)
    if re.search(r"[\x00-\x1f\x7f]", plain):
        raise UrlError(f"{shown(url)} has a control character")
    if parse_storage(plain) is None and local_path(plain) is None:
        try:
            # Of a malformed port or address in brackets.
            valid = bool(_WEB.match(plain)) and urlsplit(plain).port != 0
        except ValueError:
            valid = False
        if not valid:
            raise UrlError(
                f"{shown(url)} is no repository: use https://, gs://, file:// or an absolute folder"
            )


def repository_key(url: str) -> str:
    """Return one spelling for all addresses of one repository.

    ``oauth-``, slashes at the end, the case of scheme and host and the forms of Cloud Storage do
    not tell repositories apart.
    """
    plain, _ = split_oauth(url)
    storage = parse_storage(plain)
    if storage is not None:
        return str(storage)
    match = _WEB.fullmatch(plain)
    if match is None:
        return plain.rstrip("/")
    return match["host"].lower() + match["path"].rstrip("/") + (match["query"] or "")


def child_url(repository: str, name: str) -> str:
    """Return the address of ``name``, such as ``index.gz``, directly below a repository.

    Raises:
        UrlError: ``repository`` has none of the forms above.
    """
    place = _place(repository)
    return place.url([*place.segments, name])


def package_url(repository: Repository, source: str) -> str:
    """Return where a package is: ``source`` is the ``Source`` of its entry in the index.

    Raises:
        UrlError: the repository has none of the forms above, or ``source`` names no file.
    """
    place = _place(repository.display_url)
    segments = list(place.segments[:-1])
    decoded = unquote_to_bytes(source.encode("utf-8", "replace"))
    if place.is_native and sys.platform == "win32":
        decoded = decoded.replace(b"\\", b"/")
    if place.is_local and b"\0" in decoded:
        raise UrlError(f"Source {source[:80]!r} names no file")
    for segment in decoded.split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment not in (b"", b"."):
            segments.append(place.encode(segment))
    return place.url(segments)


def shown(url: str) -> str:
    """Return an address for people and logs: without user, password, query and line breaks."""
    return shown_url(url)


@record
class _Place:
    """The address of a repository in parts."""

    prefix: str
    """What no path can change: scheme and host, bucket, drive; no slash at its end."""
    segments: tuple[str, ...]
    """The folders of the path, as they are written in an address of this kind."""
    query: str = ""
    is_literal: bool = False
    """Whether nothing is percent-encoded."""
    is_local: bool = False

    @property
    def is_native(self) -> bool:
        """Whether this is a path of the operating system."""
        return self.is_local and self.is_literal

    def encode(self, segment: bytes) -> str:
        """Return one component as such an address holds it."""
        return segment.decode("utf-8", "replace") if self.is_literal else quote(segment, _SAFE)

    def url(self, segments: Iterable[str]) -> str:
        """Return the address with another path."""
        separator = os.sep if self.is_native else "/"
        return f"{self.prefix}{separator}{separator.join(segments)}{self.query}"


def _place(url: str) -> _Place:
    plain, oauth = split_oauth(url)
    lead = OAUTH if oauth else ""
    match = _storage_match(plain)
    if match is not None:
        end = len(plain) if match["object"] is None else match.start("object") - 1
        segments = _segments((match["object"] or "").split("/"))
        return _Place(lead + plain[:end], segments, is_literal=True)
    match = _WEB.fullmatch(plain)
    if match is not None:
        segments = _segments(match["path"].split("/"))
        return _Place(lead + match["host"], segments, match["query"] or "")
    match = _FILE.fullmatch(plain)
    if match is not None:
        segments = _segments(match["path"].split("/"))
        return _Place(lead + match["host"], segments, is_local=True)
    if is_absolute_path(plain):
        path = PurePath(plain)
        prefix = path.anchor.rstrip("\\/")
        return _Place(lead + prefix, _segments(path.parts[1:]), is_literal=True, is_local=True)
    raise UrlError(f"{shown(url)} is no address of a repository")


def _segments(parts: Iterable[str]) -> tuple[str, ...]:
    """Return the components without empty and dot ones; ``..`` stops at the root."""
    segments: list[str] = []
    for part in parts:
        if part == "..":
            del segments[-1:]
        elif part not in ("", "."):
            segments.append(part)
    return tuple(segments)


def _storage_match(url: str) -> Optional[re.Match[str]]:
    return next((match for form in _STORAGE_FORMS if (match := form.fullmatch(url))), None)
