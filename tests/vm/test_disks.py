"""Names and settings of disks on a running kernel: SCSI and NVMe, persistent disks and local SSDs,
with the identities that the platform gives them, and disks of others.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from release import TOP
from support import vm_disks
from support.vm_devices import ScsiDisk
from support.vm_disks import ONE_PARTITION, expected_links, links

if TYPE_CHECKING:
    from conftest import Machines
    from support.debs import GuestDebs
    from support.vm import Machine

LONGEST_TIMEOUT = 4294967295
TICK = 10
"""Milliseconds: the kernel never gives up a request to a persistent disk, and shows the time that
it was told rounded to its ticks (4294967288 for 250 ticks a second)."""


@pytest.fixture(scope="module")
def machine(boot: Machines, guest_debs: GuestDebs) -> Machine:
    """A machine with disks of every kind."""
    debs = guest_debs.with_packages("google-compute-engine-oslogin", "google-compute-engine")
    made = boot(debs=debs, scsi=vm_disks.SCSI, nvme=vm_disks.NVME)
    made.settle()
    return made


@pytest.fixture(scope="module")
def nodes(machine: Machine) -> dict[str, str]:
    return vm_disks.nodes(machine)


def queue(machine: Machine, node: str, setting: str) -> str:
    return machine.run(["cat", f"/sys/block/{node}/queue/{setting}"]).stdout.strip()


def test_exactly_the_platforms_disks_have_links_with_their_names(machine: Machine) -> None:
    assert links(machine) == expected_links(machine)


def test_disks_of_others_are_there_without_a_link(machine: Machine, nodes: dict[str, str]) -> None:
    others = {nodes[d] for d in ("scsi foreign", "scsi foreign part1", "root 1", "foreign 1")}
    assert others & set(links(machine).values()) == set()


@pytest.mark.parametrize("nsid", [3, 4, 5, 6], ids=["empty", "path", "cut off", "blank"])
def test_persistent_disk_without_a_good_name_has_no_link(
    machine: Machine, nodes: dict[str, str], nsid: int
) -> None:
    assert nodes[f"persistent {nsid}"] not in links(machine).values()


@pytest.mark.parametrize(
    ("disk", "answer"),
    [
        (
            "persistent 1",
            "ID_SERIAL_SHORT=nv-1\nID_SERIAL=Google_PersistentDisk_nv-1\n",
        ),
        (
            "persistent 1 part1",
            "ID_SERIAL_SHORT=nv-1\nID_SERIAL=Google_PersistentDisk_nv-1\n",
        ),
        (
            "local-3 1",
            "ID_SERIAL_SHORT=local-nvme-ssd-3\nID_SERIAL=Google_EphemeralDisk_local-nvme-ssd-3\n",
        ),
    ],
)
def test_helper_tells_the_name_of_a_disk(
    machine: Machine, nodes: dict[str, str], disk: str, answer: str
) -> None:
    done = machine.run(["/usr/lib/udev/google_nvme_id", "-d", f"/dev/{nodes[disk]}"])
    assert done.stdout.startswith(answer)


@pytest.mark.parametrize("disk", ["persistent 3", "persistent 4", "foreign 1", "scsi data-1"])
def test_helper_fails_and_prints_nothing_for_a_disk_without_a_name(
    machine: Machine, nodes: dict[str, str], disk: str
) -> None:
    done = machine.run(["/usr/lib/udev/google_nvme_id", "-d", f"/dev/{nodes[disk]}"], check=False)
    assert (done.status != 0, done.stdout) == (True, "")
    assert done.stderr.count("\n") == 1


def test_twin_for_the_initramfs_says_the_same_of_every_disk(machine: Machine) -> None:
    twin = TOP / "config/common/usr/lib/dracut/modules.d/30gcp-udev-rules/google_nvme_id"
    machine.write("/run/twin", twin.read_text())
    answers = [
        machine.run(
            f"for node in /dev/nvme*n*; do {program} -d $node 2>/dev/null; echo $node: $?; done"
        ).stdout
        for program in ("/usr/lib/udev/google_nvme_id", "sh /run/twin")
    ]
    assert answers[0] == answers[1]
    assert {"ID_SERIAL_SHORT=nv-1", "GCE_DISK_ALIAS=scratch"} <= set(answers[0].splitlines())


def test_requests_to_persistent_nvme_disks_alone_never_time_out(
    machine: Machine, nodes: dict[str, str]
) -> None:
    timeouts = {
        disk: int(queue(machine, node, "io_timeout"))
        for disk, node in nodes.items()
        if node.startswith("nvme") and "part" not in disk
    }
    endless = {disk for disk, timeout in timeouts.items() if timeout > LONGEST_TIMEOUT - TICK}
    assert endless == {f"persistent {nsid}" for nsid in range(1, 7)}


def test_event_of_a_partition_leaves_the_timeout_of_its_disk(
    machine: Machine, nodes: dict[str, str]
) -> None:
    disk, partition = nodes["persistent 1"], nodes["persistent 1 part1"]
    setting = f"/sys/block/{disk}/queue/io_timeout"
    machine.run(f"echo 30000 >{setting}")
    change(machine, partition)
    assert queue(machine, disk, "io_timeout") == "30000"
    change(machine, disk)
    assert int(queue(machine, disk, "io_timeout")) > LONGEST_TIMEOUT - TICK


def test_later_events_change_no_link(machine: Machine) -> None:
    before = links(machine)
    machine.run("udevadm trigger --subsystem-match=block --action=change")
    machine.settle()
    assert links(machine) == before


def test_link_comes_and_goes_with_a_disk(machine: Machine) -> None:
    disk = ScsiDisk("later", partitions=ONE_PARTITION)
    machine.plug_scsi(disk)
    machine.wait_until(
        lambda: {"google-later", "google-later-part1"} <= set(links(machine)),
        what="the links of a disk that was plugged in",
    )
    machine.unplug_scsi(disk)
    machine.wait_until(
        lambda: not {"google-later", "google-later-part1"} & set(links(machine)),
        what="the links of a disk that was unplugged go away",
    )


def test_local_ssd_tool_spreads_interrupts_and_takes_schedulers_off(
    machine: Machine, nodes: dict[str, str]
) -> None:
    machine.run(f"echo mq-deadline >/sys/block/{nodes['scsi local-ssd-0']}/queue/scheduler")
    persistent = queue(machine, nodes["scsi data-1"], "scheduler")
    for _ in range(2):
        done = machine.run("google_optimize_local_ssd")
        assert len(done.stdout.splitlines() + done.stderr.splitlines()) == 1
        settings = {
            name: queue(machine, nodes["scsi local-ssd-0"], name)
            for name in ("scheduler", "add_random", "rotational", "rq_affinity", "nomerges")
        }
        assert settings == {
            "scheduler": "[none] mq-deadline",
            "add_random": "0",
            "rotational": "0",
            "rq_affinity": "0",
            "nomerges": "1",
        }
        assert queue(machine, nodes["scsi data-1"], "scheduler") == persistent


def test_local_ssd_tool_binds_interrupts_of_local_ssds_alone(machine: Machine) -> None:
    interrupts = command_interrupts(machine)
    assert set(interrupts) == {"root", "persistent", "local", "local-3", "foreign"}
    for irq in interrupts.values():
        machine.run(f"echo 0-1 >/proc/irq/{irq}/smp_affinity_list")
    machine.run("google_optimize_local_ssd")
    bound = {
        serial: machine.read(f"/proc/irq/{irq}/smp_affinity_list").strip()
        for serial, irq in interrupts.items()
    }
    local = [bound.pop("local"), bound.pop("local-3")]
    assert set(local) <= {"0", "1"}
    assert set(bound.values()) == {"0-1"}


def change(machine: Machine, node: str) -> None:
    """A change event of a node, handled."""
    machine.run(f"udevadm trigger --action=change /dev/{node}")
    machine.settle()


def command_interrupts(machine: Machine) -> dict[str, int]:
    """The interrupt of each NVMe controller's commands, by its serial number.

    Those of its queues are managed by the kernel, which lets nobody move them.
    """
    table = machine.read("/proc/interrupts")
    return {
        machine.read(f"/sys/class/nvme/{controller}/serial").strip(): int(irq)
        for irq, controller in re.findall(r"^ *(\d+):.* (nvme\d+)q0$", table, re.MULTILINE)
    }
