"""The rpms' life in a running instance: installed, started, upgraded, erased.  rpm logic on a
Debian userland: the packages of EL 9 with their own scriptlets, Debian's rpm, systemd and Python.

One instance, whose steps are taken once.  What people have must not notice: users, keys, routes,
settings, and scripts, which run when the machine starts and stops and at no other time.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import artifact_table
import pytest
from support import agent_service, rpm_roots, rpm_versions
from support.agent_service import AGENT, CONFIG, SETTLED
from support.bed import Bed
from support.documents import instance_document, nic_document
from support.network import numbered_nics
from support.rpm_machine import MODULES_OF_DEBIAN, OTHERS_MODULES, RPM_FILES, made_rpm
from support.rpm_versions import AGENT as PACKAGE

TARGET = "el9"
STARTUP, SHUTDOWN = "google-startup-scripts.service", "google-shutdown-scripts.service"
TIMER = "gce-workload-cert-refresh.timer"
RUNS = "/var/tmp/runs"
VIP = "192.0.2.10"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 ada"
EDITED = "[Accounts]\ngroups = video\n# the administrator's own line\n"
FOLDER = "/var/tmp/packages"

MANAGERS = ("google-guest-agent-manager.service", "google-guest-compat-manager.service")
Boot = Callable[..., Bed]

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
            scriptlets=re.findall(r"(%\w+)\(([\w-]+?)-\d[^)]*\): scriptlet start", said),
            said=said,
            verified=guest.run(["rpm", "-Va", "--nodeps"], check=False).stdout,
            traces=agent_service.traces(guest),
        )

    def exchange_in_a_startup_script(self, rpms: Sequence[Path]) -> None:
        """The next startup script installs other versions of the packages that run it."""
        guest = self.guest
        folder = guest.path(FOLDER)
        for rpm in (*folder.iterdir(),):
            rpm.unlink()
        for rpm in rpms:
            shutil.copy(rpm, folder)
        guest.mds.set(
            "instance/attributes/startup-script",
            f"#!/bin/sh\nrpm -U --oldpackage --nodeps --force-debian {FOLDER}/*.rpm\n"
            f"echo rpm $? >>{RUNS}\nsleep 1\necho end >>{RUNS}\n",
        )
        guest.run(["rm", RUNS])
        guest.reboot()
        runs = guest.path(RUNS)
        guest.wait_until(lambda: "end" in runs.read_text(), 60, "the script reaches its last line")
        guest.wait_until(
            lambda: guest.unit_property(STARTUP, "ActiveState") == "inactive", what="it is done"
        )
        self.await_agent()

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


def lend_modules(guest: Bed) -> None:
    """Let Debian's PyYAML and urllib3 be found where the packages look for them."""
    folder = artifact_table.target(TARGET).module_folders[0]
    links = " ".join(f"{MODULES_OF_DEBIAN}/{name}" for name in OTHERS_MODULES)
    guest.run(f"mkdir -p {folder} && ln -s {links} {folder}")


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    now, later = rpm_versions.rpms(TARGET), rpm_versions.later_rpms(TARGET)
    files = {**SETTLED, **RPM_FILES, CONFIG: EDITED}
    with Bed(packages=rpm_roots.RPM_TOOLS, metadata=document(), files=files) as guest:
        lend_modules(guest)
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
        course.exchange_in_a_startup_script(list(now.values()))
        course.note("exchanged by a script")
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


def test_no_script_runs_when_packages_change(life: Life) -> None:
    assert life.steps["upgraded"].runs == life.steps["started again"].runs
    assert life.steps["erased"].runs == life.steps["exchanged by a script"].runs


def test_script_that_exchanges_the_packages_reaches_its_end(life: Life) -> None:
    step = life.steps["exchanged by a script"]
    assert step.runs == "shutdown\nrpm 0\nend\n"
    assert (step.active, step.enabled, step.ready) == ("active", ["enabled"] * 4, True)
    assert life.guest.unit_property(STARTUP, "Result") == "success"


@pytest.mark.parametrize("step", ["upgraded", "exchanged by a script", "erased"])
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


@pytest.mark.parametrize("step", ["installed", "upgraded", "exchanged by a script"])
def test_installed_files_are_those_of_the_database(life: Life, step: str) -> None:
    assert life.steps[step].verified == ""


def test_erasure_stops_the_agent_and_disables_its_units(life: Life) -> None:
    step = life.steps["erased"]
    assert step.active in ("inactive", "failed")
    assert "enabled" not in step.enabled
    assert not life.guest.path("/usr/bin/google_guest_agent").exists()
    assert step.traces == []


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    """The vendor's agent whose manager runs in the agent's stead (guest-agent: packaging/)."""
    unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    return made_rpm(
        tmp_path,
        PACKAGE,
        "20251218.00",
        release="g1.el9",
        epoch=2,
        files={f"/usr/lib/systemd/system/{each}": unit for each in (AGENT, *MANAGERS)},
        scripts={
            "post": f"systemctl daemon-reload; systemctl enable --now {' '.join(MANAGERS)}\n"
            f"systemctl disable {AGENT}",
            "preun": f"if [ $1 -eq 0 ]; then systemctl disable --now {' '.join(MANAGERS)}; fi",
        },
    )


def test_vendors_managers_give_way_to_the_agent(bed: Boot, vendor: Path) -> None:
    guest = bed(packages=rpm_roots.RPM_TOOLS, metadata=document(), files={**SETTLED, **RPM_FILES})
    lend_modules(guest)
    course = Life(guest)
    course.rpm("-U", rpms=[vendor])
    assert {guest.unit_property(unit, "ActiveState") for unit in MANAGERS} == {"active"}
    packages = rpm_versions.later_rpms(TARGET)
    course.rpm("-U", rpms=[packages[rpm_versions.LIBRARY], packages[PACKAGE]])
    course.await_agent()
    assert {guest.unit_property(unit, "ActiveState") for unit in MANAGERS} == {"inactive"}
    found = guest.run(["find", "/etc/systemd", "-name", "google-guest-*manager*"])
    assert found.stdout == ""
    assert guest.run(["systemctl", "is-enabled", AGENT]).stdout.strip() == "enabled"
    assert guest.run(["cat", RUNS], check=False).stdout == ""
