"""One exchange over http or https: proxies, redirects, certificates, and who may see credentials.

Everything goes through ``proxyserver`` if it is set, otherwise through the proxies of the
environment. Up to ten redirects are followed, never from https to http; credentials are for the
host that they were given for and are dropped when a redirect leaves it. Certificates are always
verified: against the trust store as OpenSSL sees it and, on Windows, where that lacks roots that
the system would fetch on demand, by the system's own verifier (the package ``truststore``).

A failure is a :class:`TransportError`, in which addresses are shown without secrets.

Source: googet ``client/client.go`` and ``download/download.go`` for the reference's limits; RFC
9110 section 15.4 (redirects).
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import urljoin

from googet.settings import Settings
from googet.urls import shown
from google_guest.errors import GuestError
from google_guest.records import field, record, replace
from google_guest.scripts.connections import (
    MOST_REDIRECTS,
    REDIRECTS,
    WORTH_RETRYING,
    DownloadError,
    announced_length,
    explain,
    origin,
    pool_for,
    refused_certificate,
    url_parts,
)
from google_guest.scripts.proxies import proxy_for

if TYPE_CHECKING:
    import ssl

_AGENT = "GooGet"
_SMALL = 64 << 10
"""Bytes of an unwanted body that are read to keep the connection."""
_LONGEST_PAUSE = 30.0


class TransportError(GuestError):
    """Something could not be fetched or sent."""

    def __init__(
        self,
        message: str,
        *,
        status: Optional[int] = None,
        temporary: bool = False,
        pause: float = 0.0,
    ) -> None:
        self.status = status
        """The HTTP status, 404 for a file that does not exist, None if there was no answer."""
        self.temporary = temporary
        """Whether another attempt may succeed."""
        self.pause = pause
        """Seconds that the server asks to wait, at most 30."""
        super().__init__(message)


@record
class Timeouts:
    """Patience with one connection, in seconds."""

    connect: float = 30.0
    read: float = 60.0


@record
class Request:
    """What is asked for; ``secrets`` are headers that only the host of ``url`` may see."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Optional[bytes] = field(default=None, repr=False)


class Web:
    """The way to web servers; threads may share it."""

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str],
        timeouts: Timeouts,
        system_verifier: Optional[Callable[[], Optional[ssl.SSLContext]]] = None,
    ) -> None:
        """``system_verifier`` returns the context that is tried after OpenSSL's has refused."""
        self._proxy = settings.proxy_server
        self._environ = environ
        self._timeouts = timeouts
        self._system_verifier = system_verifier or _system_verifier
        self._context: Optional[ssl.SSLContext] = None
        self._pools: dict[tuple[str, str, int, Optional[str]], Any] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def ask(self, request: Request) -> Iterator[Any]:
        """Give the answer, of whatever status, with its body unread and undecoded.

        Raises:
            TransportError: there is no answer, or it breaks off while the block reads it.
        """
        from urllib3.exceptions import HTTPError

        try:
            response = self._followed(request)
            try:
                yield response
            finally:
                _let_go(response)
        except DownloadError as error:
            raise TransportError(f"{shown(request.url)}: {error}") from error
        except HTTPError as error:
            text, temporary = explain(
                error, connect=self._timeouts.connect, idle=self._timeouts.read
            )
            raise TransportError(f"{shown(request.url)}: {text}", temporary=temporary) from error

    def _followed(self, request: Request) -> Any:
        for _ in range(MOST_REDIRECTS + 1):
            response = self._verified(request)
            location = response.headers.get("Location")
            if request.method != "GET" or response.status not in REDIRECTS or not location:
                return response
            _let_go(response)
            request = _redirected(request, str(location))
        raise TransportError(f"{shown(request.url)}: more than {MOST_REDIRECTS} redirects")

    def _verified(self, request: Request) -> Any:
        """Return the answer to one request; one that OpenSSL refuses is put to the system."""
        from urllib3.exceptions import HTTPError

        context = self._context
        try:
            return self._opened(request)
        except HTTPError as error:
            if not refused_certificate(error) or not self._changed_verifier(context):
                raise
        return self._opened(request)

    def _opened(self, request: Request) -> Any:
        import urllib3

        headers = {"Accept-Encoding": "identity", "User-Agent": _AGENT}
        return self._pool(request.url).urlopen(
            request.method,
            request.url,
            body=request.body,
            headers={**headers, **request.headers, **request.secrets},
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=self._timeouts.connect, read=self._timeouts.read),
        )

    def _pool(self, url: str) -> Any:
        proxy = self._proxy or proxy_for(url, self._environ)
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        key = (*origin(url), proxy)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = pool_for(url, proxy, context=self._context)
            return self._pools[key]

    def _changed_verifier(self, used: Optional[ssl.SSLContext]) -> bool:
        """Change to the system's verifier; return whether one other than ``used`` is in place."""
        with self._lock:
            if self._context is None:
                self._context = self._system_verifier()
                self._pools.clear()
            return self._context is not used


def status_error(url: str, response: Any) -> TransportError:
    """Return the error that an unexpected status is."""
    status = int(response.status)
    asked = announced_length(response.headers.get("Retry-After", "")) or 0
    return TransportError(
        f"{shown(url)}: status {status}",
        status=status,
        temporary=status in WORTH_RETRYING,
        pause=min(_LONGEST_PAUSE, float(asked)),
    )


def read_body(response: Any, *, limit: int, url: str) -> bytes:
    """Return a body of at most ``limit`` bytes, as it came over the wire.

    Raises:
        TransportError: it is longer, or shorter than it was announced to be.
    """
    blocks = []
    size = 0
    for block in response.stream(_SMALL, decode_content=False):
        size += len(block)
        if size > limit:
            raise TransportError(f"{shown(url)}: larger than {limit} bytes")
        blocks.append(block)
    check_length(response, size, url=url)
    return b"".join(blocks)


def check_length(response: Any, size: int, *, url: str) -> None:
    """Raise a temporary ``TransportError`` if the body had less than it was announced to have."""
    length = announced_length(response.headers.get("Content-Length", ""))
    if length is not None and size != length:
        raise TransportError(
            f"{shown(url)}: the answer broke off after {size} of {length} bytes", temporary=True
        )


def _redirected(request: Request, location: str) -> Request:
    try:
        url = urljoin(request.url, location)
    except ValueError as error:
        raise TransportError(f"{shown(request.url)} redirects to no URL") from error
    parts = url_parts(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TransportError(f"{shown(request.url)} redirects to an unsupported URL")
    if parts.scheme == "http" and url_parts(request.url).scheme == "https":
        raise TransportError(f"{shown(request.url)} redirects from https to http; refused")
    stays = origin(url) == origin(request.url)
    return replace(request, url=url, secrets=request.secrets if stays else {})


def _let_go(response: Any) -> None:
    """Keep the connection if little is left of the body, and close it otherwise."""
    length = announced_length(response.headers.get("Content-Length", ""))
    if length is not None and length <= _SMALL:
        response.drain_conn()
    response.close()


def _system_verifier() -> Optional[ssl.SSLContext]:
    if sys.platform != "win32":
        return None
    import ssl

    try:
        import truststore
    except ImportError:
        return None
    context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context
