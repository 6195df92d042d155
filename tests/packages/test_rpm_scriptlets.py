"""What the scriptlets of the rpms do to a system, call by call, on an EL and on a SUSE target.

The packages are real, rpm is Debian's, and so is the userland: rpm logic, not a test of an EL or
SUSE system.  See tests/support/rpm_machine.py for what is recorded.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import artifact_table
import pytest
from support import rpm_roots, rpm_versions, tiers
from support.rpm_machine import RpmMachine, made_rpm, said
from support.rpm_versions import AGENT, CONFIGS, LIBRARY, OSLOGIN, SELINUX

AGENT_UNIT = "google-guest-agent.service"
TIMER = "gce-workload-cert-refresh.timer"
SCRIPT_UNITS = ("google-startup-scripts.service", "google-shutdown-scripts.service")
UNITS = (AGENT_UNIT, TIMER, *SCRIPT_UNITS)
CACHE_TIMER = "google-oslogin-cache.timer"
OSLOGIND = "google-oslogind.service"
SOCKETS = tuple(f"google-oslogind-{name}.socket" for name in ("auth", "nss", "userdb"))
MANAGERS = ("google-guest-agent-manager.service", "google-guest-compat-manager.service")
SETTINGS = "/etc/default/instance_configs.cfg"
SYSCTL_FILE = "/etc/sysctl.d/60-gce-network-security.conf"
EDITED = "# edited by hand\n[Accounts]\ngroups = wheel\n"
UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
TARGETS = ("el9", "sles15")
KEYS = (LIBRARY, AGENT, CONFIGS, OSLOGIN, SELINUX)
Make = Callable[..., RpmMachine]


@pytest.fixture(params=TARGETS, scope="module")
def target(request: pytest.FixtureRequest) -> str:
    problems = rpm_roots.rpm_root_problems()
    if problems:
        reason = "installing rpms needs " + "; ".join(problems)
        if tiers.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture(scope="module")
def now(target: str) -> dict[str, Path]:
    """The packages of the tree."""
    return rpm_versions.rpms(target)


@pytest.fixture(scope="module")
def later(target: str) -> dict[str, Path]:
    """Those of the release after it."""
    return rpm_versions.later_rpms(target)


@pytest.fixture
def machine(target: str) -> Iterator[Make]:
    """A factory of systems of the target; they end with the test."""
    folders: list[Path] = []
    python = artifact_table.target(target).python

    def make(**description: object) -> RpmMachine:
        folders.append(Path(tempfile.mkdtemp(prefix="guest-rpm-")))
        return RpmMachine(folders[-1], python=python, **description)

    yield make
    for folder in folders:
        shutil.rmtree(folder)


def installed(machine: Make, packages: dict[str, Path], *keys: str, **more: object) -> RpmMachine:
    """A system that has packages, all without `keys`; what installing them called is forgotten."""
    system = machine(**more)
    system.install(chosen(packages, keys))
    system.calls()
    return system


def chosen(packages: dict[str, Path], keys: Iterable[str] = ()) -> list[Path]:
    return [packages[key] for key in keys or packages]


def names(target: str, *keys: str) -> list[str]:
    """Package names on the target, the library last."""
    table = rpm_versions.names(target)
    wanted = keys or tuple(reversed(KEYS))
    return [table[key] for key in wanted]


def jobs(system: RpmMachine) -> list[str]:
    """What the recorded calls ask of units and programs: "restart UNIT", "sysctl -p FILE"."""
    found = []
    for line in system.calls():
        program, *words = line.split()
        if program != "systemctl":
            found.append(line)
            continue
        verb, *units = [word for word in words if not word.startswith("-")]
        verb = {"try-restart": "restart", "condrestart": "restart"}.get(verb, verb)
        found += [f"{verb} {unit}" for unit in units]
        if "--now" in words and verb == "disable":
            found += [f"stop {unit}" for unit in units]
    return found


def states(system: RpmMachine, units: Iterable[str] = UNITS) -> dict[str, str]:
    return {unit: system.is_enabled(unit) for unit in units}


def on_processes(made: Iterable[str]) -> list[str]:
    """The jobs that would start or end a process."""
    verbs = {"start", "stop", "restart", "reload", "kill", "reload-or-restart"}
    return [job for job in made if job.split()[0] in verbs]


def test_recorder_finds_what_must_not_happen(machine: Make, tmp_path: Path) -> None:
    """The table of expected calls would be worth nothing without this."""
    script = "systemctl try-restart google-startup-scripts.service; sysctl --system; dracut --force"
    bad = made_rpm(tmp_path, "bad", "1", files={}, scripts={"post": script})
    system = machine()
    system.install([bad])
    expected = ["restart google-startup-scripts.service", "sysctl --system", "dracut --force"]
    assert jobs(system) == expected


# The agent.


def test_first_installation_applies_presets_and_starts_the_agent_and_the_timer(
    machine: Make, now: dict[str, Path]
) -> None:
    system = machine()
    system.install(chosen(now, (LIBRARY, AGENT)))
    expected = [f"preset {unit}" for unit in UNITS]
    assert sorted(jobs(system)) == sorted([*expected, f"start {AGENT_UNIT}", f"start {TIMER}"])
    assert states(system) == dict.fromkeys(UNITS, "enabled")


def test_upgrade_restarts_the_agent_and_the_timer_alone(
    machine: Make, now: dict[str, Path], later: dict[str, Path]
) -> None:
    system = installed(machine, now, LIBRARY, AGENT)
    system.install(chosen(later, (LIBRARY, AGENT)))
    assert sorted(jobs(system)) == sorted([f"restart {AGENT_UNIT}", f"restart {TIMER}"])
    assert states(system) == dict.fromkeys(UNITS, "enabled")


def test_reinstallation_restarts_the_agent_and_the_timer_alone(
    machine: Make, now: dict[str, Path]
) -> None:
    system = installed(machine, now, LIBRARY, AGENT)
    system.install(chosen(now, (LIBRARY, AGENT)), "--replacepkgs")
    assert set(jobs(system)) == {f"restart {AGENT_UNIT}", f"restart {TIMER}"}
    assert states(system) == dict.fromkeys(UNITS, "enabled")


def test_return_to_the_version_before_leaves_the_same_state(
    machine: Make, now: dict[str, Path], later: dict[str, Path]
) -> None:
    system = installed(machine, later, LIBRARY, AGENT)
    system.install(chosen(now, (LIBRARY, AGENT)), "--oldpackage")
    assert set(jobs(system)) == {f"restart {AGENT_UNIT}", f"restart {TIMER}"}
    assert states(system) == dict.fromkeys(UNITS, "enabled")


def test_erasure_disables_all_units_and_stops_the_agent_and_the_timer_alone(
    machine: Make, now: dict[str, Path], target: str
) -> None:
    system = installed(machine, now, LIBRARY, AGENT)
    system.erase(*names(target, AGENT, LIBRARY))
    expected = [f"disable {unit}" for unit in UNITS]
    assert set(jobs(system)) == {*expected, f"stop {AGENT_UNIT}", f"stop {TIMER}"}
    links = system.shell("find /etc/systemd -name '*google*' -o -name 'gce-*'")
    assert links == ""


def test_no_operation_of_any_package_touches_a_script_unit(
    machine: Make, now: dict[str, Path], later: dict[str, Path], target: str
) -> None:
    system = machine()
    system.set_active(*UNITS)
    system.install(chosen(now))
    system.install(chosen(later))
    system.install(chosen(later), "--replacepkgs")
    system.install(chosen(now), "--oldpackage")
    system.erase(*names(target))
    made = on_processes(jobs(system))
    assert f"restart {AGENT_UNIT}" in made
    assert [job for job in made if "scripts" in job] == []


def test_units_that_were_disabled_stay_so_after_an_upgrade(
    machine: Make, now: dict[str, Path], later: dict[str, Path]
) -> None:
    system = installed(machine, now, LIBRARY, AGENT)
    system.shell(f"systemctl disable {' '.join(UNITS)}")
    system.install(chosen(later, (LIBRARY, AGENT)))
    assert states(system) == dict.fromkeys(UNITS, "disabled")


def test_units_that_were_masked_stay_so_after_an_upgrade(
    machine: Make, now: dict[str, Path], later: dict[str, Path]
) -> None:
    system = installed(machine, now, LIBRARY, AGENT)
    for unit in UNITS:
        system.shell(f"ln -sf /dev/null /etc/systemd/system/{unit}")
    system.install(chosen(later, (LIBRARY, AGENT)))
    assert states(system) == dict.fromkeys(UNITS, "masked")


def test_settings_that_no_package_owns_stay_byte_for_byte(
    machine: Make, now: dict[str, Path], later: dict[str, Path], target: str
) -> None:
    system = machine()
    system.write(SETTINGS, EDITED, mode=0o640)
    show = f"cat {SETTINGS}; stat -c '%a %U %i' {SETTINGS}; ls -d {SETTINGS}*"
    before = system.shell(show)
    system.install(chosen(now))
    assert system.shell(show) == before
    system.install(chosen(later))
    assert system.shell(show) == before
    system.erase(*names(target))
    assert system.shell(show) == before


def test_installation_makes_no_settings(machine: Make, now: dict[str, Path]) -> None:
    assert not installed(machine, now).exists(SETTINGS)


def test_state_accounts_and_routes_are_no_business_of_an_erasure(
    machine: Make, now: dict[str, Path], target: str
) -> None:
    system = installed(machine, now)
    system.write("/var/lib/google-guest-agent/state", "remembered")
    system.shell("useradd -m ada")
    accounts = system.read("/etc/passwd")
    system.erase(*names(target))
    assert system.read("/etc/passwd") == accounts
    assert system.read("/var/lib/google-guest-agent/state") == "remembered"


# The other packages.


def test_configuration_package_applies_its_sysctl_file_and_rules_at_first_installation(
    machine: Make, now: dict[str, Path]
) -> None:
    system = installed(machine, now, LIBRARY, AGENT, OSLOGIN)
    system.install(chosen(now, (CONFIGS,)))
    made = jobs(system)
    (applied,) = [job for job in made if "sysctl" in job]
    # Its keys alone, so that files that come later win.
    assert applied.startswith("systemd-sysctl --prefix=")
    assert "--prefix=net.ipv4.ip_forward" in applied
    assert applied.count("--prefix=") == 18
    assert [job for job in made if job.startswith("udevadm")] == ["udevadm control --reload"]
    assert on_processes(made) == []


def test_initramfs_is_made_once_for_all_kernels_and_only_when_its_content_changes(
    machine: Make, now: dict[str, Path], later: dict[str, Path]
) -> None:
    system = installed(machine, now, LIBRARY, AGENT, OSLOGIN)
    system.write("/boot/vmlinuz-1.el9", "")
    system.write("/boot/vmlinuz-2.el9", "")
    system.install(chosen(now, (CONFIGS,)))
    assert len(initramfs(jobs(system))) == 1
    system.install(chosen(later))
    assert initramfs(jobs(system)) == []
    system.shell("echo '# edited' >>/etc/modprobe.d/gce-blacklist.conf")
    system.install(chosen(later, (CONFIGS,)), "--replacepkgs")
    assert len(initramfs(jobs(system))) == 1


def test_initramfs_is_no_business_of_a_system_without_kernels(
    machine: Make, now: dict[str, Path]
) -> None:
    system = machine()
    system.install(chosen(now))
    assert initramfs(jobs(system)) == []


def initramfs(made: Iterable[str]) -> list[str]:
    """The jobs that make every initramfs."""
    return [job for job in made if job.startswith(("dracut", "mkinitrd", "regenerate-initrd"))]


def test_configuration_package_applies_no_sysctl_at_an_upgrade(
    machine: Make, now: dict[str, Path], later: dict[str, Path]
) -> None:
    system = installed(machine, now)
    system.install(chosen(later, (CONFIGS,)))
    made = jobs(system)
    assert [job for job in made if "sysctl" in job or "dracut" in job] == []
    assert set(made) <= {"udevadm control --reload"}


def test_configuration_package_reloads_the_rules_when_it_goes(
    machine: Make, now: dict[str, Path], target: str
) -> None:
    system = installed(machine, now)
    system.erase(*names(target, CONFIGS))
    assert jobs(system) == ["udevadm control --reload"]


def test_oslogin_enables_its_timer_and_leaves_its_sockets_to_the_agent(
    machine: Make, now: dict[str, Path]
) -> None:
    system = installed(machine, now, LIBRARY, AGENT)
    system.install(chosen(now, (OSLOGIN,)))
    made = jobs(system)
    assert f"preset {CACHE_TIMER}" in made
    verbs = [job for job in made if job.split()[0] in {"start", "restart", "enable"}]
    assert set(verbs) <= {f"start {CACHE_TIMER}"}
    assert system.is_enabled(CACHE_TIMER) == "enabled"
    assert {system.is_enabled(unit) for unit in SOCKETS} == {"disabled"}


def test_oslogins_service_is_restarted_by_an_upgrade_if_it_runs_and_its_sockets_are_not(
    machine: Make, now: dict[str, Path], later: dict[str, Path]
) -> None:
    system = installed(machine, now, LIBRARY, AGENT, OSLOGIN)
    system.install(chosen(later, (LIBRARY, AGENT, OSLOGIN)))
    made = [job for job in jobs(system) if "oslogin" in job]
    assert f"restart {OSLOGIND}" in made
    assert {job for job in made if not job.startswith("systemd-tmpfiles")} <= {
        f"restart {OSLOGIND}",
        f"restart {CACHE_TIMER}",
    }


def test_erased_oslogin_leaves_no_line_that_names_an_object_of_it(
    machine: Make, now: dict[str, Path], target: str
) -> None:
    system = installed(machine, now)
    files = ("/etc/nsswitch.conf", "/etc/ssh/sshd_config", "/etc/pam.d/sshd", "/etc/pam.d/su")
    before = {path: system.read(path) for path in files}
    system.run(["google_oslogin_control", "activate", "--force"], check=False)
    assert {path: system.read(path) for path in files} != before
    system.erase(*names(target, OSLOGIN))
    show = "grep -rEil 'oslogin|google_auth|google-users' /etc/ssh /etc/nsswitch.conf /etc/pam.d"
    assert system.shell(f"{show} || true") == ""
    assert {path: system.read(path) for path in files} == before


def with_selinux(system: RpmMachine) -> None:
    """The system runs with SELinux's targeted policy."""
    system.write("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
    system.write("/usr/sbin/selinuxenabled", "#!/bin/sh\nexit 0\n", mode=0o755)


def modules(system: RpmMachine) -> list[str]:
    return [job for job in jobs(system) if job.startswith("semodule")]


def test_selinux_module_is_loaded_with_priority_200_when_it_changes_and_goes_with_the_package(
    machine: Make, now: dict[str, Path], later: dict[str, Path], target: str
) -> None:
    system = installed(machine, now, LIBRARY, AGENT, OSLOGIN)
    with_selinux(system)
    module = "/usr/share/selinux/packages/targeted/oslogin.pp"
    system.install(chosen(now, (SELINUX,)))
    assert modules(system) == [f"semodule -n -s targeted -X 200 -i {module}"]
    system.shell("mkdir -p /var/lib/selinux/targeted/active/modules/200/oslogin")
    system.install(chosen(later, (LIBRARY, AGENT, OSLOGIN, SELINUX)))
    assert modules(system) == []
    system.erase(*names(target, SELINUX))
    assert modules(system) == ["semodule -n -s targeted -X 200 -r oslogin"]


def test_selinux_package_is_silent_where_there_is_no_selinux(
    machine: Make, now: dict[str, Path], target: str
) -> None:
    without = ("semodule", "restorecon", "fixfiles")
    system = installed(machine, now, LIBRARY, AGENT, OSLOGIN, without=without)
    done = system.install(chosen(now, (SELINUX,)))
    gone = system.erase(*names(target, SELINUX))
    assert [said(done), said(gone)] == [[], []]


# All of them.


def test_scriptlets_are_silent(
    machine: Make, now: dict[str, Path], later: dict[str, Path], target: str
) -> None:
    system = machine()
    outputs = [
        *said(system.install(chosen(now))),
        *said(system.install(chosen(later))),
        *said(system.erase(*names(target))),
    ]
    assert outputs == []


def test_without_a_running_systemd_units_are_enabled_and_nothing_is_started(
    machine: Make, now: dict[str, Path]
) -> None:
    system = machine(systemd=False)
    done = system.install(chosen(now))
    assert said(done) == []
    assert states(system) == dict.fromkeys(UNITS, "enabled")
    assert on_processes(jobs(system)) == []


def test_presets_change_nothing_after_the_installation(machine: Make, now: dict[str, Path]) -> None:
    system = installed(machine, now, systemd=False)
    find = "find /etc/systemd -name '*google*' -o -name '*gce-*' | sort"
    before = system.shell(find)
    system.run(["systemctl", "preset-all"], check=False)
    assert system.shell(find) == before


def test_scriptlets_succeed_in_a_root_without_systemd(
    machine: Make, now: dict[str, Path], later: dict[str, Path], target: str
) -> None:
    system = machine(systemd=False, without=("systemctl", "systemd-tmpfiles", "udevadm", "sysctl"))
    assert said(system.install(chosen(now))) == []
    assert said(system.install(chosen(later))) == []
    assert said(system.erase(*names(target))) == []


def test_scriptlets_succeed_on_a_read_only_etc(
    machine: Make, now: dict[str, Path], later: dict[str, Path], target: str
) -> None:
    keys = (LIBRARY, AGENT)
    system = machine()
    system.make_etc_read_only()
    system.install(chosen(now, keys))
    system.install(chosen(later, keys))
    system.erase(*names(target, AGENT, LIBRARY))
    assert system.version(names(target, AGENT)[0]) is None


def configuration_files(target: str) -> list[str]:
    table = artifact_table.packages(artifact_table.target(target))
    return [path for package in table for path in package.configuration_files]


def test_edited_configuration_survives_an_upgrade_and_an_erasure(
    machine: Make, now: dict[str, Path], later: dict[str, Path], target: str
) -> None:
    system = installed(machine, now)
    paths = configuration_files(target)
    assert SYSCTL_FILE in paths
    for path in paths:
        system.shell(f"echo '# edited' >>{path}")
    edited = {path: system.read(path) for path in paths}
    system.install(chosen(later))
    assert {path: system.read(path) for path in paths} == edited
    system.erase(*names(target))
    assert {path: system.read(f"{path}.rpmsave") for path in paths} == edited


def test_files_of_the_packages_are_those_of_the_database(
    machine: Make, now: dict[str, Path], later: dict[str, Path], target: str
) -> None:
    system = installed(machine, now)
    assert system.rpm("-V", "--nodeps", *names(target), check=False).stdout == ""
    system.install(chosen(later))
    assert system.rpm("-V", "--nodeps", *names(target), check=False).stdout == ""


def test_erasure_leaves_no_file_of_a_package(
    machine: Make, now: dict[str, Path], target: str
) -> None:
    system = machine()
    before = system.files()
    system.install(chosen(now))
    assert len(system.files() - before) > 100
    system.erase(*names(target))
    # Byte code of Debian's Python, which is not that of the packages.
    folder = artifact_table.target(target).module_folders[0]
    places = f"{folder}/google_guest /usr/share/google-compute-engine*"
    system.shell(
        f"find {places} -name __pycache__ -exec rm -r {{}} + 2>/dev/null || true;"
        f" find {places} -type d -empty -delete 2>/dev/null || true"
    )
    left = {path for path in system.files() - before if not path.startswith("/var/lib/rpm")}
    # Others have these there.
    others = {
        *("/usr/share/selinux", "/usr/share/selinux/packages"),
        *("/usr/share/selinux/packages/targeted", "/usr/lib64/security", "/usr/share/licenses"),
        *("/etc/sysconfig", "/etc/sysconfig/network", "/etc/sysconfig/network/scripts"),
    }
    assert left <= others
    # Debian's packages are not in rpm's database, so that a folder that ours have in common with
    # them goes when it is empty.
    assert before - system.files() <= {"/etc/rsyslog.d"}


def test_programs_run(machine: Make, now: dict[str, Path]) -> None:
    system = installed(machine, now)
    found = system.run(["google-guest", "--version"]).stdout.strip()
    assert found == rpm_versions.release.version()


# Taking over.


@pytest.fixture(params=[1, 2])
def vendor(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The vendor's agent with managers, of both epochs that it has used; its erasure does nothing.

    (guest-agent: packaging/google-guest-agent.spec and its successor's)
    """
    enabled = " ".join((*SCRIPT_UNITS, *MANAGERS))
    template = "/usr/share/google-guest-agent/instance_configs.cfg"
    return made_rpm(
        tmp_path / f"vendor-{request.param}",
        AGENT,
        "20251218.00",
        release="g1.el9",
        epoch=request.param,
        files={
            **{f"/usr/lib/systemd/system/{unit}": UNIT for unit in (*UNITS, *MANAGERS)},
            template: "[Daemons]\nclock_skew_daemon = true\n",
            "/usr/bin/google_guest_agent": "binary",
            "/usr/bin/google_guest_agent_manager": "binary",
            "/usr/bin/ggactl_plugin": "binary",
        },
        scripts={
            "post": f"[ -e {SETTINGS} ] || cp {template} {SETTINGS}\n"
            f"systemctl enable {enabled} >/dev/null 2>&1 || :\n"
            f"systemctl disable {AGENT_UNIT} >/dev/null 2>&1 || :",
            "preun": "if [ $1 -eq 0 ]; then systemctl --no-reload disable --now "
            f"{AGENT_UNIT} {enabled} >/dev/null 2>&1 || :; fi",
        },
    )


def test_vendors_managers_give_way_to_the_agent(
    machine: Make, later: dict[str, Path], vendor: Path
) -> None:
    system = machine()
    system.install([vendor])
    assert states(system, MANAGERS) == dict.fromkeys(MANAGERS, "enabled")
    assert system.is_enabled(AGENT_UNIT) == "disabled"
    system.write(SETTINGS, EDITED)
    system.set_active(*MANAGERS, *SCRIPT_UNITS)
    system.calls()
    # Without --oldpackage: rpm itself must find it newer.
    system.install(chosen(later, (LIBRARY, AGENT)))
    made = jobs(system)
    assert {f"stop {unit}" for unit in MANAGERS} <= set(made)
    assert [job for job in made if "scripts" in job and "preset" not in job] == []
    assert {f"start {AGENT_UNIT}", f"restart {AGENT_UNIT}"} & set(made)
    links = " -o ".join(f"-name {unit}" for unit in MANAGERS)
    assert system.shell(f"find /etc/systemd {links}") == ""
    assert states(system) == {**dict.fromkeys(UNITS, "enabled")}
    assert system.read(SETTINGS) == EDITED
    assert (system.version(AGENT) or "").startswith(f"2:{rpm_versions.later_version()}-1")


def test_agent_that_the_administrator_disabled_after_taking_over_stays_disabled(
    machine: Make, later: dict[str, Path], vendor: Path
) -> None:
    system = machine()
    system.install([vendor])
    system.install(chosen(later, (LIBRARY, AGENT)))
    system.shell(f"systemctl disable {AGENT_UNIT}")
    system.install(chosen(later, (LIBRARY, AGENT)), "--replacepkgs")
    assert system.is_enabled(AGENT_UNIT) == "disabled"


def test_return_to_the_vendors_package_leaves_nothing_of_ours_enabled(
    machine: Make, later: dict[str, Path], vendor: Path
) -> None:
    system = installed(machine, later, LIBRARY, AGENT)
    system.rpm("-U", "--nodeps", "--force-debian", "--oldpackage", *system.hand_over([vendor]))
    assert states(system, MANAGERS) == dict.fromkeys(MANAGERS, "enabled")
    assert system.is_enabled(AGENT_UNIT) == "disabled"
    assert not system.exists("/usr/bin/google-guest")


@pytest.mark.parametrize("kind", ["%config", "%config(noreplace)"])
def test_settings_that_suses_package_owned_survive_with_their_edits(
    machine: Make, now: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    former = made_rpm(
        tmp_path / "former",
        AGENT,
        "20200101.00",
        files={SETTINGS: "[Accounts]\n"},
        config={SETTINGS: kind},
    )
    system = machine()
    system.install([former])
    system.write(SETTINGS, EDITED, mode=0o640)
    system.install(chosen(now, (LIBRARY, AGENT)))
    assert system.read(SETTINGS) == EDITED
    assert system.shell(f"stat -c %a {SETTINGS}").strip() == "640"
    copies = "find / -xdev -name '*instance_configs.cfg*' -newer /etc/rpm/macros"
    known = {SETTINGS, "/usr/share/google-guest-agent/instance_configs.cfg"}
    assert {path for path in system.shell(copies).split() if "/man/" not in path} <= known
