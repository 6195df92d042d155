"""Ranges of IP addresses as the library passes them around, and how people read them."""

from __future__ import annotations

import ipaddress
from typing import Union

IPNetwork = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


def destination_text(destination: IPNetwork) -> str:
    """Return the normal form: ``10.9.0.0/24``, and a single address without its prefix length."""
    if destination.prefixlen == destination.max_prefixlen:
        return str(destination.network_address)
    return str(destination)
