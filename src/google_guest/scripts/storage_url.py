"""What the value of a ``-url`` key names: an object in Cloud Storage, or any web address.

==============================================  ==================================================
Form (U: universe domain)                       Note
==============================================  ==================================================
``gs://BUCKET/OBJECT``                          taken literally; ``#DIGITS`` at the end is the
                                                generation
``http(s)://BUCKET.storage.U/OBJECT``           OBJECT is percent-encoded in these forms
``http(s)://storage.U/BUCKET/OBJECT``
``http(s)://storage.cloud.U/BUCKET/OBJECT``
``http(s)://commondatastorage.U/BUCKET/OBJECT``
``http(s)://storage.cloud.google.com/...``      only in the universe googleapis.com
==============================================  ==================================================

An http(s) address with a query is a signed one and is fetched exactly as it is written.

Source: google-guest-agent ``cmd/gce_metadata_script_runner/scriptrunner.go`` (the patterns); public
Cloud Storage documentation, "Request endpoints" and "Encoding URL path parts".
"""

from __future__ import annotations

import re
from typing import Optional, Union
from urllib.parse import quote, unquote_to_bytes

from google_guest.errors import GuestError
from google_guest.records import record

DEFAULT_UNIVERSE = "googleapis.com"
_BUCKET = r"[a-z0-9][-_.a-z0-9]*"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_GS = re.compile(rf"//({_BUCKET})/(.+)")
_GENERATION = re.compile(r"(.+)#([0-9]+)")
_HTTP = re.compile(r"//([^/?#]*)([^?]*)(\?.*)?")
_PATH_STYLE = re.compile(rf"/({_BUCKET})/(.+)")
_UNIVERSE = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class BadScriptUrl(GuestError):
    """The value is no address that a script can be fetched from."""


@record
class StorageObject:
    """An object in Cloud Storage; ``name`` is its real, decoded name."""

    bucket: str
    name: bytes
    generation: Optional[str] = None

    def url(self, universe: str) -> str:
        """Return the address of the object's content in a universe."""
        path = "/".join(_segment(part) for part in self.name.split(b"/"))
        query = f"?generation={self.generation}" if self.generation else ""
        return f"https://storage.{universe}/{self.bucket}/{path}{query}"


@record
class WebAddress:
    """Any other http or https address, as it is."""

    url: str


def parse_script_url(
    value: str, *, universe: str = DEFAULT_UNIVERSE
) -> Union[StorageObject, WebAddress]:
    """Return what the value of a ``-url`` key names; white space around it is ignored.

    Raises:
        BadScriptUrl: the message never shows the value, which may hold a secret.
    """
    value = value.strip()
    match = _SCHEME.fullmatch(value)
    if match is None or _UNPRINTABLE.search(value):
        raise BadScriptUrl("the value is no URL")
    scheme, rest = match[1].lower(), match[2]
    if scheme == "gs":
        return _parse_gs(rest)
    if scheme not in ("http", "https"):
        raise BadScriptUrl(f'unsupported URL scheme "{scheme}"')
    parts = _HTTP.fullmatch(rest)
    if parts is None or not parts[1]:
        raise BadScriptUrl("the URL has no host")
    if parts[3] is None:
        found = _parse_storage(parts[1].lower(), parts[2], universe)
        if found is not None:
            return found
    return WebAddress(value)


def may_need_universe(value: str) -> bool:
    """Return whether the meaning of ``value`` may depend on the universe domain."""
    host = value.strip().lower().partition("://")[2].partition("/")[0]
    return value.strip().lower().startswith("gs:") or "storage" in host


def is_universe(text: str) -> bool:
    """Return whether ``text`` can be a universe domain: tokens are sent to hosts below it."""
    return _UNIVERSE.fullmatch(text) is not None and ".." not in text


def shown_url(url: str) -> str:
    """Return ``url`` for logs: without user, password, query and fragment."""
    scheme, sign, rest = url.partition("://")
    address = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = address.partition("/")
    return _UNPRINTABLE.sub("?", f"{scheme}{sign}{host.rpartition('@')[2]}{slash}{path}")


def _parse_gs(rest: str) -> StorageObject:
    match = _GS.fullmatch(rest)
    if match is None:
        raise BadScriptUrl("the URL is not of the form gs://BUCKET/OBJECT")
    with_generation = _GENERATION.fullmatch(match[2])
    name, generation = with_generation.groups() if with_generation else (match[2], None)
    return StorageObject(match[1], name.encode("utf-8", "surrogatepass"), generation)


def _parse_storage(host: str, path: str, universe: str) -> Optional[StorageObject]:
    suffix = f".storage.{universe}"
    if host.endswith(suffix):
        bucket = host[: -len(suffix)]
        if re.fullmatch(_BUCKET, bucket) and len(path) > 1:
            return StorageObject(bucket, unquote_to_bytes(path[1:]))
    hosts = {f"storage.cloud.{universe}", f"storage.{universe}", f"commondatastorage.{universe}"}
    if universe == DEFAULT_UNIVERSE:
        hosts.add("storage.cloud.google.com")
    match = _PATH_STYLE.fullmatch(path)
    if host in hosts and match is not None:
        return StorageObject(match[1], unquote_to_bytes(match[2]))
    return None


def _segment(part: bytes) -> str:
    # HTTP clients resolve "." and ".." before they send a path; encoded, they stay names.
    if part in (b".", b".."):
        return "%2E" * len(part)
    return quote(part, safe="")
