"""Metadata documents of the instances that beds emulate: their NICs, and nothing else unasked.

The shape is that of a recursive JSON answer of the metadata server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

from support.network import METADATA_V4, MTU, Nic, numbered_nics

PROJECT_NUMBER = 123456789012
INSTANCE_ID = 4815162342108
ZONE = f"projects/{PROJECT_NUMBER}/zones/test-region1-a"


def instance_document(
    *,
    attributes: Optional[Mapping[str, str]] = None,
    project_attributes: Optional[Mapping[str, str]] = None,
    nics: Sequence[Nic] = (),
    instance: Optional[Mapping[str, object]] = None,
) -> dict[str, object]:
    """The document of a plain instance with the NICs of a bed.

    `nics`: those of `numbered_nics`, by default one; `instance`: further or other values directly
    below `instance`, in camelCase.
    """
    return {
        "instance": {
            "attributes": dict(attributes or {}),
            "description": "",
            "disks": [],
            "guestAttributes": {},
            "hostname": "bed.c.test-project.internal",
            "id": INSTANCE_ID,
            "image": "",
            "licenses": [],
            "machineType": f"projects/{PROJECT_NUMBER}/machineTypes/e2-small",
            "maintenanceEvent": "NONE",
            "name": "bed",
            "networkInterfaces": [nic_document(nic) for nic in nics or numbered_nics(1)],
            "preempted": "FALSE",
            "scheduling": {
                "automaticRestart": "TRUE",
                "onHostMaintenance": "MIGRATE",
                "preemptible": "FALSE",
            },
            "serviceAccounts": {},
            "tags": [],
            "virtualClock": {"driftToken": "0"},
            "zone": ZONE,
            **(instance or {}),
        },
        "project": {
            "attributes": dict(project_attributes or {}),
            "numericProjectId": PROJECT_NUMBER,
            "projectId": "test-project",
        },
        "universe": {"universeDomain": "googleapis.com"},
    }


def nic_document(nic: Nic, **more: object) -> dict[str, object]:
    """One entry of `networkInterfaces`; `more` are further or other values, in camelCase."""
    return {
        "accessConfigs": [{"externalIp": "", "type": "ONE_TO_ONE_NAT"}],
        "dnsServers": [METADATA_V4],
        "forwardedIps": [],
        "gateway": nic.gateway,
        "ip": nic.address,
        "ipAliases": [],
        "ipv6s": [nic.address6],
        "mac": nic.mac,
        "mtu": MTU,
        "network": f"projects/{PROJECT_NUMBER}/networks/default",
        "subnetmask": "255.255.240.0",
        "targetInstanceIps": [],
        **more,
    }
