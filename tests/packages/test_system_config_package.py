"""The package of the system configuration: what it holds, says, and does when it is installed.

What its files and programs do has tests of its own; what other distributions' packages hold is in
test_suites.py, taking over from earlier packages in test_migration.py.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from release import TOP, version
from support.chroot import Chroot
from support.debs import AGENT, CONFIGS, LIBRARY, OSLOGIN, GuestDebs, next_versions

SETTINGS = "/etc/sysctl.d/60-gce-network-security.conf"
PROGRAMS = {
    "/usr/bin/gce-nic-naming",
    "/usr/bin/google_optimize_local_ssd",
    "/usr/bin/google_set_hostname",
    "/usr/bin/google_set_multiqueue",
    "/usr/lib/udev/google_nvme_id",
}
CONFFILES = {
    "/etc/NetworkManager/dispatcher.d/google_hostname.sh",
    "/etc/apt/apt.conf.d/01autoremove-gce",
    "/etc/dhcp/dhclient-exit-hooks.d/google_set_hostname",
    "/etc/modprobe.d/gce-blacklist.conf",
    "/etc/rsyslog.d/90-google.conf",
    SETTINGS,
}
OTHERS = {
    "/usr/lib/networkd-dispatcher/routable.d/google_hostname.sh",
    "/usr/lib/systemd/resolved.conf.d/10-gce.conf",
    "/usr/lib/udev/rules.d/65-gce-disk-naming.rules",
    "/usr/lib/udev/rules.d/75-gce-network.rules",
}
BEFORE_US = {
    "google-compute-daemon",
    "google-compute-engine-init-jessie",
    "google-compute-engine-init-stretch",
    "google-compute-engine-jessie",
    "google-compute-engine-stretch",
    "google-config-jessie",
    "google-config-stretch",
    "google-startup-scripts",
}
RECORDED = (
    "/lib/systemd/systemd-sysctl",
    "/usr/bin/udevadm",
    "/usr/sbin/sysctl",
    "/usr/sbin/sshd",
    "/usr/sbin/update-initramfs",
)
REBUILD = "update-initramfs -u -k all"
Make = Callable[..., Chroot]


@pytest.fixture(scope="module")
def package(unpacked: dict[str, Path]) -> Path:
    return unpacked[CONFIGS]


@pytest.fixture(scope="module")
def relations(guest_debs: GuestDebs) -> dict[str, list[str]]:
    names = ("Depends", "Recommends", "Suggests", "Provides", "Conflicts", "Breaks", "Replaces")
    found = {}
    for name in names:
        command = ["dpkg-deb", "-f", guest_debs.packages[CONFIGS], name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = [part.strip() for part in done.stdout.split(",") if part.strip()]
    return found


def packed(package: Path, *, outside: tuple[str, ...]) -> set[str]:
    paths = {
        "/" + str(path.relative_to(package)) for path in package.rglob("*") if not path.is_dir()
    }
    return {path for path in paths if not path.startswith(outside)}


# What it holds and says.


def test_files_are_those_of_debian(package: Path) -> None:
    found = packed(package, outside=("/DEBIAN/", "/usr/share/"))
    assert found == PROGRAMS | CONFFILES | OTHERS


def test_what_lies_in_etc_is_the_administrators(package: Path) -> None:
    assert set((package / "DEBIAN/conffiles").read_text().split()) == CONFFILES


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_program_has_a_manual_page(package: Path, program: str) -> None:
    assert (package / "usr/share/man/man8" / f"{Path(program).name}.8.gz").exists()


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_program_is_isolated_and_finds_the_packages_own_modules(
    package: Path, program: str
) -> None:
    lines = (package / program.lstrip("/")).read_text().splitlines()
    assert lines[0] == "#!/usr/bin/python3 -IS"
    assert [line for line in lines if "sys.path" in line] == [
        'sys.path += ["/usr/share/google-compute-engine", "/usr/lib/python3/dist-packages"]'
    ]


def test_modules_are_those_of_the_tree(package: Path) -> None:
    packed_modules = {
        path.name for path in (package / "usr/share/google-compute-engine/system_config").iterdir()
    }
    assert packed_modules == {path.name for path in (TOP / "src/system_config").glob("*.py")}


def test_every_program_that_a_file_names_is_in_the_package(package: Path) -> None:
    named = set()
    for path in (*CONFFILES, *OTHERS):
        text = (package / path.lstrip("/")).read_text()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        named |= set(re.findall(r"/usr/(?:bin|lib/udev)/g[\w-]+", "\n".join(lines)))
    assert "/usr/bin/google_set_hostname" in named
    assert named <= PROGRAMS


def test_it_needs_the_agent_os_login_and_exactly_its_library(
    relations: dict[str, list[str]],
) -> None:
    depends = set(relations["Depends"])
    assert {OSLOGIN, AGENT, "nvme-cli", f"{LIBRARY} (= {version()}-1)"} <= depends
    foreign = {r for r in depends if not r.startswith(("python3", "google-", "nvme-cli"))}
    assert foreign == set()


def test_a_system_log_is_only_recommended(relations: dict[str, list[str]]) -> None:
    assert relations["Recommends"] == ["rsyslog | system-log-daemon"]
    assert relations["Suggests"] == []


def test_it_takes_the_place_of_eight_earlier_packages(relations: dict[str, list[str]]) -> None:
    assert set(relations["Breaks"]) == set(relations["Replaces"]) == BEFORE_US


def test_it_is_no_irqbalance_and_bears_none_beside_it(relations: dict[str, list[str]]) -> None:
    assert relations["Conflicts"] == ["irqbalance"]
    assert relations["Provides"] == []


def test_no_relation_of_the_source_has_an_epoch() -> None:
    control = (TOP / "debian/control").read_text()
    fields = re.sub(r"^(Homepage|Description):.*", "", control, flags=re.M)
    assert re.findall(r"[ (=][0-9]+:", fields) == []


# What its scripts do.


@pytest.fixture
def system(chroot: Make) -> Chroot:
    """A system with the agent and OS Login, whose systemd seems to run."""
    return chroot(packages=(OSLOGIN,), recorded_systemctl=True, recorded=RECORDED)


@pytest.fixture
def installed(chroot: Make) -> Chroot:
    """The same with the package."""
    return chroot(packages=(OSLOGIN, CONFIGS), recorded_systemctl=True, recorded=RECORDED)


@pytest.fixture
def newer_debs(guest_debs: GuestDebs, tmp_path: Path) -> list[Path]:
    return next_versions([*guest_debs, *guest_debs.named(OSLOGIN, CONFIGS)], tmp_path)


def asked_of_systemd(system: Chroot) -> list[str]:
    """What the package asks; a trigger for /etc/rsyslog.d restarts rsyslog by itself."""
    return [line for line in system.systemctl_calls() if line and "rsyslog" not in line]


def test_first_installation_reloads_the_rules_and_applies_its_own_settings(
    system: Chroot, guest_debs: GuestDebs, package: Path
) -> None:
    system.install(guest_debs.named(CONFIGS))
    text = (package / SETTINGS.lstrip("/")).read_text()
    keys = re.findall(r"^([a-z][\w.]*) *=", text, re.M)
    assert len(keys) == 18
    applied = " ".join(f"--prefix={key}" for key in keys)
    calls = ["udevadm control --reload", f"systemd-sysctl {applied}", REBUILD]
    assert system.program_calls() == calls
    assert asked_of_systemd(system) == []


def test_upgrade_applies_nothing_and_restarts_nothing_of_its_own(
    installed: Chroot, newer_debs: list[Path]
) -> None:
    installed.install(newer_debs[-1:], "--force-depends")
    assert installed.program_calls() == []
    assert asked_of_systemd(installed) == []


def test_upgrade_rebuilds_initial_ram_disks_if_what_is_in_them_has_changed(
    installed: Chroot, newer_debs: list[Path]
) -> None:
    installed.shell("echo 'blacklist more' >>/etc/modprobe.d/gce-blacklist.conf")
    installed.install(newer_debs[-1:], "--force-depends")
    assert installed.program_calls() == [REBUILD]
    installed.install(newer_debs[-1:], "--force-depends")
    assert installed.program_calls() == []


def test_removal_reloads_the_rules(installed: Chroot) -> None:
    installed.dpkg("--remove", CONFIGS)
    assert installed.program_calls() == ["udevadm control --reload"]
    assert asked_of_systemd(installed) == []


def test_purge_takes_the_configuration_out_of_initial_ram_disks(installed: Chroot) -> None:
    installed.dpkg("--remove", CONFIGS)
    installed.program_calls()
    installed.dpkg("--purge", CONFIGS)
    assert installed.program_calls() == [REBUILD]


def test_without_a_running_systemd_nothing_of_the_host_is_touched(
    chroot: Make, guest_debs: GuestDebs
) -> None:
    system = chroot(packages=(OSLOGIN,), recorded=RECORDED)
    system.install(guest_debs.named(CONFIGS))
    system.dpkg("--purge", CONFIGS)
    # Initial RAM disks are the system's own, running or not.
    assert system.program_calls() == [REBUILD, REBUILD]


def test_edited_configuration_survives_upgrade_and_removal_without_a_question(
    installed: Chroot, newer_debs: list[Path]
) -> None:
    for path in CONFFILES:
        installed.write(path, f"# of the administrator: {path}\n")
    said = installed.install(newer_debs)
    assert "onfiguration file" not in said.stdout
    assert all("administrator" in (installed.read(path) or "") for path in CONFFILES)
    installed.dpkg("--remove", CONFIGS)
    assert all("administrator" in (installed.read(path) or "") for path in CONFFILES)


def test_deleted_configuration_stays_deleted_after_an_upgrade(
    installed: Chroot, newer_debs: list[Path]
) -> None:
    installed.shell(f"rm {SETTINGS}")
    installed.install(newer_debs)
    assert not installed.exists(SETTINGS)


def test_purge_leaves_the_system_as_it_was(chroot: Make, guest_debs: GuestDebs) -> None:
    system = chroot(packages=(OSLOGIN,))
    before = system.files()
    system.install(guest_debs.named(CONFIGS))
    system.dpkg("--purge", CONFIGS)
    left = {path for path in system.files() - before if not path.startswith("/var/lib/dpkg/")}
    assert left - {"/var/log/dpkg.log"} == set()
    assert before - system.files() == set()


def test_modules_are_compiled_at_the_installation(installed: Chroot) -> None:
    folder = "/usr/share/google-compute-engine/system_config"
    made = installed.shell(f"ls {folder}/__pycache__").split()
    assert len(made) == len(list((TOP / "src/system_config").glob("*.py")))


SCRIPTS = [("preinst", "install"), ("postinst", "configure"), ("prerm", "remove")]
SCRIPTS += [("postrm", "remove"), ("postrm", "purge")]


@pytest.mark.parametrize(("script", "argument"), SCRIPTS)
def test_scripts_succeed_on_a_read_only_etc(
    installed: Chroot, package: Path, script: str, argument: str
) -> None:
    text = (package / "DEBIAN" / script).read_text()
    installed.write(f"/script.{script}", text, mode=0o755)
    installed.make_etc_read_only()
    environment = {"DPKG_MAINTSCRIPT_PACKAGE": CONFIGS, "DPKG_MAINTSCRIPT_NAME": script}
    done = installed.run([f"/script.{script}", argument], environment=environment, check=False)
    assert (done.status, done.stderr) == (0, "")


@pytest.mark.parametrize(("script", "argument"), SCRIPTS)
def test_scripts_leave_the_host_alone_for_another_root(
    installed: Chroot, package: Path, script: str, argument: str
) -> None:
    hook = "/etc/dhcp/dhclient-exit-hooks.d/google_set_hostname"
    installed.shell(f"ln -sf /usr/bin/google_set_hostname {hook}")
    installed.shell("mkdir -p /target/etc /target/var/lib; cp -a /var/lib/dpkg /target/var/lib")
    installed.write(f"/script.{script}", (package / "DEBIAN" / script).read_text(), mode=0o755)
    environment = {
        "DPKG_ROOT": "/target",
        "DPKG_MAINTSCRIPT_PACKAGE": CONFIGS,
        "DPKG_MAINTSCRIPT_NAME": script,
    }
    done = installed.run([f"/script.{script}", argument], environment=environment, check=False)
    assert done.status == 0, done.stderr
    assert installed.program_calls() == []
    assert installed.shell(f"readlink {hook}").strip() == "/usr/bin/google_set_hostname"


@pytest.mark.parametrize("script", ["preinst", "postinst", "prerm", "postrm"])
def test_scripts_use_no_network_and_no_tmp_and_leave_the_agents_settings(
    package: Path, script: str
) -> None:
    text = (package / "DEBIAN" / script).read_text()
    lines = [line for line in text.splitlines() if not line.strip().startswith("#")]
    forbidden = ("/tmp", "curl", "wget", "metadata", "169.254", "instance_configs")
    assert [line for line in lines for word in forbidden if word in line] == []
