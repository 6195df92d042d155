"""dnf and zypper with our rpms: what they choose, pull in, refuse, exchange and remove.

The programs are Debian's builds of the real ones; what an EL or SUSE system brings (systemd,
openssh, the C library's names) is a stub with the names that our packages ask for.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import artifact_table
import pytest
from support import rpm_roots, rpm_versions, tiers
from support.rpm_machine import RpmMachine, made_rpm, stubs_for
from support.rpm_versions import AGENT, CONFIGS, LIBRARY, OSLOGIN, SELINUX

UNITS = (
    "google-guest-agent.service",
    "google-startup-scripts.service",
    "google-shutdown-scripts.service",
    "gce-workload-cert-refresh.timer",
)
Make = Callable[..., RpmMachine]


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    problems = rpm_roots.rpm_root_problems()
    if problems:
        reason = "installing rpms needs " + "; ".join(problems)
        if tiers.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture
def make() -> Iterator[Make]:
    folders: list[Path] = []

    def machine(target: str, **description: object) -> RpmMachine:
        folders.append(Path(tempfile.mkdtemp(prefix="guest-rpm-")))
        python = artifact_table.target(target).python
        return RpmMachine(folders[-1], python=python, **description)

    yield machine
    for folder in folders:
        shutil.rmtree(folder)


def files_of(target: str, *, later: bool = False) -> list[Path]:
    packages = rpm_versions.later_rpms(target) if later else rpm_versions.rpms(target)
    return list(packages.values())


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Path]]:
    """What the distribution has, for the packages of a target."""

    def made(target: str, python: str = "") -> list[Path]:
        needed = [*files_of(target), *files_of(target, later=True)]
        version = python or f"{artifact_table.target(target).python}.18"
        return stubs_for(needed, tmp_path_factory.mktemp("stubs"), python=version)

    return made


@pytest.fixture
def el9(make: Make, stubs: Callable[..., list[Path]]) -> RpmMachine:
    """An EL 9 system with a repository of the tree's packages."""
    system = make("el9")
    system.repository([*stubs("el9"), *files_of("el9")])
    return system


@pytest.fixture
def sles15(make: Make, stubs: Callable[..., list[Path]]) -> RpmMachine:
    """A SLES 15 system with a repository of the tree's packages."""
    system = make("sles15")
    system.repository([*stubs("sles15"), *files_of("sles15")])
    return system


def states(system: RpmMachine) -> dict[str, str]:
    return {unit: system.is_enabled(unit) for unit in UNITS}


def starts(system: RpmMachine) -> list[str]:
    verbs = {"start", "stop", "restart", "try-restart", "reload"}
    return [line for line in system.calls() if verbs & set(line.split())]


# dnf.


def test_dnf_installs_the_agent_with_its_library_and_nothing_more_of_ours(
    el9: RpmMachine,
) -> None:
    el9.dnf("install", AGENT)
    assert el9.version(LIBRARY) == el9.version(AGENT)
    assert [el9.version(name) for name in (OSLOGIN, CONFIGS)] == [None, None]
    assert states(el9) == dict.fromkeys(UNITS, "enabled")
    assert el9.run(["google-guest", "--version"]).stdout.strip() == rpm_versions.release.version()


def test_dnf_upgrades_downgrades_and_removes(
    el9: RpmMachine, stubs: Callable[..., list[Path]]
) -> None:
    el9.dnf("install", AGENT, OSLOGIN, CONFIGS)
    first = el9.version(AGENT)
    el9.repository(files_of("el9", later=True))
    el9.dnf("--refresh", "upgrade")
    later = f"{rpm_versions.EPOCH}:{rpm_versions.later_version()}-1"
    assert (el9.version(AGENT) or "").startswith(later)
    assert {el9.version(name) for name in (LIBRARY, OSLOGIN, CONFIGS)} == {el9.version(AGENT)}
    assert states(el9) == dict.fromkeys(UNITS, "enabled")
    el9.dnf("downgrade", AGENT, LIBRARY, OSLOGIN, CONFIGS)
    assert {el9.version(name) for name in (AGENT, LIBRARY, OSLOGIN, CONFIGS)} == {first}
    assert states(el9) == dict.fromkeys(UNITS, "enabled")
    assert el9.rpm("-Va", "--nodeps", check=False).stdout == ""
    el9.dnf("remove", LIBRARY)
    assert {el9.version(name) for name in (AGENT, LIBRARY, OSLOGIN, CONFIGS)} == {None}
    assert not el9.exists("/usr/bin/google_guest_agent")
    assert [line for line in starts(el9) if "scripts" in line] == []


def test_dnf_refuses_packages_of_two_versions(
    el9: RpmMachine, stubs: Callable[..., list[Path]]
) -> None:
    el9.dnf("install", AGENT, OSLOGIN)
    newer = [path for path in files_of("el9", later=True) if path.name.startswith(LIBRARY)]
    (name,) = el9.hand_over(newer)
    done = el9.dnf("install", name, check=False)
    assert done.status != 0
    assert LIBRARY in done.stderr


def test_dnf_refuses_a_system_whose_python_is_too_old(
    make: Make, stubs: Callable[..., list[Path]]
) -> None:
    system = make("el9")
    system.repository([*stubs("el9", "3.6.8"), *files_of("el9")])
    done = system.dnf("install", AGENT, check=False)
    assert done.status != 0
    assert "python" in done.stderr
    assert system.version(AGENT) is None


@pytest.mark.parametrize("epoch", [1, 2])
def test_dnf_chooses_a_repository_build_over_the_vendors(
    make: Make, stubs: Callable[..., list[Path]], tmp_path: Path, epoch: int
) -> None:
    system = make("el9")
    vendor = made_rpm(
        tmp_path / "vendor", AGENT, "20251218.00", release="g1.el9", epoch=epoch, files={}
    )
    system.install([vendor])
    system.repository([*stubs("el9"), vendor, *files_of("el9", later=True)])
    system.dnf("upgrade", AGENT)
    assert (system.version(AGENT) or "").startswith(f"2:{rpm_versions.later_version()}-1")


def test_dnf_into_another_root_enables_and_starts_nothing(el9: RpmMachine) -> None:
    # The same files under another name are a root in which no systemd runs.
    script = (
        "mkdir /target; mount --bind / /target; mount --bind /media /target/media;"
        " dnf -y --installroot=/target --releasever=9 --setopt=reposdir=/nowhere --setopt=plugins=0"
        " --setopt=install_weak_deps=0 --setopt=gpgcheck=0 --setopt=cachedir=/var/tmp/dnf"
        f" --repofrompath=ours,file:///media/repository install {AGENT} {OSLOGIN} {CONFIGS}"
    )
    el9.shell(script)
    assert starts(el9) == []
    assert states(el9) == dict.fromkeys(UNITS, "enabled")
    assert el9.version(AGENT) is not None


# zypper.


def test_zypper_installs_upgrades_downgrades_and_removes(
    sles15: RpmMachine, stubs: Callable[..., list[Path]]
) -> None:
    names = rpm_versions.names("sles15")
    # The policy comes by itself, to a system that has SELinux's.
    ours = [names[key] for key in (AGENT, LIBRARY, OSLOGIN, CONFIGS, SELINUX)]
    sles15.zypper("install", "--no-recommends", names[AGENT], names[OSLOGIN], names[CONFIGS])
    first = sles15.version(AGENT)
    assert first is not None
    assert {sles15.version(name) for name in ours} == {first}
    assert states(sles15) == dict.fromkeys(UNITS, "enabled")
    sles15.repository(files_of("sles15", later=True))
    sles15.zypper("update", "--no-recommends")
    later = f"{rpm_versions.EPOCH}:{rpm_versions.later_version()}-1"
    assert (sles15.version(AGENT) or "").startswith(later)
    assert len({sles15.version(name) for name in ours}) == 1
    sles15.zypper("install", "--oldpackage", *(f"{name}={first}" for name in ours))
    assert {sles15.version(name) for name in ours} == {first}
    assert sles15.rpm("-Va", "--nodeps", check=False).stdout == ""
    sles15.zypper("remove", *ours)
    assert {sles15.version(name) for name in ours} == {None}
    assert [line for line in starts(sles15) if "scripts" in line] == []


@pytest.mark.parametrize("name", ["google-compute-engine", "google-compute-engine-oslogin"])
def test_suses_names_provide_the_others(sles15: RpmMachine, name: str) -> None:
    names = rpm_versions.names("sles15")
    sles15.zypper("install", "--no-recommends", name)
    assert names[name] != name
    done = sles15.rpm("-q", "--queryformat", "%{NAME}", "--whatprovides", name)
    assert done.stdout == names[name]


def test_zypper_refuses_a_system_without_the_python_that_the_programs_name(
    make: Make, stubs: Callable[..., list[Path]]
) -> None:
    system = make("sles15")
    system.repository([*stubs("sles15", "3.6.15"), *files_of("sles15")])
    done = system.zypper("install", AGENT, check=False)
    assert done.status != 0
    assert system.version(AGENT) is None
