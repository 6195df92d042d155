"""An instance with all packages on a kernel of its own: platform, kernel settings, modules, serial
console, queues of its network interface, an upgrade.

Its packages were installed before the first boot, which goes through the initial RAM disk that
their installation left.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.debs import next_versions
from support.vm import PROCESSORS

if TYPE_CHECKING:
    from conftest import Machines
    from support.debs import GuestDebs
    from support.vm import Machine

ALL = ("google-compute-engine-oslogin", "google-compute-engine")
AGENT = "google-guest-agent.service"

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
    return boot(debs=debs, initrd=True)


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


def test_agent_runs_the_queue_tools_at_its_start(machine: Machine) -> None:
    said = machine.journal(AGENT)
    for tool in ("google_set_multiqueue", "google_optimize_local_ssd"):
        assert not re.search(f"{tool}.*(fail|not found|missing)", said)
    irq = network_interrupts(machine)["input.1"]
    machine.run(f"echo 0 >/proc/irq/{irq}/smp_affinity_list")
    machine.run(["systemctl", "restart", AGENT])
    machine.wait_until(
        lambda: machine.read(f"/proc/irq/{irq}/smp_affinity_list").strip() == "1",
        what="the agent gives the queue to its processor",
    )


def network_interrupts(machine: Machine) -> dict[str, int]:
    """The interrupts of the network interface's queues: `input.0`, `output.0`, ..."""
    device = machine.run("basename $(readlink /sys/class/net/ens4/device)").stdout.strip()
    table = machine.read("/proc/interrupts")
    found = re.findall(rf"^ *(\d+):.* {device}-((?:in|out)put\.\d+)$", table, re.MULTILINE)
    return {name: int(irq) for irq, name in found}


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
