"""The same links and local routes through the program ``ip``, where no netlink socket is allowed.

Runs ``ip -j -N``; the family is always named, because a listing by table without ``-6`` shows
IPv4 only. Loaded only when it is needed: it brings a JSON parser along.

Facts: ip-route(8), ip-link(8), iproute2 ip/iproute.c (fields used as a filter are not printed).
"""

from __future__ import annotations

import errno
import ipaddress
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from google_guest.system.commands import CommandError
from google_guest.system.netlink.links import Link, has_device_link, parse_mac
from google_guest.system.netlink.routes import (
    LOCAL_TABLE,
    LOCAL_TYPE,
    Family,
    LocalRoute,
    is_present,
    is_satisfied,
)
from google_guest.system.netlink.wire import NetlinkError
from google_guest.system.networks import destination_text

if TYPE_CHECKING:
    from google_guest.system.netlink import RunCommand

_TIMEOUT = 15.0


def list_links(run: RunCommand, *, sysfs: str) -> list[Link]:
    """Return all devices, by index.

    Raises:
        GuestError: ``ip`` is missing or failed.
        NetlinkError: it printed something else than expected.
    """
    found = []
    for entry in _entries(run, ["ip", "-j", "-d", "link", "show"]):
        index, name = entry.get("ifindex"), entry.get("ifname")
        if not isinstance(index, int) or not isinstance(name, str) or not name or "/" in name:
            raise _unexpected("link")
        flags, info = entry.get("flags"), entry.get("linkinfo")
        kind = info.get("info_kind") if isinstance(info, dict) else None
        found.append(
            Link(
                index=index,
                name=name,
                mac=parse_mac(str(entry.get("address", ""))) or b"",
                has_device=has_device_link(sysfs, name, index),
                kind=kind if isinstance(kind, str) else "",
                is_up=isinstance(flags, list) and "UP" in flags,
                is_loopback=entry.get("link_type") == "loopback",
            )
        )
    return sorted(found, key=lambda link: link.index)


def list_local_routes(run: RunCommand, family: Family, links: list[Link]) -> list[LocalRoute]:
    """Return the local routes of ``family``; ``links`` translate device names.

    Raises:
        GuestError: ``ip`` is missing or failed.
        NetlinkError: it printed something else than expected.
    """
    indexes = {link.name: link.index for link in links}
    argv = ["ip", "-j", "-N", _family_option(family), "route", "show", "table", str(LOCAL_TABLE)]
    found = []
    for entry in _entries(run, argv):
        if str(entry.get("type")) not in (str(LOCAL_TYPE), "local"):
            continue
        index = indexes.get(str(entry.get("dev")))
        if index is not None:
            found.append(_route(entry, family, index))
    return found


def add_local_route(run: RunCommand, route: LocalRoute, links: list[Link]) -> None:
    """Add ``route``, beside an equal destination on another device if need be.

    Raises:
        GuestError: ``ip`` is missing or failed.
    """
    try:
        _route_command(run, "add", route, links)
    except CommandError:
        if is_satisfied(lambda: list_local_routes(run, route.family, links), route):
            return
        if route.family is Family.IPV6:
            raise
        _route_command(run, "append", route, links)


def delete_local_route(run: RunCommand, route: LocalRoute, links: list[Link]) -> None:
    """Delete ``route``; none there is success.

    Raises:
        GuestError: ``ip`` is missing or failed.
    """
    if all(link.index != route.interface_index for link in links):
        return  # The device went away, and its routes with it.
    try:
        _route_command(run, "delete", route, links)
    except CommandError:
        if is_present(lambda: list_local_routes(run, route.family, links), route):
            raise


def _route_command(run: RunCommand, verb: str, route: LocalRoute, links: list[Link]) -> None:
    names = [link.name for link in links if link.index == route.interface_index]
    if not names:
        raise NetlinkError(errno.ENODEV, f"no device with index {route.interface_index}")
    argv = ["ip", _family_option(route.family), "route", verb, "to", "local"]
    argv += [destination_text(route.destination), "dev", names[0], "table", str(LOCAL_TABLE)]
    argv += ["proto", str(route.protocol)]
    if route.family is Family.IPV4:
        argv += ["scope", "host"]
    run(argv, timeout=_TIMEOUT)


def _entries(run: RunCommand, argv: list[str]) -> Iterator[dict[str, object]]:
    text = run(argv, timeout=_TIMEOUT).stdout
    try:
        document = json.loads(text or "[]")
    except (ValueError, RecursionError) as error:
        raise _unexpected("text") from error
    if not isinstance(document, list):
        raise _unexpected("text")
    for entry in document:
        if not isinstance(entry, dict):
            raise _unexpected("entry")
        if entry:  # A filtered listing has empty objects in it.
            yield entry


def _route(entry: dict[str, object], family: Family, index: int) -> LocalRoute:
    text = str(entry.get("dst"))
    if text == "default":
        text = "0.0.0.0/0" if family is Family.IPV4 else "::/0"
    try:
        destination = ipaddress.ip_network(text, strict=False)
        protocol = int(str(entry.get("protocol", 0)), 0)
        metric = int(str(entry.get("metric", 0)))
    except ValueError as error:
        raise _unexpected("route") from error
    return LocalRoute(destination, index, protocol, metric)


def _family_option(family: Family) -> str:
    return "-4" if family is Family.IPV4 else "-6"


def _unexpected(what: str) -> NetlinkError:
    return NetlinkError(errno.EBADMSG, f"ip printed an unexpected {what}")
