"""Which addresses an instance shall accept besides its own, whatever the platform does with them.

Reads ``forwarded-ips``, ``forwarded-ipv6s``, ``target-instance-ips`` and ``ip-aliases`` of an
interface in metadata, and the switches that say whether the agent cares about addresses at all.

Facts: guest-agent google_guest_agent/addresses.go, google-guest-agent internal/network/address.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterable

from google_guest.config import IpForwardingSection
from google_guest.features import BUILT_IN, Decision, Inputs
from google_guest.metadata.tree import NetworkInterface
from google_guest.records import record
from google_guest.system.networks import IPNetwork, destination_text

log = logging.getLogger(__name__)

DISABLE_ATTRIBUTE = "disable-address-manager"

_IPV4_TEXT = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
# Accepting these as local would cut the machine off from itself, its neighbours or the metadata
# server.
_NEVER_LOCAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/32",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/127",
        "::ffff:0:0/96",
        "fd20:ce::254/128",
        "fe80::/10",
        "ff00::/8",
    )
)


@record
class WantedAddresses:
    """What one interface shall accept, and what was refused, for people."""

    destinations: frozenset[IPNetwork]
    refused: tuple[str, ...] = ()


def parse_address(text: str) -> IPNetwork:
    """Return the range that an address with or without prefix length lies in, host bits cleared.

    Raises:
        ValueError: it is neither IPv4 nor IPv6, or has a prefix length that does not fit.
    """
    address, slash, length = text.strip().partition("/")
    if slash and re.fullmatch(r"[0-9]{1,3}", length) is None:
        raise ValueError(f"{text!r} has no decimal prefix length")
    if ":" not in address and _IPV4_TEXT.fullmatch(address) is None:
        raise ValueError(f"{text!r} is no address")
    if "%" in address:
        raise ValueError(f"{text!r} names a zone")
    return ipaddress.ip_network(text.strip(), strict=False)


def is_acceptable(destination: IPNetwork) -> bool:
    """Return whether the range may become local without harm to the machine."""
    return destination.prefixlen > 0 and not any(
        destination.version == never.version and destination.overlaps(never)
        for never in _NEVER_LOCAL
    )


def wanted_addresses(
    nic: NetworkInterface,
    section: IpForwardingSection,
    *,
    ignored: frozenset[IPNetwork] = frozenset(),
) -> WantedAddresses:
    """Return the ranges that ``nic`` shall accept.

    ``ignored`` (addresses that a failover cluster moves itself) applies to forwarded and
    target-instance addresses, not to alias ranges.
    """
    lists: list[Iterable[str]] = []
    if section.forwarded_ips:
        lists += [nic.forwarded_ips, nic.forwarded_ipv6s]
    if section.target_instance_ips:
        lists.append(nic.target_instance_ips)
    refused: dict[str, None] = {}
    found = {entry for texts in lists for entry in _parsed(nic, texts, refused)} - ignored
    if section.ip_aliases:
        found.update(_parsed(nic, nic.ip_aliases, refused))
    return WantedAddresses(frozenset(found), tuple(refused))


def enabled(inputs: Inputs) -> Decision:
    """Decide by ``[addressManager] disable``, instance, project, ``[Daemons] network_daemon``."""
    config = inputs.config
    disable = config.address_manager.disable
    if disable is not None:
        layer = config.origin("address_manager", "disable")
        return Decision(not disable, f"[addressManager] disable = {_word(disable)}", layer)
    said = None if inputs.metadata is None else inputs.metadata.switch(DISABLE_ATTRIBUTE)
    if said is not None:
        return Decision(not said[0], f"{DISABLE_ATTRIBUTE} = {_word(said[0])}", said[1])
    network_daemon = config.daemons.network_daemon
    layer = config.origin("daemons", "network_daemon")
    if layer == BUILT_IN and network_daemon:
        return Decision(True, "on unless switched off", layer)
    return Decision(network_daemon, f"[Daemons] network_daemon = {_word(network_daemon)}", layer)


def _parsed(
    nic: NetworkInterface, texts: Iterable[str], refused: dict[str, None]
) -> Iterable[IPNetwork]:
    for text in texts:
        try:
            destination = parse_address(text)
        except ValueError as error:
            log.debug("NIC %d: %s; ignored", nic.index, error)
            continue
        if is_acceptable(destination):
            yield destination
        else:
            refused[f"{destination_text(destination)} must not become local; ignored"] = None


def _word(value: bool) -> str:
    return "true" if value else "false"
