"""The host name by DHCP: a real lease, its renewals, and names that nobody may have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.network import LEASED_NAME
from support.vm_image import HOSTNAME, NIC

if TYPE_CHECKING:
    from conftest import Machines
    from support.debs import GuestDebs
    from support.vm import Machine

SHORT = LEASED_NAME.partition(".")[0]
RENEWED_AFTER = 3
"""Seconds until the client asks again, or a little more."""

# As ifupdown starts it; what the client says would keep the login open.
_NEW_CLIENT = f"""
kill -9 $(cat /run/dhclient.{NIC}.pid)
dhclient -4 -v -i -pf /run/dhclient.{NIC}.pid -lf /var/lib/dhcp/dhclient.{NIC}.leases \\
  -I -df /var/lib/dhcp/dhclient6.{NIC}.leases {NIC} >/run/dhclient.log 2>&1 </dev/null
"""


@pytest.fixture(scope="module")
def booted(boot: Machines, guest_debs: GuestDebs) -> Machine:
    """A machine that had its first lease while it booted."""
    debs = guest_debs.with_packages("google-compute-engine-oslogin", "google-compute-engine")
    machine = boot(debs=debs, snapshots=True)
    machine.snapshot()
    return machine


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The machine as it was after its boot; the DHCP server gives the usual name afterwards."""
    booted.restore()
    yield booted
    booted.serve_dhcp()


def names(machine: Machine) -> dict[str, str]:
    """The kernel's name, the kept one and the full one."""
    return {
        "kernel": machine.run("hostname").stdout.strip(),
        "static": machine.read("/etc/hostname").strip(),
        "full": machine.run("hostname -f").stdout.strip(),
    }


def host_lines(machine: Machine) -> list[str]:
    return machine.read("/etc/hosts").splitlines()


def lease_again(machine: Machine) -> None:
    machine.run(_NEW_CLIENT, timeout=60)


def test_first_lease_names_the_machine(machine: Machine) -> None:
    assert names(machine) == {"kernel": SHORT, "static": SHORT, "full": LEASED_NAME}


def test_first_lease_adds_two_lines_to_the_hosts(machine: Machine) -> None:
    assert host_lines(machine) == [
        "127.0.0.1 localhost",
        f"127.0.1.1 {HOSTNAME}",
        "::1 localhost ip6-localhost",
        f"{machine.nics[0].address} {LEASED_NAME} {SHORT}  # Added by Google",
        "169.254.169.254 metadata.google.internal  # Added by Google",
    ]


def test_renewals_change_nothing(machine: Machine) -> None:
    machine.serve_dhcp(renew_after=RENEWED_AFTER)
    lease_again(machine)
    state = "stat -c '%i %Y %Z' /etc/hosts /etc/hostname; systemctl show -p MainPID rsyslog"
    before = (machine.run(state).stdout, names(machine))
    acknowledged = acknowledgements(machine)
    # The hooks of a renewal have ended when the client asks for the next one.
    machine.wait_until(
        lambda: acknowledgements(machine) >= acknowledged + 3, 60, "three renewals of the lease"
    )
    assert (machine.run(state).stdout, names(machine)) == before


def test_name_that_the_administrator_made_full_stays_full(machine: Machine) -> None:
    machine.run(["hostnamectl", "hostname", LEASED_NAME])
    lease_again(machine)
    assert names(machine) == {"kernel": LEASED_NAME, "static": LEASED_NAME, "full": LEASED_NAME}


def test_lease_with_another_name_renames_the_machine(machine: Machine) -> None:
    machine.serve_dhcp("other.c.test-project.internal")
    lease_again(machine)
    assert names(machine)["kernel"] == "other"
    ours = [line for line in host_lines(machine) if line.endswith("# Added by Google")]
    assert ours[0] == (
        f"{machine.nics[0].address} other.c.test-project.internal other  # Added by Google"
    )
    assert len(ours) == 2


@pytest.mark.parametrize("name", ["metadata.google.internal", "Metadata.Google.Internal", "a b;c"])
def test_lease_with_a_name_that_nobody_may_have_changes_nothing(
    machine: Machine, name: str
) -> None:
    before = (names(machine), host_lines(machine))
    machine.serve_dhcp(name)
    lease_again(machine)
    assert (names(machine), host_lines(machine)) == before


def test_network_works_after_a_lease_with_a_refused_name(machine: Machine) -> None:
    machine.serve_dhcp("metadata.google.internal")
    lease_again(machine)
    addresses = machine.run(["ip", "-4", "-brief", "address", "show", NIC]).stdout
    assert machine.nics[0].address in addresses
    assert "bound to" in machine.read("/run/dhclient.log")


def acknowledgements(machine: Machine) -> int:
    return sum("DHCPACK" in line for line in machine.dhcp_log())
