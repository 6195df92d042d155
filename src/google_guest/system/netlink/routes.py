"""Local routes: entries of the kernel's table 255 that make it accept traffic for an address.

Reads and writes the table ``local`` of both families through rtnetlink.

Facts: rtnetlink(7), linux/rtnetlink.h; google-guest-agent internal/network/route (which fields
the reference sets); kernel net/ipv4/fib_trie.c and net/ipv6/ip6_fib.c (what EEXIST means there).
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import socket
import struct
from collections.abc import Callable
from typing import Optional

from google_guest.records import record
from google_guest.system.netlink import wire
from google_guest.system.networks import IPNetwork

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26

LOCAL_TABLE = 255
LOCAL_TYPE = 2
PROTOCOL_KERNEL = 2
IPV6_METRIC = 1024
"""The metric that the kernel gives to an IPv6 route that names none."""

_SCOPE_GLOBAL = 0
_SCOPE_HOST = 254
_RTA_DST = 1
_RTA_OIF = 4
_RTA_PRIORITY = 6
_RTA_TABLE = 15
_HEADER = struct.Struct("=BBBBBBBBI")
_INDEX = struct.Struct("=i")
_NUMBER = struct.Struct("=I")


class Family(enum.IntEnum):
    """An address family, with the number that Linux puts into messages."""

    IPV4 = 2
    IPV6 = 10

    @property
    def bits(self) -> int:
        """The length of an address."""
        return 32 if self is Family.IPV4 else 128


@record
class LocalRoute:
    """An entry of type local in the table local.

    ``protocol`` names who made it (2: the kernel, for an interface address). ``metric`` is 0 for
    IPv4; a new IPv6 route gets 1024 from the kernel.
    """

    destination: IPNetwork
    interface_index: int
    protocol: int
    metric: int = 0

    @property
    def family(self) -> Family:
        return family_of(self.destination)


def family_of(destination: IPNetwork) -> Family:
    """Return the family of a destination."""
    return Family.IPV4 if destination.version == 4 else Family.IPV6


def kernel_has_ipv6() -> bool:
    """Return whether the kernel runs IPv6 at all (false with ``ipv6.disable=1``)."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


def list_local_routes(open_socket: wire.OpenSocket, family: Family) -> list[LocalRoute]:
    """Return the local routes of ``family``, of every device and protocol.

    Raises:
        NetlinkError: see :func:`wire.dump`.
    """
    # Recent kernels filter by table and type themselves; on older ones these fields are ignored
    # and parse_local_route drops what is not ours to see.
    payload = _HEADER.pack(family, 0, 0, 0, LOCAL_TABLE, 0, 0, LOCAL_TYPE, 0)
    try:
        return wire.dump(open_socket, RTM_GETROUTE, payload, lambda reply: _route_of(reply, family))
    except wire.NetlinkUnavailable:
        raise
    except wire.NetlinkError as error:
        if error.errno in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            return []  # The family or its table does not exist: no route either.
        raise


def add_local_route(open_socket: wire.OpenSocket, route: LocalRoute) -> None:
    """Add ``route``; an address already local on that device, by any protocol, is success.

    Raises:
        NetlinkError: the kernel refused.
    """
    create = wire.NLM_F_CREATE | wire.NLM_F_EXCL
    payload = _route_payload(route)
    try:
        wire.request(open_socket, RTM_NEWROUTE, create, payload)
    except wire.NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        if is_satisfied(lambda: list_local_routes(open_socket, route.family), route):
            return
        if route.family is Family.IPV6:
            raise
        # The destination is local on another device. IPv4 keeps a list for each destination, to
        # which an entry with another device may be appended; IPv6 has no such list.
        append = wire.NLM_F_CREATE | wire.NLM_F_APPEND
        try:
            wire.request(open_socket, RTM_NEWROUTE, append, payload)
        except wire.NetlinkError as second:
            if second.errno != errno.EEXIST or not is_satisfied(
                lambda: list_local_routes(open_socket, route.family), route
            ):
                raise


def delete_local_route(open_socket: wire.OpenSocket, route: LocalRoute) -> None:
    """Delete ``route``, matched by destination, device and protocol; none there is success.

    Raises:
        NetlinkError: the kernel refused.
    """
    try:
        wire.request(open_socket, RTM_DELROUTE, 0, _route_payload(route))
    except wire.NetlinkError as error:
        # ENODEV: the device went away, and its routes with it.
        if error.errno not in (errno.ESRCH, errno.ENODEV) or is_present(
            lambda: list_local_routes(open_socket, route.family), route
        ):
            raise


def is_satisfied(listing: Callable[[], list[LocalRoute]], wanted: LocalRoute) -> bool:
    """Return whether the destination is local on the wanted device, whoever made it so."""
    return any(
        (route.destination, route.interface_index) == (wanted.destination, wanted.interface_index)
        for route in listing()
    )


def is_present(listing: Callable[[], list[LocalRoute]], searched: LocalRoute) -> bool:
    """Return whether exactly this route, of this protocol, is in the table."""
    return any(
        (route.destination, route.interface_index, route.protocol)
        == (searched.destination, searched.interface_index, searched.protocol)
        for route in listing()
    )


def parse_local_route(payload: bytes) -> Optional[LocalRoute]:
    """Return the local route in the payload of a route message; None for any other route.

    Raises:
        NetlinkError: the message is malformed.
    """
    if len(payload) < _HEADER.size:
        raise wire.malformed("part of a route header")
    number, length, _, _, table, protocol, _, kind, _ = _HEADER.unpack_from(payload)
    if kind != LOCAL_TYPE or number not in (Family.IPV4, Family.IPV6):
        return None
    attributes = wire.split_attributes(payload[_HEADER.size :])
    if _number(attributes, _RTA_TABLE, table) != LOCAL_TABLE or _RTA_OIF not in attributes:
        return None
    family = Family(number)
    address = attributes.get(_RTA_DST, bytes(family.bits // 8))
    if length > family.bits or len(address) != family.bits // 8:
        raise wire.malformed("route destination")
    return LocalRoute(
        destination=ipaddress.ip_network((address, length), strict=False),
        interface_index=_number(attributes, _RTA_OIF, 0),
        protocol=protocol,
        metric=_number(attributes, _RTA_PRIORITY, 0),
    )


def _route_of(reply: wire.Message, family: Family) -> Optional[LocalRoute]:
    if reply.kind != RTM_NEWROUTE:
        return None
    route = parse_local_route(reply.payload)
    # A kernel without the asked family answers with the routes of all the others.
    return route if route is not None and route.family is family else None


def _route_payload(route: LocalRoute) -> bytes:
    """Return the body of a request that adds or deletes ``route``."""
    scope = _SCOPE_HOST if route.family is Family.IPV4 else _SCOPE_GLOBAL
    network = route.destination
    payload = _HEADER.pack(
        route.family, network.prefixlen, 0, 0, LOCAL_TABLE, route.protocol, scope, LOCAL_TYPE, 0
    )
    payload += wire.attribute(_RTA_DST, network.network_address.packed)
    payload += wire.attribute(_RTA_OIF, _INDEX.pack(route.interface_index))
    payload += wire.attribute(_RTA_TABLE, _NUMBER.pack(LOCAL_TABLE))
    if route.metric:
        payload += wire.attribute(_RTA_PRIORITY, _NUMBER.pack(route.metric))
    return payload


def _number(attributes: dict[int, bytes], kind: int, default: int) -> int:
    value = attributes.get(kind)
    if value is None:
        return default
    if len(value) != _NUMBER.size:
        raise wire.malformed(f"attribute {kind} of {len(value)} bytes")
    return int(_NUMBER.unpack(value)[0])
