"""Channels, rings and interrupt moderation of network interfaces: what the program ethtool sets.

Spoken with the driver by ioctl(2), so that nothing has to be installed. Each of the three is read,
compared and written whole, because the kernel takes them whole.

Source: Linux ``include/uapi/linux/ethtool.h`` (struct ethtool_channels, ethtool_ringparam,
ethtool_coalesce: 32-bit words, the first of which is the command), ``sockios.h``; netdevice(7).
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Callable

SIOCETHTOOL = 0x8946
GET_COALESCING, SET_COALESCING = 0x0E, 0x0F
GET_RINGS, SET_RINGS = 0x10, 0x11
GET_CHANNELS, SET_CHANNELS = 0x3C, 0x3D
_WORDS = {GET_COALESCING: 23, GET_RINGS: 9, GET_CHANNELS: 9}
_IFREQ = struct.Struct("=16sQ16x") if struct.calcsize("P") == 8 else struct.Struct("=16sI12x")
_LONGEST_NAME = 15

# Positions of words.
_MOST_COMBINED, _COMBINED = 4, 8
_MOST_RX, _MOST_TX, _RX, _TX = 1, 4, 5, 8
_RX_USECS, _TX_USECS, _ADAPTIVE_RX, _ADAPTIVE_TX = 1, 5, 10, 11

Exchange = Callable[[str, "array.array[int]"], None]
"""Sends the words of a command to an interface's driver, which answers in their place."""


def exchange(interface: str, words: array.array[int]) -> None:
    """Have the kernel take and fill ``words``.

    Raises:
        OSError: there is no such interface, or its driver cannot (EOPNOTSUPP) or refuses.
    """
    name = interface.encode("utf-8", "surrogateescape")[:_LONGEST_NAME]
    request = _IFREQ.pack(name, words.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        fcntl.ioctl(channel, SIOCETHTOOL, request)


class Driver:
    """The driver of one interface. Every method raises ``OSError`` when the driver does not."""

    def __init__(self, interface: str, send: Exchange = exchange) -> None:
        self.interface = interface
        self._send = send

    def combined_channels(self) -> tuple[int, int]:
        """How many channels for both directions there may be, and how many there are."""
        words = self._get(GET_CHANNELS)
        return words[_MOST_COMBINED], words[_COMBINED]

    def set_combined_channels(self, number: int) -> None:
        """Have this many channels for both directions."""
        self._set(GET_CHANNELS, SET_CHANNELS, {_COMBINED: number})

    def rings(self) -> tuple[int, int]:
        """The descriptors of a ring for receiving and of one for sending."""
        words = self._get(GET_RINGS)
        return words[_RX], words[_TX]

    def possible_rings(self, rx: int, tx: int) -> tuple[int, int]:
        """These sizes, or the largest ones that the driver has below them."""
        words = self._get(GET_RINGS)
        return min(rx, words[_MOST_RX] or rx), min(tx, words[_MOST_TX] or tx)

    def set_rings(self, rx: int, tx: int) -> None:
        """Have rings of these sizes."""
        self._set(GET_RINGS, SET_RINGS, {_RX: rx, _TX: tx})

    def coalescing(self) -> tuple[bool, bool, int, int]:
        """Whether moderation adapts itself (receiving, sending), and its microseconds otherwise."""
        words = self._get(GET_COALESCING)
        adaptive = bool(words[_ADAPTIVE_RX]), bool(words[_ADAPTIVE_TX])
        return (*adaptive, words[_RX_USECS], words[_TX_USECS])

    def set_coalescing(self, rx_usecs: int, tx_usecs: int) -> None:
        """Have interrupts moderated by fixed times."""
        fixed = {_ADAPTIVE_RX: 0, _ADAPTIVE_TX: 0, _RX_USECS: rx_usecs, _TX_USECS: tx_usecs}
        self._set(GET_COALESCING, SET_COALESCING, fixed)

    def _get(self, command: int) -> array.array[int]:
        words = array.array("I", [command] + [0] * (_WORDS[command] - 1))
        self._send(self.interface, words)
        return words

    def _set(self, get: int, command: int, changes: dict[int, int]) -> None:
        words = self._get(get)
        words[0] = command
        for position, value in changes.items():
            words[position] = value
        self._send(self.interface, words)
