"""The tuning programs on machines that are laid out oddly, and on trees that are none."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.machine_trees import FakeSysfs

from google_guest.metadata.client import MetadataClient
from metadata_server import Emulator
from system_config import local_ssd
from system_config.interfaces import interfaces
from system_config.multiqueue import Tuning
from system_config.platform_facts import Platform, may_have_accelerators, read_platform
from system_config.processors import numa_nodes, online_processors, parse_mask
from system_config.settings import Settings
from system_config.sysfs import Tree, numbered, parse_number

OUTSIDE = "7\n"


@pytest.fixture
def machine(tmp_path: Path) -> FakeSysfs:
    return FakeSysfs(tmp_path / "root")


def tune(
    machine: FakeSysfs, kind: str = "c4n-standard-8", *, accelerators: bool = True
) -> Settings:
    done = Settings(Tree(str(machine.root)), say=lambda _: None)
    Tuning(done, Platform(kind, accelerators)).apply()
    local_ssd.optimize(done)
    return done


def sends(machine: FakeSysfs, interface: str, queues: int) -> list[int]:
    folder = f"/sys/class/net/{interface}/queues"
    return [parse_mask(machine.read(f"{folder}/tx-{n}/xps_cpus")) or 0 for n in range(queues)]


def test_nodes_of_memory_alone_get_no_queue(machine: FakeSysfs) -> None:
    # The memory of accelerators is a node of its own each.
    machine.processors("0-3", "0-1", "2-3", "", "")
    irqs = machine.gvnic("eth0", "0000:00:04.0", queues=2, node=3)
    tune(machine)
    assert sends(machine, "eth0", 2) == [0b0011, 0b1100]
    assert machine.served_by(irqs[:2]) == ["1", "1"]


def test_machine_with_one_processor(machine: FakeSysfs) -> None:
    machine.processors("0", "0")
    irqs = machine.gvnic("eth0", "0000:00:04.0", queues=2)
    tune(machine)
    assert machine.served_by(irqs[:4]) == ["0"] * 4


def test_kernel_without_nodes_has_one(machine: FakeSysfs) -> None:
    machine.processors("0-3")
    irqs = machine.gvnic("eth0", "0000:00:04.0", queues=2)
    tune(machine)
    assert sends(machine, "eth0", 2) == [0b0011, 0b1100]
    assert machine.served_by(irqs[:2]) == ["1", "2"]


def test_kernel_without_the_list_of_running_processors(machine: FakeSysfs) -> None:
    machine.processors("", "0-1", "", "4-5")
    tree = Tree(str(machine.root))
    assert online_processors(tree) == (0, 1, 4, 5)
    assert [node.number for node in numa_nodes(tree)] == [0, 2]


def test_more_queues_than_processors(machine: FakeSysfs) -> None:
    machine.processors("0-1", "0-1")
    machine.gvnic("eth0", "0000:00:04.0", queues=3)
    tune(machine)
    assert sends(machine, "eth0", 3) == [0, 0, 0b11]


def test_legacy_interrupt_names_processor_0_and_not_its_mask(machine: FakeSysfs) -> None:
    machine.processors("0-3", "0-3")
    machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=1)
    irq = machine.irq("virtio1")
    tune(machine, "n2-standard-4", accelerators=False)
    assert machine.path(f"/proc/irq/{irq}/smp_affinity_list").read_text() == "0"


@pytest.mark.parametrize("attribute", ["smp_affinity_list", "affinity_hint"])
def test_nothing_outside_of_the_tree_is_written(
    machine: FakeSysfs, tmp_path: Path, attribute: str
) -> None:
    machine.processors("0-3", "0-3")
    machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=1)
    irq = machine.irq("virtio1")
    outside = tmp_path / "outside"
    outside.write_text(OUTSIDE)
    place = machine.path(f"/proc/irq/{irq}/{attribute}")
    place.unlink()
    place.symlink_to(outside)
    done = tune(machine, "n2-standard-4", accelerators=False)
    assert outside.read_text() == OUTSIDE
    assert done.failed == (attribute == "smp_affinity_list")


@pytest.mark.parametrize(
    ("names", "prefix", "numbers"),
    [
        (["10", "9", "x", "", "9"], "", [9, 10]),
        (["tx-1", "tx-0", "rx-7", "tx-", "tx-1x"], "tx-", [0, 1]),
        (["\u0663", "1_0", "+1", " 1", "4294967296", "9" * 5000], "", []),
    ],
)
def test_numbers_in_names(names: list[str], prefix: str, numbers: Sequence[int]) -> None:
    assert numbered(names, prefix) == numbers


@given(st.text(max_size=12))
def test_any_number(text: str) -> None:
    number = parse_number(text)
    assert number is None or (str(number) == text.lstrip("0") or number == 0)


# The network of a machine that boots.


class Clock:
    """Time that passes only in pauses; after so many of them the network is up."""

    def __init__(self, server: Emulator, *, up_after: int) -> None:
        self.now, self.pauses = 0.0, 0
        self._server, self._up_after = server, up_after
        server.offline()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1
        if self.pauses == self._up_after:
            self._server.online()


@pytest.mark.parametrize(
    ("patience", "up_after", "known", "pauses"),
    [(15.0, 3, True, 3), (15.0, 99, False, 15), (0.0, 1, False, 0)],
)
def test_network_that_comes_up_late_is_waited_for(
    patience: float, up_after: int, known: bool, pauses: int
) -> None:
    with Emulator(profile="linux") as server:
        server.set("instance/machine-type", "projects/1/machineTypes/a3-highgpu-8g")
        clock = Clock(server, up_after=up_after)
        with MetadataClient(
            server.host, environ={}, clock=lambda: clock.now, sleep=clock.sleep
        ) as client:
            platform = read_platform(client, patience=patience)
    expected = Platform("a3-highgpu-8g", True) if known else Platform()
    assert (platform, clock.pauses) == (expected, pauses)


@pytest.mark.parametrize(
    ("drivers", "expected"),
    [
        ((), False),
        (("virtio-pci",), False),
        (("gve",), False),
        (("gve", "gvnic"), True),
        (("gve", "mlx5_core"), True),
        (("idpf",), True),
    ],
)
def test_machine_waits_where_its_hardware_makes_accelerators_likely(
    machine: FakeSysfs, drivers: Sequence[str], expected: bool
) -> None:
    for number, driver in enumerate(drivers):
        machine.interface(f"eth{number}", machine.pci(f"0000:00:0{number}.0", driver=driver))
    assert may_have_accelerators(interfaces(Tree(str(machine.root)))) is expected


# Trees that are none.

PATHS = (
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/node/node0",
    "/sys/devices/system/node/node1/cpulist",
    "/sys/devices/pci0000:00/0000:00:04.0/numa_node",
    "/sys/devices/pci0000:00/0000:00:04.0/driver",
    "/sys/devices/pci0000:00/0000:00:04.0/msi_irqs",
    "/sys/devices/pci0000:00/0000:00:04.0/net/eth0/queues",
    "/sys/devices/pci0000:00/0000:00:07.0/nvme",
    "/sys/bus/virtio/drivers/virtio_scsi/virtio2",
    "/sys/bus/virtio/drivers/virtio_net/virtio1",
    "/sys/class/net/eth1",
    "/sys/block/sdb/queue",
    "/proc/irq/1/smp_affinity_list",
    "/proc/irq/2",
    "/proc/irq",
)


@settings(max_examples=40)
@given(
    spoilt=st.lists(
        st.tuples(
            st.sampled_from(PATHS),
            st.sampled_from(["missing", "loop", "device", "bytes", "folder"]),
            st.binary(max_size=12),
        ),
        max_size=4,
    ),
    kind=st.sampled_from(["a3-highgpu-8g", "a4x-maxgpu-4g", "x4-metal", ""]),
)
def test_links_in_circles_and_folders_for_files_bring_no_trace(
    tmp_path_factory: pytest.TempPathFactory, spoilt: list[tuple[str, str, bytes]], kind: str
) -> None:
    machine = FakeSysfs(tmp_path_factory.mktemp("odd"))
    machine.processors("0-3", "0-1", "2-3")
    machine.gvnic("eth0", "0000:00:04.0", queues=2)
    machine.idpf("eth1", "0000:00:05.0", queues=1, node=1)
    machine.virtio_net("eth2", "0000:00:06.0", "virtio1", queues=1)
    machine.nvme("nvme0", "0000:00:07.0", "nvme_card", [machine.irq("nvme0q0")])
    machine.scsi_host("virtio2", "0000:00:08.0", 0, {"sdb": "EphemeralDisk"})
    for path, way, data in spoilt:
        spoil(machine.path(path), way, data)
    tune(machine, kind, accelerators=bool(kind))


def spoil(place: Path, way: str, data: bytes) -> None:
    """Make something else of a file, a link or a folder."""
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
    if not place.parent.is_dir():
        return
    if way == "loop":
        place.symlink_to(place.name)
    elif way == "device":
        place.symlink_to("/dev/null")
    elif way == "bytes":
        place.write_bytes(data)
    elif way == "folder":
        for name in ("tx-0", "tx-99999999999", "4294967296", "node0"):
            (place / name).mkdir(parents=True)
