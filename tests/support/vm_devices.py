"""Disks of virtual machines: SCSI and NVMe, with the identities that the platform gives them.

QEMU lets SCSI disks have any vendor, product and serial number.  Its NVMe controllers have one
fixed model name and leave the vendor's bytes of Identify Namespace zero, and no option changes
that.  Both lie in its memory as the structures that the commands return, so they are written there
after QEMU made the devices and before the machine's processor runs: the guest reads the
platform's answers through its own driver, and nothing in the guest is a stand-in.

Facts: NVM Express base specification (Identify Controller: bytes 0-1 PCI vendor, 4-23 serial
number, 24-63 model number; Identify Namespace: 0-7 size in blocks, 120-127 EUI64, 384-4095 vendor
specific); QEMU hw/nvme (answers are sent straight from `id_ctrl` and `id_ns`); proc(5) (maps, mem).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.vm_image import Partition, data_disk, overlay

QEMU_MODEL = "QEMU NVMe Ctrl"
_LARGEST_HEAP = 256 * 1024 * 1024
"""Bytes: a larger mapping is the guest's memory."""

_FIRST_NVME_SLOT = 8
_VENDOR_AREA = 384
_EUI64 = 120
_MODEL = 20


@dataclass(frozen=True)
class ScsiDisk:
    """A disk at the machine's virtio-scsi controller."""

    name: str
    vendor: str = "Google"
    product: str = "PersistentDisk"
    mib: int = 64
    partitions: tuple[Partition, ...] = ()

    def options(self) -> str:
        """QEMU's options of the device, without its backend."""
        return (
            f"scsi-hd,bus=scsi.0,vendor={self.vendor},product={self.product},"
            f"serial={self.name},device_id={self.name}"
        )


@dataclass(frozen=True)
class NvmeNamespace:
    """A namespace of an NVMe controller; `vendor`: the beginning of its vendor specific bytes."""

    nsid: int = 1
    vendor: bytes = b""
    mib: int = 64
    partitions: tuple[Partition, ...] = ()


@dataclass(frozen=True)
class NvmeController:
    """An NVMe controller; `serial`: at most 20 characters, different for each in a machine."""

    serial: str
    model: str
    namespaces: tuple[NvmeNamespace, ...] = field(default_factory=lambda: (NvmeNamespace(),))


class IdentityError(Exception):
    """An NVMe identity that could not be written; the message says which and why."""


def scsi_arguments(disks: Sequence[ScsiDisk], folder: Path) -> list[str]:
    """QEMU's arguments for the disks, whose files are made in `folder`."""
    if not disks:
        return []
    arguments = ["-device", "virtio-scsi-pci,id=scsi,num_queues=2,addr=0x6"]
    for number, disk in enumerate(disks):
        arguments += [
            *_drive(folder, f"scsi{number}", disk.mib, disk.partitions),
            *("-device", f"{disk.options()},drive=scsi{number}"),
        ]
    return arguments


def nvme_arguments(controllers: Sequence[NvmeController], folder: Path) -> list[str]:
    """QEMU's arguments for the controllers; their identities are written by `identify`."""
    arguments = []
    for number, controller in enumerate(controllers):
        address = f"addr={_FIRST_NVME_SLOT + number:#x}"
        arguments += ["-device", f"nvme,id=nvme{number},serial={controller.serial},{address}"]
        for namespace in controller.namespaces:
            name = f"nvme{number}n{namespace.nsid}"
            arguments += [
                *_drive(folder, name, namespace.mib, namespace.partitions),
                "-device",
                f"nvme-ns,bus=nvme{number},nsid={namespace.nsid},drive={name},"
                f"eui64={_eui64(number, namespace.nsid):#x}",
            ]
    return arguments


def identify(pid: int, controllers: Sequence[NvmeController]) -> None:
    """Write the identities of NVMe controllers into a QEMU process whose machine has not begun."""
    wanted: dict[bytes, tuple[int, bytes]] = {}
    for number, controller in enumerate(controllers):
        found = controller.serial.ljust(20).encode() + QEMU_MODEL.ljust(40).encode()
        wanted[found] = (_MODEL, controller.model.ljust(40).encode())
        for namespace in controller.namespaces:
            if namespace.vendor:
                blocks = struct.pack("<Q", namespace.mib * 2048)
                eui64 = _eui64(number, namespace.nsid).to_bytes(8, "big")
                wanted[blocks + eui64] = (_VENDOR_AREA, namespace.vendor)
    if not wanted:
        return
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        places = _places(memory.fileno(), pid, wanted)
        for pattern, (offset, content) in wanted.items():
            if len(places[pattern]) != 1:
                raise IdentityError(
                    f"{len(places[pattern])} places of {pattern!r} in QEMU's memory instead of one"
                )
            os.pwrite(memory.fileno(), content, places[pattern][0] + offset)


def _places(
    memory: int, pid: int, patterns: dict[bytes, tuple[int, bytes]]
) -> dict[bytes, list[int]]:
    """Addresses of the structures, by pattern: a serial and a model, or a size and an EUI64."""
    places: dict[bytes, list[int]] = {pattern: [] for pattern in patterns}
    for start, end in _heaps(pid):
        content = os.pread(memory, end - start, start)
        for pattern, (offset, _) in patterns.items():
            if offset == _MODEL:
                found = re.finditer(re.escape(pattern), content)
                places[pattern] += [start + match.start() for match in found]
                continue
            blocks, eui64 = pattern[:8], pattern[8:]
            for match in re.finditer(re.escape(eui64), content):
                begin = match.start() - _EUI64
                if begin >= 0 and content[begin : begin + 8] == blocks:
                    places[pattern].append(start + begin)
    return places


def _heaps(pid: int) -> Iterator[tuple[int, int]]:
    """The writable anonymous mappings of a process in which its allocations lie."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(word, 16) for word in fields[0].split("-"))
        name = fields[5] if len(fields) > 5 else ""
        if fields[1].startswith("rw") and name in ("", "[heap]") and end - start <= _LARGEST_HEAP:
            yield start, end


def _eui64(controller: int, nsid: int) -> int:
    # 42 is the platform's first byte of MAC addresses; here it only makes the number findable.
    return 0x4201_6E76_6D65_0000 | controller << 8 | nsid


def _drive(folder: Path, name: str, mib: int, partitions: Sequence[Partition]) -> list[str]:
    path = folder / f"{name}.qcow2"
    if not path.exists():
        data_disk(path.with_suffix(".raw"), mib, partitions)
        overlay(path, path.with_suffix(".raw"))
    return ["-drive", f"if=none,id={name},file={path},cache=unsafe"]
