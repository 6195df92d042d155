"""Links, local routes and a watch over both, spoken with the kernel in its own language.

Reads and writes through rtnetlink with the standard library only; where a sandbox forbids such
sockets, through the program ``ip``. Everything concerns the network namespace of this process.

Facts: rtnetlink(7); google-guest-agent internal/network/route, whose parsing of ``ip``'s text
output missed IPv6 and stumbled over flags, is the reason for speaking netlink.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Protocol

from google_guest.system.commands import Completed, run_command
from google_guest.system.netlink import links as _links
from google_guest.system.netlink import routes as _routes
from google_guest.system.netlink.links import Link, link_with_mac, parse_mac
from google_guest.system.netlink.monitor import EVERYTHING, RouteMonitor
from google_guest.system.netlink.routes import (
    IPV6_METRIC,
    Family,
    LocalRoute,
    family_of,
)
from google_guest.system.netlink.wire import (
    NetlinkError,
    NetlinkUnavailable,
    OpenSocket,
    open_route_socket,
)
from google_guest.system.networks import IPNetwork, destination_text

__all__ = [
    "EVERYTHING",
    "IPV6_METRIC",
    "Family",
    "IPNetwork",
    "Link",
    "LocalRoute",
    "NetlinkError",
    "NetlinkUnavailable",
    "Network",
    "RouteMonitor",
    "RunCommand",
    "destination_text",
    "family_of",
    "link_with_mac",
    "parse_mac",
]


class RunCommand(Protocol):
    """Runs a program of the platform; :func:`google_guest.system.commands.run_command` does."""

    def __call__(self, argv: Sequence[str], *, timeout: float) -> Completed: ...


class Network:
    """The network devices and local routes of this network namespace."""

    def __init__(
        self,
        run: RunCommand = run_command,
        *,
        open_socket: OpenSocket = open_route_socket,
        sysfs: str = "/sys",
        has_ipv6: Optional[bool] = None,
    ) -> None:
        """``run`` is for the fallback; ``has_ipv6`` None: ask the kernel each time."""
        self._open_socket = open_socket
        self._run = run
        self._sysfs = sysfs
        self._has_ipv6 = has_ipv6

    def families(self) -> tuple[Family, ...]:
        """Return the address families that the kernel runs."""
        has_ipv6 = self._has_ipv6
        if has_ipv6 is None:
            has_ipv6 = _routes.kernel_has_ipv6()
        return (Family.IPV4, Family.IPV6) if has_ipv6 else (Family.IPV4,)

    def links(self) -> list[Link]:
        """Return all network devices, by index.

        Raises:
            NetlinkError, GuestError: they cannot be listed.
        """
        try:
            return _links.list_links(self._open_socket, sysfs=self._sysfs)
        except NetlinkUnavailable:
            from google_guest.system.netlink import iproute  # Only where the sandbox demands it.

            return iproute.list_links(self._run, sysfs=self._sysfs)

    def local_routes(self, family: Family) -> list[LocalRoute]:
        """Return the local routes of ``family``: every device, every protocol, table 255.

        A family that the kernel does not run has none.

        Raises:
            NetlinkError, GuestError: they cannot be listed.
        """
        if family not in self.families():
            return []
        try:
            return _routes.list_local_routes(self._open_socket, family)
        except NetlinkUnavailable:
            from google_guest.system.netlink import iproute

            return iproute.list_local_routes(self._run, family, self.links())

    def add_local_route(self, route: LocalRoute) -> None:
        """Make the kernel accept traffic for ``route``'s destination on its device; idempotent.

        Raises:
            NetlinkError, GuestError: the kernel refused. EEXIST: an IPv6 destination belongs to
                another device.
        """
        try:
            _routes.add_local_route(self._open_socket, route)
        except NetlinkUnavailable:
            from google_guest.system.netlink import iproute

            iproute.add_local_route(self._run, route, self.links())

    def delete_local_route(self, route: LocalRoute) -> None:
        """Delete ``route``, matched by destination, device and protocol; idempotent.

        Raises:
            NetlinkError, GuestError: the kernel refused.
        """
        try:
            _routes.delete_local_route(self._open_socket, route)
        except NetlinkUnavailable:
            from google_guest.system.netlink import iproute

            iproute.delete_local_route(self._run, route, self.links())

    def open_monitor(self) -> RouteMonitor:
        """Return a watch over links, addresses and local routes of both families.

        Raises:
            NetlinkUnavailable: not possible here; look again from time to time instead.
        """
        return RouteMonitor(self._open_socket)
