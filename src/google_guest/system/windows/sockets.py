"""Socket addresses as the network API of Windows passes them around (SOCKADDR_INET)."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    import socket

    AF_INET, AF_INET6 = 2, 23

    class SocketAddress(ctypes.Structure):
        """An IPv4 or IPv6 address; which, says the family."""

        _fields_ = (
            ("family", ctypes.c_uint16),
            ("port", ctypes.c_uint16),
            ("ipv4", ctypes.c_uint8 * 4),
            ("ipv6", ctypes.c_uint8 * 16),
            ("scope", ctypes.c_uint32),
        )

    def socket_address(text: str) -> SocketAddress:
        """Return the form of an address that Windows takes."""
        made = SocketAddress()
        if ":" in text:
            made.family = AF_INET6
            made.ipv6 = (ctypes.c_uint8 * 16)(*socket.inet_pton(socket.AF_INET6, text))
        else:
            made.family = AF_INET
            made.ipv4 = (ctypes.c_uint8 * 4)(*socket.inet_aton(text))
        return made

    def address_text(address: SocketAddress) -> str:
        """Return an address in its normal form; empty for another family."""
        if address.family == AF_INET:
            return socket.inet_ntoa(bytes(address.ipv4))
        if address.family == AF_INET6:
            return socket.inet_ntop(socket.AF_INET6, bytes(address.ipv6))
        return ""
