"""Partition tables and identities of the disks of virtual machines."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from support.vm_devices import NvmeController, NvmeNamespace, ScsiDisk, nvme_arguments
from support.vm_image import ROOT_PARTUUID, ROOT_SIGNATURE, Partition, data_disk, mbr


def entries(sector: bytes) -> list[tuple[int, int, int]]:
    """Type, first sector and number of sectors of the entries that are used."""
    found = [struct.unpack_from("<xxxxBxxxII", sector, 446 + 16 * number) for number in range(4)]
    return [entry for entry in found if entry[0]]


def test_partition_table_is_one_sector_with_the_mark_of_bios_disks() -> None:
    sector = mbr(ROOT_SIGNATURE, [Partition(2048, 100)])
    assert (len(sector), sector[510:]) == (512, b"\x55\xaa")


def test_partition_table_holds_its_partitions_as_linux_ones() -> None:
    sector = mbr(1, [Partition(2048, 100), Partition(4096, 7)])
    assert entries(sector) == [(0x83, 2048, 100), (0x83, 4096, 7)]


def test_kernel_finds_the_root_by_signature_and_number() -> None:
    (signature,) = struct.unpack_from("<I", mbr(ROOT_SIGNATURE, []), 440)
    assert f"{signature:08x}-01" == ROOT_PARTUUID


@pytest.mark.parametrize("partitions", [(), (Partition(2048, 2048),)])
def test_data_disk_is_sparse_and_of_its_size(
    tmp_path: Path, partitions: tuple[Partition, ...]
) -> None:
    data_disk(tmp_path / "disk", 64, partitions)
    status = (tmp_path / "disk").stat()
    assert (status.st_size, status.st_blocks * 512 < 65536) == (64 * 1024 * 1024, True)


def test_scsi_disk_has_the_identity_of_the_platforms() -> None:
    options = ScsiDisk("data-1").options().split(",")
    assert {"vendor=Google", "product=PersistentDisk", "serial=data-1", "device_id=data-1"} <= set(
        options
    )


def test_namespaces_have_identifiers_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.vm_devices.overlay", lambda path, raw: None)
    namespaces = (NvmeNamespace(1), NvmeNamespace(2))
    controllers = [NvmeController(name, "nvme_card", namespaces) for name in ("a", "b")]
    arguments = nvme_arguments(controllers, tmp_path)
    identifiers = [word.rpartition("eui64=")[2] for word in arguments if "eui64=" in word]
    assert len(set(identifiers)) == 4
