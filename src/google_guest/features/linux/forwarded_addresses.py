"""Local routes for load-balancer, protocol-forwarding, target-instance and alias addresses.

Packets for these addresses reach the instance although no interface has them; a route of type
``local`` in the kernel's table ``local`` makes it accept them.

Reads: ``instance/network-interfaces`` (``forwarded-ips``, ``forwarded-ipv6s``,
``target-instance-ips``, ``ip-aliases``), ``disable-address-manager`` of both metadata levels,
``[addressManager]``, ``[Daemons] network_daemon``, ``[NetworkInterfaces] ip_forwarding``,
``[IpForwarding]``, ``[Routes]``; the kernel's links and local routes; iproute2's ``rt_protos``.

Wants: for each interface in metadata, exactly these addresses among the local routes that carry
our protocol number. Routes of any other protocol, above all the interfaces' own addresses, satisfy
a wish and are never removed. The kernel loses such routes whenever a network service reconfigures
the link, so the feature asks to be planned again after network events and every few seconds.

Writes: local routes, and ``/run/google-guest-agent/forwarded-addresses.json``, the devices that
were given any, for the day one of them leaves metadata.

Facts: guest-agent google_guest_agent/addresses.go, google-guest-agent internal/network
({address,nic,route}) for sets and fields; kernel net/ipv6 for the single owner of a destination.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Optional

from google_guest.changes import Change
from google_guest.changes.network import AddLocalRoute, DeleteLocalRoute
from google_guest.config import Config
from google_guest.errors import GuestError
from google_guest.features import Feature, Inputs, Plan, Stage
from google_guest.features.addresses import DISABLE_ATTRIBUTE, enabled, wanted_addresses
from google_guest.metadata.tree import Metadata, NetworkInterface
from google_guest.records import record
from google_guest.state import RUN_DIRECTORY, Remember, read_state
from google_guest.system import System
from google_guest.system.netlink import (
    IPV6_METRIC,
    Family,
    IPNetwork,
    Link,
    LocalRoute,
    destination_text,
    family_of,
    link_with_mac,
    parse_mac,
)

log = logging.getLogger(__name__)

STATE_PATH = f"{RUN_DIRECTORY}/forwarded-addresses.json"
DEFAULT_PROTOCOL = 66
SAFETY_INTERVAL = 10.0
"""Seconds between passes while an address is wanted, in case an event was missed."""

_KERNEL_PROTOCOL = 2
_PROTOCOL_NAMES = (
    "/etc/iproute2/rt_protos",
    "/usr/share/iproute2/rt_protos",
    "/usr/lib/iproute2/rt_protos",
)


def route_protocol(config: Config, system: System) -> tuple[int, Optional[str]]:
    """Return the protocol number of our routes, and a complaint if the configured one is unusable.

    A name counts if iproute2's ``rt_protos`` knows it. The number of the kernel's own routes is
    refused: interface addresses would be taken for ours and be removed.
    """
    text = config.ip_forwarding.ethernet_proto_id.strip()
    number: Optional[int] = None
    if re.fullmatch(r"[0-9]{1,3}", text):
        number = int(text)
    elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", text):
        number = _named_protocol(text, system)
    if number is not None and 1 <= number <= 255 and number != _KERNEL_PROTOCOL:
        return number, None
    origin = config.origin("ip_forwarding", "ethernet_proto_id")
    return DEFAULT_PROTOCOL, (
        f"[IpForwarding] ethernet_proto_id = {text[:40]!r} ({origin}) is no usable route protocol"
        f" (1 to 255, not {_KERNEL_PROTOCOL}); {DEFAULT_PROTOCOL} is used"
    )


def plan(inputs: Inputs) -> Plan:
    """Return the route changes that bring the kernel's local table in line with metadata."""
    metadata, system = inputs.metadata, inputs.system
    if metadata is None:
        return Plan()
    nics = metadata.instance.network_interfaces
    if not nics:
        # Every instance has an interface: such an answer is damaged, not a wish to clean up.
        return Plan(notes=("metadata names no network interface; local routes are left alone",))
    retry_at = inputs.now + _interval(inputs.config)
    protocol, complaint = route_protocol(inputs.config, system)
    warnings = (complaint,) if complaint else ()
    notes: list[str] = []
    try:
        links = system.network.links()
    except (GuestError, OSError) as error:
        notes.append(f"network devices cannot be listed, local routes are left alone: {error}")
        return Plan(recheck_at=retry_at, notes=tuple(notes), warnings=warnings)
    devices = _devices_of(nics, links, inputs.config, notes)
    recorded = _recorded_indexes(system)
    changes, failed = _reconcile(system, links, devices, recorded, protocol, notes)
    is_wanted = any(device.wanted for device in devices.values())
    return Plan(
        changes=tuple(changes),
        recheck_at=retry_at if is_wanted or failed else None,
        notes=tuple(notes),
        warnings=warnings,
    )


@record
class _Device:
    """A device that metadata names, and what it shall accept."""

    link: Link
    wanted: frozenset[IPNetwork]


def _devices_of(
    nics: Iterable[NetworkInterface], links: list[Link], config: Config, notes: list[str]
) -> dict[int, _Device]:
    """Return the devices of metadata's interfaces by device index; unknown ones become notes."""
    devices: dict[int, _Device] = {}
    for nic in nics:
        mac = parse_mac(nic.mac)
        link = None if mac is None else link_with_mac(links, mac)
        if link is None:
            notes.append(f"NIC {nic.index}: no device has the MAC address {nic.mac}; left out")
            continue
        wanted: frozenset[IPNetwork] = frozenset()
        if config.network_interfaces.ip_forwarding:
            addresses = wanted_addresses(nic, config.ip_forwarding)
            wanted = addresses.destinations
            notes.extend(f"NIC {nic.index}: {refused}" for refused in addresses.refused)
        earlier = devices.get(link.index)
        devices[link.index] = _Device(link, wanted | (earlier.wanted if earlier else frozenset()))
    return devices


def _reconcile(
    system: System,
    links: list[Link],
    devices: Mapping[int, _Device],
    recorded: frozenset[int],
    protocol: int,
    notes: list[str],
) -> tuple[list[Change], bool]:
    """Return all changes, deletions first, and whether a family could not be looked at."""
    known = {link.index: link for link in links}
    cleaned = {index: known[index] for index in (*devices, *recorded) if index in known}
    deletions: list[Change] = []
    additions: list[Change] = []
    failed = False
    families = system.network.families()
    for family in families:
        try:
            present = system.network.local_routes(family)
        except (GuestError, OSError) as error:
            notes.append(f"local routes ({_name(family)}) cannot be listed, left alone: {error}")
            failed = True
            continue
        wanted = {
            index: {entry for entry in device.wanted if family_of(entry) is family}
            for index, device in devices.items()
        }
        extra = [
            route
            for route in present
            if route.protocol == protocol
            and route.interface_index in cleaned
            and route.destination not in wanted.get(route.interface_index, ())
        ]
        deletions += [_delete(route, cleaned[route.interface_index]) for route in _sorted(extra)]
        remaining = set(present).difference(extra)
        missing = _missing(family, devices, wanted, remaining, protocol, notes)
        additions += [_add(route, cleaned[route.interface_index]) for route in missing]
    if Family.IPV6 not in families and _wants_ipv6(devices.values()):
        notes.append("the kernel runs without IPv6; IPv6 addresses are left out")
    using = {index for index, device in devices.items() if device.wanted}
    return [*deletions, *_record(recorded, using, known), *additions], failed


def _missing(
    family: Family,
    devices: Mapping[int, _Device],
    wanted: Mapping[int, set[IPNetwork]],
    remaining: set[LocalRoute],
    protocol: int,
    notes: list[str],
) -> list[LocalRoute]:
    """Return the routes to add, in the order of metadata's interfaces."""
    held = {(route.interface_index, route.destination) for route in remaining}
    # IPv6 has one entry for a destination and metric; IPv4 takes one for each device.
    owners = {
        route.destination: route.interface_index
        for route in remaining
        if family is Family.IPV6 and route.metric == IPV6_METRIC
    }
    found = []
    for index, device in devices.items():
        missing = [entry for entry in wanted[index] if (index, entry) not in held]
        if missing and family is Family.IPV6 and not (device.link.has_ipv6 and device.link.is_up):
            why = "is down" if device.link.has_ipv6 else "has IPv6 disabled"
            notes.append(f"{device.link.name} {why}; its IPv6 addresses wait")
            continue
        for entry in sorted(missing, key=destination_text):
            if family is Family.IPV6 and owners.setdefault(entry, index) != index:
                notes.append(
                    f"{destination_text(entry)} is wanted on {device.link.name} but local on"
                    " another device already; IPv6 allows one"
                )
                continue
            found.append(LocalRoute(entry, index, protocol))
    return found


def _record(
    recorded: frozenset[int], using: set[int], known: Mapping[int, Link]
) -> tuple[Change, ...]:
    """Return the change that remembers every device that was ever given a route in this boot.

    Planned before the routes are added: a crash in between leaves a needless entry, not an
    unknown route.
    """
    indexes = {index for index in recorded | using if index in known}
    if indexes == recorded:
        return ()
    names = ", ".join(known[index].name for index in sorted(indexes)) or "no device"
    return (
        Remember(
            path=STATE_PATH,
            document={"interfaces": sorted(indexes)},
            purpose=f"that local routes are managed on {names}",
            about="devices with local routes",
        ),
    )


def _recorded_indexes(system: System) -> frozenset[int]:
    document = read_state(system, STATE_PATH) or {}
    indexes = document.get("interfaces")
    if not isinstance(indexes, list):
        return frozenset()
    return frozenset(index for index in indexes if type(index) is int and index > 0)


def _named_protocol(name: str, system: System) -> Optional[int]:
    for path in _PROTOCOL_NAMES:
        try:
            text = system.files.read_text(path) or ""
        except OSError as error:
            log.debug("%s: %s", path, error)
            continue
        for line in text.splitlines():
            match = re.fullmatch(r"\s*(0x[0-9a-fA-F]{1,2}|[0-9]{1,3})\s+(\S+).*", line)
            if match is not None and match[2] == name:
                return int(match[1], 16 if match[1].startswith("0x") else 10)
    return None


def _interval(config: Config) -> float:
    """Return the seconds to the next safety pass: ours, or what the reference's key asks for."""
    if not config.routes.enable_monitor:
        return SAFETY_INTERVAL
    return max(1.0, config.routes.monitor_interval)


def _delete(route: LocalRoute, link: Link) -> DeleteLocalRoute:
    return DeleteLocalRoute(route=route, device=link.name, mac=link.mac.hex(":"))


def _add(route: LocalRoute, link: Link) -> AddLocalRoute:
    return AddLocalRoute(route=route, device=link.name, mac=link.mac.hex(":"))


def _sorted(routes: Iterable[LocalRoute]) -> list[LocalRoute]:
    return sorted(
        routes, key=lambda route: (route.interface_index, destination_text(route.destination))
    )


def _wants_ipv6(devices: Iterable[_Device]) -> bool:
    return any(entry.version == 6 for device in devices for entry in device.wanted)


def _name(family: Family) -> str:
    return "IPv4" if family is Family.IPV4 else "IPv6"


def _inputs_of(metadata: Metadata) -> Hashable:
    interfaces = tuple(
        (
            nic.index,
            nic.mac,
            nic.forwarded_ips,
            nic.forwarded_ipv6s,
            nic.target_instance_ips,
            nic.ip_aliases,
        )
        for nic in metadata.instance.network_interfaces
    )
    return interfaces, metadata.switch(DISABLE_ATTRIBUTE)


FEATURE = Feature(
    name="forwarded-addresses",
    summary="accept traffic for forwarded, target-instance and alias addresses",
    enabled=enabled,
    plan=plan,
    stage=Stage.BOOT,
    inputs_of=_inputs_of,
    watches_network=True,
    live_only=True,
)
