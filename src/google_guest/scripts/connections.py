"""How the project talks to the internet: pools of connections, and what their errors mean.

Certificates are checked against the system's trust store, and nothing switches that off. A proxy
may be http or https and may carry a user and a password. Messages never contain an address: the
caller says which one it asked for, as ``shown_url`` shows it.

``urllib3`` (1.26 or 2.x, the distribution's) does the talking; it is loaded by the first use. Every
Python and every TLS library words a failure differently, so that :func:`explain` digs for the
system's own text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import unquote, urlsplit

from google_guest.errors import GuestError

if TYPE_CHECKING:
    import ssl

    import urllib3

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 10
WORTH_RETRYING = frozenset({408, 429, *range(500, 600)})
"""Statuses after which another attempt may succeed."""
_MOST_DIGITS = 15
"""Of a length: Python refuses to read thousands of them, and nothing is that long."""


class DownloadError(GuestError):
    """Something could not be fetched; ``temporary``: another attempt may succeed."""

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        self.temporary = temporary
        super().__init__(message)


def pool_for(
    url: str, proxy: Optional[str], *, context: Optional[ssl.SSLContext] = None
) -> urllib3.PoolManager:
    """Return the pool of connections through which ``url`` is asked for.

    ``context`` replaces the system's trust store for an https address.

    Raises:
        DownloadError: the proxy's address cannot be used.
    """
    import ssl

    import urllib3

    options: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED"}
    if url.lower().startswith("https:"):
        options["ssl_context"] = context or ssl.create_default_context()
        if str(getattr(urllib3, "__version__", "")).startswith("1.") and is_address(
            url_parts(url).hostname or ""
        ):
            # That version does not tell OpenSSL about an address; it compares it by itself.
            options["ssl_context"].check_hostname = False
    if proxy is None:
        return urllib3.PoolManager(**options)
    parts = url_parts(proxy)
    if parts.scheme not in ("http", "https"):
        raise DownloadError(f'unsupported proxy scheme "{parts.scheme}"')
    credentials = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = urllib3.make_headers(proxy_basic_auth=pair)
        proxy = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(proxy, proxy_headers=credentials, **options)


def explain(error: Exception, *, connect: float, idle: float) -> tuple[str, bool]:
    """Return what went wrong, without addresses, and whether it may go well next time.

    ``error`` is one of urllib3's; ``connect`` and ``idle`` are the timeouts in seconds.
    """
    from urllib3 import exceptions

    if isinstance(error, exceptions.SSLError):
        refusal = refused_certificate(error)
        reason = refusal or _found(error, "reason") or "the connection broke"
        return f"TLS: {reason}", not refusal
    if isinstance(error, exceptions.LocationValueError):
        return "the URL is malformed", False
    if isinstance(error, exceptions.ReadTimeoutError):
        return f"no data for {idle:g} s", True
    system_error = _found(error, "strerror")
    if system_error:
        return system_error, True
    if isinstance(error, exceptions.ConnectTimeoutError):
        return f"no connection within {connect:g} s", True
    if isinstance(error, exceptions.ProxyError):
        return "the proxy refuses the connection", True
    return "the connection broke", True


def refused_certificate(error: BaseException) -> str:
    """Return why the server's certificate was not accepted; "" if that is not what went wrong."""
    return _found(error, "verify_message")


def announced_length(text: str) -> Optional[int]:
    """Return the number of bytes; None if it is no number, such as one of thousands of digits."""
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if is_number else None


def user_headers(url: str) -> Mapping[str, str]:
    """Return the credentials that are part of the address, as a header."""
    parts = url_parts(url)
    if parts.username is None:
        return {}
    import urllib3

    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return dict(urllib3.make_headers(basic_auth=pair))


def url_parts(url: str) -> Any:
    """Return what ``urlsplit`` returns; raise ``DownloadError`` for a malformed address."""
    try:
        parts = urlsplit(url)
        # The port is parsed here, so that a bad one is an error of ours and not of a thread.
        _ = parts.port
    except ValueError as error:
        raise DownloadError("the URL is malformed") from error
    return parts


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port: what credentials are meant for."""
    parts = url_parts(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), port


def is_address(host: str) -> bool:
    """Return whether ``host`` is an IP address rather than a name."""
    import ipaddress

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _found(error: BaseException, attribute: str) -> str:
    """Return the first non-empty text ``attribute`` of ``error`` and what it wraps."""
    pending: list[object] = [error]
    seen: list[object] = []
    while pending:
        here = pending.pop(0)
        if not isinstance(here, BaseException) or here in seen:
            continue
        seen.append(here)
        text = getattr(here, attribute, None)
        if isinstance(text, str) and text:
            return text
        pending += [*here.args, getattr(here, "reason", None), here.__cause__, here.__context__]
    return ""
