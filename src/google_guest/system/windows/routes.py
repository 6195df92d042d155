"""IPv4 routes of the running machine, through iphlpapi.

Source: learn.microsoft.com, "MIB_IPFORWARD_ROW2", "CreateIpForwardEntry2", "GetIpInterfaceEntry",
"NotifyRouteChange2"; netioapi.h for the layout.
"""

from __future__ import annotations

import sys

from google_guest.records import record


@record
class Route:
    """A row of the forward table."""

    destination: str
    prefix_length: int
    gateway: str
    """``0.0.0.0`` for what is reached without a router."""
    interface: int
    """The index of the interface."""
    metric: int = 0
    """What Windows compares: the metric of the route and that of its interface together."""


if sys.platform == "win32":
    import ctypes
    import socket
    from collections.abc import Sequence
    from ctypes import wintypes

    from google_guest.system.windows import WindowsError
    from google_guest.system.windows.calls import failure, function
    from google_guest.system.windows.sockets import (
        AF_INET,
        SocketAddress,
        address_text,
        socket_address,
    )

    _NETWORK_MANAGEMENT = 3
    """The protocol of a route that a program made (MIB_IPPROTO_NETMGMT)."""
    _NOT_FOUND, _FILE_NOT_FOUND, _ALREADY_EXISTS = 1168, 2, 5010

    class _Prefix(ctypes.Structure):
        """IP_ADDRESS_PREFIX."""

        _fields_ = (("address", SocketAddress), ("length", ctypes.c_uint8))

    class _Row(ctypes.Structure):
        """MIB_IPFORWARD_ROW2."""

        _fields_ = (
            ("luid", ctypes.c_uint64),
            ("interface", wintypes.DWORD),
            ("destination", _Prefix),
            ("next_hop", SocketAddress),
            ("site_prefix_length", ctypes.c_uint8),
            ("valid_lifetime", wintypes.DWORD),
            ("preferred_lifetime", wintypes.DWORD),
            ("metric", wintypes.DWORD),
            ("protocol", ctypes.c_int),
            ("loopback", ctypes.c_uint8),
            ("autoconfigured", ctypes.c_uint8),
            ("published", ctypes.c_uint8),
            ("immortal", ctypes.c_uint8),
            ("age", wintypes.DWORD),
            ("origin", ctypes.c_int),
        )

    class _Table(ctypes.Structure):
        _fields_ = (("count", wintypes.DWORD), ("rows", _Row * 1))

    class _Interface(ctypes.Structure):
        """MIB_IPINTERFACE_ROW; what is not used here is left unnamed."""

        _fields_ = (
            ("family", ctypes.c_uint16),
            ("luid", ctypes.c_uint64),
            ("index", wintypes.DWORD),
            ("settings", wintypes.DWORD * 31),
            ("site_prefix_length", wintypes.DWORD),
            ("metric", wintypes.DWORD),
            ("state", wintypes.DWORD * 4),
        )

    class NativeRoutes:
        """The forward table of this machine; see ``google_guest.system.windows.Routes``."""

        def ipv4(self) -> Sequence[Route]:
            """Return the forward table."""
            pointer = ctypes.POINTER(_Table)()
            code = function("iphlpapi", "GetIpForwardTable2", ctypes.c_uint16, ctypes.c_void_p)(
                AF_INET, ctypes.byref(pointer)
            )
            if code == _FILE_NOT_FOUND:
                return ()
            if code:
                raise failure("GetIpForwardTable2", code)
            try:
                table = pointer.contents
                start = ctypes.addressof(table) + _Table.rows.offset
                rows = (_Row * table.count).from_address(start)
                costs: dict[int, int] = {}
                return tuple(_route(row, costs) for row in rows)
            finally:
                function("iphlpapi", "FreeMibTable", ctypes.c_void_p, result=None)(pointer)

        def add(self, route: Route) -> None:
            """Add the route."""
            code = function("iphlpapi", "CreateIpForwardEntry2", ctypes.c_void_p)(
                ctypes.byref(_row(route))
            )
            if code and code != _ALREADY_EXISTS:
                raise failure("CreateIpForwardEntry2", code)

        def remove(self, route: Route) -> None:
            """Remove the route."""
            code = function("iphlpapi", "DeleteIpForwardEntry2", ctypes.c_void_p)(
                ctypes.byref(_row(route))
            )
            if code and code not in (_NOT_FOUND, _FILE_NOT_FOUND):
                raise failure("DeleteIpForwardEntry2", code)

        def reaches(self, address: str, port: int, *, timeout: float) -> bool:
            """Return whether somebody answers there."""
            try:
                socket.create_connection((address, port), timeout).close()
            except OSError:
                return False
            return True

    def _route(row: _Row, costs: dict[int, int]) -> Route:
        if row.interface not in costs:
            costs[row.interface] = _interface_metric(row.interface)
        return Route(
            destination=address_text(row.destination.address),
            prefix_length=row.destination.length,
            gateway=address_text(row.next_hop),
            interface=row.interface,
            metric=row.metric + costs[row.interface],
        )

    def _row(route: Route) -> _Row:
        row = _Row()
        function("iphlpapi", "InitializeIpForwardEntry", ctypes.c_void_p, result=None)(
            ctypes.byref(row)
        )
        row.interface = route.interface
        row.destination.address = socket_address(route.destination)
        row.destination.length = route.prefix_length
        row.next_hop = socket_address(route.gateway)
        row.metric = max(0, route.metric - _interface_metric(route.interface))
        row.protocol = _NETWORK_MANAGEMENT
        return row

    def _interface_metric(index: int) -> int:
        """Return the metric of an interface; 0 if Windows does not tell."""
        row = _Interface(family=AF_INET, index=index)
        try:
            get_entry = function("iphlpapi", "GetIpInterfaceEntry", ctypes.c_void_p)
        except WindowsError:
            return 0
        return 0 if get_entry(ctypes.byref(row)) else int(row.metric)
