"""Notice that somebody, the kernel included, changed links, addresses or local routes.

The kernel removes IPv4 routes *without* a route message when the last IPv4 address of a device
goes, so address and link messages count as much as route messages. Nothing tells our own changes
from others': whoever uses this compares the wanted with the present state again, and a comparison
that finds no difference ends the circle.

Facts: rtnetlink(7) (multicast groups), netlink(7) (ENOBUFS: messages were lost).
"""

from __future__ import annotations

import errno
import struct
from typing import Optional

from google_guest.system.netlink import links, routes, wire

RTM_NEWADDR = 20
RTM_DELADDR = 21

_GROUP_LINK = 0x1
_GROUP_IPV4_ADDRESS = 0x10
_GROUP_IPV4_ROUTE = 0x40
_GROUP_IPV6_ADDRESS = 0x100
_GROUP_IPV6_ROUTE = 0x400
GROUPS = (
    _GROUP_LINK | _GROUP_IPV4_ADDRESS | _GROUP_IPV4_ROUTE | _GROUP_IPV6_ADDRESS | _GROUP_IPV6_ROUTE
)

EVERYTHING: frozenset[int] = frozenset({0})
"""What :meth:`RouteMonitor.drain` answers when it cannot say which devices changed; no device
has index 0."""

_ADDRESS_HEADER = struct.Struct("=BBBBi")
_MOST_DATAGRAMS = 4096


class RouteMonitor:
    """A subscription; give it to ``select``: readable means something may have changed."""

    def __init__(self, open_socket: wire.OpenSocket = wire.open_route_socket) -> None:
        """Subscribe.

        Raises:
            NetlinkUnavailable: no rtnetlink socket can be opened here.
        """
        self._socket = open_socket(GROUPS)
        self._socket.settimeout(0)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def drain(self) -> frozenset[int]:
        """Take all waiting messages and return the indexes of the devices they are about.

        Empty: nothing that matters for local routes happened. :data:`EVERYTHING`: messages were
        lost (the kernel's buffer overflowed) or not understood.

        Raises:
            NetlinkError: the socket is of no more use; open another monitor.
        """
        changed: set[int] = set()
        for _ in range(_MOST_DATAGRAMS):
            try:
                data, _, flags, sender = self._socket.recvmsg(wire.FIRST_BUFFER)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise wire.NetlinkError(error.errno, f"route monitor: {error}") from error
                changed |= EVERYTHING
                continue
            if isinstance(sender, tuple) and sender and sender[0] != 0:
                continue  # From a process, not from the kernel.
            changed |= EVERYTHING if flags & wire.MSG_TRUNC else _changed_indexes(data)
        return EVERYTHING if EVERYTHING & changed else frozenset(changed)

    def close(self) -> None:
        """Unsubscribe."""
        self._socket.close()

    def __enter__(self) -> RouteMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _changed_indexes(data: bytes) -> frozenset[int]:
    try:
        indexes = (_changed_index(event) for event in wire.split_messages(data))
        return frozenset(index for index in indexes if index is not None)
    except wire.NetlinkError:
        return EVERYTHING


def _changed_index(event: wire.Message) -> Optional[int]:
    """Return the device that ``event`` is about, None if it cannot concern local routes."""
    if event.kind in (links.RTM_NEWLINK, links.RTM_DELLINK):
        return links.link_header(event)[0]
    if event.kind in (RTM_NEWADDR, RTM_DELADDR):
        if len(event.payload) < _ADDRESS_HEADER.size:
            raise wire.malformed("part of an address header")
        return int(_ADDRESS_HEADER.unpack_from(event.payload)[4])
    if event.kind in (routes.RTM_NEWROUTE, routes.RTM_DELROUTE):
        # Of routers with busy tables only the local routes are of interest.
        route = routes.parse_local_route(event.payload)
        return None if route is None else route.interface_index
    return None
