"""What clients asked: a bounded record of requests that tests query and wait on.

Keeps the newest requests up to a number and a total size, and counts all of them.  Reads and writes
nothing outside the process.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional, Union

from metadata_server.wire import Headers

ROOT = "/computeMetadata/v1/"
BYTES_KEPT = 32 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """One request to the metadata service (requests to ``/_emulator/`` are not recorded).

    ``path`` is relative to ``/computeMetadata/v1/`` ("instance/id"), percent-decoded, with doubled
    slashes removed; what lies outside keeps its leading slash.  ``query`` has the last value of
    each parameter, ``headers`` can be asked in any case, ``time`` is Unix seconds.  ``number``
    counts from 1 and never restarts.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    time: float
    number: int = 0
    target: str = ""
    client: str = ""
    tls: bool = False

    @property
    def is_watch(self) -> bool:
        """Whether this is a long poll."""
        return self.query.get("wait_for_change", "").lower() == "true"

    @property
    def size(self) -> int:
        headers = sum(len(name) + len(value) for name, value in self.headers.items())
        return len(self.target) + len(self.body) + headers + 512


def matches_prefix(path: str, prefix: str) -> bool:
    """Whether a request path starts with a prefix given as relative or as absolute path."""
    if prefix.startswith(ROOT):
        prefix = prefix[len(ROOT) :]
    if path.startswith("/") and not prefix.startswith("/"):
        return prefix == ""
    return path.startswith(prefix)


@dataclass
class RequestLog:
    """The record; every method may be called from any thread."""

    limit: int = 10_000
    total: int = 0
    _kept: collections.deque[Request] = field(default_factory=collections.deque)
    _bytes: int = 0
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    def add(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Headers,
        body: bytes,
        *,
        target: str,
        client: str,
        tls: bool,
    ) -> Request:
        with self._arrived:
            self.total += 1
            request = Request(
                method, path, query, headers, body, time.time(), self.total, target, client, tls
            )
            self._kept.append(request)
            self._bytes += request.size
            while len(self._kept) > self.limit or self._bytes > BYTES_KEPT:
                self._bytes -= self._kept.popleft().size
            self._arrived.notify_all()
            return request

    def matching(self, path_prefix: str = "") -> list[Request]:
        with self._arrived:
            kept = list(self._kept)
        return [r for r in kept if not path_prefix or matches_prefix(r.path, path_prefix)]

    def clear(self) -> None:
        with self._arrived:
            self._kept.clear()
            self._bytes = 0

    def wait(
        self,
        path_prefix: str,
        timeout: float,
        *,
        method: Optional[str] = None,
        since: Optional[Union[float, Request]] = None,
    ) -> Request:
        """The first recorded request that matches, now or within ``timeout`` seconds.

        ``since`` leaves out older ones: a Unix time, or a Request (that one and all before it).
        Raises TimeoutError, naming what came instead.
        """
        deadline = time.monotonic() + timeout
        with self._arrived:
            while True:
                for request in self._kept:
                    if (
                        matches_prefix(request.path, path_prefix)
                        and (method is None or request.method == method.upper())
                        and _is_after(request, since)
                    ):
                        return request
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    recent = [f"{r.method} {r.path}" for r in list(self._kept)[-5:]]
                    raise TimeoutError(
                        f"no {method or 'request'} for {path_prefix!r} in {timeout:g} s; "
                        f"latest: {', '.join(recent) or 'none'}"
                    )
                self._arrived.wait(remaining)


def _is_after(request: Request, since: Optional[Union[float, Request]]) -> bool:
    if since is None:
        return True
    if isinstance(since, Request):
        return request.number > since.number
    return request.time >= since
