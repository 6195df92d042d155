"""Packages exchanged in running instances: Debian's agent for ours and back, older and newer ones.

What people have must not notice: users, keys, host keys, settings, routes, and scripts, which run
when the machine starts and stops and at no other time. What installing does to files and links is
in tests/packages; here the service manager, the agents and the metadata server take part.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import pytest
from support import agent_service
from support.agent_service import AGENT, CONFIG, SETTLED
from support.bed import Bed
from support.commands import Completed, run_command
from support.debs import LIBRARY, GuestDebs
from support.documents import instance_document, nic_document
from support.network import numbered_nics

PACKAGE = "google-guest-agent"
STARTUP, SHUTDOWN = "google-startup-scripts.service", "google-shutdown-scripts.service"
RUNS = "/var/tmp/runs"
VIP = "192.0.2.10"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 ada"
EDITED = "\n[Accounts]\ngroups = video\n# the administrator's own line\n"
OLDER = "20260101.00-1"
FOLDER = "/var/tmp/packages"
Boot = Callable[..., Bed]

# They share instances.
pytestmark = pytest.mark.xdist_group("upgrade")


def document(startup: str = f"echo startup >>{RUNS}") -> dict[str, object]:
    nic = nic_document(numbered_nics(1)[0], forwardedIps=[VIP])
    attributes = {
        "ssh-keys": f"ada:{KEY}\nbob:{KEY}",
        "startup-script": f"#!/bin/sh\n{startup}\n",
        "shutdown-script": f"#!/bin/sh\necho shutdown >>{RUNS}\n",
    }
    return instance_document(attributes=attributes, instance={"networkInterfaces": [nic]})


# Packages.


@pytest.fixture(scope="session")
def older_debs(guest_debs: GuestDebs, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same packages as a release before them."""
    folder = tmp_path_factory.mktemp("older")
    return [as_version(deb, OLDER, folder) for deb in guest_debs]


def as_version(deb: Path, version: str, folder: Path) -> Path:
    """A package with another version, and relations to its sisters to match."""
    tree = folder / deb.name.partition("_")[0]
    run_command(["dpkg-deb", "-R", str(deb), str(tree)], purpose="unpack a package")
    control = tree / "DEBIAN" / "control"
    text = control.read_text()
    (own,) = [line.split()[1] for line in text.splitlines() if line.startswith("Version:")]
    control.write_text(text.replace(own, version))
    made = folder / f"{tree.name}_{version}_all.deb"
    run_command(["dpkg-deb", "-b", str(tree), str(made)], purpose="pack a package")
    return made


def put(guest: Bed, debs: Sequence[Path]) -> list[str]:
    """Copy packages into the guest; their paths there."""
    folder = guest.path(FOLDER)
    folder.mkdir(exist_ok=True)
    for deb in debs:
        shutil.copy(deb, folder)
    return [f"{FOLDER}/{deb.name}" for deb in debs]


def install(guest: Bed, debs: Sequence[Path], *more: str) -> Completed:
    """apt with a closed standard input, as unattended upgrades run it."""
    command = ["apt-get", "install", "-y", "--allow-downgrades", "--reinstall"]
    argv = ["env", "DEBIAN_FRONTEND=noninteractive", *command, *put(guest, debs), *more]
    return guest.run(argv, timeout=120)


# What people have.


@dataclass(frozen=True)
class Belongings:
    """What an exchange of packages must leave as it is."""

    accounts: str
    keys: str
    host_keys: str
    settings: str
    instance: str
    routes: str
    runs: str


def belongings(guest: Bed) -> Belongings:
    def shown(command: str) -> str:
        return guest.run(command, check=False).stdout

    return Belongings(
        accounts=shown("cat /etc/passwd /etc/group /etc/shadow /etc/sudoers.d/google_sudoers"),
        keys=shown("head -n 99 /home/*/.ssh/authorized_keys"),
        host_keys=shown("sha256sum /etc/ssh/ssh_host_*"),
        settings=shown(f"sha256sum {CONFIG}; stat -c '%a %U %i' {CONFIG}"),
        instance=shown("cat /etc/google_instance_id").strip(),
        routes=shown("ip route show table local proto 66").strip(),
        runs=shown(f"cat {RUNS}"),
    )


def script_unit_jobs(guest: Bed) -> str:
    """What the service manager did with the script units since the machine started."""
    return guest.run(["journalctl", "-q", "-o", "cat", "-u", STARTUP, "-u", SHUTDOWN]).stdout


def installed(guest: Bed) -> str:
    return guest.run(["dpkg-query", "-W", "-f", "${Version}", PACKAGE]).stdout


def await_agent(guest: Bed) -> None:
    guest.wait_until(lambda: agent_service.is_active(guest), 30, "the agent runs")


def enabled(guest: Bed) -> list[str]:
    units = (AGENT, STARTUP, SHUTDOWN)
    return guest.run(["systemctl", "is-enabled", *units], check=False).stdout.split()


# Debian's agent and ours.


@dataclass(frozen=True)
class Journey:
    """An instance that had Debian's agent, then ours, then Debian's again."""

    guest: Bed
    debians: Belongings
    ours: Belongings
    back: Belongings
    said: str
    enabled_with_ours: list[str]
    active_with_ours: bool
    above_info: list[str]
    agent_says: str
    enabled_back: list[str]
    active_back: bool
    traces: list[str]


@pytest.fixture(scope="module")
def journey(guest_debs: GuestDebs, debian_deb: Path) -> Iterator[Journey]:
    with Bed(packages=(PACKAGE,), metadata=document()) as guest:
        guest.wait_until(keys_of(guest, "bob").exists, 20, "Debian's agent has made the users")
        with guest.path(CONFIG).open("a") as settings:
            settings.write(EDITED)
        guest.run(f"ip route replace local {VIP} dev eth0 proto 66 table local")
        debians = belongings(guest)
        said = install(guest, guest_debs)
        await_agent(guest)
        agent_service.await_first_passes(guest)
        ours = belongings(guest)
        lines = agent_service.log_lines(guest)
        first = [line.text for line in lines].index(
            f"google_guest_agent {version_of(guest)} starts"
        )
        enabled_with_ours, active = enabled(guest), agent_service.is_active(guest)
        agent_says = guest.run(["google-guest", "status"]).stdout
        go_back(guest, debian_deb)
        await_agent(guest)
        guest.wait_until(lambda: "GCE Agent Started" in guest.journal(AGENT), what="it has begun")
        yield Journey(
            guest=guest,
            debians=debians,
            ours=ours,
            back=belongings(guest),
            said=said.stdout + said.stderr,
            enabled_with_ours=enabled_with_ours,
            active_with_ours=active,
            above_info=agent_service.above_info(lines[first:]),
            agent_says=agent_says,
            enabled_back=enabled(guest),
            active_back=agent_service.is_active(guest),
            traces=agent_service.traces(guest),
        )


def version_of(guest: Bed) -> str:
    return guest.run(["google-guest", "version"]).stdout.strip()


def go_back(guest: Bed, deb: Path) -> None:
    """As the manual says: Debian's maintainer script restarts the script units if they are active.

    Stopping them while they are ours runs nothing.
    """
    guest.run(["systemctl", "stop", STARTUP, SHUTDOWN])
    install(guest, [deb], f"{LIBRARY}-")
    guest.run(["systemctl", "start", SHUTDOWN])


@pytest.mark.parametrize("what", list(Belongings.__dataclass_fields__))
def test_our_agent_takes_over_from_debians_without_a_trace(journey: Journey, what: str) -> None:
    assert getattr(journey.ours, what) == getattr(journey.debians, what)


@pytest.mark.parametrize("what", list(Belongings.__dataclass_fields__))
def test_debians_agent_takes_over_from_ours_without_a_trace(journey: Journey, what: str) -> None:
    assert getattr(journey.back, what) == getattr(journey.debians, what)


def test_the_belongings_are_not_empty(journey: Journey) -> None:
    assert journey.debians.runs == "startup\n"
    assert KEY in journey.debians.keys
    assert VIP in journey.debians.routes


def test_taking_over_asks_nothing_about_the_edited_settings(journey: Journey) -> None:
    assert "conffile" not in journey.said.lower()
    assert "keep your currently-installed" not in journey.said


def test_our_agent_is_active_after_taking_over_and_has_nothing_to_complain_of(
    journey: Journey,
) -> None:
    assert journey.active_with_ours
    assert journey.enabled_with_ours == ["enabled"] * 3
    assert journey.above_info == []


def test_the_edited_settings_of_debians_package_are_in_force(journey: Journey) -> None:
    assert "accounts\ton" in journey.agent_says


def test_debians_agent_is_active_after_going_back(journey: Journey) -> None:
    assert journey.active_back
    assert journey.enabled_back == ["enabled"] * 3


def test_our_agent_stops_without_a_trace_when_its_library_is_already_gone(
    journey: Journey,
) -> None:
    assert journey.traces == []


@pytest.fixture
def debians(bed: Boot) -> Bed:
    """An instance on which Debian's agent has made its users."""
    guest = bed(packages=(PACKAGE,), metadata=document())
    guest.wait_until(keys_of(guest, "bob").exists, 20, "Debian's agent has made the users")
    return guest


def keys_of(guest: Bed, user: str) -> Path:
    return guest.path(f"/home/{user}/.ssh/authorized_keys")


def await_no_keys(guest: Bed, user: str) -> None:
    file = keys_of(guest, user)
    guest.wait_until(lambda: not file.exists() or KEY not in file.read_text(), 15, "no key is left")


def test_a_user_of_debians_agent_who_leaves_later_loses_the_keys_and_keeps_the_account(
    debians: Bed, guest_debs: GuestDebs
) -> None:
    install(debians, guest_debs)
    await_agent(debians)
    debians.mds.set("instance/attributes/ssh-keys", f"ada:{KEY}")
    await_no_keys(debians, "bob")
    debians.wait_until(
        lambda: "google-sudoers" not in debians.run(["id", "-nG", "bob"]).stdout,
        what="the user has left the group",
    )
    assert KEY in keys_of(debians, "ada").read_text()
    assert "google-sudoers" in debians.run(["id", "-nG", "ada"]).stdout.split()


def test_a_user_of_ours_who_leaves_after_going_back_loses_the_keys(
    debians: Bed, guest_debs: GuestDebs, debian_deb: Path
) -> None:
    install(debians, guest_debs)
    await_agent(debians)
    debians.mds.set("instance/attributes/ssh-keys", f"ada:{KEY}\ncarol:{KEY}")
    debians.wait_until(keys_of(debians, "carol").exists, 15, "our agent has made carol")
    go_back(debians, debian_deb)
    await_agent(debians)
    debians.mds.set("instance/attributes/ssh-keys", f"ada:{KEY}")
    await_no_keys(debians, "carol")
    assert KEY in keys_of(debians, "ada").read_text()


# Older and newer packages of ours.


@pytest.fixture
def boot(bed: Boot, guest_debs: GuestDebs) -> Boot:
    def booted(
        *,
        debs: Optional[Sequence[Path]] = None,
        startup: str = f"echo startup >>{RUNS}",
        config: str = EDITED,
        files: Optional[Mapping[str, str]] = None,
    ) -> Bed:
        written = {**SETTLED, CONFIG: config, **(files or {})}
        guest = bed(
            debs=guest_debs if debs is None else debs, metadata=document(startup), files=written
        )
        agent_service.await_first_passes(guest)
        return guest

    return booted


def await_startup_script(guest: Bed) -> None:
    guest.wait_until(
        lambda: guest.unit_property(STARTUP, "ExecMainExitTimestampMonotonic") != "0",
        what="the startup script has run",
    )


@pytest.mark.parametrize("course", ["newer", "older", "again"])
def test_exchanging_our_packages_leaves_everything_but_the_process(
    boot: Boot, guest_debs: GuestDebs, older_debs: list[Path], course: str
) -> None:
    before, after = {
        "newer": (older_debs, list(guest_debs)),
        "older": (list(guest_debs), older_debs),
        "again": (list(guest_debs), list(guest_debs)),
    }[course]
    guest = boot(debs=before)
    await_startup_script(guest)
    guest.run(["systemd-run", "--quiet", "--unit=watch", "ip", "monitor", "route"])
    held, jobs, pid = belongings(guest), script_unit_jobs(guest), agent_service.main_pid(guest)
    install(guest, after)
    await_agent(guest)
    agent_service.await_first_passes(guest)
    assert belongings(guest) == held
    assert script_unit_jobs(guest) == jobs
    assert VIP not in guest.journal("watch.service")
    assert agent_service.main_pid(guest) not in (0, pid)
    assert after[1].name == f"{PACKAGE}_{installed(guest)}_all.deb"
    assert agent_service.traces(guest) == []


def test_removing_our_packages_leaves_users_keys_settings_routes_and_scripts_alone(
    boot: Boot,
) -> None:
    guest = boot()
    await_startup_script(guest)
    held = belongings(guest)
    jobs = script_unit_jobs(guest)
    guest.run(["dpkg", "-r", PACKAGE, LIBRARY], timeout=60)
    assert belongings(guest) == held
    assert script_unit_jobs(guest) == jobs
    assert not guest.path("/usr/bin/google_guest_agent").exists()
    assert guest.unit_property(AGENT, "ActiveState") in ("inactive", "failed")


def test_purging_leaves_the_settings_that_no_package_owns(boot: Boot) -> None:
    guest = boot()
    held = belongings(guest)
    guest.run(["dpkg", "-P", PACKAGE, LIBRARY], timeout=60)
    assert belongings(guest).settings == held.settings
    assert belongings(guest).accounts == held.accounts
    assert not guest.path("/var/lib/google-guest-agent").exists()


def test_a_shutdown_after_an_upgrade_runs_the_shutdown_script_once(
    boot: Boot, guest_debs: GuestDebs, older_debs: list[Path]
) -> None:
    guest = boot(debs=older_debs)
    await_startup_script(guest)
    install(guest, guest_debs)
    guest.poweroff()
    assert guest.path(RUNS).read_text() == "startup\nshutdown\n"


def test_an_upgrade_out_of_a_startup_script_lets_the_script_reach_its_end(
    boot: Boot, guest_debs: GuestDebs, older_debs: list[Path]
) -> None:
    script = (
        f"#!/bin/sh\nexport DEBIAN_FRONTEND=noninteractive\n"
        f"apt-get install -y {FOLDER}/*.deb\necho apt $? >>{RUNS}\nsleep 1\necho end >>{RUNS}\n"
    )
    guest = boot(debs=older_debs)
    put(guest, guest_debs)
    guest.mds.set("instance/attributes/startup-script", script)
    guest.run(["rm", RUNS])
    guest.reboot()
    runs = guest.path(RUNS)
    guest.wait_until(lambda: "end" in runs.read_text(), 60, "the script reaches its last line")
    assert runs.read_text() == "shutdown\napt 0\nend\n"
    assert installed(guest) != OLDER
    guest.wait_until(
        lambda: guest.unit_property(STARTUP, "ActiveState") == "inactive", what="the unit is done"
    )
    assert guest.unit_property(STARTUP, "Result") == "success"


@pytest.mark.parametrize("choice", ["disable", "mask"])
def test_units_that_somebody_switched_off_stay_off(
    boot: Boot, guest_debs: GuestDebs, older_debs: list[Path], choice: str
) -> None:
    guest = boot(debs=older_debs)
    await_startup_script(guest)
    guest.run(["systemctl", "stop", AGENT])
    guest.run(["systemctl", choice, AGENT, STARTUP, SHUTDOWN])
    install(guest, guest_debs)
    assert enabled(guest) == [f"{choice.rstrip('e')}ed"] * 3
    # What was started by an exchange would be by now.
    time.sleep(1)
    assert guest.unit_property(AGENT, "ActiveState") == "inactive"
