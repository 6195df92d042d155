"""Fetching a script over http or https into an open file.

One attempt follows up to ten redirects and takes status 200 only. Network errors, 408, 429 and 5xx
are tried three times, 1 s and 2 s apart; other answers are final. Every attempt starts with an
empty file, and a body shorter than its Content-Length counts as a network error. A connection has
10 s, a silent server 60 s, and everything together the event's limit, which also holds against
name servers and against servers that send one byte a minute.

Before the first contact the name of the host that is really contacted (the proxy's, if there is
one) must resolve; at boot the name server may come late. Credentials go to the host that they are
meant for and are dropped when a redirect leads elsewhere. Certificates are checked against the
system's trust store, and nothing switches that off. Messages show addresses without their query.

``urllib3`` (1.26 or 2.x, the distribution's) does the talking; only a boot with a ``-url`` script
loads it. Source: google-guest-agent ``cmd/gce_metadata_script_runner/scriptrunner.go``; RFC 9110
section 15.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Optional, TypeVar
from urllib.parse import urljoin

from google_guest.records import record
from google_guest.scripts.connections import (
    MOST_REDIRECTS,
    REDIRECTS,
    WORTH_RETRYING,
    DownloadError,
    announced_length,
    explain,
    is_address,
    origin,
    pool_for,
    url_parts,
    user_headers,
)
from google_guest.scripts.proxies import proxy_for
from google_guest.scripts.storage_url import shown_url

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 60.0
_PAUSES = (1.0, 2.0)
_BLOCK = 1 << 16
_SLICE = 0.5

_T = TypeVar("_T")


@record
class DownloadLimits:
    """How patient a download is; all in seconds but the number of lookups."""

    total: float
    name_lookups: int
    name_pause: float
    connect: float = CONNECT_SECONDS
    idle: float = IDLE_SECONDS


@record
class _Target:
    """What one request asks for; ``headers`` are for this host only."""

    url: str
    headers: Mapping[str, str]

    def redirected(self, location: str) -> _Target:
        try:
            url = urljoin(self.url, location)
        except ValueError as error:
            raise DownloadError(f"{shown_url(self.url)} redirects to no URL") from error
        parts = url_parts(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DownloadError(f"{shown_url(self.url)} redirects to an unsupported URL")
        same = origin(url) == origin(self.url)
        return _Target(url, self.headers if same else {})


def within(seconds: float, work: Callable[[], _T]) -> _T:
    """Return what ``work`` returns; raise ``DownloadError`` if it takes longer than ``seconds``.

    The work runs in a thread, because neither the system's resolver nor a TLS handshake can be
    bounded from outside. One that takes too long is left to itself and ends with the process.
    """
    results: list[_T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)

    deadline = time.monotonic() + seconds
    thread = threading.Thread(target=run, name="download", daemon=True)
    thread.start()
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(min(_SLICE, max(0.0, deadline - time.monotonic())))
    if failures:
        raise failures[0]
    if not results:
        raise DownloadError(f"not finished within {seconds:g} s")
    return results[0]


class Download:
    """The way to the internet for the scripts of one event."""

    def __init__(
        self,
        limits: DownloadLimits,
        *,
        environment: Mapping[str, str],
        say: Callable[[str], None],
        resolve: Callable[[str], object] = lambda host: socket.getaddrinfo(host, None),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``say`` takes a line for people; ``environment`` names the proxies."""
        self._limits = limits
        self._environment = environment
        self._say = say
        self._resolve = resolve
        self._sleep = sleep
        self._resolved: set[str] = set()
        self._insecure: set[str] = set()

    def fetch(self, url: str, output: int, *, headers: Optional[Mapping[str, str]] = None) -> None:
        """Write what is at ``url`` to the file descriptor ``output``.

        Raises:
            DownloadError: the last attempt's error.
        """
        target = _Target(url, {**user_headers(url), **(headers or {})})
        for pause in (*_PAUSES, None):
            try:
                self._attempt(target, output)
                return
            except DownloadError as error:
                if pause is None or not error.temporary:
                    raise
                self._say(f"{error}; trying again in {pause:g} s")
                self._sleep(pause)

    def _attempt(self, target: _Target, output: int) -> None:
        for _ in range(MOST_REDIRECTS + 1):
            self._wait_for_name(target.url)
            self._warn_of_plain_http(target.url)
            location = self._request(target, output)
            if location is None:
                return
            target = target.redirected(location)
        raise DownloadError(f"{shown_url(target.url)}: more than {MOST_REDIRECTS} redirects")

    def _warn_of_plain_http(self, url: str) -> None:
        shown = shown_url(url)
        if url_parts(url).scheme == "http" and shown not in self._insecure:
            self._insecure.add(shown)
            self._say(f"{shown}: script fetched without transport security")

    def _wait_for_name(self, url: str) -> None:
        """Wait until the host that is contacted for ``url`` has an address."""
        host = url_parts(proxy_for(url, self._environment) or url).hostname or ""
        if host in self._resolved or is_address(host):
            return
        for attempt in range(1, self._limits.name_lookups + 1):
            try:
                self._resolve(host)
            except (OSError, UnicodeError) as error:
                if attempt == self._limits.name_lookups:
                    text = error.strerror if isinstance(error, OSError) else "no host name"
                    raise DownloadError(f"{host} cannot be resolved: {text}") from error
                if attempt == 1:
                    self._say(f"waiting for {host} to resolve")
                self._sleep(self._limits.name_pause)
            else:
                self._resolved.add(host)
                return

    def _request(self, target: _Target, output: int) -> Optional[str]:
        """Save the body, or return where the server redirects to."""
        import urllib3

        try:
            manager = pool_for(target.url, proxy_for(target.url, self._environment))
            response = manager.urlopen(
                "GET",
                target.url,
                headers={"Accept-Encoding": "identity", **target.headers},
                preload_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=self._limits.connect, read=self._limits.idle),
            )
            try:
                location = response.headers.get("Location")
                if response.status in REDIRECTS and location:
                    return str(location)
                if response.status != 200:
                    raise DownloadError(
                        f"{shown_url(target.url)}: status {response.status}",
                        temporary=response.status in WORTH_RETRYING,
                    )
                _save(response, output)
                return None
            finally:
                response.close()
        except urllib3.exceptions.HTTPError as error:
            text, temporary = explain(error, connect=self._limits.connect, idle=self._limits.idle)
            raise DownloadError(f"{shown_url(target.url)}: {text}", temporary=temporary) from error


def _save(response: Any, output: int) -> None:
    os.lseek(output, 0, os.SEEK_SET)
    os.ftruncate(output, 0)
    for block in response.stream(_BLOCK, decode_content=True):
        view = memoryview(block)
        while view:
            view = view[os.write(output, view) :]
    length = announced_length(response.headers.get("Content-Length", ""))
    # tell() counts what came over the wire, before any decompression.
    if length is not None and response.tell() != length:
        raise DownloadError(
            f"the answer broke off after {response.tell()} of {length} bytes", temporary=True
        )
