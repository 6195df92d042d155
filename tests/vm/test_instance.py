"""An instance with all packages on a kernel of its own: platform, kernel settings, modules, serial
console, queues of its network interface, its name by DHCP, an upgrade.

Its packages were installed before the first boot, which goes through the initial RAM disk that
their installation left.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.debs import next_versions
from support.network import LEASED_NAME
from support.vm import PROCESSORS
from support.vm_image import HOSTNAME, NIC

if TYPE_CHECKING:
    from conftest import Machines
    from support.debs import GuestDebs
    from support.vm import Machine

ALL = ("google-compute-engine-oslogin", "google-compute-engine")
AGENT = "google-guest-agent.service"

SHORT = LEASED_NAME.partition(".")[0]
RENEWED_AFTER = 3
"""Seconds until the client asks again, or a little more."""

# As ifupdown starts it; what the client says would keep the login open.
_NEW_CLIENT = f"""
kill -9 $(cat /run/dhclient.{NIC}.pid)
dhclient -4 -v -i -pf /run/dhclient.{NIC}.pid -lf /var/lib/dhcp/dhclient.{NIC}.leases \\
  -I -df /var/lib/dhcp/dhclient6.{NIC}.leases {NIC} >/run/dhclient.log 2>&1 </dev/null
"""

HARDENED = {
    "net.ipv4.tcp_syncookies": "1",
    "net.ipv4.conf.all.accept_source_route": "0",
    "net.ipv4.conf.default.accept_source_route": "0",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.default.accept_redirects": "0",
    "net.ipv4.conf.all.secure_redirects": "1",
    "net.ipv4.conf.default.secure_redirects": "1",
    "net.ipv4.ip_forward": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.all.rp_filter": "1",
    "net.ipv4.conf.default.rp_filter": "1",
    "net.ipv4.icmp_echo_ignore_broadcasts": "1",
    "net.ipv4.icmp_ignore_bogus_error_responses": "1",
    "net.ipv4.conf.all.log_martians": "1",
    "net.ipv4.conf.default.log_martians": "1",
    "kernel.randomize_va_space": "2",
    "kernel.panic": "10",
}


@pytest.fixture(scope="module")
def debs(guest_debs: GuestDebs) -> tuple[Path, ...]:
    return guest_debs.with_packages(*ALL)


@pytest.fixture(scope="module")
def machine(boot: Machines, debs: tuple[Path, ...]) -> Machine:
    made = boot(debs=debs, snapshots=True)
    made.snapshot()
    return made


def kernel_settings(machine: Machine) -> dict[str, str]:
    """The values in force of the settings that the package makes."""
    lines = machine.run(["sysctl", *HARDENED]).stdout.splitlines()
    return {
        name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)
    }


def console_lines(machine: Machine, mark: str) -> list[str]:
    """Lines of the serial console with a mark, once everything said before now is there."""
    last = uuid.uuid4().hex
    machine.run(["logger", "--tag", "google_last", last])
    machine.wait_until(lambda: last in machine.serial(), what="a line on the serial console")
    return [line for line in machine.serial().splitlines() if mark in line]


def test_machine_is_an_instance_of_the_platform(machine: Machine) -> None:
    assert machine.run("systemd-detect-virt").stdout == "google\n"


def test_agent_is_ready_and_no_unit_failed(machine: Machine) -> None:
    assert machine.failed_units() == ()
    assert machine.unit_property(AGENT, "SubState") == "running"
    assert machine.unit_property(AGENT, "Type") == "notify"
    assert machine.system_state() == "running"
    assert machine.mds.requests() != []


def test_every_kernel_setting_is_in_force_after_boot(machine: Machine) -> None:
    assert kernel_settings(machine) == HARDENED


def test_interface_filters_strictly_as_the_settings_say(machine: Machine) -> None:
    machine.run("ip link add guest-test type dummy")
    try:
        shown = machine.run("sysctl -n net.ipv4.conf.guest-test.rp_filter").stdout
    finally:
        machine.run("ip link delete guest-test")
    assert shown == "1\n"


def test_blacklisted_modules_are_not_loaded_for_devices(machine: Machine) -> None:
    # The cloud kernel has neither, so another module is there under their names.
    names = ("floppy", "nouveau")
    aliases = "".join(f"alias guest-test-{name} {name}\n" for name in names)
    machine.write("/run/modprobe.d/guest-test.conf", aliases)
    machine.run("mkdir /lib/modules/$(uname -r)/extra")
    for name in names:
        machine.run(
            f"cd /lib/modules/$(uname -r) && cp kernel/drivers/net/dummy.ko extra/{name}.ko"
        )
    machine.run("depmod")
    for name in names:
        by_name, for_device = (
            machine.run(["modprobe", "--dry-run", "--verbose", asked]).stdout
            for asked in (name, f"guest-test-{name}")
        )
        assert f"/extra/{name}.ko" in by_name
        assert for_device == ""


def test_machine_booted_through_an_initial_ram_disk_with_our_settings(machine: Machine) -> None:
    said = machine.run("journalctl --boot --dmesg --no-pager --output=cat").stdout
    assert "Freeing initrd memory" in said
    held = machine.run("lsinitramfs /boot/initrd.img-$(uname -r)").stdout.splitlines()
    assert "etc/modprobe.d/gce-blacklist.conf" in held


def test_message_of_a_google_program_reaches_the_serial_console_once(machine: Machine) -> None:
    mark = uuid.uuid4().hex
    machine.run(["logger", "--tag", "google_test", "--priority", "daemon.info", mark])
    (line,) = console_lines(machine, mark)
    assert "google_test" in line


@pytest.mark.parametrize("tag", ["someone", "my_google_test"])
def test_message_of_another_program_stays_off_the_serial_console(
    machine: Machine, tag: str
) -> None:
    mark = uuid.uuid4().hex
    machine.run(["logger", "--tag", tag, "--priority", "daemon.err", mark])
    assert console_lines(machine, mark) == []


@pytest.mark.parametrize(("level", "lines"), [(3, 1), (6, 0)], ids=["error", "information"])
def test_kernel_message_is_not_copied_to_the_serial_console(
    machine: Machine, level: int, lines: int
) -> None:
    # The kernel itself prints errors there, and information not after a boot with "quiet".
    mark = uuid.uuid4().hex
    machine.run(f"echo '<{level}>{mark}' >/dev/kmsg")
    assert len(console_lines(machine, mark)) == lines


def test_line_of_the_agent_reaches_the_serial_console_once(machine: Machine) -> None:
    console_lines(machine, "")
    before = len(machine.serial())
    machine.run(["systemctl", "restart", AGENT])
    said = machine.run(["journalctl", "--identifier=google_guest_agent", "--output=cat", "-n1"])
    mark = said.stdout.strip()
    console_lines(machine, mark)
    assert machine.serial()[before:].count(mark) == 1


def test_log_service_has_no_complaint(machine: Machine) -> None:
    console_lines(machine, "")
    said = machine.run("journalctl --boot --no-pager --output=cat --unit=rsyslog").stdout
    assert [line for line in said.splitlines() if "error" in line.lower()] == []


def test_queues_of_the_network_interface_are_served_by_their_processors(machine: Machine) -> None:
    irqs = network_interrupts(machine)
    assert sorted(irqs) == [
        f"{direction}.{queue}" for direction in ("input", "output") for queue in range(PROCESSORS)
    ]
    for name, irq in irqs.items():
        wrong = (int(name[-1]) + 1) % PROCESSORS
        machine.run(f"echo {wrong} >/proc/irq/{irq}/smp_affinity_list")
    for _ in range(2):
        machine.run("google_set_multiqueue")
        served_by = {
            name: machine.read(f"/proc/irq/{irq}/smp_affinity_list").strip()
            for name, irq in irqs.items()
        }
        assert served_by == {name: name[-1] for name in irqs}


def test_agent_ran_the_queue_tools_without_a_failure(machine: Machine) -> None:
    said = machine.run(["journalctl", "--boot", "--identifier=google_guest_agent", "--output=cat"])
    for tool in ("google_set_multiqueue", "google_optimize_local_ssd"):
        lines = [line for line in said.stdout.splitlines() if tool in line]
        assert [bool(re.search("cannot|fail|missing", line)) for line in lines] == [False]


def network_interrupts(machine: Machine) -> dict[str, int]:
    """The interrupts of the network interface's queues: `input.0`, `output.0`, ..."""
    device = machine.run("basename $(readlink /sys/class/net/ens4/device)").stdout.strip()
    table = machine.read("/proc/interrupts")
    found = re.findall(rf"^ *(\d+):.* {device}-((?:in|out)put\.\d+)$", table, re.MULTILINE)
    return {name: int(irq) for irq, name in found}


@pytest.fixture
def leased(machine: Machine) -> Iterator[Machine]:
    """The machine as it was after its boot; the DHCP server gives the usual name afterwards."""
    machine.restore()
    yield machine
    machine.serve_dhcp()


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
    """Start the DHCP client anew; returns when it has a lease and its hooks have ended."""
    machine.run(_NEW_CLIENT, timeout=60)
    assert "bound to" in machine.read("/run/dhclient.log")


def test_first_lease_names_the_machine(leased: Machine) -> None:
    assert names(leased) == {"kernel": SHORT, "static": SHORT, "full": LEASED_NAME}


def test_first_lease_adds_two_lines_to_the_hosts(leased: Machine) -> None:
    assert host_lines(leased) == [
        "127.0.0.1 localhost",
        f"127.0.1.1 {HOSTNAME}",
        "::1 localhost ip6-localhost",
        f"{leased.nics[0].address} {LEASED_NAME} {SHORT}  # Added by Google",
        "169.254.169.254 metadata.google.internal  # Added by Google",
    ]


def test_renewals_change_nothing(leased: Machine) -> None:
    leased.serve_dhcp(renew_after=RENEWED_AFTER)
    lease_again(leased)
    state = "stat -c '%i %Y %Z' /etc/hosts /etc/hostname; systemctl show -p MainPID rsyslog"
    before = (leased.run(state).stdout, names(leased))
    acknowledged = acknowledgements(leased)
    # The hooks of a renewal have ended when the client asks for the next one.
    leased.wait_until(
        lambda: acknowledgements(leased) >= acknowledged + 3, 60, "three renewals of the lease"
    )
    assert (leased.run(state).stdout, names(leased)) == before


def test_name_that_the_administrator_made_full_stays_full(leased: Machine) -> None:
    leased.run(["hostnamectl", "hostname", LEASED_NAME])
    lease_again(leased)
    assert names(leased) == {"kernel": LEASED_NAME, "static": LEASED_NAME, "full": LEASED_NAME}


def test_lease_with_another_name_renames_the_machine(leased: Machine) -> None:
    leased.serve_dhcp("other.c.test-project.internal")
    lease_again(leased)
    assert names(leased)["kernel"] == "other"
    ours = [line for line in host_lines(leased) if line.endswith("# Added by Google")]
    assert ours[0] == (
        f"{leased.nics[0].address} other.c.test-project.internal other  # Added by Google"
    )
    assert len(ours) == 2


@pytest.mark.parametrize("name", ["metadata.google.internal", "Metadata.Google.Internal", "a b;c"])
def test_lease_with_a_name_that_nobody_may_have_changes_nothing(leased: Machine, name: str) -> None:
    before = (names(leased), host_lines(leased))
    leased.serve_dhcp(name)
    lease_again(leased)
    assert (names(leased), host_lines(leased)) == before


def acknowledgements(machine: Machine) -> int:
    """How many leases and renewals the DHCP server has granted."""
    return sum("DHCPACK" in line for line in machine.dhcp_log())


# The last test: it replaces the packages.
def test_upgrade_leaves_a_setting_that_a_router_made_at_run_time(
    machine: Machine, debs: tuple[Path, ...], tmp_path: Path
) -> None:
    machine.run("sysctl -w net.ipv4.ip_forward=1")
    (deb,) = (deb for deb in debs if deb.name.startswith("google-compute-engine_"))
    machine.copy(next_versions([deb], tmp_path), "/var/tmp/newer")
    # The others change nothing here, and take a minute in an emulated processor.
    others = "--ignore-depends=python3-google-guest"
    machine.run(f"dpkg {others} --install /var/tmp/newer/*.deb", timeout=180)
    version = machine.run("dpkg-query -W -f '${Version}' google-compute-engine").stdout
    assert version.endswith("-2")
    assert kernel_settings(machine) == {**HARDENED, "net.ipv4.ip_forward": "1"}
    assert machine.failed_units() == ()
