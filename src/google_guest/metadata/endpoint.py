"""Where the metadata server is.

Compute Engine offers it at a link-local IPv4 address, at an IPv6 address and under a name. They are
tried in this order, the one that answered is remembered, and after three failed connections in a
row all of them are tried again. ``GCE_METADATA_HOST`` (``host``, ``host:port``, ``[address]:port``
or an ``http://`` URL) replaces all three; Google's client libraries read the same variable.

Addresses come first and the name counts only if it leads to an address that no router forwards:
a forged DHCP or DNS answer must not be able to name another machine as the source of root's keys.

Source: public GCE documentation, "Metadata server endpoints"; osconfig
``agentconfig/agentconfig.go`` for the variable.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Optional
from urllib.parse import urlsplit

from google_guest.metadata.errors import Cancelled, ConnectFailed, MetadataError
from google_guest.records import record

HOST_VARIABLE = "GCE_METADATA_HOST"
_CONNECT_FAILURES_BEFORE_PROBING = 3
_RESOLVER_POLL = 0.05
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")

SocketAddress = tuple[socket.AddressFamily, Any]
"""Family and the address in that family's own form."""


@record
class Endpoint:
    """One place at which to look for the metadata server."""

    host: str
    """A name or an address; IPv6 without brackets."""
    port: int = 80
    link_local_only: bool = False
    """Whether an address of ``host`` that routers would forward is refused."""

    @property
    def authority(self) -> str:
        """Host and port as the ``Host`` header and URLs write them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 80 else f"{host}:{self.port}"


WELL_KNOWN = (
    Endpoint("169.254.169.254"),
    Endpoint("fd20:ce::254"),
    Endpoint("metadata.google.internal", link_local_only=True),
)


def parse_endpoint(text: str) -> Endpoint:
    """Return the endpoint that ``text`` names; raise ``MetadataError`` if it names none."""
    complaint = (
        f"{text[:200]!r} names no metadata server: write host, host:port or http://host:port"
    )
    value = text.strip()
    if value.count(":") > 1 and "[" not in value and "/" not in value:
        value = f"[{value}]"
    try:
        parts = urlsplit(value if "://" in value else f"//{value}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise MetadataError(complaint) from error
    if parts.scheme not in ("", "http") or not host or not _HOST.fullmatch(host) or port == 0:
        raise MetadataError(complaint)
    return Endpoint(host, port or 80)


class Endpoints:
    """The candidates, and which of them is known to work.

    Threads share it without a lock: every step is one assignment, and a lost update only costs one
    more probe.
    """

    def __init__(self, candidates: Sequence[Endpoint]) -> None:
        self._candidates = tuple(candidates)
        self._winner: Optional[Endpoint] = None
        self._failures = 0

    def order(self) -> tuple[Endpoint, ...]:
        """Return what to try now, best first."""
        winner = self._winner
        return self._candidates if winner is None else (winner,)

    def answered(self, endpoint: Endpoint) -> None:
        """Remember that a genuine metadata server answered there."""
        self._winner = endpoint
        self._failures = 0

    def connect_failed(self) -> None:
        """Count one failed connection; after three, all candidates are due again."""
        self._failures += 1
        if self._failures >= _CONNECT_FAILURES_BEFORE_PROBING:
            self._winner = None
            self._failures = 0


def is_confined(address: str) -> bool:
    """Return whether no router forwards ``address``: loopback, link-local, the server's own."""
    if ":" not in address:
        return address.startswith(("169.254.", "127."))
    packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    loopback = packed == b"\0" * 15 + b"\1"
    link_local = packed[0] == 0xFE and packed[1] & 0xC0 == 0x80
    return loopback or link_local or packed.startswith(b"\xfd\x20\x00\xce")


def addresses_of(
    endpoint: Endpoint, *, deadline: float, cancelled: threading.Event
) -> list[SocketAddress]:
    """Return the socket addresses of ``endpoint``; ``deadline`` is in ``time.monotonic`` terms.

    Raises ``ConnectFailed`` if there are none, or ``Cancelled``.
    """
    try:
        found = _lookup(endpoint, numeric=True)
    except OSError:
        found = _lookup_name(endpoint, deadline, cancelled)
    usable = [
        (family, address)
        for family, _, _, _, address in found
        if not endpoint.link_local_only or is_confined(str(address[0]))
    ]
    if not usable:
        raise ConnectFailed(f"{endpoint.host} leads to no link-local address and is not trusted")
    return usable


def _lookup(endpoint: Endpoint, *, numeric: bool) -> list[Any]:
    flags = socket.AI_NUMERICHOST if numeric else 0
    return socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=flags)


def _lookup_name(endpoint: Endpoint, deadline: float, cancelled: threading.Event) -> list[Any]:
    """Resolve a name in a thread of its own: the resolver can neither be cancelled nor bounded."""
    found: list[Any] = []
    failures: list[Exception] = []

    def look_up() -> None:
        try:
            found.extend(_lookup(endpoint, numeric=False))
        # UnicodeError is what getaddrinfo raises for a name with an over-long label.
        except (OSError, UnicodeError) as error:
            failures.append(error)

    thread = threading.Thread(target=look_up, name="resolver", daemon=True)
    thread.start()
    while thread.is_alive():
        if cancelled.is_set():
            raise Cancelled("cancelled")
        if time.monotonic() >= deadline:
            raise ConnectFailed(f"looking up {endpoint.host} took too long")
        thread.join(_RESOLVER_POLL)
    if failures:
        raise ConnectFailed(f"{endpoint.host} cannot be looked up: {failures[0]}") from failures[0]
    return found
