"""google_optimize_local_ssd: spreads the interrupts of local SSDs over the processors.

    google_optimize_local_ssd [--dry-run] [--root DIRECTORY]

NVMe controllers whose model is ``nvme_card`` or ``nvme_card`` and a number get one processor for
each of their interrupts, in turn; persistent disks (``nvme_card-pd``) are left alone. SCSI disks
whose model is ``EphemeralDisk`` get queue settings that suit memory rather than a spindle, and the
interrupts of their hosts are spread over all processors.

Reads and writes ``/proc/irq/N/smp_affinity_list`` and ``/sys/block/sdX/queue``; only what differs.
A disk or a setting that the kernel does not have is passed over.

Exit statuses: 0 with one line that says what happened, also when something failed, which is logged;
2 for wrong arguments. Nothing here may hold up the agent.

Source: guest-configs ``src/usr/bin/google_optimize_local_ssd`` (which disks, settings and order);
Linux ``Documentation/block/queue-sysfs.rst``, ``kernel/irq/proc.c`` (EIO of managed interrupts).
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Sequence
from typing import Optional

from google_guest.logs import configure_logging
from system_config.command_line import BAD_USAGE, parse_arguments, usage
from system_config.interrupts import device_interrupts, interrupts
from system_config.processors import online_processors
from system_config.settings import Print, Settings
from system_config.sysfs import Tree, parse_number

NAME = "google_optimize_local_ssd"
NVME = "/sys/bus/pci/drivers/nvme"
VIRTIO_SCSI = "/sys/bus/virtio/drivers/virtio_scsi"
LOCAL_NVME = "nvme_card"
LOCAL_SCSI = "EphemeralDisk"
SCHEDULERS = ("noop", "none")
"""The first one that a queue offers; multi-queue kernels have the second alone."""
QUEUE_SETTINGS = (
    ("add_random", "0"),
    ("nr_requests", "512"),
    ("rotational", "0"),
    ("rq_affinity", "0"),
    ("nomerges", "1"),
)

log = logging.getLogger(NAME)


def main(argv: Optional[Sequence[str]] = None, *, say: Print = print) -> int:
    """The program; see the module's text."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    text = usage(NAME, "Spreads the interrupts of local SSDs over the processors.")
    if arguments is None or arguments.words:
        sys.stderr.write(text)
        return BAD_USAGE
    if arguments.wants_help:
        say(text.rstrip("\n"))
        return 0
    sink = configure_logging(NAME)
    try:
        settings = Settings(Tree(arguments.root), dry_run=arguments.dry_run, say=say)
        optimize(settings)
        say(f"{NAME}: {settings.report()}")
    finally:
        sink.flush(everything=True)
    return 0


def optimize(settings: Settings) -> None:
    """Set everything up for the local SSDs that there are."""
    processors = online_processors(settings.tree)
    if not processors:
        log.debug("the processors are not known")
        return
    for position, irq in enumerate(nvme_interrupts(settings.tree)):
        settings.affinity(irq, processors[position % len(processors)])
    hosts = ephemeral_disks(settings.tree)
    for disks in hosts.values():
        for disk in disks:
            _set_queue(settings, disk)
    requests = request_interrupts(settings.tree, set(hosts))
    stride = max(1, len(processors) // len(requests)) if requests else 1
    for position, irq in enumerate(requests):
        settings.affinity(irq, processors[position * stride % len(processors)])


def nvme_interrupts(tree: Tree) -> list[int]:
    """The interrupts of the controllers of local SSDs, controller by controller."""
    return [
        irq
        for device in tree.names(NVME)
        if _is_local_ssd(tree, f"{NVME}/{device}")
        for irq in device_interrupts(tree, f"{NVME}/{device}")
    ]


def _is_local_ssd(tree: Tree, device: str) -> bool:
    models = [tree.read(f"{device}/nvme/{name}/model") for name in tree.names(f"{device}/nvme")]
    return bool(models) and all(is_local_model(model or "") for model in models)


def is_local_model(model: str) -> bool:
    """Whether a controller with this model is that of local SSDs."""
    card, found, number = model.partition(LOCAL_NVME)
    return bool(found) and not card and (not number or parse_number(number) is not None)


def ephemeral_disks(tree: Tree) -> dict[str, list[str]]:
    """The block devices of SCSI local SSDs, by the virtio device through which they are reached."""
    found: dict[str, list[str]] = {}
    for virtio in tree.names(VIRTIO_SCSI):
        if not virtio.startswith("virtio"):
            continue
        for unit in _units(tree, f"{VIRTIO_SCSI}/{virtio}"):
            if LOCAL_SCSI in (tree.read(f"{unit}/model") or ""):
                found.setdefault(virtio, []).extend(tree.names(f"{unit}/block"))
    return found


def _units(tree: Tree, device: str) -> list[str]:
    """The folders of the logical units below a host adapter."""
    folders = [device]
    for prefix in ("host", "target", ""):
        folders = [
            f"{folder}/{name}"
            for folder in folders
            for name in tree.names(folder)
            if name.startswith(prefix) and (prefix or ":" in name)
        ]
    return folders


def _set_queue(settings: Settings, disk: str) -> None:
    queue = f"/sys/block/{disk}/queue"
    offered = (settings.tree.read(f"{queue}/scheduler") or "").split()
    in_force = next((word.strip("[]") for word in offered if word.startswith("[")), "")
    wanted = next((name for name in SCHEDULERS if name in (*offered, in_force)), "")
    if wanted and wanted != in_force:
        settings.value(f"{queue}/scheduler", wanted)
    for name, value in QUEUE_SETTINGS:
        # EINVAL: the driver has no room for as many requests, or no such switch.
        settings.value(f"{queue}/{name}", value, kept=(errno.EINVAL,))


def request_interrupts(tree: Tree, devices: set[str]) -> list[int]:
    """The interrupts of the request queues of some virtio devices."""
    wanted = {f"{device}-request" for device in devices}
    if not wanted:
        return []
    return [irq for irq, actions in interrupts(tree).items() if wanted.intersection(actions)]
