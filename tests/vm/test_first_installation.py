"""The first installation on a running machine: what is in force at once, without a boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.vm_devices import ScsiDisk

if TYPE_CHECKING:
    from conftest import Machines
    from support.debs import GuestDebs
    from support.vm import Machine

SETTINGS = ("net.ipv4.ip_forward", "net.ipv4.conf.all.log_martians", "kernel.panic")
LINKS = "cd /dev/disk/by-id && ls -d google-* 2>/dev/null"


@pytest.fixture(scope="module")
def machine(boot: Machines, guest_debs: GuestDebs) -> Machine:
    """A machine with the agent alone, on which the package was installed while it ran."""
    made = boot(
        debs=guest_debs.with_packages("google-compute-engine-oslogin"), scsi=[ScsiDisk("a")]
    )
    made.run("sysctl -w net.ipv4.ip_forward=1")
    before = made.run(["sysctl", "-n", *SETTINGS]).stdout.split()
    # Without the package nothing of this is so: the tests below could fail.
    assert before[0] == "1"
    assert before[1:] != ["1", "10"]
    assert made.run(LINKS, check=False).stdout == ""
    made.copy(guest_debs.named("google-compute-engine"), "/var/tmp/debs")
    made.run("dpkg --install /var/tmp/debs/*.deb", timeout=180)
    return made


def test_kernel_settings_are_in_force_at_once(machine: Machine) -> None:
    assert machine.run(["sysctl", "-n", *SETTINGS]).stdout.split() == ["0", "1", "10"]


def test_disk_plugged_in_afterwards_has_its_link(machine: Machine) -> None:
    machine.plug_scsi(ScsiDisk("later"))
    machine.wait_until(
        lambda: "google-later\n" in machine.run(LINKS, check=False).stdout,
        what="the link of a disk that was plugged in",
    )


def test_message_of_a_google_program_reaches_the_console_after_the_log_service_starts_again(
    machine: Machine,
) -> None:
    machine.run("systemctl restart rsyslog && logger --tag google_test first-installation")
    machine.wait_until(
        lambda: "first-installation" in machine.serial(), what="a line on the serial console"
    )


def test_no_unit_failed(machine: Machine) -> None:
    assert machine.failed_units() == ()
