"""A machine as /sys and /proc show it: processors, interrupts, PCI devices, interfaces and disks.

The links are those of a kernel, relative and inside the tree, so that programs find their way in it
as they do on a machine. Attributes are plain files: writing one changes no other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Optional

CPU = "/sys/devices/system/cpu"
NODES = "/sys/devices/system/node"
IRQS = "/proc/irq"
PCI_DEVICES = "/sys/bus/pci/devices"
GVE, IDPF, VIRTIO, MLX5 = "gve", "idpf", "virtio_net", "mlx5_core"


class FakeSysfs:
    """The tree below ``root``. Paths are those on the machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._last_irq = 0
        for folder in (IRQS, PCI_DEVICES, "/sys/class/net", "/sys/bus/virtio/drivers"):
            self.folder(folder)

    def path(self, path: str) -> Path:
        """Where a path of the machine lies."""
        return self.root / path.lstrip("/")

    def folder(self, path: str) -> None:
        """Make a folder."""
        self.path(path).mkdir(parents=True, exist_ok=True)

    def file(self, path: str, text: object = "") -> None:
        """Make or replace an attribute."""
        place = self.path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n")

    def link(self, path: str, target: str) -> None:
        """Make a link to another path of the machine."""
        place = self.path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(self.path(target), place.parent))

    def read(self, path: str) -> str:
        """An attribute's text."""
        return self.path(path).read_text().strip()

    def contents(self) -> Mapping[str, str]:
        """Every attribute by its path, to see what a program has changed."""
        return {
            f"/{os.path.relpath(os.path.join(folder, name), self.root)}": Path(
                folder, name
            ).read_text(errors="replace")
            for folder, _, names in os.walk(self.root)
            for name in names
            if os.path.isfile(os.path.join(folder, name))
        }

    def processors(self, online: str, *nodes: str) -> None:
        """The running processors, and those of each NUMA node."""
        self.file(f"{CPU}/online", online)
        for number, processors in enumerate(nodes):
            self.file(f"{NODES}/node{number}/cpulist", processors)

    def irq(
        self,
        *actions: str,
        number: Optional[int] = None,
        hint: str = "00000000",
        affinity: str = "0-1",
        mask: str = "00000003",
    ) -> int:
        """An interrupt that these drivers have asked for; returns its number."""
        irq = self._last_irq + 1 if number is None else number
        self._last_irq = max(irq, self._last_irq)
        folder = f"{IRQS}/{irq}"
        self.file(f"{folder}/smp_affinity_list", affinity)
        self.file(f"{folder}/smp_affinity", mask)
        self.file(f"{folder}/affinity_hint", hint)
        self.file(f"{folder}/spurious", "count 0")
        for action in actions:
            self.folder(f"{folder}/{action}")
        return irq

    def served_by(self, irqs: Iterable[int]) -> list[str]:
        """The list of processors of each interrupt."""
        return [self.read(f"{IRQS}/{irq}/smp_affinity_list") for irq in irqs]

    def pci(
        self,
        place: str,
        *,
        identity: str = "1ae0:0042",
        driver: str = "",
        node: int = 0,
        irqs: Sequence[int] = (),
    ) -> str:
        """A PCI device; returns its folder.

        ``place`` is its bridges' addresses and its own: ``0000:00:04.0``, or
        ``0000:88:00.0/0000:89:00.0``. ``identity`` is vendor and device.
        """
        addresses = place.split("/")
        bus = addresses[0].rpartition(":")[0]
        folder = f"/sys/devices/pci{bus}/{place}"
        vendor, device = identity.split(":")
        self.file(f"{folder}/vendor", f"0x{vendor}")
        self.file(f"{folder}/device", f"0x{device}")
        self.file(f"{folder}/numa_node", node)
        for irq in irqs:
            self.file(f"{folder}/msi_irqs/{irq}", "msix")
        self.link(f"{PCI_DEVICES}/{addresses[-1]}", folder)
        if driver:
            self.folder(f"/sys/bus/pci/drivers/{driver}")
            self.link(f"{folder}/driver", f"/sys/bus/pci/drivers/{driver}")
            self.link(f"/sys/bus/pci/drivers/{driver}/{addresses[-1]}", folder)
        return folder

    def interface(
        self, name: str, device: str, *, tx: int = 0, rx: int = 0, phys_port_name: str = ""
    ) -> str:
        """A network interface of a device; returns its folder among the devices."""
        folder = f"{device}/net/{name}"
        self.folder(folder)
        self.link(f"{folder}/device", device)
        self.link(f"/sys/class/net/{name}", folder)
        for queue in range(tx):
            self.file(f"{folder}/queues/tx-{queue}/xps_cpus", "00000000")
        for queue in range(rx):
            self.file(f"{folder}/queues/rx-{queue}/rps_flow_cnt", "0")
        if phys_port_name:
            self.file(f"{folder}/phys_port_name", phys_port_name)
        return folder

    def gvnic(self, name: str, place: str, *, queues: int, node: int = 0) -> list[int]:
        """A gVNIC with its interrupts: sending, receiving, management; returns their numbers."""
        irqs = [
            self.irq(f"gve-ntfy-block.{block}@pci:{place}", hint=_bit(block % queues))
            for block in range(2 * queues)
        ]
        irqs.append(self.irq(f"gve-mgmnt@pci:{place}"))
        device = self.pci(place, driver=GVE, node=node, irqs=irqs)
        self.interface(name, device, tx=queues, rx=queues)
        return irqs

    def idpf(self, name: str, place: str, *, queues: int, node: int = 0) -> list[int]:
        """An IDPF interface: a mailbox, queues, and interrupts that nobody has asked for."""
        mailbox = self.irq(f"idpf-Mailbox-{name}")
        irqs = [self.irq(f"idpf-{name}-TxRx-{queue}") for queue in range(queues)]
        spare = [self._last_irq + 1, self._last_irq + 2]
        self._last_irq += 2
        device = self.pci(
            place, identity="8086:1452", driver=IDPF, node=node, irqs=[mailbox, *irqs, *spare]
        )
        self.interface(name, device, tx=queues, rx=queues)
        return irqs

    def virtio_net(self, name: str, place: str, virtio: str, *, queues: int) -> list[int]:
        """A virtio interface; returns the interrupts of its pairs of queues, receiving first."""
        pci = self.pci(place, identity="1af4:1000", driver="virtio-pci")
        self._virtio(pci, virtio, VIRTIO)
        self.interface(name, f"{pci}/{virtio}", tx=queues, rx=queues)
        self.irq(f"{virtio}-config")
        return [
            self.irq(f"{virtio}-{direction}.{queue}", hint=_bit(queue))
            for queue in range(queues)
            for direction in ("input", "output")
        ]

    def _virtio(self, pci: str, virtio: str, driver: str) -> None:
        folder = f"/sys/bus/virtio/drivers/{driver}"
        self.folder(f"{pci}/{virtio}")
        self.folder(folder)
        self.link(f"{folder}/{virtio}", f"{pci}/{virtio}")
        self.link(f"{pci}/{virtio}/driver", folder)

    def nvme(self, controller: str, place: str, model: str, irqs: Sequence[int]) -> None:
        """An NVMe controller with these interrupts."""
        device = self.pci(place, identity="1ae0:001f", driver="nvme", irqs=irqs)
        self.file(f"{device}/nvme/{controller}/model", model.ljust(40))

    def scsi_host(self, virtio: str, place: str, host: int, disks: Mapping[str, str]) -> None:
        """A virtio SCSI host with disks: models by names."""
        pci = self.pci(place, identity="1af4:1004", driver="virtio-pci")
        self._virtio(pci, virtio, "virtio_scsi")
        for number, (disk, model) in enumerate(disks.items(), 1):
            unit = f"{pci}/{virtio}/host{host}/target{host}:0:{number}/{host}:0:{number}:0"
            self.file(f"{unit}/model", model.ljust(16))
            self.folder(f"{unit}/block/{disk}")
            self.queue(disk)

    def queue(self, disk: str, scheduler: str = "[mq-deadline] none") -> None:
        """The queue of a disk as a kernel sets it up."""
        settings = {
            "scheduler": scheduler,
            "add_random": 1,
            "nr_requests": 128,
            "rotational": 1,
            "rq_affinity": 1,
            "nomerges": 0,
        }
        for name, value in settings.items():
            self.file(f"/sys/block/{disk}/queue/{name}", value)


def _bit(processor: int) -> str:
    """The mask of one processor."""
    words = ["00000000"] * (processor // 32)
    return ",".join([f"{1 << processor % 32:08x}", *words])
