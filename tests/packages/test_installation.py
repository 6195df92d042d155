"""What installing, upgrading and removing the packages does to a system, call by call."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.chroot import Chroot
from support.debs import AGENT, LIBRARY, GuestDebs, next_versions

SCRIPT_UNITS = ("google-startup-scripts.service", "google-shutdown-scripts.service")
AGENT_UNIT = "google-guest-agent.service"
TIMER = "gce-workload-cert-refresh.timer"
UNITS = (AGENT_UNIT, TIMER, *SCRIPT_UNITS)
SETTINGS = "/etc/default/instance_configs.cfg"
EDITED = "# edited by hand\n[Accounts]\ngroups = wheel\n"


def jobs(system: Chroot) -> list[str]:
    """The recorded calls that would make a job of a unit, without reloads of systemd itself."""
    return [
        " ".join(word for word in line.split() if not word.startswith("-"))
        for line in system.systemctl_calls()
        if "daemon-reload" not in line
    ]


def test_without_a_running_systemd_units_are_enabled_and_nothing_is_started(
    chroot, guest_debs: GuestDebs
) -> None:
    system = chroot()
    system.install(guest_debs)
    assert {unit: system.is_enabled(unit) for unit in UNITS} == dict.fromkeys(UNITS, "enabled")
    assert system.systemctl_calls() == []


def test_presets_change_nothing_after_the_installation(chroot, guest_debs: GuestDebs) -> None:
    system = chroot(installed=True)
    find = "find /etc/systemd -name '*google*' -o -name '*gce-*' | sort"
    before = system.shell(find)
    system.run(["systemctl", "preset-all"], check=False)
    assert system.shell(find) == before


def test_first_installation_starts_the_agent_and_the_timer_alone(
    chroot, guest_debs: GuestDebs
) -> None:
    system = chroot(recorded_systemctl=True)
    system.install(guest_debs)
    assert jobs(system) == [f"start {AGENT_UNIT}", f"start {TIMER}"]


def test_upgrade_restarts_the_agent_and_the_timer_alone(
    chroot, guest_debs: GuestDebs, tmp_path: Path
) -> None:
    system = chroot(installed=True, recorded_systemctl=True)
    system.install(next_versions(guest_debs, tmp_path))
    assert jobs(system) == [f"restart {AGENT_UNIT}", f"restart {TIMER}"]


def test_return_to_the_version_before_leaves_the_same_state(
    chroot, guest_debs: GuestDebs, tmp_path: Path
) -> None:
    system = chroot(installed=True, recorded_systemctl=True)
    system.install(next_versions(guest_debs, tmp_path))
    system.systemctl_calls()
    system.install(guest_debs, "--force-downgrade")
    assert jobs(system) == [f"restart {AGENT_UNIT}", f"restart {TIMER}"]
    assert {system.is_enabled(unit) for unit in UNITS} == {"enabled"}


def test_removal_stops_the_agent_and_the_timer_alone(chroot, guest_debs: GuestDebs) -> None:
    system = chroot(installed=True, recorded_systemctl=True)
    system.dpkg("--remove", AGENT)
    assert jobs(system) == [f"stop {TIMER}", f"stop {AGENT_UNIT}"]


@pytest.mark.parametrize("operation", ["--remove", "--purge"])
def test_no_operation_touches_a_script_unit(
    chroot, guest_debs: GuestDebs, tmp_path: Path, operation: str
) -> None:
    system = chroot(installed=True, recorded_systemctl=True)
    system.install(guest_debs)
    system.install(next_versions(guest_debs, tmp_path))
    system.dpkg(operation, AGENT)
    assert [job for job in jobs(system) if "scripts" in job] == []


def test_units_that_were_disabled_stay_so_after_an_upgrade(
    chroot, guest_debs: GuestDebs, tmp_path: Path
) -> None:
    system = chroot(installed=True, recorded_systemctl=True)
    system.shell(f"cd /etc/systemd/system; rm {' '.join(f'*.wants/{unit}' for unit in UNITS)}")
    system.install(next_versions(guest_debs, tmp_path))
    assert {unit: system.is_enabled(unit) for unit in UNITS} == dict.fromkeys(UNITS, "disabled")
    assert jobs(system) == []


def test_units_that_were_masked_stay_so_after_an_upgrade(
    chroot, guest_debs: GuestDebs, tmp_path: Path
) -> None:
    system = chroot(installed=True, recorded_systemctl=True)
    for unit in UNITS:
        system.shell(f"ln -s /dev/null /etc/systemd/system/{unit}")
    system.install(next_versions(guest_debs, tmp_path))
    assert {unit: system.is_enabled(unit) for unit in UNITS} == dict.fromkeys(UNITS, "masked")
    assert jobs(system) == []


@pytest.mark.parametrize("last", ["upgrade", "--remove", "--purge"])
def test_settings_that_no_package_owns_stay_byte_for_byte(
    chroot, guest_debs: GuestDebs, tmp_path: Path, last: str
) -> None:
    system = chroot()
    system.write(SETTINGS, EDITED, mode=0o640)
    system.install(guest_debs)
    system.install(next_versions(guest_debs, tmp_path))
    if last != "upgrade":
        system.dpkg(last, AGENT)
    assert system.read(SETTINGS) == EDITED
    assert system.shell(f"stat -c %a {SETTINGS}").strip() == "640"


def test_installation_makes_no_settings(chroot, guest_debs: GuestDebs) -> None:
    system = chroot()
    system.install(guest_debs)
    assert not system.exists(SETTINGS)


def test_state_survives_removal_and_ends_with_purge(chroot, guest_debs: GuestDebs) -> None:
    system = chroot(installed=True)
    system.write("/var/lib/google-guest-agent/state", "remembered")
    system.dpkg("--remove", AGENT)
    assert system.read("/var/lib/google-guest-agent/state") == "remembered"
    system.dpkg("--purge", AGENT)
    assert not system.exists("/var/lib/google-guest-agent")


def test_purge_leaves_the_system_as_it_was(chroot, guest_debs: GuestDebs) -> None:
    system = chroot()
    before = system.files()
    system.install(guest_debs)
    system.dpkg("--purge", AGENT, LIBRARY)
    left = {path for path in system.files() - before if not path.startswith("/var/lib/dpkg/")}
    assert left - {"/var/log/dpkg.log"} == set()
    assert before - system.files() == set()


def test_accounts_and_routes_are_no_business_of_a_removal(chroot, guest_debs: GuestDebs) -> None:
    system = chroot(installed=True)
    system.shell("useradd -m ada")
    accounts = system.read("/etc/passwd")
    system.dpkg("--purge", AGENT)
    assert system.read("/etc/passwd") == accounts


def test_scripts_succeed_on_a_read_only_etc(chroot, guest_debs: GuestDebs, tmp_path: Path) -> None:
    system = chroot(recorded_systemctl=True)
    system.make_etc_read_only()
    system.install(guest_debs)
    system.install(next_versions(guest_debs, tmp_path))
    system.dpkg("--remove", AGENT)
    assert "not-installed" not in system.dpkg("-s", LIBRARY).stdout


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_scripts_respect_dpkg_root(
    chroot, guest_debs: GuestDebs, unpacked: dict[str, Path], script: str
) -> None:
    system = chroot(recorded_systemctl=True)
    system.write("/var/lib/google-guest-agent/state", "of the host")
    system.write("/target/var/lib/google-guest-agent/state", "of the target")
    system.shell(
        "mkdir -p /target/etc/systemd/system/multi-user.target.wants /target/lib/systemd/system"
    )
    system.write(f"/script.{script}", (unpacked[AGENT] / "DEBIAN" / script).read_text(), mode=0o755)
    argument = {"postinst": "configure", "prerm": "remove", "postrm": "purge"}[script]
    before = system.shell("find /etc -type l | sort")
    environment = {
        "DPKG_ROOT": "/target",
        "DPKG_MAINTSCRIPT_PACKAGE": AGENT,
        "DPKG_MAINTSCRIPT_NAME": script,
    }
    done = system.run([f"/script.{script}", argument], environment=environment)
    assert done.status == 0
    assert jobs(system) == []
    assert system.shell("find /etc -type l | sort") == before
    assert system.read("/var/lib/google-guest-agent/state") == "of the host"


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_scripts_are_silent_and_use_no_network_and_no_tmp(
    unpacked: dict[str, Path], script: str
) -> None:
    text = (unpacked[AGENT] / "DEBIAN" / script).read_text()
    lines = [line for line in text.splitlines() if not line.strip().startswith("#")]
    forbidden = ("/tmp", "curl", "wget", "metadata", "169.254", "instance_configs")
    assert [line for line in lines for word in forbidden if word in line] == []


def test_agent_is_installable_without_oslogin(chroot, guest_debs: GuestDebs) -> None:
    system = chroot(installed=True)
    assert system.dpkg("-s", "google-compute-engine-oslogin", check=False).status != 0
    assert system.shell("dpkg --audit") == ""


@pytest.mark.parametrize("unit", [*UNITS, "gce-workload-cert-refresh.service"])
def test_systemd_has_nothing_to_object_to_a_unit(chroot, guest_debs: GuestDebs, unit: str) -> None:
    system = chroot(installed=True)
    done = system.run(["systemd-analyze", "verify", "--man=no", unit], check=False)
    ours = [line for line in done.stderr.splitlines() if "google" in line or "gce-" in line]
    assert ours == []
