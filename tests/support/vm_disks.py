"""Disks of every kind for a machine, the links that the platform's ones shall have, and those that
they have.

The devices' names and identities are the platform's: Compute Engine's documentation of disk names,
guest-configs ``src/lib/udev``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.vm_devices import NvmeController, NvmeNamespace, ScsiDisk
from support.vm_image import Partition

if TYPE_CHECKING:
    from support.vm import Machine

LINKS = "/dev/disk/by-id"
ONE_PARTITION = (Partition(2048, 65536),)

SCSI = (
    ScsiDisk("data-1", partitions=ONE_PARTITION),
    ScsiDisk("local-ssd-0", product="EphemeralDisk"),
    ScsiDisk("foreign", vendor="ACME", partitions=ONE_PARTITION),
)
PERSISTENT = NvmeController(
    "persistent",
    "nvme_card-pd",
    (
        NvmeNamespace(
            1, b'{"device_name":"nv-1","disk_type":"PERSISTENT"}', partitions=ONE_PARTITION
        ),
        NvmeNamespace(2, b'{"device_name": \t"a.b_c-1"}'),
        NvmeNamespace(3),
        NvmeNamespace(4, b'{"device_name":"../x","disk_type":"PERSISTENT"}'),
        NvmeNamespace(5, b'{"device_name":"cut'),
        NvmeNamespace(6, b'{"device_name":"white space"}'),
    ),
)
LOCAL = NvmeController(
    "local",
    "nvme_card",
    (
        NvmeNamespace(1, partitions=ONE_PARTITION),
        NvmeNamespace(2, b'{"device_name":"local-nvme-ssd-1","disk_type":"LOCAL_SSD"}'),
        NvmeNamespace(3, b'{"device_name":"scratch","disk_type":"LOCAL_SSD"}'),
    ),
)
LOCAL_3 = NvmeController("local-3", "nvme_card3")
FOREIGN = NvmeController("foreign", "nvme-card", (NvmeNamespace(1, b'{"device_name":"evil"}'),))

NVME = (PERSISTENT, LOCAL, LOCAL_3, FOREIGN)

EXPECTED = {
    "google-data-1": "scsi data-1",
    "google-data-1-part1": "scsi data-1 part1",
    "google-local-ssd-0": "scsi local-ssd-0",
    "google-nv-1": "persistent 1",
    "google-nv-1-part1": "persistent 1 part1",
    "google-a.b_c-1": "persistent 2",
    "google-local-nvme-ssd-0": "local 1",
    "google-local-nvme-ssd-0-part1": "local 1 part1",
    "google-local-nvme-ssd-1": "local 2",
    "google-local-nvme-ssd-2": "local 3",
    "google-scratch": "local 3",
    "google-local-nvme-ssd-3": "local-3 1",
}
"""Each link and its disk: what the kernel says of it, not udev."""

_NODES = """
import glob, json, os
def text(path):
    with open(path) as file:
        return file.read().strip()
nodes = {}
for block in glob.glob('/sys/block/*'):
    node = os.path.basename(block)
    if os.path.exists(f'{block}/nsid'):
        disk = text(f'{block}/device/serial') + ' ' + text(f'{block}/nsid')
    elif os.path.exists(f'{block}/device/vpd_pg80'):
        with open(f'{block}/device/vpd_pg80', 'rb') as page:
            disk = 'scsi ' + page.read()[4:].decode().strip()
    else:
        continue
    nodes[node] = disk
    for partition in glob.glob(f'{block}/{node}*'):
        number = text(f'{partition}/partition')
        nodes[os.path.basename(partition)] = f'{disk} part{number}'
print(json.dumps(nodes))
"""


def nodes(machine: Machine) -> dict[str, str]:
    """The node of each disk and partition, by what the kernel says of it.

    `scsi SERIAL` or `SERIAL NSID`, with ` partN` for a partition.
    """
    found: dict[str, str] = json.loads(machine.run(["python3", "-ISc", _NODES]).stdout)
    return {disk: node for node, disk in found.items()}


def links(machine: Machine) -> dict[str, str]:
    """The platform's links and the nodes they lead to."""
    script = f"cd {LINKS} && for link in google-*; do echo $link $(readlink $link); done"
    lines = machine.run(script).stdout.splitlines()
    return {link: target.rpartition("/")[2] for link, target in map(str.split, lines)}


def expected_links(machine: Machine) -> dict[str, str]:
    """What `links` shall be."""
    found = nodes(machine)
    return {link: found[disk] for link, disk in EXPECTED.items()}
