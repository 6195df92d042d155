"""Host name: the machine is called what its metadata says, and knows its own name.

Reads: ``instance/hostname``, else the attribute ``hostname`` of the instance; the interfaces in
metadata; the kernel's host name, links and addresses; ``/etc/hosts``.

Wants, each part by its own switch: the host name (the first label, or with ``fqdn_as_hostname`` the
whole name if it has 63 bytes at most); and lines in ``/etc/hosts`` by which the name, the host name
and ``additional_aliases`` lead to every address of the interface that
``fqdn_address_interface_index`` counts among those in metadata.

Off by default: without the agent, ``google_set_hostname`` does this when a lease comes. While one
of the switches is on, that program leaves the name to the agent.

Switches: ``[Unstable] set_hostname``, ``set_fqdn``.

Source: google-guest-agent ``cmd/core_plugin/network/hostname`` (switches, names, lines);
``google_guest.hostname`` for what is acceptable.
"""

from __future__ import annotations

import ipaddress
from typing import Optional, Union

from google_guest.changes import Change
from google_guest.changes.hostname import current_hostname, hostname_changes, hosts_changes
from google_guest.config import Config
from google_guest.errors import GuestError
from google_guest.features import Decision, Feature, Inputs, Plan, Stage
from google_guest.hostname import (
    RefusedName,
    chosen_hostname,
    host_line,
    parse_name,
    usable_alias,
)
from google_guest.metadata.tree import Metadata, NetworkInterface
from google_guest.system import System
from google_guest.system.netlink import link_with_mac, parse_mac

ATTRIBUTE = "hostname"
RECHECK = 300.0
"""Seconds until the next look at a name and a file that nobody tells us about."""
SWITCHES = ("set_hostname", "set_fqdn")

_KERNEL_PROTOCOL = 2
_Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


def owner(config: Config) -> Optional[Decision]:
    """Return by which setting the agent owns the name of the machine, or None if it does not."""
    for key in SWITCHES:
        if getattr(config.unstable, key):
            return Decision(True, f"[Unstable] {key} = true", config.origin("unstable", key))
    return None


def enabled(inputs: Inputs) -> Decision:
    """On if either part is configured."""
    layer = inputs.config.origin("unstable", SWITCHES[0])
    reason = " and ".join(f"[Unstable] {key} = false" for key in SWITCHES)
    return owner(inputs.config) or Decision(False, reason, layer)


def inputs_of(metadata: Metadata) -> tuple[Optional[str], tuple[NetworkInterface, ...]]:
    """Return the name and the interfaces."""
    return fqdn_of(metadata), metadata.instance.network_interfaces


def fqdn_of(metadata: Metadata) -> Optional[str]:
    """Return the name that metadata gives to the instance, unchecked."""
    return metadata.instance.hostname or metadata.instance.attributes.get(ATTRIBUTE)


def plan(inputs: Inputs) -> Plan:
    """Return what makes name and file what metadata and configuration say."""
    section, metadata = inputs.config.unstable, inputs.metadata
    if metadata is None:
        return Plan()
    try:
        fqdn = parse_name(fqdn_of(metadata) or "")
    except RefusedName as error:
        return Plan(warnings=(f"the host name stays as it is: {error}",))
    name = current_hostname(inputs.system)
    changes: list[Change] = []
    if section.set_hostname:
        name = chosen_hostname(fqdn, fqdn_as_hostname=section.fqdn_as_hostname)
        changes += hostname_changes(inputs.system, name)
    notes: list[str] = []
    warnings: list[str] = []
    if section.set_fqdn:
        changes += _hosts(inputs, metadata, (fqdn, name), notes, warnings)
    return Plan(tuple(changes), inputs.now + RECHECK, tuple(notes), tuple(warnings))


def _hosts(
    inputs: Inputs,
    metadata: Metadata,
    names: tuple[str, str],
    notes: list[str],
    warnings: list[str],
) -> tuple[Change, ...]:
    """Return the change of /etc/hosts, if its lines are not what they should be."""
    index = inputs.config.unstable.fqdn_address_interface_index
    nics = metadata.instance.network_interfaces
    nic = next((nic for nic in nics if nic.index == index), None)
    if nic is None:
        count = len(nics)
        warnings.append(
            f"[Unstable] fqdn_address_interface_index = {index} names none of the {count} network"
            " interfaces in metadata (0 is the first): /etc/hosts stays as it is"
        )
        return ()
    fqdn, host = names
    aliases = [usable for name in (host,) if (usable := usable_alias(name))]
    for alias in inputs.config.unstable.additional_aliases.split(","):
        usable = usable_alias(alias.strip())
        if usable:
            aliases.append(usable)
        elif alias.strip():
            warnings.append(f"[Unstable] additional_aliases: {alias.strip()!a} is left out")
    try:
        addresses = interface_addresses(inputs.system, nic)
        if not addresses:
            notes.append(f"NIC {index} has no address yet: /etc/hosts stays as it is")
            return ()
        lines = [host_line(str(address), (fqdn, *aliases)) for address in addresses]
        return hosts_changes(inputs.system, lines)
    except (GuestError, OSError) as error:
        notes.append(f"/etc/hosts stays as it is: {error}")
        return ()


def interface_addresses(system: System, nic: NetworkInterface) -> tuple[_Address, ...]:
    """Return the addresses of the device of ``nic``, the one in metadata first, IPv4 before IPv6.

    The kernel has a local route for each; loopback and link-local addresses are left out, since
    names must lead to the machine from everywhere on it.

    Raises:
        GuestError, OSError: the kernel does not say.
    """
    mac = parse_mac(nic.mac)
    link = None if mac is None else link_with_mac(system.network.links(), mac)
    if link is None:
        return ()
    found: set[_Address] = set()
    for family in system.network.families():
        for route in system.network.local_routes(family):
            address, size = route.destination.network_address, route.destination.max_prefixlen
            is_address = route.destination.prefixlen == size and route.protocol == _KERNEL_PROTOCOL
            if (
                route.interface_index == link.index
                and is_address
                and not (address.is_loopback or address.is_link_local)
            ):
                found.add(address)
    return tuple(
        sorted(found, key=lambda address: (str(address) != nic.ip, address.version, int(address)))
    )


FEATURE = Feature(
    name="hostname",
    summary="call the machine what its metadata says",
    enabled=enabled,
    plan=plan,
    stage=Stage.BOOT,
    inputs_of=inputs_of,
    watches_network=True,
    live_only=True,
)
