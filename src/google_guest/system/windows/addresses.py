"""The addresses of the machine's adapters, through iphlpapi.

Source: learn.microsoft.com, "GetAdaptersAddresses", "CreateUnicastIpAddressEntry",
"MIB_UNICASTIPADDRESS_ROW", "DeleteIPAddress"; iptypes.h and netioapi.h for the layouts.
"""

from __future__ import annotations

import sys

from google_guest.records import record


@record
class Adapter:
    """A network adapter and its addresses in their normal form, without prefix lengths."""

    index: int
    mac: str
    """Lower case, separated by colons."""
    name: str
    addresses: frozenset[str] = frozenset()


if sys.platform == "win32":
    import ctypes
    from collections.abc import Iterator, Sequence
    from ctypes import wintypes
    from typing import Any, Optional

    from google_guest.system.windows.calls import failure, function
    from google_guest.system.windows.sockets import (
        SocketAddress,
        address_text,
        socket_address,
    )

    _ALL_FAMILIES = 0
    _SKIP_ANYCAST_MULTICAST_DNS = 0x2 | 0x4 | 0x8
    _NO_DATA, _BUFFER_OVERFLOW = 232, 111
    _ALREADY_THERE, _NOT_FOUND = 5010, 1168
    _FIRST_BUFFER = 16 << 10
    _ATTEMPTS = 5

    class _Unicast(ctypes.Structure):
        """IP_ADAPTER_UNICAST_ADDRESS, as far as it is used."""

    _Unicast._fields_ = (
        ("length", wintypes.ULONG),
        ("flags", wintypes.DWORD),
        ("next", ctypes.POINTER(_Unicast)),
        ("address", ctypes.POINTER(SocketAddress)),
    )

    class _Adapter(ctypes.Structure):
        """IP_ADAPTER_ADDRESSES, as far as it is used."""

    _Adapter._fields_ = (
        ("length", wintypes.ULONG),
        ("index", wintypes.DWORD),
        ("next", ctypes.POINTER(_Adapter)),
        ("identifier", ctypes.c_char_p),
        ("unicast", ctypes.POINTER(_Unicast)),
        ("anycast", ctypes.c_void_p),
        ("multicast", ctypes.c_void_p),
        ("dns_servers", ctypes.c_void_p),
        ("dns_suffix", wintypes.LPWSTR),
        ("description", wintypes.LPWSTR),
        ("name", wintypes.LPWSTR),
        ("mac", ctypes.c_uint8 * 8),
        ("mac_length", wintypes.ULONG),
        ("adapter_flags", wintypes.ULONG),
        ("mtu", wintypes.ULONG),
        ("kind", wintypes.DWORD),
        ("state", ctypes.c_int),
        ("ipv6_index", wintypes.DWORD),
    )

    class _Row(ctypes.Structure):
        """MIB_UNICASTIPADDRESS_ROW."""

        _fields_ = (
            ("address", SocketAddress),
            ("luid", ctypes.c_uint64),
            ("index", wintypes.DWORD),
            ("prefix_origin", ctypes.c_int),
            ("suffix_origin", ctypes.c_int),
            ("valid_lifetime", wintypes.ULONG),
            ("preferred_lifetime", wintypes.ULONG),
            ("prefix_length", ctypes.c_uint8),
            ("skip_as_source", ctypes.c_uint8),
            ("state", ctypes.c_int),
            ("scope", wintypes.ULONG),
            ("created", ctypes.c_int64),
        )

    class _OldAddress(ctypes.Structure):
        """IP_ADDR_STRING."""

    _OldAddress._fields_ = (
        ("next", ctypes.POINTER(_OldAddress)),
        ("text", ctypes.c_char * 16),
        ("mask", ctypes.c_char * 16),
        ("context", wintypes.DWORD),
    )

    class _OldAdapter(ctypes.Structure):
        """IP_ADAPTER_INFO, as far as it is used."""

    _OldAdapter._fields_ = (
        ("next", ctypes.POINTER(_OldAdapter)),
        ("combo_index", wintypes.DWORD),
        ("name", ctypes.c_char * 260),
        ("description", ctypes.c_char * 132),
        ("mac_length", wintypes.UINT),
        ("mac", ctypes.c_uint8 * 8),
        ("index", wintypes.DWORD),
        ("kind", wintypes.UINT),
        ("dhcp", wintypes.UINT),
        ("current", ctypes.c_void_p),
        ("first", _OldAddress),
    )

    class NativeAddresses:
        """See ``google_guest.system.windows.Addresses``."""

        def adapters(self) -> Sequence[Adapter]:
            """Return the adapters that have a MAC address."""
            data = _read("GetAdaptersAddresses", _adapters_addresses)
            if data is None:
                return ()
            rows = _chain(ctypes.cast(data, ctypes.POINTER(_Adapter)))
            return tuple(_adapter(row) for row in rows if row.mac_length == 6)

        def add(self, adapter: int, address: str, prefix_length: int) -> None:
            """Add an address that is never chosen as a source."""
            row = _row(adapter, address)
            row.prefix_length = prefix_length
            row.skip_as_source = 1
            code = function("iphlpapi", "CreateUnicastIpAddressEntry", ctypes.c_void_p)(
                ctypes.byref(row)
            )
            if code and code != _ALREADY_THERE:
                raise failure("CreateUnicastIpAddressEntry", code)

        def remove(self, adapter: int, address: str) -> None:
            """Remove an address, also one that was added by the older of Windows' APIs."""
            code = function("iphlpapi", "DeleteUnicastIpAddressEntry", ctypes.c_void_p)(
                ctypes.byref(_row(adapter, address))
            )
            if code == _NOT_FOUND:
                context = None if ":" in address else _old_context(adapter, address)
                if context is None:
                    return
                code = function("iphlpapi", "DeleteIPAddress", wintypes.ULONG)(context)
                if code:
                    raise failure("DeleteIPAddress", code)
            elif code:
                raise failure("DeleteUnicastIpAddressEntry", code)

    def _row(adapter: int, address: str) -> _Row:
        row = _Row()
        function("iphlpapi", "InitializeUnicastIpAddressEntry", ctypes.c_void_p, result=None)(
            ctypes.byref(row)
        )
        row.index = adapter
        row.address = socket_address(address)
        return row

    def _adapter(row: Any) -> Adapter:
        found = {address_text(entry.address.contents) for entry in _chain(row.unicast)}
        return Adapter(
            index=row.index or row.ipv6_index,
            mac=":".join(f"{byte:02x}" for byte in row.mac[:6]),
            name=row.name or "",
            addresses=frozenset(found - {""}),
        )

    def _chain(pointer: Any) -> Iterator[Any]:
        while pointer:
            yield pointer.contents
            pointer = pointer.contents.next

    def _read(name: str, ask: Any) -> Optional[Any]:
        """Return a buffer that ``ask`` has filled, None if there is nothing to fill it with."""
        size = wintypes.ULONG(_FIRST_BUFFER)
        for _ in range(_ATTEMPTS):
            buffer = ctypes.create_string_buffer(size.value)
            code = ask(buffer, ctypes.byref(size))
            if code == 0:
                return buffer
            if code == _NO_DATA:
                return None
            if code != _BUFFER_OVERFLOW:
                raise failure(name, code)
        raise failure(name, _BUFFER_OVERFLOW)

    def _adapters_addresses(buffer: Any, size: Any) -> int:
        code: int = function(
            "iphlpapi",
            "GetAdaptersAddresses",
            wintypes.ULONG,
            wintypes.ULONG,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
        )(_ALL_FAMILIES, _SKIP_ANYCAST_MULTICAST_DNS, None, buffer, size)
        return code

    def _old_context(adapter: int, address: str) -> Optional[int]:
        """Return the handle by which the older API knows an IPv4 address, or None."""
        ask = function("iphlpapi", "GetAdaptersInfo", ctypes.c_void_p, ctypes.c_void_p)
        data = _read("GetAdaptersInfo", ask)
        if data is None:
            return None
        for row in _chain(ctypes.cast(data, ctypes.POINTER(_OldAdapter))):
            if row.index == adapter:
                for entry in _chain(ctypes.pointer(row.first)):
                    if entry.text.decode("ascii", "replace") == address:
                        return int(entry.context)
        return None
