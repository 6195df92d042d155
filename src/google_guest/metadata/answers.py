"""What an answer of the metadata server means: statuses, redirects, the mark of a genuine one.

Source: public GCE documentation, "About VM metadata"; RFC 9110 section 15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Optional
from urllib.parse import quote, urlencode, urlsplit

from google_guest.metadata.endpoint import WELL_KNOWN, Endpoint
from google_guest.metadata.errors import (
    BadAnswer,
    BadRedirect,
    BadRequest,
    Forbidden,
    MetadataError,
    NotConfigured,
    NotFound,
    NotGoogle,
    ServerError,
    TooManyRequests,
)
from google_guest.metadata.exchange import Response
from google_guest.records import record

API = "/computeMetadata/v1/"
_TARGET = re.compile(r"/[!-~]*")
_REDIRECTS = frozenset({301, 302, 307, 308})
_REFUSALS: Mapping[int, tuple[type[MetadataError], str]] = {
    403: (Forbidden, "forbidden: the feature is off, or a proxy removed Metadata-Flavor"),
    404: (NotFound, "does not exist"),
    412: (NotConfigured, "is not configured"),
}


@record
class Answer:
    """A JSON document and the ETag under which to wait for its successor."""

    document: object
    etag: Optional[str]


def request_target(path: str, query: Optional[Mapping[str, str]] = None) -> str:
    """Return the request target of ``path``, relative to the API's root or below it.

    Empty segments are dropped: some servers take ``v1//instance`` for another key.
    """
    relative = path[len(API) :] if path.startswith(API) else path
    segments = [
        quote(part, safe="%@:!$&'()*+,;=", errors="replace") for part in relative.split("/") if part
    ]
    slash = "/" if segments and relative.endswith("/") else ""
    target = API + "/".join(segments) + slash
    if not query:
        return target
    return f"{target}?{urlencode(query, errors='replace', quote_via=quote)}"


def named(path: str) -> str:
    """Return ``path`` as messages show it."""
    return "".join(char if " " < char <= "~" else "?" for char in path[:200]) or "the root"


def is_genuine(response: Response) -> bool:
    """Return whether the answer carries the mark of a Compute Engine metadata server."""
    return response.headers.get("metadata-flavor", "").strip().lower() == "google"


def check_genuine(response: Response, endpoint: Endpoint) -> None:
    """Raise ``NotGoogle`` for a success that somebody else claims, such as a captive portal."""
    if 200 <= response.status < 300 and not is_genuine(response):
        raise NotGoogle(f"{endpoint.authority} is no Compute Engine metadata server")


def is_redirect(response: Response) -> bool:
    """Return whether the answer lies elsewhere."""
    return response.status in _REDIRECTS


def redirect_target(response: Response, endpoint: Endpoint, path: str) -> str:
    """Return where on the same server the answer lies; raise ``BadRedirect`` if not there."""
    complaint = f"{named(path)}: redirected away from the metadata server"
    try:
        parts = urlsplit(response.headers.get("location", ""))
    except ValueError as error:
        raise BadRedirect(complaint) from error
    own = {endpoint.authority, f"{endpoint.host}:{endpoint.port}"}
    if endpoint in WELL_KNOWN:
        # All of them are one server, which calls itself by any of its names.
        own.update(other.authority for other in WELL_KNOWN)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    if parts.scheme not in ("", "http") or (parts.netloc and parts.netloc.lower() not in own):
        raise BadRedirect(complaint)
    if not _TARGET.fullmatch(target):
        raise BadRedirect(complaint)
    return target


def check_status(response: Response, path: str) -> None:
    """Raise the ``MetadataError`` of a status that is no success."""
    status = response.status
    if 200 <= status < 300:
        return
    if status in _REFUSALS:
        kind, meaning = _REFUSALS[status]
        raise kind(f"{named(path)} {meaning} (status {status})")
    if status == 429:
        raise TooManyRequests(
            f"{named(path)}: too many requests (status 429)",
            retry_after=_seconds(response.headers.get("retry-after", "")),
        )
    if 400 <= status < 500:
        raise BadRequest(f"{named(path)}: the server refuses the request (status {status})")
    if status >= 500:
        raise ServerError(f"{named(path)}: the server failed (status {status})")
    raise BadAnswer(f"{named(path)}: unexpected status {status}")


def check_descriptor(answer: Answer) -> Answer:
    """Return ``answer`` if it can be the whole tree; raise ``BadAnswer`` otherwise.

    An object without an instance would read as "nobody may log in, no address is ours"; it can
    only be a fault of whatever sent it, so that the last good tree stays in force.
    """
    document = answer.document
    if not isinstance(document, dict) or not isinstance(document.get("instance"), dict):
        raise BadAnswer("metadata: the answer has no instance")
    return answer


def _seconds(text: str) -> Optional[float]:
    """Return the delay of a Retry-After header in seconds; its date form is not used by GCE."""
    digits = text.strip()
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 6 else None
