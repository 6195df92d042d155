"""Debian 13 on its own kernel: disks whose nodes are numbered in another order than their
namespaces, and a log service that sees no devices unless it is told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import tiers, vm
from support.debs import built_debs
from support.vm_disks import NVME, SCSI, expected_links, links

if TYPE_CHECKING:
    from conftest import Machines
    from support.vm import Machine


@pytest.fixture(scope="module")
def machine(boot: Machines) -> Machine:
    """A machine with all packages of Debian 13 and disks of every kind."""
    problems = vm.machine_problems("trixie")
    if problems:
        (pytest.fail if tiers.in_ci() else pytest.skip)("; ".join(problems))
    debs = built_debs(target="debian13").with_packages(
        "google-compute-engine-oslogin", "google-compute-engine", "gce-configs-trixie"
    )
    made = boot(suite="trixie", debs=debs, scsi=SCSI, nvme=NVME)
    made.settle()
    return made


def test_agent_is_ready_and_no_unit_failed(machine: Machine) -> None:
    assert machine.unit_property("google-guest-agent.service", "SubState") == "running"
    assert machine.failed_units() == ()


def test_links_follow_namespaces_and_not_the_numbers_in_nodes(machine: Machine) -> None:
    assert links(machine) == expected_links(machine)


def test_message_of_a_google_program_reaches_the_serial_console(machine: Machine) -> None:
    machine.run(["logger", "--tag", "google_test", "through-the-hidden-devices"])
    machine.wait_until(
        lambda: "through-the-hidden-devices" in machine.serial(),
        what="a line on the serial console",
    )


def test_log_service_sees_no_other_device(machine: Machine) -> None:
    # The clock comes with Debian's own ProtectClock.
    rules = machine.unit_property("rsyslog.service", "DeviceAllow").splitlines()
    assert set(rules) <= {"/dev/console rw", "char-rtc r"}
    assert machine.unit_property("rsyslog.service", "DevicePolicy") == "closed"


def test_login_through_the_browser_finds_its_key_exchange(machine: Machine) -> None:
    offered = machine.run("sshd -T | sed -n 's/^kexalgorithms //p'").stdout.strip().split(",")
    assert {"diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha256"} <= set(offered)
    assert "curve25519-sha256" in offered
