"""What a failover cluster (WSFC) wants of addresses: it moves some of them between machines itself.

``wsfc-addrs`` lists the addresses that the agent must leave alone. Without a list, ``enable-wsfc``
keeps it from all forwarded and target-instance IPv4 addresses.

Source: guest-agent ``google_guest_agent/wsfc.go``, ``addresses.go``; public GCE documentation,
"Running Windows Server Failover Clustering".
"""

from __future__ import annotations

from google_guest.features import Inputs
from google_guest.features.addresses import parse_address
from google_guest.metadata.tree import Metadata
from google_guest.records import record
from google_guest.system.networks import IPNetwork

ADDRESSES, SWITCH = "wsfc-addrs", "enable-wsfc"


@record
class ClusterAddresses:
    """The addresses that are the cluster's."""

    listed: frozenset[IPNetwork] = frozenset()
    all_ipv4: bool = False
    warnings: tuple[str, ...] = ()

    def has(self, destination: IPNetwork) -> bool:
        """Return whether the agent leaves ``destination`` to the cluster."""
        return destination in self.listed or (self.all_ipv4 and destination.version == 4)


def cluster_addresses(inputs: Inputs) -> ClusterAddresses:
    """Return what configuration, instance and project say, in this order."""
    if inputs.metadata is None:
        return ClusterAddresses()
    config, attributes = inputs.config.wsfc, inputs.metadata.attributes
    texts = (
        config.addresses,
        attributes.instance.get(ADDRESSES),
        attributes.project.get(ADDRESSES),
    )
    text = next((text for text in texts if text and text.strip()), "")
    listed = set()
    warnings = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            listed.add(parse_address(part))
        except ValueError:
            warnings.append(f"{part[:60]!r} in the list of the cluster's addresses is no address")
    switch = inputs.metadata.switch(SWITCH)
    is_on = bool(switch and switch[0]) if config.enable is None else config.enable
    return ClusterAddresses(frozenset(listed), is_on and not listed, tuple(warnings))


def cluster_inputs(metadata: Metadata) -> tuple[object, ...]:
    """Return the part of metadata that ``cluster_addresses`` looks at."""
    attributes = metadata.attributes
    return (
        attributes.instance.get(ADDRESSES),
        attributes.project.get(ADDRESSES),
        metadata.switch(SWITCH),
    )
