"""What the metadata server says about the machine, as far as queues depend on it.

Asks for ``instance/machine-type`` and, where that does not decide, for the keys of each network
interface. Every request has one second; a server that does not answer says that the machine is no
accelerator machine, because the settings of one are wrong for all others.

Source: guest-configs ``src/usr/bin/google_set_multiqueue`` (machine types, ``physical-nic-id``).
"""

from __future__ import annotations

import logging

from google_guest.metadata.client import MetadataClient
from google_guest.metadata.errors import MetadataError
from google_guest.records import record
from system_config.sysfs import parse_number

REQUEST_SECONDS = 1.0
X_SERIES = "x4-"
ACCELERATOR_TYPES = (
    *("a3-highgpu-8g", "a3-ultragpu-", "a3-megagpu-8g", "a3-edgegpu-8g"),
    *("a4-highgpu-", "a4x-highgpu-", "a4x-maxgpu-", "c4n-", "c4x-"),
)
INTERFACES = "instance/network-interfaces/"
PHYSICAL_NIC = "physical-nic-id"

log = logging.getLogger(__name__)


@record
class Platform:
    """The machine type (``a3-highgpu-8g``; empty: unknown) and whether it has accelerators' NICs.

    ``has_accelerators`` means: several interfaces whose queues want to be near their hardware.
    """

    machine_type: str = ""
    has_accelerators: bool = False


def read_platform(client: MetadataClient) -> Platform:
    """Ask the metadata server; what it does not say is not so."""
    try:
        kind = _text(client, "instance/machine-type").strip().rpartition("/")[2]
    except MetadataError as error:
        log.info("the machine type is not known, no accelerators are assumed: %s", error)
        return Platform()
    if kind.startswith(X_SERIES):
        return Platform(kind)
    if kind.startswith(ACCELERATOR_TYPES):
        return Platform(kind, True)
    try:
        return Platform(kind, _all_interfaces_are_physical(client))
    except MetadataError as error:
        log.info("the network interfaces are not known, no accelerators are assumed: %s", error)
        return Platform(kind)


def _all_interfaces_are_physical(client: MetadataClient) -> bool:
    names = [line.strip("/") for line in _text(client, INTERFACES).split()]
    if not names or any(parse_number(name) is None for name in names):
        return False
    return all(PHYSICAL_NIC in _text(client, f"{INTERFACES}{name}/").split() for name in names)


def _text(client: MetadataClient, path: str) -> str:
    return client.get_text(path, timeout=REQUEST_SECONDS, budget=0.0)
