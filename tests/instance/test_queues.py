"""google_set_multiqueue, google_optimize_local_ssd and gce-nic-naming as packages install them, in
booted instances.

The programs are run on a tree that looks like another machine, and by the agent on interrupts that
are the instance's alone: those of the host are nobody's business here.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.agent_service import AGENT, INFO, SETTLED, log_lines
from support.bed import Bed
from support.debs import OSLOGIN, GuestDebs
from support.documents import instance_document
from support.machine_trees import MLX5, FakeSysfs

MACHINE = "/var/tmp/machine"
DROP_IN = f"/etc/systemd/system/{AGENT}.d/interrupts.conf"
AT_READY = "/var/tmp/at-ready"
GVNIC_IRQ = "/proc/irq/20"
SERVER = "GOOGLE_SET_MULTIQUEUE_METADATASERVER=169.254.169.254"

Boot = Callable[..., Bed]


@pytest.fixture
def boot(bed: Boot, guest_debs: GuestDebs) -> Boot:
    """Boot an instance with the agent and the system configuration."""

    def booted(**description: object) -> Bed:
        debs = guest_debs.with_packages(OSLOGIN, "google-compute-engine")
        return bed(debs=debs, metadata=instance_document(), **description)

    return booted


def test_agent_sets_queues_up_before_it_is_ready(boot: Boot) -> None:
    guest = boot(
        files={
            **SETTLED,
            f"{MACHINE}{GVNIC_IRQ}/smp_affinity": "3\n",
            f"{MACHINE}{GVNIC_IRQ}/affinity_hint": "2\n",
            f"{MACHINE}{GVNIC_IRQ}/gve-ntfy-block.0@pci:0000:00:04.0/none": "",
            DROP_IN: (
                "[Service]\n"
                f"BindPaths={MACHINE}/proc/irq:/proc/irq\n"
                f"ExecStartPost=/bin/cp {GVNIC_IRQ}/smp_affinity {AT_READY}\n"
            ),
        }
    )
    guest.wait_until(lambda: guest.path(AT_READY).exists(), what="the agent is ready")
    assert guest.path(AT_READY).read_text() == "00000002"
    about = [line for line in log_lines(guest) if "google_set_multiqueue" in line.text]
    assert about
    assert {line.priority for line in about} == {INFO}


def test_programs_of_the_package_on_an_accelerator_machine(boot: Boot) -> None:
    guest = boot(files=dict(SETTLED))
    machine = FakeSysfs(guest.path(MACHINE))
    machine.processors("0-207", "0-51,104-155", "52-103,156-207")
    irqs = machine.gvnic("eth0", "0000:06:00.0", queues=16)
    machine.nvme("nvme0", "0000:07:00.0", "nvme_card", [machine.irq("nvme0q0")])
    gpus = machine.pci("0000:88:00.0/0000:89:00.0", identity="10de:2330")
    nic = machine.pci("0000:88:00.0/0000:8a:00.0", identity="15b3:101e", driver=MLX5)
    devpath = machine.interface("eth1", nic)[len("/sys") :]
    assert gpus
    guest.mds.set("instance/machine-type", "projects/1/machineTypes/a3-highgpu-8g")

    before = machine.contents()
    planned = guest.run(f"{SERVER} google_set_multiqueue --dry-run --root {MACHINE}").stdout
    assert f"/proc/irq/{irqs[0]}/smp_affinity_list: 0-1 -> 1\n" in planned
    assert machine.contents() == before

    done = guest.run(f"{SERVER} google_set_multiqueue --root {MACHINE}")
    assert done.stdout.startswith("google_set_multiqueue: 48 settings changed")
    assert machine.served_by(irqs[:3]) == ["1", "2", "3"]
    assert machine.read("/sys/class/net/eth0/queues/tx-15/xps_cpus").startswith("0000fff8,")

    done = guest.run(f"google_optimize_local_ssd --root {MACHINE}")
    assert done.stdout.startswith("google_optimize_local_ssd: 1 setting changed")

    named = guest.run(f"DEVPATH={devpath} SUBSYSTEM=net gce-nic-naming --root {MACHINE}")
    assert named.stdout == "gpu0rdma0\n"


def test_machine_without_such_hardware_is_left_as_it_is(boot: Boot) -> None:
    guest = boot(files=dict(SETTLED))
    done = guest.run("DEVPATH=/devices/virtual/net/lo SUBSYSTEM=net gce-nic-naming", check=False)
    assert (done.status, done.stdout) == (1, "")
    said = guest.run("journalctl --no-pager -q -b -o cat -t gce-nic-naming").stdout
    assert said == "there is no network device that is named here\n"
    done = guest.run("google_optimize_local_ssd")
    assert done.stdout == (
        "google_optimize_local_ssd: 0 settings changed, 0 as they should be,"
        " 0 kept by the kernel, 0 failed\n"
    )


ON_A_REAL_LINK = """
import array, sys
sys.path += ["/usr/share/google-compute-engine", "/usr/lib/python3/dist-packages"]
from system_config.ethtool import GET_CHANNELS, SET_CHANNELS, Driver, exchange
from system_config.link_names import rename_link

rename_link("pair0", "eth7tmp")
words = array.array("I", [GET_CHANNELS] + [0] * 8)
exchange("eth7tmp", words)
words[0], words[6] = SET_CHANNELS, 2
exchange("eth7tmp", words)
exchange("pair1", array.array("I", [GET_CHANNELS] + [0] * 8))
for refused in (lambda: rename_link("eth7tmp", "pair1"), Driver("eth7tmp").rings):
    try:
        refused()
    except OSError as error:
        print(error.strerror)
"""


def test_kernel_renames_links_that_are_up_and_takes_their_queues(boot: Boot) -> None:
    guest = boot(files=dict(SETTLED))
    guest.run(
        "ip link add pair0 numtxqueues 4 numrxqueues 4 type veth peer name pair1 numtxqueues 4"
        " numrxqueues 4 && ip link set pair0 up && ip link set pair1 up"
    )
    done = guest.run(["python3", "-IS", "-c", ON_A_REAL_LINK])
    assert done.stdout == "File exists\nOperation not supported\n"
    shown = guest.run("ip -o link show dev eth7tmp").stdout
    assert "UP" in shown.partition("<")[2].partition(">")[0].split(",")
    assert len(guest.run("ls -d /sys/class/net/eth7tmp/queues/tx-*").stdout.split()) == 2
