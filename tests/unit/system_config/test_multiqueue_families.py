"""google_set_multiqueue on machines of every family: queues, interrupts, drivers, what stays."""

from __future__ import annotations

import array
import errno
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.machine_trees import IRQS, MLX5, FakeSysfs

from metadata_server.emulator import Emulator
from system_config import multiqueue, xps
from system_config.ethtool import (
    GET_CHANNELS,
    GET_COALESCING,
    GET_RINGS,
    SET_CHANNELS,
    SET_COALESCING,
    SET_RINGS,
    Driver,
)
from system_config.multiqueue import Tuning, queue_of
from system_config.platform_facts import Platform
from system_config.processors import Node, bits, mask_text, parse_list, parse_mask
from system_config.settings import Settings
from system_config.sysfs import Tree

A3_HIGH, A3_ULTRA, A4X_MAX = "a3-highgpu-8g", "a3-ultragpu-8g", "a4x-maxgpu-4g-metal"
X4, N2 = "x4-megamem-960-metal", "n2-highcpu-32"


class Drivers:
    """What drivers of interfaces say and take: words by interface and command."""

    SETTERS: ClassVar = {
        SET_CHANNELS: GET_CHANNELS,
        SET_RINGS: GET_RINGS,
        SET_COALESCING: GET_COALESCING,
    }

    def __init__(self, **changes: dict[int, dict[int, int]]) -> None:
        self.words: dict[tuple[str, int], list[int]] = {}
        self.sent: list[tuple[str, int]] = []
        self.refuses: Optional[int] = None
        for interface, commands in changes.items():
            for command, words in commands.items():
                answer = [command] + [0] * 22
                for position, word in words.items():
                    answer[position] = word
                self.words[interface, command] = answer

    def __call__(self, interface: str, words: array.array[int]) -> None:
        command = words[0]
        if command in self.SETTERS:
            self.sent.append((interface, command))
            if self.refuses is not None:
                raise OSError(self.refuses, os.strerror(self.refuses))
            stored = self.words[interface, self.SETTERS[command]]
            stored[1 : len(words)] = words[1:]
        elif (interface, command) in self.words:
            words[1:] = array.array("I", self.words[interface, command][1 : len(words)])
        else:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def tune(
    machine: FakeSysfs, machine_type: str, *, accelerators: bool = False, drivers: Any = None
) -> str:
    """Set the machine up; return the summary."""
    chosen = Settings(Tree(str(machine.root)))
    Tuning(chosen, Platform(machine_type, accelerators), drivers).apply()
    return chosen.report()


def sends(machine: FakeSysfs, interface: str, *queues: int) -> list[str]:
    """The processors that send through the queues, as a list."""
    folder = f"/sys/class/net/{interface}/queues"
    return [listed(machine.read(f"{folder}/tx-{queue}/xps_cpus")) for queue in queues]


def listed(mask: str) -> str:
    """A mask as a list."""
    number = parse_mask(mask)
    assert number is not None
    runs: list[list[int]] = []
    for processor in (bit for bit in range(number.bit_length()) if number >> bit & 1):
        if runs and runs[-1][1] == processor - 1:
            runs[-1][1] = processor
        else:
            runs.append([processor, processor])
    return ",".join(f"{low}-{high}" if low < high else str(low) for low, high in runs)


def numbers(text: str) -> list[str]:
    return [str(number) for number in parse_list(text)]


@pytest.fixture
def machine(tmp_path: Path) -> FakeSysfs:
    return FakeSysfs(tmp_path)


# --- accelerator machines ------------------------------------------------------------------------


def a3_high(machine: FakeSysfs) -> list[list[int]]:
    """Two nodes of 104 processors, five gVNICs; returns the interrupts of each."""
    machine.processors("0-207", "0-51,104-155", "52-103,156-207")
    return [
        machine.gvnic("eth0", "0000:00:0c.0", queues=16, node=0),
        machine.gvnic("eth1", "0000:06:00.0", queues=16, node=0),
        machine.gvnic("eth2", "0000:0c:00.0", queues=16, node=0),
        machine.gvnic("eth3", "0000:86:00.0", queues=16, node=1),
        machine.gvnic("eth4", "0000:8c:00.0", queues=16, node=1),
    ]


def test_a3_highgpu_sends_from_runs_of_13_processors(machine: FakeSysfs) -> None:
    a3_high(machine)
    tune(machine, A3_HIGH, accelerators=True)
    for interface in ("eth0", "eth1", "eth4"):
        assert sends(machine, interface, 0, 1, 3, 4, 7, 8, 15) == [
            *("0-12", "13-25", "39-51", "104-116", "143-155", "52-64", "195-207"),
        ]
    assert machine.read("/sys/class/net/eth0/queues/tx-0/xps_cpus") == (
        "00000000,00000000,00000000,00000000,00000000,00000000,00001fff"
    )


def test_a3_highgpu_interrupts_go_to_processors_of_their_node(machine: FakeSysfs) -> None:
    irqs = a3_high(machine)
    tune(machine, A3_HIGH, accelerators=True)
    firsts = ["1-16", "17-32", "33-48", "52-67", "68-83"]
    for of_interface, processors in zip(irqs, firsts):
        assert machine.served_by(of_interface[:16]) == numbers(processors)
        assert machine.served_by(of_interface[16:32]) == numbers(processors)
        # Management.
        assert machine.served_by(of_interface[32:]) == ["0-1"]


def test_processor_0_serves_no_interrupt_and_the_count_begins_anew(machine: FakeSysfs) -> None:
    machine.processors("0-3", "0-3")
    irqs = machine.gvnic("eth0", "0000:00:04.0", queues=4)
    tune(machine, A3_HIGH, accelerators=True)
    assert machine.served_by(irqs[:4]) == ["1", "2", "3", "1"]


def test_interrupts_of_accelerator_machines_are_not_given_by_hints_first(
    machine: FakeSysfs,
) -> None:
    irqs = a3_high(machine)[0]
    tune(machine, A3_HIGH, accelerators=True)
    assert {machine.read(f"{IRQS}/{irq}/smp_affinity") for irq in irqs} == {"00000003"}


def test_a3_ultragpu(machine: FakeSysfs) -> None:
    machine.processors("0-223", "0-55,112-167", "56-111,168-223")
    first = machine.gvnic("eth0", "0000:00:0c.0", queues=16, node=0)
    second = machine.gvnic("eth1", "0000:80:0c.0", queues=16, node=1)
    irqs = [machine.irq(f"mlx5_comp{queue}@pci:0000:91:00.0") for queue in range(10)]
    device = machine.pci("0000:91:00.0", identity="15b3:101e", driver=MLX5, node=1, irqs=irqs)
    machine.interface("gpu0rdma0", device, tx=10)
    tune(machine, A3_ULTRA, accelerators=True)
    assert machine.served_by(first[:16]) == numbers("1-16")
    assert machine.served_by(second[:16]) == numbers("56-71")
    assert machine.served_by(second[16:32]) == numbers("56-71")
    assert sends(machine, "eth0", 0, 1, 8) == ["0-13", "14-27", "56-69"]
    assert sends(machine, "eth1", 0) == ["0-13"]
    assert sends(machine, "gpu0rdma0", 0, 1, 2, 4, 5) == [
        *("0-21", "22-43", "44-55,112-121", "144-167", "56-77"),
    ]
    assert machine.served_by(irqs) == ["0-1"] * 10


def a4x_max(machine: FakeSysfs) -> tuple[list[int], list[int], Drivers]:
    machine.processors("0-143", "0-71", "72-143")
    first = machine.idpf("eth0", "0000:01:00.0", queues=16, node=0)
    second = machine.idpf("eth1", "0010:01:00.0", queues=16, node=1)
    answers = {
        GET_CHANNELS: {4: 16, 8: 16},
        GET_RINGS: {1: 4096, 4: 4096, 5: 512, 8: 512},
    }
    return first, second, Drivers(eth0=answers, eth1=answers)


def test_a4x_maxgpu_metal(machine: FakeSysfs) -> None:
    first, second, drivers = a4x_max(machine)
    tune(machine, A4X_MAX, accelerators=True, drivers=drivers)
    assert machine.served_by(first) == numbers("1-16")
    assert machine.served_by(second) == numbers("72-87")
    for interface in ("eth0", "eth1"):
        assert set(sends(machine, interface, *range(16))) == {"0-143"}
    assert machine.read("/sys/class/net/eth1/queues/tx-15/xps_cpus") == (
        "0000ffff,ffffffff,ffffffff,ffffffff,ffffffff"
    )
    assert {(Driver(name, drivers).rings()) for name in ("eth0", "eth1")} == {(2048, 1024)}


def test_idpf_interrupts_that_nobody_asked_for_or_that_serve_no_queue_stay(
    machine: FakeSysfs,
) -> None:
    first, _, drivers = a4x_max(machine)
    tune(machine, A4X_MAX, accelerators=True, drivers=drivers)
    mailbox = first[0] - 1
    assert machine.served_by([mailbox]) == ["0-1"]
    assert not machine.path(f"{IRQS}/{first[-1] + 1}").exists()


def test_rings_are_changed_before_interrupts_are_laid_out(
    machine: FakeSysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, drivers = a4x_max(machine)

    def resets(interface: str, words: array.array[int]) -> None:
        drivers(interface, words)
        if words[0] == SET_RINGS:
            for irq in first:
                machine.file(f"{IRQS}/{irq}/smp_affinity_list", "0-143")

    tune(machine, A4X_MAX, accelerators=True, drivers=resets)
    assert machine.served_by(first) == numbers("1-16")


def test_rings_are_no_larger_than_the_driver_has_them(machine: FakeSysfs) -> None:
    machine.processors("0-143", "0-71", "72-143")
    machine.idpf("eth0", "0000:01:00.0", queues=2)
    drivers = Drivers(eth0={GET_RINGS: {1: 1024, 4: 512, 5: 256, 8: 256}})
    tune(machine, A4X_MAX, accelerators=True, drivers=drivers)
    assert Driver("eth0", drivers).rings() == (1024, 512)
    drivers.sent.clear()
    tune(machine, A4X_MAX, accelerators=True, drivers=drivers)
    assert drivers.sent == []


def test_other_a4x_machines_keep_their_rings(machine: FakeSysfs) -> None:
    _, _, drivers = a4x_max(machine)
    tune(machine, "a4x-highgpu-4g", accelerators=True, drivers=drivers)
    assert drivers.sent == []
    assert set(sends(machine, "eth0", *range(16))) == {"0-143"}


def test_unknown_node_counts_as_node_0(machine: FakeSysfs) -> None:
    machine.processors("0-7", "0-3", "4-7")
    first = machine.gvnic("eth0", "0000:00:04.0", queues=2, node=-1)
    second = machine.gvnic("eth1", "0000:00:05.0", queues=2, node=1)
    third = machine.gvnic("eth2", "0000:00:06.0", queues=1, node=0)
    tune(machine, A3_HIGH, accelerators=True)
    assert machine.served_by(first[:2]) == ["1", "2"]
    assert machine.served_by(second[:2]) == ["4", "5"]
    assert machine.served_by(third[:1]) == ["3"]


def test_more_nodes_than_queues_share_them(machine: FakeSysfs) -> None:
    machine.processors("0-7", "0-1", "2-3", "4-5", "6-7")
    machine.gvnic("eth0", "0000:00:04.0", queues=3)
    machine.file("/sys/class/net/eth0/queues/tx-1/xps_cpus", "80")
    tune(machine, A3_HIGH, accelerators=True)
    assert sends(machine, "eth0", 0, 1, 2) == ["0-1,6-7", "2-3,7", "4-5"]


def test_interface_without_queues_is_skipped(machine: FakeSysfs) -> None:
    machine.processors("0-7", "0-3", "4-7")
    device = machine.pci("0000:00:04.0", identity="15b3:101e", driver=MLX5)
    machine.interface("eth0", device)
    assert tune(machine, A3_HIGH, accelerators=True).endswith(" 0 failed")


def test_interface_without_a_device_is_left_alone(machine: FakeSysfs) -> None:
    machine.processors("0-7", "0-3", "4-7")
    machine.file("/sys/devices/virtual/net/docker0/queues/tx-0/xps_cpus", "0")
    machine.link("/sys/class/net/docker0", "/sys/devices/virtual/net/docker0")
    tune(machine, A3_HIGH, accelerators=True)
    assert sends(machine, "docker0", 0) == [""]


# --- all machines --------------------------------------------------------------------------------


def test_virtio_queue_goes_to_the_processor_of_its_number(machine: FakeSysfs) -> None:
    machine.processors("0-31", "0-31")
    irqs = machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=32)
    tune(machine, N2)
    assert machine.served_by(irqs) == [str(queue) for queue in range(32) for _ in range(2)]
    assert machine.served_by([1]) == ["0-1"]  # Configuration.
    assert machine.path(f"{IRQS}/8/virtio1-input.3").is_dir()
    assert machine.read(f"{IRQS}/8/smp_affinity_list") == "3"


def test_legacy_interrupt_goes_to_processor_0(machine: FakeSysfs) -> None:
    machine.processors("0-3", "0-3")
    machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=1)
    irq = machine.irq("virtio1", affinity="1")
    other = machine.irq("virtio2", affinity="1")
    tune(machine, N2)
    assert machine.served_by([irq, other]) == ["0", "1"]


def test_virtio_interrupts_of_disks_stay(machine: FakeSysfs) -> None:
    machine.processors("0-3", "0-3")
    machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=1)
    irqs = [machine.irq(f"virtio{number}-input.1") for number in (0, 11, 2)]
    tune(machine, N2)
    assert machine.served_by(irqs) == ["0-1"] * 3


def test_virtio_interrupt_without_a_hint_stays(machine: FakeSysfs) -> None:
    machine.processors("0-3", "0-3")
    irqs = machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=2)
    machine.path(f"{IRQS}/{irqs[2]}/affinity_hint").unlink()
    tune(machine, N2)
    assert machine.served_by(irqs) == ["0", "0", "0-1", "1"]


def test_queue_beyond_the_running_processors_stays(machine: FakeSysfs) -> None:
    machine.processors("0", "0")
    irqs = machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=2)
    assert tune(machine, N2).endswith(" 0 failed")
    assert machine.served_by(irqs) == ["0", "0", "0-1", "0-1"]


def test_gvnic_gets_what_its_driver_hints(machine: FakeSysfs) -> None:
    machine.processors("0-31", "0-31")
    irqs = machine.gvnic("eth0", "0000:00:04.0", queues=16)
    tune(machine, N2)
    masks = [listed(machine.read(f"{IRQS}/{irq}/smp_affinity")) for irq in irqs]
    assert masks == [*(str(queue) for queue in (*range(16), *range(16))), "0-1"]


def test_gvnic_hint_above_processor_31_keeps_its_words(machine: FakeSysfs) -> None:
    machine.processors("0-95", "0-95")
    irqs = machine.gvnic("eth0", "0000:00:04.0", queues=48)
    tune(machine, N2)
    assert machine.read(f"{IRQS}/{irqs[47]}/smp_affinity") == "00000000,00008000,00000000"


def test_empty_hint_is_not_copied(machine: FakeSysfs) -> None:
    machine.processors("0-3", "0-3")
    irqs = machine.gvnic("eth0", "0000:00:04.0", queues=1)
    machine.file(f"{IRQS}/{irqs[0]}/affinity_hint", "00000000")
    tune(machine, N2)
    assert machine.read(f"{IRQS}/{irqs[0]}/smp_affinity") == "00000003"


def test_other_machines_keep_their_send_queues(machine: FakeSysfs) -> None:
    machine.processors("0-31", "0-15", "16-31")
    machine.gvnic("eth0", "0000:00:04.0", queues=16)
    machine.virtio_net("eth1", "0000:00:05.0", "virtio1", queues=16)
    tune(machine, N2)
    for interface in ("eth0", "eth1"):
        assert set(sends(machine, interface, *range(16))) == {""}


@pytest.mark.parametrize(
    ("most", "now", "afterwards"), [(16, 4, 16), (16, 16, 16), (1, 1, 1), (1, 0, 0), (0, 0, 0)]
)
def test_idpf_interface_gets_all_channels(
    machine: FakeSysfs, most: int, now: int, afterwards: int
) -> None:
    machine.processors("0-31", "0-31")
    machine.idpf("eth0", "0000:00:04.0", queues=4)
    drivers = Drivers(eth0={GET_CHANNELS: {4: most, 8: now}})
    tune(machine, "c3-standard-4", drivers=drivers)
    assert Driver("eth0", drivers).combined_channels() == (most, afterwards)
    assert len(drivers.sent) == (now != afterwards)


def test_channels_of_rdma_and_other_interfaces_stay(machine: FakeSysfs) -> None:
    machine.processors("0-31", "0-31")
    machine.idpf("eth0", "0000:00:04.0", queues=4)
    machine.folder("/sys/devices/pci0000:00/0000:00:04.0/infiniband/irdma0")
    machine.gvnic("eth1", "0000:00:05.0", queues=4)
    channels = {GET_CHANNELS: {4: 16, 8: 1}}
    drivers = Drivers(eth0=channels, eth1=channels)
    tune(machine, "c3-standard-4", drivers=drivers)
    assert drivers.sent == []


def test_driver_without_channels_is_a_line_and_no_more(
    machine: FakeSysfs, caplog: pytest.LogCaptureFixture
) -> None:
    machine.processors("0-3", "0-3")
    machine.idpf("eth0", "0000:00:04.0", queues=4)
    irqs = machine.virtio_net("eth1", "0000:00:05.0", "virtio1", queues=2)
    assert tune(machine, N2, drivers=Drivers()).endswith(" 1 failed")
    assert [record.getMessage() for record in caplog.records if record.levelno > 10] == [
        "eth0: channels: Operation not supported"
    ]
    assert machine.served_by(irqs) == ["0", "0", "1", "1"]


def test_driver_that_refuses_is_a_failure(machine: FakeSysfs) -> None:
    machine.processors("0-3", "0-3")
    machine.idpf("eth0", "0000:00:04.0", queues=4)
    drivers = Drivers(eth0={GET_CHANNELS: {4: 16, 8: 4}})
    drivers.refuses = errno.EBUSY
    assert tune(machine, N2, drivers=drivers).endswith(" 1 failed")


# --- X series ------------------------------------------------------------------------------------


def test_x4(machine: FakeSysfs) -> None:
    machine.processors("0-5", "0-2", "3-5")
    machine.file("/proc/sys/net/core/rps_sock_flow_entries", 0)
    first = machine.idpf("eth0", "0000:00:04.0", queues=4)
    second = machine.idpf("eth1", "0001:00:04.0", queues=3, node=1)
    virtio = machine.virtio_net("eth2", "0000:00:05.0", "virtio1", queues=2)
    answers = {
        GET_CHANNELS: {4: 16, 8: 4},
        GET_RINGS: {1: 8160, 4: 8160, 5: 512, 8: 512},
        GET_COALESCING: {1: 0, 5: 0, 10: 1, 11: 1, 2: 77},
    }
    drivers = Drivers(eth0=answers, eth1=answers)
    tune(machine, X4, drivers=drivers)
    assert machine.read("/proc/sys/net/core/rps_sock_flow_entries") == "262144"
    for interface, queues in (("eth0", 4), ("eth1", 3)):
        folder = f"/sys/class/net/{interface}/queues"
        counts = [machine.read(f"{folder}/rx-{queue}/rps_flow_cnt") for queue in range(queues)]
        assert counts == ["16384"] * queues
        driver = Driver(interface, drivers)
        assert driver.rings() == (4096, 2048)
        assert driver.coalescing() == (False, False, 20, 50)
        # In the kernel's words: linux/ethtool.h.
        rings, moderation = (drivers.words[interface, get] for get in (GET_RINGS, GET_COALESCING))
        assert (rings[5], rings[8]) == (4096, 2048)
        assert [moderation[word] for word in (1, 5, 10, 11)] == [20, 50, 0, 0]
        # What is not named is handed back as it was, and channels are no matter of these machines.
        assert drivers.words[interface, GET_COALESCING][2] == 77
        assert driver.combined_channels() == (16, 4)
        assert set(sends(machine, interface, *range(queues))) == {""}
    assert machine.served_by([*first, *second]) == ["1", "2", "3", "4", "5", "1", "2"]
    assert machine.served_by(virtio) == ["0-1"] * 4


def test_second_run_on_x4_says_nothing_to_drivers(machine: FakeSysfs) -> None:
    machine.processors("0-3", "0-3")
    machine.idpf("eth0", "0000:00:04.0", queues=2)
    drivers = Drivers(
        eth0={GET_RINGS: {1: 8160, 4: 8160, 5: 512, 8: 512}, GET_COALESCING: {10: 1, 11: 1}}
    )
    tune(machine, X4, drivers=drivers)
    assert len(drivers.sent) == 2
    drivers.sent.clear()
    assert tune(machine, X4, drivers=drivers).startswith("0 settings changed")
    assert drivers.sent == []


# --- the program ---------------------------------------------------------------------------------


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's own place for log lines is left alone."""

    class Sink:
        def flush(self, *, everything: bool) -> None:
            assert everything

    monkeypatch.setattr(multiqueue, "configure_logging", lambda _name, environ: Sink())


@pytest.fixture
def server(quiet: None) -> Iterator[Emulator]:
    with Emulator() as emulator:
        emulator.set("instance/machineType", f"projects/1/machineTypes/{N2}")
        yield emulator


def run(machine: FakeSysfs, server: str, *arguments: str, root: bool = True) -> list[str]:
    """What the program prints, with the hooks of tests in its environment."""
    lines: list[str] = []
    environ = {"GOOGLE_SET_MULTIQUEUE_METADATASERVER": server}
    if root:
        environ["GOOGLE_SET_MULTIQUEUE_FAKEROOT"] = str(machine.root)
    assert multiqueue.main(arguments, environ=environ, say=lines.append) == 0
    return lines


def sends_by_node(machine: FakeSysfs, server: str) -> bool:
    """Whether the program takes the machine for one with accelerators."""
    machine.processors("0-3", "0-1", "2-3")
    machine.gvnic("eth0", "0000:00:04.0", queues=2)
    run(machine, server)
    found = sends(machine, "eth0", 0, 1)
    assert found in (["", ""], ["0-1", "2-3"])
    return found != ["", ""]


@pytest.mark.parametrize(
    ("machine_type", "expected"),
    [
        ("a3-highgpu-8g", True),
        ("a3-highgpu-8g-nolssd", True),
        ("a3-highgpu-1g", False),
        ("a3-ultragpu-8g", True),
        ("a3-megagpu-8g", True),
        ("a3-edgegpu-8g", True),
        ("a4-highgpu-8g", True),
        ("a4x-highgpu-4g", False),  # It sends from all 144 processors: see above.
        ("c4n-standard-8", True),
        ("c4x-standard-8", True),
        ("n2-highcpu-32", False),
        ("custom-a3-highgpu-8g", False),
        ("c3-standard-4", False),
        ("", False),
    ],
)
def test_machine_types_with_accelerators(
    machine: FakeSysfs, server: Emulator, machine_type: str, expected: bool
) -> None:
    server.set("instance/machineType", f"projects/1/machineTypes/{machine_type}")
    if machine_type.startswith("a4x-"):
        machine.processors("0-143", "0-71", "72-143")
        machine.gvnic("eth0", "0000:00:04.0", queues=2)
        run(machine, server.host)
        assert sends(machine, "eth0", 0, 1) == ["0-143"] * 2
    else:
        assert sends_by_node(machine, server.host) == expected


@pytest.mark.parametrize(
    ("interfaces", "expected"),
    [
        ([{"physicalNicId": "0"}, {"physicalNicId": "1"}], True),
        ([{"physicalNicId": "0"}], True),
        ([{"physicalNicId": "0"}, {}], False),
        ([{}, {}], False),
        ([], False),
    ],
)
def test_every_interface_with_a_physical_one_makes_an_accelerator_machine(
    machine: FakeSysfs,
    server: Emulator,
    interfaces: Sequence[dict[str, str]],
    expected: bool,
) -> None:
    nics = [{"mac": f"42:01:0a:00:00:0{at}", **nic} for at, nic in enumerate(interfaces)]
    server.set("instance/networkInterfaces", nics)
    assert sends_by_node(machine, server.host) == expected


def test_unreachable_metadata_server_means_no_accelerators(machine: FakeSysfs, quiet: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    assert not sends_by_node(machine, host)


def test_failing_metadata_server_means_no_accelerators(
    machine: FakeSysfs, server: Emulator
) -> None:
    server.fault("instance/", "status", status=500)
    assert not sends_by_node(machine, server.host)


def test_silent_metadata_server_holds_up_a_second_and_the_rest_is_set(
    machine: FakeSysfs, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("system_config.platform_facts.REQUEST_SECONDS", 0.1)
    machine.processors("0-3", "0-3")
    irqs = machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        run(machine, f"127.0.0.1:{listener.getsockname()[1]}")
    assert machine.served_by(irqs) == ["0", "0", "1", "1"]


def test_each_request_has_a_second() -> None:
    from system_config import platform_facts

    assert platform_facts.REQUEST_SECONDS == 1.0


def test_tree_without_a_server_asks_nobody(machine: FakeSysfs, quiet: None) -> None:
    machine.processors("0-3", "0-3")
    irqs = machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=1)
    lines = run(machine, "", "--root", str(machine.root), root=False)
    assert machine.served_by(irqs) == ["0", "0"]
    assert lines == [
        "google_set_multiqueue: 2 settings changed, 0 as they should be,"
        " 0 kept by the kernel, 0 failed"
    ]


def test_second_run_writes_nothing(
    machine: FakeSysfs, server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.set("instance/machineType", f"projects/1/machineTypes/{A3_HIGH}")
    a3_high(machine)
    machine.virtio_net("eth9", "0000:00:05.0", "virtio1", queues=2)
    run(machine, server.host)
    written: list[str] = []
    monkeypatch.setattr(Tree, "write", lambda _tree, path, _value: written.append(path))
    lines = run(machine, server.host)
    assert written == []
    assert lines == [
        "google_set_multiqueue: 0 settings changed, 246 as they should be,"
        " 0 kept by the kernel, 0 failed"
    ]


def test_dry_run_says_what_would_change_and_writes_nothing(
    machine: FakeSysfs, server: Emulator
) -> None:
    machine.processors("0-3", "0-3")
    irqs = machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=1)
    before = machine.contents()
    assert run(machine, server.host, "--dry-run") == [
        f"{IRQS}/{irqs[0]}/smp_affinity_list: 0-1 -> 0",
        f"{IRQS}/{irqs[1]}/smp_affinity_list: 0-1 -> 0",
        "google_set_multiqueue: 2 settings would change, 0 as they should be,"
        " 0 kept by the kernel, 0 failed",
    ]
    assert machine.contents() == before


def test_folder_of_interrupts_is_read_once(
    machine: FakeSysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.processors("0-7", "0-7")
    machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=8)
    machine.gvnic("eth1", "0000:00:05.0", queues=8)
    names = Tree.names
    read: list[str] = []

    def noted(tree: Tree, path: str) -> list[str]:
        read.append(path)
        return names(tree, path)

    monkeypatch.setattr(Tree, "names", noted)
    tune(machine, N2)
    assert read.count(IRQS) == 1
    assert read.count(f"{IRQS}/8") == 1


def test_failure_is_logged_and_ends_well(
    machine: FakeSysfs,
    server: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine.processors("0-3", "0-3")
    machine.virtio_net("eth0", "0000:00:04.0", "virtio1", queues=1)

    def refuse(_tree: Tree, path: str, _value: str) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)

    monkeypatch.setattr(Tree, "write", refuse)
    assert run(machine, server.host)[0].endswith(" 2 failed")
    assert any(
        record.levelno == logging.WARNING and "Operation not permitted" in record.getMessage()
        for record in caplog.records
    )


@pytest.mark.parametrize("arguments", [["--no"], ["--root"], ["eth0"]])
def test_wrong_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert multiqueue.main(arguments, environ={}) == 2
    assert capsys.readouterr().err.startswith("usage: ")


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processors", "highest", "text"),
    [
        ("0", 0, "00000001"),
        ("31", 31, "80000000"),
        ("0", 32, "00000000,00000001"),
        ("0-143", 143, "0000ffff,ffffffff,ffffffff,ffffffff,ffffffff"),
        ("52-64", 207, "00000000,00000000,00000000,00000000,00000001,fff00000,00000000"),
    ],
)
def test_mask_is_as_wide_as_the_highest_processor(processors: str, highest: int, text: str) -> None:
    assert mask_text(bits(parse_list(processors)), range(highest + 1)) == text


@given(st.frozensets(st.integers(0, 400), max_size=40))
def test_mask_is_read_as_it_is_written(processors: frozenset[int]) -> None:
    assert parse_mask(mask_text(bits(processors), processors)) == bits(processors)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-2,5", (0, 1, 2, 5)),
        ("7", (7,)),
        ("3,1", (1, 3)),
        ("", ()),
        ("2-1", ()),
        ("x", ()),
        ("1,", ()),
        ("-1", ()),
        ("0-4294967295", ()),
        ("1-2-3", ()),
    ],
)
def test_list_of_processors(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_list(text) == numbers


@given(st.text(max_size=30), st.text("0123456789abcdef,-x", max_size=30))
def test_no_text_brings_a_trace(anything: str, likely: str) -> None:
    for text in (anything, likely):
        assert parse_list(text) is not None
        assert parse_mask(text) is None or parse_mask(text) >= 0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("action", "queue"),
    [
        ("virtio0-input.3", 3),
        ("virtio0-output.12", 12),
        ("virtio0-config", None),
        ("virtio0-control", None),
        ("virtio0-input", None),
        ("virtio0-input.x", None),
        ("virtio0", None),
        ("", None),
    ],
)
def test_queue_of_an_interrupt(action: str, queue: Optional[int]) -> None:
    assert queue_of(action) == queue


@given(
    st.integers(0, 40),
    st.lists(st.integers(1, 60), max_size=9),
)
def test_every_processor_sends_through_one_queue(queues: int, sizes: list[int]) -> None:
    nodes, first = [], 0
    for number, size in enumerate(sizes):
        nodes.append(Node(number, tuple(range(first, first + size))))
        first += size
    masks = xps.masks(queues, nodes, [0] * queues)
    assert set(masks) <= set(range(queues))
    together = 0
    for mask in masks.values():
        assert mask & together == 0
        together |= mask
    assert together == (bits(range(first)) if queues and nodes else 0)


# --- hostile trees -------------------------------------------------------------------------------

_TEXTS = st.sampled_from(
    ["0-3", "0", "-1", "1", "99999999999", "ffffffff", "0-99999", "", "x", "\0", "\xff"]
) | st.text(max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    choices=st.lists(st.tuples(st.integers(0, 10**6), _TEXTS), max_size=25),
    removed=st.lists(st.integers(0, 10**6), max_size=8),
    machine_type=st.sampled_from([A3_HIGH, A4X_MAX, X4, N2, ""]),
    accelerators=st.booleans(),
)
def test_no_tree_brings_a_trace(
    tmp_path_factory: pytest.TempPathFactory,
    choices: list[tuple[int, str]],
    removed: list[int],
    machine_type: str,
    accelerators: bool,
) -> None:
    machine = FakeSysfs(tmp_path_factory.mktemp("hostile"))
    machine.processors("0-3", "0-1", "2-3")
    machine.file("/proc/sys/net/core/rps_sock_flow_entries", 0)
    machine.gvnic("eth0", "0000:00:04.0", queues=2)
    machine.idpf("eth1", "0000:00:05.0", queues=2, node=1)
    machine.virtio_net("eth2", "0000:00:06.0", "virtio1", queues=2)
    paths = sorted(machine.contents())
    for position, text in choices:
        place = machine.path(paths[position % len(paths)])
        place.write_bytes(text.encode("utf-8", "surrogateescape"))
    for position in removed:
        machine.path(paths[position % len(paths)]).unlink(missing_ok=True)
    assert tune(machine, machine_type, accelerators=accelerators, drivers=Drivers())
