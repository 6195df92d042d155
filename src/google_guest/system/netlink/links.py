"""Network devices: how rtnetlink lists them, and which one carries a MAC address.

Facts: rtnetlink(7), linux/if_link.h; the choice among devices that share a MAC address follows
the kernel's own notion of a device with hardware below it (the ``device`` link in sysfs, since
Linux 5.14 also the attribute IFLA_PARENT_DEV_NAME).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from typing import Optional

from google_guest.records import record
from google_guest.system.netlink import wire

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18

_IFF_UP = 0x1
_IFF_LOOPBACK = 0x8
_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_LINKINFO = 18
_IFLA_INFO_KIND = 1
_IFLA_AF_SPEC = 26
_IFLA_EXT_MASK = 29
_IFLA_PARENT_DEV_NAME = 56
_AF_INET6 = 10
_IFLA_INET6_CONF = 2
_DEVCONF_DISABLE_IPV6 = 26
_SKIP_STATISTICS = 1 << 3

_HEADER = struct.Struct("=BxHiII")
# Devices that take over the MAC address of the one below them.
_STACKED_KINDS = frozenset(
    ("vlan", "bond", "bridge", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec", "team", "vrf")
)
_MAC_TEXT = re.compile(
    r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}"
    r"|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2}"
)


@record
class Link:
    """A network device of this network namespace.

    ``mac`` is empty for a device without a hardware address. ``has_device``: hardware (a PCI or
    virtio device) is below it. ``kind`` names a virtual device's type (``vlan``, ``veth``), empty
    for hardware. ``has_ipv6`` is false where IPv6 is disabled for the device or the kernel.
    """

    index: int
    name: str
    mac: bytes
    has_device: bool = False
    kind: str = ""
    is_up: bool = True
    is_loopback: bool = False
    has_ipv6: bool = True


def parse_mac(text: str) -> Optional[bytes]:
    """Return the six bytes of a MAC address written with ``:``, ``-`` or dots, else None."""
    lowered = text.strip().lower()
    if _MAC_TEXT.fullmatch(lowered) is None:
        return None
    return bytes.fromhex(re.sub("[:.-]", "", lowered))


def link_with_mac(links: Iterable[Link], mac: bytes) -> Optional[Link]:
    """Return the device whose hardware address is ``mac``, or None.

    A VLAN, bond, macvlan or bridge shares the address of the device below it: the device with
    hardware wins, then one that is not stacked on another, then the one created first.
    """
    sharing = [link for link in links if link.mac == mac and mac and not link.is_loopback]
    if not sharing:
        return None
    return min(sharing, key=lambda link: (not link.has_device, _is_stacked(link), link.index))


def list_links(open_socket: wire.OpenSocket, *, sysfs: str) -> list[Link]:
    """Return all devices of this network namespace, by index.

    Raises:
        NetlinkError: see :func:`wire.dump`.
    """
    payload = _HEADER.pack(0, 0, 0, 0, 0)
    payload += wire.attribute(_IFLA_EXT_MASK, struct.pack("=I", _SKIP_STATISTICS))
    found = wire.dump(
        open_socket, RTM_GETLINK, payload, lambda reply: parse_link(reply, sysfs=sysfs)
    )
    return sorted(found, key=lambda link: link.index)


def parse_link(reply: wire.Message, *, sysfs: str) -> Optional[Link]:
    """Return the device that an RTM_NEWLINK message describes; None for any other message.

    Raises:
        NetlinkError: the message is malformed.
    """
    if reply.kind != RTM_NEWLINK:
        return None
    index, flags = link_header(reply)
    attributes = wire.split_attributes(reply.payload[_HEADER.size :])
    name = _text(attributes.get(_IFLA_IFNAME, b""))
    if not name or "/" in name or name in (".", ".."):
        raise wire.malformed("device name")
    return Link(
        index=index,
        name=name,
        mac=attributes.get(_IFLA_ADDRESS, b""),
        has_device=_IFLA_PARENT_DEV_NAME in attributes or has_device_link(sysfs, name, index),
        kind=_text(
            wire.split_attributes(attributes.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
        ),
        is_up=bool(flags & _IFF_UP),
        is_loopback=bool(flags & _IFF_LOOPBACK),
        has_ipv6=_has_ipv6(attributes.get(_IFLA_AF_SPEC, b"")),
    )


def link_header(reply: wire.Message) -> tuple[int, int]:
    """Return index and flags of a link message."""
    if len(reply.payload) < _HEADER.size:
        raise wire.malformed("part of a link header")
    _family, _type, index, flags, _change = _HEADER.unpack_from(reply.payload)
    return index, flags


def has_device_link(sysfs: str, name: str, index: int) -> bool:
    """Return whether sysfs names hardware below the device ``name``.

    A sysfs that was mounted in another network namespace shows that one's devices: the index
    tells them apart.
    """
    folder = os.path.join(sysfs, "class/net", name)
    if not os.path.lexists(os.path.join(folder, "device")):
        return False
    try:
        with open(os.path.join(folder, "ifindex"), encoding="ascii") as stream:
            return stream.read(16).strip() == str(index)
    except (OSError, ValueError):
        return False


def _has_ipv6(families: bytes) -> bool:
    """Return whether IPv6 routes can be set on the device, from its IFLA_AF_SPEC."""
    by_family = wire.split_attributes(families)
    if _AF_INET6 not in by_family:
        return False
    conf = wire.split_attributes(by_family[_AF_INET6]).get(_IFLA_INET6_CONF, b"")
    end = (_DEVCONF_DISABLE_IPV6 + 1) * 4
    if len(conf) < end:
        return True
    (disabled,) = struct.unpack_from("=i", conf, end - 4)
    return not disabled


def _is_stacked(link: Link) -> bool:
    return link.kind in _STACKED_KINDS


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
