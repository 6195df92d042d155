"""Taking over from earlier packages of the guest environment, and going back.

Debian's own package is the real one, from the archive. The vendor's package and the one of the
Python era are made here with what matters of them to dpkg: names, versions, relations, units,
settings and the acts of their maintainer scripts (guest-agent: packaging/debian;
compute-image-packages: packages/).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

import pytest
from release import version
from support.chroot import Chroot
from support.commands import run_command
from support.debs import AGENT, CONFIGS, LIBRARY, OSLOGIN, GuestDebs

AGENT_UNIT = "google-guest-agent.service"
MANAGERS = ("google-guest-agent-manager.service", "google-guest-compat-manager.service")
DAEMONS = (
    "google-accounts-daemon.service",
    "google-clock-skew-daemon.service",
    "google-instance-setup.service",
    "google-network-daemon.service",
)
SCRIPT_UNITS = ("google-startup-scripts.service", "google-shutdown-scripts.service")
SETTINGS = "/etc/default/instance_configs.cfg"
EDITED = "[Accounts]\ngroups = wheel\n"
UNIT = """[Service]
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""


def made_deb(
    folder: Path,
    control: Mapping[str, str],
    files: Mapping[str, str],
    scripts: Mapping[str, str],
    conffiles: Sequence[str] = (),
    links: Optional[Mapping[str, str]] = None,
) -> Path:
    """A package made of what is given."""
    tree = folder / control["Package"]
    (tree / "DEBIAN").mkdir(parents=True)
    fields = {"Architecture": "all", "Maintainer": "Nobody <nobody@vendor.example>", **control}
    fields["Description"] = "package of an earlier guest environment"
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    (tree / "DEBIAN" / "control").write_text(text)
    for name, script in scripts.items():
        (tree / "DEBIAN" / name).write_text(f"#!/bin/sh\nset -e\n{script}")
        (tree / "DEBIAN" / name).chmod(0o755)
    if conffiles:
        (tree / "DEBIAN" / "conffiles").write_text("".join(f"{path}\n" for path in conffiles))
    for path, content in files.items():
        target = tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    for path, points_to in (links or {}).items():
        link = tree / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(points_to)
    deb = folder / f"{control['Package']}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(deb)]
    run_command(command, purpose="make a package")
    return deb


@pytest.fixture
def vendor_deb(tmp_path: Path) -> Path:
    """The vendor's agent with the managers that run it in the agent's own unit's stead."""
    units = (AGENT_UNIT, *SCRIPT_UNITS, *MANAGERS)
    enabled = " ".join((*SCRIPT_UNITS, *MANAGERS))
    template = "/usr/share/google-guest-agent/instance_configs.cfg"
    return made_deb(
        tmp_path / "vendor",
        {"Package": AGENT, "Version": "1:20251218.00-g1", "Section": "misc"},
        {
            **{f"/lib/systemd/system/{unit}": UNIT for unit in units},
            template: "[Daemons]\nclock_skew_daemon = true\n",
            "/usr/bin/google_guest_agent": "binary",
            "/usr/bin/google_guest_agent_manager": "binary",
        },
        {
            "postinst": f"[ -e {SETTINGS} ] || cp {template} {SETTINGS}\n"
            f"systemctl enable {enabled} >/dev/null 2>&1\n"
            f"systemctl disable {AGENT_UNIT} >/dev/null 2>&1\n",
            "prerm": "systemctl stop google-guest-agent-manager >/dev/null 2>&1 || :\n",
        },
    )


@pytest.fixture
def python_era_debs(tmp_path: Path) -> list[Path]:
    """The library whose programs were the daemons, and the package of their units."""
    units = (*DAEMONS, *SCRIPT_UNITS)
    library = made_deb(
        tmp_path / "library",
        {"Package": "python3-google-compute-engine", "Version": "1:20191210.00-g1"},
        {"/usr/bin/google_metadata_script_runner": "program"},
        {},
    )
    package = made_deb(
        tmp_path / "units",
        {
            "Package": "google-compute-engine",
            "Version": "1:20191210.00-g1",
            "Depends": "python3-google-compute-engine (= 1:20191210.00-g1)",
        },
        {f"/lib/systemd/system/{unit}": UNIT for unit in units},
        {"postinst": f"systemctl enable {' '.join(units)} >/dev/null 2>&1\n"},
    )
    return [library, package]


@pytest.fixture(scope="session")
def repository_debs(tmp_path_factory: pytest.TempPathFactory, frozen_tree: Path) -> list[Path]:
    """The project's packages as a repository has them that replaces the vendor's."""
    folder = tmp_path_factory.mktemp("repository")
    command = ["/usr/bin/python3", str(frozen_tree / "tools" / "build-deb"), "--force"]
    places = ["--work", str(folder / "work"), "--output", str(folder / "dist")]
    run_command(
        [*command, *places],
        purpose="build the packages with an epoch",
        timeout=300,
        environment={"GUEST_EPOCH": "1"},
    )
    return sorted((folder / "dist").glob("*.deb"))


def links_to(system: Chroot, unit: str) -> str:
    return system.shell(f"find /etc/systemd -name {unit}").strip()


def jobs(system: Chroot) -> list[str]:
    return [line for line in system.systemctl_calls() if "daemon-reload" not in line]


def test_package_of_a_repository_is_chosen_over_the_vendors(
    vendor_deb: Path, repository_debs: list[Path]
) -> None:
    versions = []
    for deb in (*repository_debs, vendor_deb):
        command = ["dpkg-deb", "-f", deb, "Version"]
        versions.append(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    *all_ours, vendors = versions
    (ours,) = set(all_ours)
    assert ours == f"1:{version()}-1"
    assert subprocess.run(["dpkg", "--compare-versions", ours, "gt", vendors]).returncode == 0


def test_vendors_managers_give_way_to_the_agent(
    chroot, vendor_deb: Path, repository_debs: list[Path]
) -> None:
    system = chroot(recorded_systemctl=False)
    system.install([vendor_deb])
    assert [system.is_enabled(unit) for unit in MANAGERS] == ["enabled", "enabled"]
    assert system.is_enabled(AGENT_UNIT) == "disabled"
    system.install(repository_debs)
    assert [links_to(system, unit) for unit in MANAGERS] == ["", ""]
    assert system.is_enabled(AGENT_UNIT) == "enabled"
    assert {system.is_enabled(unit) for unit in SCRIPT_UNITS} == {"enabled"}


def test_vendors_running_managers_are_stopped_and_the_agent_is_started(
    chroot, vendor_deb: Path, repository_debs: list[Path]
) -> None:
    system = chroot(recorded_systemctl=True)
    system.install([vendor_deb])
    wants = "/etc/systemd/system/multi-user.target.wants"
    for unit in (*MANAGERS, *SCRIPT_UNITS):
        system.shell(f"mkdir -p {wants}; ln -sf /lib/systemd/system/{unit} {wants}/{unit}")
    system.systemctl_calls()
    system.install(repository_debs)
    made = jobs(system)
    assert [line for line in made if "scripts" in line] == []
    assert {f"stop {unit}" for unit in MANAGERS} <= set(made)
    assert f"--quiet --system restart {AGENT_UNIT}" in made


def test_settings_that_the_vendors_package_copied_stay_byte_for_byte(
    chroot, vendor_deb: Path, repository_debs: list[Path]
) -> None:
    system = chroot()
    system.install([vendor_deb])
    system.write(SETTINGS, EDITED)
    system.install(repository_debs)
    assert system.read(SETTINGS) == EDITED


def test_agent_that_the_administrator_disabled_later_stays_disabled(
    chroot, vendor_deb: Path, repository_debs: list[Path]
) -> None:
    system = chroot()
    system.install([vendor_deb])
    system.install(repository_debs)
    system.shell(f"systemctl disable {AGENT_UNIT} 2>/dev/null")
    system.install(repository_debs)
    assert system.is_enabled(AGENT_UNIT) == "disabled"


def test_return_to_the_vendors_package_leaves_nothing_of_ours_enabled(
    chroot, vendor_deb: Path, repository_debs: list[Path]
) -> None:
    system = chroot()
    system.install(repository_debs)
    # apt removes the library, which breaks every older agent, then installs.
    system.dpkg("--remove", "--force-depends", LIBRARY)
    system.install([vendor_deb], "--force-downgrade")
    assert [system.is_enabled(unit) for unit in MANAGERS] == ["enabled", "enabled"]
    assert system.is_enabled(AGENT_UNIT) == "disabled"
    assert not system.exists("/usr/bin/google-guest")


def test_debians_package_gives_way_without_a_question(
    chroot, debian_deb: Path, guest_debs: GuestDebs
) -> None:
    system = chroot()
    system.install([debian_deb])
    system.write(SETTINGS, EDITED)
    done = system.install(guest_debs)
    assert "onfiguration file" not in done.stdout
    assert system.read(SETTINGS) == EDITED
    assert system.is_enabled(AGENT_UNIT) == "enabled"


def test_debians_settings_survive_removal(chroot, debian_deb: Path, guest_debs: GuestDebs) -> None:
    system = chroot()
    system.install([debian_deb])
    system.write(SETTINGS, EDITED)
    system.install(guest_debs)
    system.dpkg("--remove", AGENT)
    assert system.read(SETTINGS) == EDITED


def test_upgrade_from_debians_package_runs_no_script(
    chroot, debian_deb: Path, guest_debs: GuestDebs
) -> None:
    system = chroot(recorded_systemctl=True)
    system.install([debian_deb])
    system.systemctl_calls()
    system.install(guest_debs)
    assert [line for line in jobs(system) if "scripts" in line] == []


def test_python_era_gives_way_and_its_daemons_are_disabled(
    chroot, python_era_debs: list[Path], guest_debs: GuestDebs
) -> None:
    system = chroot()
    system.write("/etc/google_instance_id", "4242")
    host_keys = system.shell("sha256sum /etc/ssh/ssh_host_*")
    system.install(python_era_debs)
    assert {system.is_enabled(unit) for unit in DAEMONS} == {"enabled"}
    names = ["python3-google-compute-engine", "google-compute-engine"]
    # apt removes what the new package breaks, then installs.
    system.dpkg("--remove", *names)
    system.install(guest_debs)
    assert [links_to(system, unit) for unit in DAEMONS] == [""] * len(DAEMONS)
    assert system.is_enabled(AGENT_UNIT) == "enabled"
    assert system.read("/etc/google_instance_id") == "4242"
    assert system.shell("sha256sum /etc/ssh/ssh_host_*") == host_keys


def test_files_of_the_python_eras_units_are_taken_over(
    chroot, python_era_debs: list[Path], guest_debs: GuestDebs
) -> None:
    # Its version has an epoch and no relation of ours may, so Breaks alone would not find it.
    system = chroot()
    system.install(python_era_debs)
    system.dpkg("--remove", "--force-depends", "python3-google-compute-engine")
    system.install(guest_debs)
    owner = system.shell("dpkg -S /lib/systemd/system/google-startup-scripts.service")
    assert owner.startswith(f"{AGENT}:")


def test_apt_removes_the_python_era_for_ours(
    chroot, python_era_debs: list[Path], guest_debs: GuestDebs
) -> None:
    system = chroot()
    system.install(python_era_debs)
    names = []
    for deb in guest_debs:
        system.put(deb, f"/root/{deb.name}")
        names.append(f"/root/{deb.name}")
    done = system.run(["apt-get", "-q", "-y", "install", *names], check=False)
    assert done.status == 0, done.stdout
    listed = system.shell("dpkg-query -W -f '${Package} ${db:Status-Status}\\n'")
    installed = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    assert {"google-guest-agent", "python3-google-guest"} <= installed
    assert not installed & {"python3-google-compute-engine", "google-compute-engine"}


# The system configuration.

HOOK = "/etc/dhcp/dhclient-exit-hooks.d/google_set_hostname"
KERNEL = "/etc/sysctl.d/60-gce-network-security.conf"
OBSOLETE = {
    "/etc/apt/apt.conf.d/99ipv4-only": 'Acquire::ForceIPv4 "true";\n',
    "/etc/dhcp/dhclient-exit-hooks.d/google_hostname_hook": "# a hook\n",
    "/etc/sysctl.d/11-gce-network-security.conf": "net.ipv4.ip_forward=0\n",
    "/etc/systemd/resolved.conf.d/gce-resolved.conf": "[Resolve]\nDNS=169.254.169.254\n",
}
KEPT = {
    "/etc/apt/apt.conf.d/01autoremove-gce": "// the vendor's\n",
    "/etc/modprobe.d/gce-blacklist.conf": "# the vendor's\n",
    "/etc/rsyslog.d/90-google.conf": "# the vendor's\n",
    KERNEL: "# the vendor's\nnet.ipv4.ip_forward=0\n",
}
EFFECTS = ("/lib/systemd/systemd-sysctl", "/usr/bin/udevadm")


def configs_deb(
    folder: Path, version: str, depends: str = "", *, more: Optional[Mapping[str, str]] = None
) -> Path:
    """google-compute-engine of a vendor or a distribution, with all that it ever had in /etc."""
    return made_deb(
        folder,
        {
            "Package": CONFIGS,
            "Version": version,
            "Provides": "irqbalance",
            **({"Depends": depends} if depends else {}),
        },
        {
            **KEPT,
            **OBSOLETE,
            "/usr/bin/google_set_hostname": "#!/bin/bash\n",
            "/lib/udev/rules.d/65-gce-disk-naming.rules": "# the vendor's\n",
            **(more or {}),
        },
        {},
        conffiles=[*KEPT, *OBSOLETE, *(more or {})],
        links={HOOK: "/usr/bin/google_set_hostname"},
    )


@pytest.fixture
def vendor_configs(tmp_path: Path) -> Path:
    return configs_deb(tmp_path / "configs", "1:20251218.00-g1")


@pytest.fixture
def replaced(chroot, vendor_configs: Path, repository_debs: list[Path]) -> tuple[Chroot, str]:
    """A system whose vendor's configuration has become ours, and what dpkg said meanwhile."""
    system = chroot(recorded_systemctl=True, recorded=EFFECTS)
    system.install([vendor_configs])
    return system, system.install(repository_debs).stdout


def test_vendors_configuration_is_replaced_without_a_question(replaced: tuple[Chroot, str]) -> None:
    system, said = replaced
    assert "onfiguration file" not in said
    assert not any("the vendor's" in (system.read(path) or "the vendor's") for path in KEPT)


def test_vendors_link_in_dhclients_folder_becomes_a_hook_and_the_program_stays_ours(
    replaced: tuple[Chroot, str], unpacked: dict[str, Path]
) -> None:
    system, _ = replaced
    for path in (HOOK, "/usr/bin/google_set_hostname"):
        assert (
            system.shell(f"test ! -L {path}; cat {path}")
            == (unpacked[CONFIGS] / path.lstrip("/")).read_text()
        )
    assert system.shell(f"dpkg -V {CONFIGS}") == ""


@pytest.mark.parametrize("path", sorted(OBSOLETE))
def test_configuration_that_is_no_longer_ours_goes_when_nobody_has_edited_it(
    replaced: tuple[Chroot, str], path: str
) -> None:
    assert not replaced[0].exists(path)


def test_edited_configuration_that_is_no_longer_ours_is_put_aside(
    chroot, vendor_configs: Path, repository_debs: list[Path]
) -> None:
    system = chroot()
    system.install([vendor_configs])
    for path in OBSOLETE:
        system.write(path, "# edited\n")
    system.install(repository_debs)
    for path in OBSOLETE:
        assert not system.exists(path)
        assert system.read(f"{path}.dpkg-bak") == "# edited\n"


def test_edited_configuration_that_is_still_ours_is_kept_as_apt_is_told_to(
    chroot, vendor_configs: Path, repository_debs: list[Path]
) -> None:
    system = chroot()
    system.install([vendor_configs])
    for path in KEPT:
        system.write(path, "# edited\n")
    system.install(repository_debs, "--force-confold")
    assert {system.read(path) for path in KEPT} == {"# edited\n"}


def test_taking_over_applies_no_setting_of_the_kernel(replaced: tuple[Chroot, str]) -> None:
    assert replaced[0].program_calls() == []


def test_ubuntus_transitional_package_is_satisfied(chroot, tmp_path: Path, repository_debs) -> None:
    system = chroot()
    ubuntus = "20250116.00-0ubuntu1"
    transitional = made_deb(
        tmp_path / "transitional",
        {"Package": "gce-compute-image-packages", "Version": ubuntus, "Depends": CONFIGS},
        {},
        {},
    )
    distro = "/etc/default/instance_configs.cfg.distro"
    settings = {distro: EDITED, "/etc/cloud/cloud.cfg.d/91-gce.cfg": "datasource_list: [ GCE ]\n"}
    system.install([configs_deb(tmp_path / "configs", ubuntus, more=settings), transitional])
    system.install(repository_debs)
    assert system.shell("dpkg --audit") == ""
    listed = system.shell("dpkg-query -W -f '${Package} ${db:Status-Status}\n'")
    assert {f"{CONFIGS} installed", "gce-compute-image-packages installed"} <= set(
        listed.splitlines()
    )
    assert system.read(distro) == EDITED


def test_python_eras_units_and_configuration_become_ours_in_one_upgrade(
    chroot, python_era_debs: list[Path], repository_debs: list[Path]
) -> None:
    system = chroot(recorded_systemctl=True, recorded=EFFECTS)
    system.install(python_era_debs)
    wants = "/etc/systemd/system/multi-user.target.wants"
    for unit in DAEMONS:
        system.shell(f"mkdir -p {wants}; ln -sf /lib/systemd/system/{unit} {wants}/{unit}")
    system.systemctl_calls()
    system.dpkg("--remove", "--force-depends", "python3-google-compute-engine")
    # The agent first: the units are still those of the old package then.
    order = {LIBRARY: 0, AGENT: 1, OSLOGIN: 2, CONFIGS: 3}
    debs = sorted(repository_debs, key=lambda deb: order[deb.name.split("_")[0]])
    for deb in debs:
        system.install([deb])
    made = jobs(system)
    assert {line for line in made if line.startswith("stop google-")} == {
        f"stop {unit}" for unit in DAEMONS
    }
    assert [links_to(system, unit) for unit in DAEMONS] == [""] * len(DAEMONS)
    assert [line for line in made if "scripts" in line] == []
    assert system.program_calls() == []


def test_older_packages_of_the_same_kind_give_way(
    chroot, tmp_path: Path, repository_debs: list[Path]
) -> None:
    system = chroot()
    for name in ("google-config-stretch", "google-compute-daemon"):
        older = made_deb(
            tmp_path / name,
            {"Package": name, "Version": "1:20170101.00"},
            {"/etc/rsyslog.d/90-google.conf": "# older\n"} if "config" in name else {},
            {},
            conffiles=["/etc/rsyslog.d/90-google.conf"] if "config" in name else [],
        )
        system.install([older])
    names = []
    for deb in repository_debs:
        system.put(deb, f"/root/{deb.name}")
        names.append(f"/root/{deb.name}")
    done = system.run(["apt-get", "-q", "-y", "install", *names], check=False)
    assert done.status == 0, done.stdout + done.stderr
    listed = system.shell("dpkg-query -W -f '${Package} ${db:Status-Status}\n'")
    installed = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    assert CONFIGS in installed
    assert not installed & {"google-config-stretch", "google-compute-daemon"}


def test_return_to_the_vendors_configuration_leaves_it_whole(
    replaced: tuple[Chroot, str], vendor_configs: Path
) -> None:
    system, _ = replaced
    system.install([vendor_configs], "--force-downgrade", "--force-confnew")
    assert system.shell(f"readlink {HOOK}").strip() == "/usr/bin/google_set_hostname"
    assert system.shell(f"dpkg -V {CONFIGS}") == ""
    assert not system.exists("/usr/lib/udev/google_nvme_id")
