"""Which proxy an address is fetched through: ``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY``.

Lower-case spellings count, too. ``NO_PROXY`` is a comma-separated list of host names (which include
their sub-domains), addresses, networks (``10.0.0.0/8``) and ``*``; each name or address may carry a
port. Loopback and the metadata server are never reached through a proxy.

Source: the documentation of Go's ``golang.org/x/net/http/httpproxy``, whose rules the reference
runner follows.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Optional
from urllib.parse import urlsplit

_METADATA_HOSTS = frozenset(
    {"metadata", "metadata.google.internal", "169.254.169.254", "fd20:ce::254"}
)
_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, environment: Mapping[str, str]) -> Optional[str]:
    """Return the URL of the proxy for ``url``, or None for a direct connection."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    proxy = _variable(environment, f"{parts.scheme}_proxy")
    if parts.scheme == "http" and "REQUEST_METHOD" in environment:
        # In a CGI program HTTP_PROXY is a header that the client sent.
        return None
    if not proxy or not host or _is_local(host) or host in _METADATA_HOSTS:
        return None
    port = parts.port or _PORTS.get(parts.scheme, 0)
    exceptions = _variable(environment, "no_proxy").split(",")
    if any(_matches(entry.strip().lower(), host, port) for entry in exceptions):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name.upper()) or environment.get(name) or ""


def _is_local(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _matches(entry: str, host: str, port: int) -> bool:
    if not entry:
        return False
    if entry == "*":
        return True
    address = _address(host)
    if "/" in entry:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        return address is not None and address in network
    name, wanted_port = _split_port(entry)
    if wanted_port is not None and wanted_port != port:
        return False
    other = _address(name)
    if other is not None or address is not None:
        return other == address
    if name.startswith("*."):
        name = name[1:]
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith(f".{name}")


def _split_port(entry: str) -> tuple[str, Optional[int]]:
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else ""
    elif entry.count(":") == 1:
        name, _, port = entry.partition(":")
    else:
        name, port = entry, ""
    return name, int(port) if port.isascii() and port.isdigit() else None


def _address(text: str) -> Optional[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
