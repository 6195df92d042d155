"""Load-balancer, protocol-forwarding and target-instance addresses on the adapters of Windows.

Reads: ``instance/network-interfaces`` (``forwarded-ips``, ``forwarded-ipv6s``,
``target-instance-ips``), ``disable-address-manager``, ``[addressManager]``, ``[Daemons]
network_daemon``, ``[NetworkInterfaces] ip_forwarding``, ``[IpForwarding]``, what a failover cluster
keeps for itself; the adapters' addresses, and the registry's lists of those that the agent added.

Wants: each adapter that metadata names by its MAC address to have these addresses, never chosen as
a source. What somebody else configured satisfies a wish, is not listed and is never removed. Alias
ranges are not applied on Windows. Addresses do not survive a boot: each start adds them anew.

Writes: addresses; ``HKLM\\SOFTWARE\\Google\\ComputeEngine\\ForwardedIps``.

Source: guest-agent ``google_guest_agent/addresses.go``, ``addresses_windows.go``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from google_guest.changes import Change
from google_guest.changes.windows_addresses import (
    AddAddress,
    NoteOwnAddresses,
    RemoveAddress,
    former_name,
)
from google_guest.errors import GuestError
from google_guest.features import Feature, Inputs, Plan, Stage
from google_guest.features.addresses import DISABLE_ATTRIBUTE, enabled, wanted_addresses
from google_guest.features.windows.cluster import (
    ClusterAddresses,
    cluster_addresses,
    cluster_inputs,
)
from google_guest.metadata.tree import Metadata, NetworkInterface
from google_guest.records import replace
from google_guest.system.windows import FORWARDED_IPS
from google_guest.system.windows.addresses import Adapter
from google_guest.system.windows.registry import Registry

DRIFT_INTERVAL = 60.0
_RETRY = 60.0


def inputs_of(metadata: Metadata) -> Hashable:
    """Return interfaces and switches."""
    interfaces = tuple(
        (nic.mac, nic.forwarded_ips, nic.forwarded_ipv6s, nic.target_instance_ips)
        for nic in metadata.instance.network_interfaces
    )
    return interfaces, metadata.switch(DISABLE_ATTRIBUTE), cluster_inputs(metadata)


def plan(inputs: Inputs) -> Plan:
    """Return the changes that bring the adapters' addresses in line with metadata."""
    if inputs.metadata is None:
        return Plan()
    windows = inputs.system.windows
    cluster = cluster_addresses(inputs)
    changes: list[Change] = []
    notes: list[str] = []
    warnings = list(cluster.warnings)
    try:
        adapters = {row.mac: row for row in windows.addresses.adapters()}
        for nic in inputs.metadata.instance.network_interfaces:
            adapter = adapters.get(nic.mac)
            if adapter is None:
                notes.append(f"NIC {nic.index}: no adapter has the MAC address {nic.mac}; left out")
                continue
            wanted = _wanted(inputs, nic, cluster, warnings)
            changes += _reconcile(nic.mac, adapter, wanted, windows.registry, notes)
    except (GuestError, OSError) as error:
        problem = f"the adapters' addresses are left alone: {error}"
        return Plan(warnings=(problem,), recheck_at=inputs.now + _RETRY)
    return Plan(tuple(changes), notes=tuple(notes), warnings=tuple(warnings))


def _wanted(
    inputs: Inputs, nic: NetworkInterface, cluster: ClusterAddresses, warnings: list[str]
) -> dict[str, int]:
    """Return the addresses that ``nic`` shall have, with their prefix lengths."""
    if not inputs.config.network_interfaces.ip_forwarding:
        return {}
    section = replace(inputs.config.ip_forwarding, ip_aliases=False)
    found = wanted_addresses(nic, section)
    warnings += [f"NIC {nic.index}: {refused}" for refused in found.refused]
    wanted = {}
    for destination in sorted(found.destinations, key=str):
        if cluster.has(destination):
            continue
        if destination.version == 4 and destination.prefixlen != 32:
            warnings.append(f"NIC {nic.index}: {destination} is no single address; ignored")
            continue
        wanted[str(destination.network_address)] = destination.prefixlen
    return wanted


def _reconcile(
    mac: str, adapter: Adapter, wanted: dict[str, int], registry: Registry, notes: list[str]
) -> Iterable[Change]:
    """Yield the changes of one adapter, and the one that lists what came of them."""
    listed, is_former = _listed(registry, mac)
    # Former agents may have listed an IPv6 address with its prefix length.
    addresses = (text.partition("/")[0] for text in listed)
    owned = [address for address in addresses if address in adapter.addresses]
    for address in owned:
        if address not in wanted:
            yield RemoveAddress(adapter.index, address, adapter.name, mac)
    added = []
    for address, prefix_length in wanted.items():
        if address not in adapter.addresses:
            added.append(address)
            yield AddAddress(adapter.index, address, adapter.name, mac, prefix_length)
        elif address not in owned:
            notes.append(f"{address} on {adapter.name} was configured by somebody else")
    after = [address for address in owned if address in wanted] + added
    if is_former or added or tuple(after) != tuple(listed):
        yield NoteOwnAddresses(adapter.index, mac, tuple(dict.fromkeys([*owned, *added])))


def _listed(registry: Registry, mac: str) -> tuple[Sequence[str], bool]:
    """Return the list of own addresses, and whether one is there under the former name."""
    names = {name.lower() for name in registry.names(FORWARDED_IPS)}
    is_former = former_name(mac) in names
    name = mac if mac in names or not is_former else former_name(mac)
    return registry.strings(FORWARDED_IPS, name), is_former


FEATURE = Feature(
    name="forwarded-addresses",
    summary="accept traffic for forwarded and target-instance addresses",
    enabled=enabled,
    plan=plan,
    stage=Stage.BOOT,
    inputs_of=inputs_of,
    drift_interval=DRIFT_INTERVAL,
    watches_network=True,
    live_only=True,
)
