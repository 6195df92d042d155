"""Disk images of virtual machines: a cached root with our packages, made without mounts of disks.

Reads: the cached trees of `roots`.  Writes: the artifact cache.

    disk.raw   MBR, one ext4 partition with the whole system; never written by a machine
    kernel     the tree's own kernel
    initrd     its initial RAM disk, as the tree's update-initramfs made it
    key        a client's ssh key, whose public half root trusts

The tree is the suite's base with a kernel, the layer with our packages, and a few files for the
machine (`MACHINE_FILES`); mke2fs copies their overlay into a file, so no loop device is needed.
Packages are installed by dpkg in the tree, where update-initramfs takes seconds; in an emulated
processor it takes minutes.

Facts: mke2fs(8) (-d, -E offset), the partition table of BIOS disks (four 16-byte entries at 446,
signature at 510, disk signature at 440; the kernel's PARTUUID is signature-number).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from support import cache, roots
from support.commands import run_command
from support.network import METADATA_V4

PACKAGES = (
    # The kernel of Debian's own images for Compute Engine, with initramfs-tools.
    "linux-image-cloud-amd64",
    "zstd",
    "ethtool",
)
HOSTNAME = "unnamed"
"""Neither a name of the platform nor one that Debian's dhclient-script replaces by itself."""

NIC = "ens4"
ROOT_SIGNATURE = 0x67756573
ROOT_PARTUUID = f"{ROOT_SIGNATURE:08x}-01"

_MIB = 1024 * 1024
_DISK_MIB = 2048
_FORGET_AFTER = 3600.0
"""Seconds: an image is half a gigabyte and soon made, and every build of packages needs another."""

MACHINE_FILES: Mapping[str, str] = {
    "/etc/fstab": f"PARTUUID={ROOT_PARTUUID} / ext4 defaults 0 1\n",
    "/etc/hostname": f"{HOSTNAME}\n",
    "/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {HOSTNAME}\n::1 localhost ip6-localhost\n",
    "/etc/machine-id": "",
    "/etc/resolv.conf": f"nameserver {METADATA_V4}\n",
    "/etc/network/interfaces": (
        f"auto lo\niface lo inet loopback\n\nauto {NIC}\niface {NIC} inet dhcp\n"
    ),
    # In the emulated processor a rebuild takes three minutes; what it makes is shown of the
    # image, whose packages were installed on the host.
    "/etc/initramfs-tools/update-initramfs.conf": "update_initramfs=no\nbackup_initramfs=no\n",
}

_MAKE = """
set -eu
mount --make-rprivate /
mount -t tmpfs none "$1"
mkdir "$1/root"
mount -t overlay none "$1/root" -o "lowerdir=$2"
cp "$1"/root/boot/vmlinuz-* "$3/kernel"
cp "$1"/root/boot/initrd.img-* "$3/initrd"
mke2fs -q -t ext4 -L root -O ^metadata_csum_seed,^orphan_file \\
  -E offset="$4",lazy_itable_init=1 -d "$1/root" "$3/disk.raw" "$5k"
"""


@dataclass(frozen=True)
class Image:
    """The files of an image; see the module's text."""

    disk: Path
    kernel: Path
    initrd: Path
    key: Path


@dataclass(frozen=True)
class Partition:
    """An entry of an MBR: first sector and number of sectors, of 512 bytes."""

    first: int
    sectors: int


def image(
    suite: str, debs: Sequence[Path] = (), *, files: Optional[Mapping[str, str]] = None
) -> Image:
    """The image of a suite with `debs` installed and further text files, by path in the machine.

    The first call takes the base's time (a minute and the archive), one with new packages ten
    seconds, each later one milliseconds.
    """
    trees = [roots.base(suite, extra=PACKAGES)]
    if debs:
        trees.insert(0, roots.layer(suite, debs, extra=PACKAGES))
    made = {**MACHINE_FILES, **(files or {})}
    facts = {
        "trees": [(str(tree), _built(tree)) for tree in trees],
        "files": made,
        "recipe": [_MAKE, _DISK_MIB],
    }
    tree = cache.artifact(
        "vm-image", facts, _ImageBuild(trees, made), forget_after=_FORGET_AFTER
    ).tree
    return Image(*(tree / name for name in ("disk.raw", "kernel", "initrd", "key")))


def mbr(signature: int, partitions: Sequence[Partition]) -> bytes:
    """The first sector of a disk with at most four Linux partitions."""
    entries = b"".join(
        # status, three bytes of CHS, type, three bytes of CHS, first sector, sectors
        struct.pack("<8sII", b"\0\xfe\xff\xff\x83\xfe\xff\xff", entry.first, entry.sectors)
        for entry in partitions
    )
    head = bytes(440) + struct.pack("<IH", signature, 0)
    return head + entries.ljust(64, b"\0") + b"\x55\xaa"


def data_disk(path: Path, mib: int, partitions: Sequence[Partition] = ()) -> None:
    """Make a sparse disk of `mib` MiB, empty or with partitions."""
    with open(path, "xb") as disk:
        disk.truncate(mib * _MIB)
        if partitions:
            disk.write(mbr(0x64617461, partitions))


def overlay(path: Path, raw: Path) -> None:
    """Make a disk of a machine's own over one that is only read."""
    run_command(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(raw), str(path)],
        purpose="make a disk of a machine",
    )


class _ImageBuild:
    """Fills a directory with an image."""

    def __init__(self, trees: Sequence[Path], files: Mapping[str, str]) -> None:
        self._trees = tuple(trees)
        self._files = dict(files)

    def __call__(self, tree: Path) -> None:
        top = tree / "files"
        top.mkdir(mode=0o755)
        for path, text in self._files.items():
            _place(top, path, text, 0o644)
        run_command(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(tree / "key")],
            purpose="make an ssh key",
        )
        _place(top, "/root/.ssh/authorized_keys", (tree / "key.pub").read_text(), 0o600)
        for folder in (top / "root", top / "root/.ssh"):
            folder.chmod(0o700)
        disk = tree / "disk.raw"
        sectors = _DISK_MIB * 2048
        with open(disk, "xb") as raw:
            raw.truncate(_DISK_MIB * _MIB)
            raw.write(mbr(ROOT_SIGNATURE, [Partition(2048, sectors - 2048)]))
        (tree / "mnt").mkdir()
        lower = ":".join(str(path) for path in (top, *self._trees))
        run_command(
            [
                *("unshare", "--mount", "--kill-child", "--fork", "sh", "-c", _MAKE, "image"),
                *(str(tree / "mnt"), lower, str(tree), str(_MIB)),
                str((_DISK_MIB - 1) * 1024),
            ],
            purpose="make the disk image of a virtual machine",
            timeout=180,
        )
        cache.remove_tree(top)


def _built(tree: Path) -> int:
    """When a cached tree was built: one that is built again gets the same name."""
    facts = next(
        folder / "facts.json" for folder in tree.parents if (folder / "facts.json").exists()
    )
    return facts.stat().st_mtime_ns


def _place(top: Path, path: str, text: str, mode: int) -> None:
    target = top / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)
