"""What the metadata server says about the machine, as far as queues depend on it.

Asks for ``instance/machine-type`` and, where that does not decide, for the keys of each network
interface. Every request has one second; a server that does not answer says that the machine is no
accelerator machine, because the settings of one are wrong for all others. While a machine boots its
network may not be up yet: one whose hardware makes accelerators likely waits for the first answer.

Source: guest-configs ``src/usr/bin/google_set_multiqueue`` (machine types, ``physical-nic-id``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from google_guest.metadata.client import MetadataClient
from google_guest.metadata.errors import MetadataError, Unreachable
from google_guest.records import record
from system_config.interfaces import GVNIC_DRIVERS, Interface
from system_config.sysfs import parse_number

REQUEST_SECONDS = 1.0
PATIENCE = 15.0
"""Seconds for which the network of a machine that may have accelerators is waited for."""
PAUSE = 1.0
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


def may_have_accelerators(found: Iterable[Interface]) -> bool:
    """Whether a machine with these interfaces can be one that needs metadata to be set up well."""
    drivers = [interface.driver for interface in found if interface.is_pci]
    gvnics = sum(driver in GVNIC_DRIVERS for driver in drivers)
    return gvnics > 1 or bool({"idpf", "mlx5_core"}.intersection(drivers))


def read_platform(client: MetadataClient, *, patience: float = 0.0) -> Platform:
    """Ask the metadata server; what it does not say is not so.

    ``patience`` is for how many seconds one that cannot be reached is asked again.
    """
    try:
        kind = _patient_text(client, "instance/machine-type", patience).strip().rpartition("/")[2]
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


def _patient_text(client: MetadataClient, path: str, patience: float) -> str:
    deadline = client.clock() + patience
    while True:
        try:
            return _text(client, path)
        except Unreachable:
            if client.clock() + PAUSE > deadline:
                raise
        client.sleep(PAUSE)


def _text(client: MetadataClient, path: str) -> str:
    return client.get_text(path, timeout=REQUEST_SECONDS, budget=0.0)
