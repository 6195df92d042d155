"""The rpms' life in a running instance: installed, started, upgraded, erased.  rpm logic on a
Debian userland: the packages of EL 9 with their own scriptlets, Debian's rpm, systemd and Python.

One instance, whose steps are taken once.  What people have must not notice: users, keys, routes,
settings, and scripts, which run when the machine starts and stops and at no other time.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import artifact_table
import pytest
from support import agent_service, rpm_roots, rpm_versions
from support.agent_service import AGENT, CONFIG, SETTLED
from support.bed import Bed
from support.documents import instance_document, nic_document
from support.network import numbered_nics
from support.rpm_machine import MODULES_OF_DEBIAN, OTHERS_MODULES, RPM_FILES
from support.rpm_versions import AGENT as PACKAGE

TARGET = "el9"
STARTUP, SHUTDOWN = "google-startup-scripts.service", "google-shutdown-scripts.service"
TIMER = "gce-workload-cert-refresh.timer"
RUNS = "/var/tmp/runs"
VIP = "192.0.2.10"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 ada"
EDITED = "[Accounts]\ngroups = video\n# the administrator's own line\n"
FOLDER = "/var/tmp/packages"

pytestmark = pytest.mark.xdist_group("rpm-life")


def document() -> dict[str, object]:
    nic = nic_document(numbered_nics(1)[0], forwardedIps=[VIP])
    attributes = {
        "ssh-keys": f"ada:{KEY}",
        "startup-script": f"#!/bin/sh\necho startup >>{RUNS}\n",
        "shutdown-script": f"#!/bin/sh\necho shutdown >>{RUNS}\n",
    }
    return instance_document(attributes=attributes, instance={"networkInterfaces": [nic]})


@dataclass
class Step:
    """What was seen after one step."""

    active: str
    enabled: list[str]
    ready: bool
    pid: int
    runs: str
    belongings: str
    scriptlets: list[str]
    said: str
    verified: str
    traces: list[str]


@dataclass
class Life:
    """The instance and its steps by their names."""

    guest: Bed
    steps: dict[str, Step] = field(default_factory=dict)

    def rpm(self, *arguments: str, rpms: Sequence[Path] = ()) -> str:
        folder = self.guest.path(FOLDER)
        folder.mkdir(exist_ok=True)
        for rpm in rpms:
            shutil.copy(rpm, folder)
        files = [f"{FOLDER}/{rpm.name}" for rpm in rpms]
        command = ["rpm", "-vv", "--nodeps", "--force-debian", *arguments, *files]
        done = self.guest.run(command, timeout=120)
        return done.stdout + done.stderr

    def note(self, name: str, said: str = "") -> None:
        guest = self.guest
        active = guest.unit_property(AGENT, "ActiveState")
        state = guest.run(["systemctl", "is-enabled", AGENT, STARTUP, SHUTDOWN, TIMER], check=False)
        ready = "google-guest status" if guest.path("/usr/bin/google-guest").exists() else "false"
        self.steps[name] = Step(
            active=active,
            enabled=state.stdout.split(),
            ready=guest.run(ready, check=False).status == 0,
            pid=agent_service.main_pid(guest),
            runs=guest.run(["cat", RUNS], check=False).stdout,
            belongings=self._belongings(),
            # In which order rpm has run which scriptlet of which package.
            scriptlets=re.findall(r"(%\w+)\(([\w-]+?)-\d[^)]*\): (?:scriptlet start|execv)", said),
            said=said,
            verified=guest.run(["rpm", "-Va", "--nodeps"], check=False).stdout,
            traces=agent_service.traces(guest),
        )

    def _belongings(self) -> str:
        shown = [
            "cat /etc/passwd /etc/group /etc/shadow /etc/sudoers.d/google_sudoers",
            "cat /home/*/.ssh/authorized_keys",
            "sha256sum /etc/ssh/ssh_host_*",
            f"cat {CONFIG}; stat -c '%a %U %i' {CONFIG}",
            "cat /etc/google_instance_id",
            "ip route show table local proto 66",
        ]
        return "\n".join(self.guest.run(line, check=False).stdout for line in shown)

    def await_agent(self) -> None:
        self.guest.wait_until(
            lambda: agent_service.is_active(self.guest), 30, "the agent runs and is ready"
        )
        agent_service.await_first_passes(self.guest)


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    now, later = rpm_versions.rpms(TARGET), rpm_versions.later_rpms(TARGET)
    files = {**SETTLED, **RPM_FILES, CONFIG: EDITED}
    with Bed(packages=rpm_roots.RPM_TOOLS, metadata=document(), files=files) as guest:
        for folder in artifact_table.target(TARGET).module_folders[:1]:
            links = " ".join(f"{MODULES_OF_DEBIAN}/{name}" for name in OTHERS_MODULES)
            guest.run(f"mkdir -p {folder} && ln -s {links} {folder}")
        course = Life(guest)
        said = course.rpm("-i", rpms=list(now.values()))
        course.await_agent()
        course.note("installed", said)
        guest.reboot()
        course.await_agent()
        guest.wait_until(
            lambda: guest.unit_property(STARTUP, "ExecMainExitTimestampMonotonic") != "0",
            what="the startup script has run",
        )
        course.note("started again")
        said = course.rpm("-U", rpms=list(later.values()))
        course.await_agent()
        course.note("upgraded", said)
        said = course.rpm("-e", *(rpm_versions.names(TARGET)[key] for key in reversed(now)))
        course.note("erased", said)
        yield course


def test_installation_leaves_the_agent_active_and_ready(life: Life) -> None:
    step = life.steps["installed"]
    assert (step.active, step.enabled) == ("active", ["enabled"] * 4)
    assert step.ready
    assert step.traces == []


def test_installation_runs_no_script(life: Life) -> None:
    assert life.steps["installed"].runs == ""


def test_startup_script_runs_once_at_the_next_start(life: Life) -> None:
    assert life.steps["started again"].runs.endswith("startup\n")
    assert life.steps["started again"].runs.count("startup") == 1


def test_upgrade_leaves_the_agent_active_in_a_new_process(life: Life) -> None:
    before, after = life.steps["started again"], life.steps["upgraded"]
    assert (after.active, after.enabled, after.ready) == ("active", ["enabled"] * 4, True)
    assert after.pid not in (0, before.pid)
    assert after.traces == []


@pytest.mark.parametrize("step", ["upgraded", "erased"])
def test_no_script_runs_when_packages_change(life: Life, step: str) -> None:
    assert life.steps[step].runs == life.steps["started again"].runs


@pytest.mark.parametrize("step", ["upgraded", "erased"])
def test_users_keys_settings_and_routes_stay(life: Life, step: str) -> None:
    held = life.steps["started again"].belongings
    assert KEY in held
    assert VIP in held
    assert life.steps[step].belongings == held


def test_upgrade_runs_the_new_packages_scriptlets_first_and_the_last_ones_at_the_end(
    life: Life,
) -> None:
    order = [kind for kind, package in life.steps["upgraded"].scriptlets if package == PACKAGE]
    places = [order.index(kind) for kind in ("%post", "%preun", "%postun") if kind in order]
    assert places == sorted(places)
    assert "%post" in order
    assert "%postun" in order
    if "%posttrans" in order:
        assert order.index("%posttrans") == len(order) - 1


@pytest.mark.parametrize("step", ["installed", "upgraded"])
def test_installed_files_are_those_of_the_database(life: Life, step: str) -> None:
    assert life.steps[step].verified == ""


def test_erasure_stops_the_agent_and_disables_its_units(life: Life) -> None:
    step = life.steps["erased"]
    assert step.active in ("inactive", "failed")
    assert "enabled" not in step.enabled
    assert not life.guest.path("/usr/bin/google_guest_agent").exists()
    assert step.traces == []
