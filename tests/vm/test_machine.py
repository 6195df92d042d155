"""The machines of this tier themselves: what they show, what they go back to, what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import sweep, tiers, vm
from support.network import namespaces
from support.vm_devices import IdentityError, NvmeController, identify

if TYPE_CHECKING:
    from conftest import Machines
    from support.debs import GuestDebs
    from support.vm import Machine

ON_GOOGLE = (
    "import sys; sys.path.insert(0, '/usr/lib/python3/dist-packages')\n"
    "from google_guest.system import System\n"
    "from google_guest.system.firmware import is_compute_engine\n"
    "print(is_compute_engine(System().files))\n"
)


@pytest.fixture(scope="module")
def elsewhere(boot: Machines, guest_debs: GuestDebs) -> Machine:
    """A machine with the agent whose firmware names nobody, with a snapshot."""
    machine = boot(debs=guest_debs, on_google=False, snapshots=True)
    machine.snapshot()
    return machine


# This test comes first: while a machine runs, no other one gets its turn.
def test_killed_owner_leaves_no_process_and_the_rest_is_swept() -> None:
    script = (
        "import signal\n"
        "from support import vm\n"
        "def wait(machine, began):\n"
        "    print(machine.name, flush=True)\n"
        "    signal.pause()\n"
        "vm.Machine._await_login_offer = wait\n"
        "vm.Machine().start()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tiers.TESTS)},
    )
    assert owner.stdout is not None
    name = owner.stdout.readline().strip()
    cgroup = sweep.cgroup_root() / name
    (qemu,) = (cgroup / "cgroup.procs").read_text().split()
    assert Path(f"/proc/{qemu}/comm").read_text().startswith("qemu-system")
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{qemu}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{qemu}").exists()
    with sweep.registry_lock():
        sweep.sweep()
    assert (cgroup.exists(), namespaces(name), (sweep.BEDS / name).exists()) == (False, (), False)


def test_lacking_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "_PROGRAMS", ("sh", "qemu-system-none"))
    assert vm.machine_problems() == ("program qemu-system-none",)


def test_identity_that_is_not_found_is_an_error() -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(IdentityError, match="0 places"):
            identify(bystander.pid, [NvmeController("absent", "nvme_card")])
    finally:
        bystander.kill()
        bystander.wait()


def test_firmware_of_another_platform_is_not_taken_for_ours(elsewhere: Machine) -> None:
    assert elsewhere.run(["/usr/bin/python3", "-IS", "-c", ON_GOOGLE]).stdout == "False\n"
    assert elsewhere.run("systemd-detect-virt", check=False).stdout == "qemu\n"


def test_agent_asks_nobody_for_metadata_on_another_platform(elsewhere: Machine) -> None:
    elsewhere.run(["systemctl", "restart", "google-guest-agent.service"], check=False)
    assert elsewhere.mds.requests() == []


def test_snapshot_gives_back_files_and_a_working_login_in_ten_seconds(elsewhere: Machine) -> None:
    for _ in range(2):
        began = time.monotonic()
        elsewhere.restore()
        elsewhere.run("true")
        assert time.monotonic() - began < 10
        elsewhere.run("test ! -e /root/traces && touch /root/traces && sync")


def test_restored_machine_has_the_time_of_day(elsewhere: Machine) -> None:
    elsewhere.restore()
    assert abs(float(elsewhere.run("date +%s.%N").stdout) - time.time()) < 2


def test_power_button_ends_the_machine_cleanly(elsewhere: Machine) -> None:
    elsewhere.restore()
    elsewhere.run("echo before-the-power-off >/dev/ttyS0")
    elsewhere.poweroff()
    assert not elsewhere.running
    assert "before-the-power-off" in elsewhere.serial()
