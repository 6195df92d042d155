"""The agent killed at any moment: nothing is left half written, and the next start mends the rest.

A program in the guest starts the agent, kills it after a given time with SIGKILL and looks at every
file that the agent, or a tool that it runs, may have been writing. The moments and the changes of
metadata are random but the same in every run.
"""

from __future__ import annotations

import base64
import json
import random
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Optional

import pytest
from support import agent_service
from support.agent_service import AGENT, CONFIG, INSTANCE_MARKER, SETTLED
from support.bed import Bed
from support.debs import GuestDebs
from support.documents import INSTANCE_ID, instance_document

ROUNDS = 100
"""For each of two instances."""
SETTLE_EVERY = 20
USERS = ("ada", "bob", "cleo", "dora")
ADMIN = "admin"
"""A user that was there before, with lines of its own; metadata has keys for it at times."""
ADDRESSES = tuple(f"192.0.2.{number}" for number in range(10, 18))
OWN_LINES = "# mine\n\nssh-rsa AAAAB3NzaC1yc2E= the administrator's, unterminated"
DRIVER = "/usr/local/lib/kill-agent.py"
FORWARDED = "instance/network-interfaces/0/forwarded-ips"
Boot = Callable[..., Bed]

# They share instances.
pytestmark = pytest.mark.xdist_group("crash-safety")

_DRIVER_TEXT = r'''
"""Reads {"delay": seconds} or {"finish": true}; writes {"problems": [...], "status": number}."""
import glob, json, os, re, signal, subprocess, sys, time

MARKER = "# Added by Google"
AGENT = "/usr/bin/google_guest_agent"
COLONS = {"/etc/passwd": 6, "/etc/group": 3, "/etc/shadow": 8, "/etc/gshadow": 3}
quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def text(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def problems(keys, own):
    for folder in ("/var/lib/google", "/var/lib/google-guest-agent", "/run/google-guest-agent"):
        for path in glob.glob(folder + "/*.json"):
            found = text(path)
            try:
                json.loads(found or "")
            except ValueError:
                yield f"{path} is no document: {found[-60:]!r}"
    for path in glob.glob("/home/*/.ssh/authorized_keys"):
        found = text(path) or ""
        lines = found.split("\n")
        if found and not found.endswith("\n") and not found.endswith(own):
            yield f"{path} ends in the middle: {found[-60:]!r}"
        for number, line in enumerate(lines):
            if line == MARKER and (number + 1 >= len(lines) or lines[number + 1] not in keys):
                yield f"{path} has a marker without its key: {lines[number + 1:][:1]}"
    for path, colons in COLONS.items():
        found = text(path) or ""
        if not found.endswith("\n"):
            yield f"{path} ends in the middle"
        for line in found.splitlines():
            if line.count(":") != colons:
                yield f"{path} has a broken line: {line[:60]!r}"
    rule = text("/etc/sudoers.d/google_sudoers")
    if rule is not None and rule != "%google-sudoers ALL=(ALL:ALL) NOPASSWD:ALL\n":
        yield f"the rule for sudo is broken: {rule!r}"
    listed = text("/var/lib/google/google_users") or ""
    if listed and not re.fullmatch("([a-z]+\n)+", listed):
        yield f"the list of users is broken: {listed!r}"


for line in sys.stdin:
    order = json.loads(line)
    status = None
    if "delay" in order:
        agent = subprocess.Popen([AGENT], **quiet)
        time.sleep(order["delay"])
        agent.send_signal(signal.SIGKILL)
        status = agent.wait()
    elif "finish" in order:
        status = subprocess.run([AGENT, "--once"], **quiet).returncode
    answer = {"status": status, "problems": list(problems(order["keys"], order["own"]))}
    print(json.dumps(answer), flush=True)
'''


def key(number: int) -> str:
    """A public key of the right form."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([number]) * 32
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} key-{number}"


KEYS = tuple(key(number) for number in range(8))


@dataclass
class Wish:
    """What metadata asks for."""

    users: Mapping[str, tuple[str, ...]]
    addresses: tuple[str, ...]

    @classmethod
    def choose(cls, chance: random.Random) -> Wish:
        users = chance.sample((*USERS, ADMIN), chance.randint(0, len(USERS) + 1))
        return cls(
            {name: tuple(chance.sample(KEYS, chance.randint(1, 3))) for name in sorted(users)},
            tuple(sorted(chance.sample(ADDRESSES, chance.randint(0, len(ADDRESSES))))),
        )

    def ask(self, guest: Bed) -> None:
        lines = [f"{name}:{key}" for name, keys in self.users.items() for key in keys]
        with guest.mds.batch():
            guest.mds.set("instance/attributes/ssh-keys", "\n".join(lines))
            guest.mds.set(FORWARDED, list(self.addresses))


class Killer:
    """The program in the guest that starts and kills agents."""

    def __init__(self, guest: Bed) -> None:
        self._process = subprocess.Popen(
            [*guest.enter(), "python3", "-IS", DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Killer:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def begin(self, delay: float) -> None:
        """Start an agent that lives for `delay` seconds."""
        self._send(delay=delay)

    def end(self) -> list[str]:
        """What is broken now that it is dead."""
        return list(self._answer()["problems"])

    def finish(self) -> tuple[int, list[str]]:
        """Let an agent make one pass to its end: its exit status, and what is broken."""
        self._send(finish=True)
        answer = self._answer()
        return answer["status"], answer["problems"]

    def _send(self, **order: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**order, "keys": KEYS, "own": OWN_LINES}) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, dict)
        return answer


@dataclass
class Course:
    """What came of many kills in one instance."""

    torn: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    interrupted: int = 0
    """Kills that left something to do."""
    rounds: int = 0
    afterwards: str = ""
    own_lines: str = ""


def is_in_force(guest: Bed, wish: Wish) -> str:
    """What of the wish is not in force; empty if all of it is."""
    entries = guest.path("/etc/passwd").read_text().splitlines()
    users = {name for name in USERS if any(line.startswith(f"{name}:") for line in entries)}
    if users != wish.users.keys() - {ADMIN}:
        return f"users {sorted(users)} instead of {sorted(wish.users)}"
    for name in {ADMIN, *wish.users}:
        file = guest.path(f"/home/{name}/.ssh/authorized_keys")
        found = file.read_text() if file.exists() else ""
        wanted = "".join(f"# Added by Google\n{key}\n" for key in wish.users.get(name, ()))
        if name == ADMIN:
            wanted = f"{OWN_LINES}\n{wanted}" if wanted else OWN_LINES
        if found != wanted:
            return f"keys of {name}: {found!r}"
        groups = guest.run(["id", "-nG", name]).stdout.split()
        if ("google-sudoers" in groups) != (name in wish.users):
            return f"groups of {name}: {groups}"
    shown = json.loads(guest.run("ip -j route show table local proto 66").stdout or "[]")
    routes = tuple(sorted(route["dst"] for route in shown))
    return "" if routes == wish.addresses else f"routes {routes} instead of {wish.addresses}"


def run_course(debs: GuestDebs, seed: int) -> Course:
    """Kill agents in an instance of their own; see the module's docstring."""
    course = Course()
    chance = random.Random(seed)
    files = {
        **SETTLED,
        CONFIG: "[Accounts]\ndeprovision_remove = true\n",
        DRIVER: _DRIVER_TEXT,
    }
    with (
        Bed(debs=debs, metadata=instance_document(), files=files) as guest,
        Killer(guest) as killer,
    ):
        guest.run(["systemctl", "stop", AGENT])
        prepare_administrator(guest)
        longest = length_of_a_pass(guest, killer)
        for number in range(1, ROUNDS + 1):
            wish = Wish.choose(chance)
            wish.ask(guest)
            delay = chance.uniform(longest / 8, longest)
            killer.begin(delay)
            if chance.random() < 0.5:
                # Something to follow while it lives.
                time.sleep(delay * chance.random())
                wish = Wish.choose(chance)
                wish.ask(guest)
            course.torn += [f"round {number}: {problem}" for problem in killer.end()]
            course.interrupted += is_in_force(guest, wish) != ""
            course.rounds += 1
            if number % SETTLE_EVERY == 0:
                settle(guest, killer, wish, course)
        useradd = guest.run("useradd -m zoe && gpasswd -a zoe video && userdel -r zoe", check=False)
        course.afterwards = useradd.stderr if useradd.status != 0 else ""
        Wish({}, ()).ask(guest)
        settle(guest, killer, Wish({}, ()), course)
        course.own_lines = guest.path("/home/admin/.ssh/authorized_keys").read_text()
    return course


def length_of_a_pass(guest: Bed, killer: Killer) -> float:
    """Return the seconds that a pass takes here in which everything is to be done."""
    Wish({name: KEYS[:3] for name in (*USERS, ADMIN)}, ADDRESSES).ask(guest)
    began = time.monotonic()
    assert killer.finish() == (0, [])
    return time.monotonic() - began


def settle(guest: Bed, killer: Killer, wish: Wish, course: Course) -> None:
    status, problems = killer.finish()
    course.torn += [f"after round {course.rounds}: {problem}" for problem in problems]
    missing = is_in_force(guest, wish)
    if status != 0 or missing:
        said = guest.journal().splitlines()[-12:]
        course.unsettled.append(f"after round {course.rounds}: {status} {missing} {said}")


def prepare_administrator(guest: Bed) -> None:
    """A user with lines of its own who has a key in metadata, too, from time to time."""
    guest.run("useradd -m -s /bin/bash admin && install -d -m 700 -o admin -g admin ~admin/.ssh")
    file = "/home/admin/.ssh/authorized_keys"
    guest.write(file, OWN_LINES, mode=0o600)
    guest.run(["chown", "admin:admin", file])


@pytest.fixture(scope="module")
def courses(guest_debs: GuestDebs) -> list[Course]:
    """Two instances side by side, each with its own random numbers."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda seed: run_course(guest_debs, seed), (20261124, 4815)))


def test_two_hundred_kills_tear_no_file(courses: list[Course]) -> None:
    assert sum(course.rounds for course in courses) == 2 * ROUNDS
    assert [problem for course in courses for problem in course.torn] == []


def test_the_kills_come_in_the_middle_of_the_work(courses: list[Course]) -> None:
    assert sum(course.interrupted for course in courses) > ROUNDS / 2


def test_after_kills_the_next_pass_brings_everything_in_line(courses: list[Course]) -> None:
    assert [problem for course in courses for problem in course.unsettled] == []


def test_after_kills_the_administrator_can_make_users(courses: list[Course]) -> None:
    assert [course.afterwards for course in courses] == ["", ""]


def test_kills_leave_the_lines_of_the_administrator(courses: list[Course]) -> None:
    assert [course.own_lines for course in courses] == [OWN_LINES, OWN_LINES]


# Other ways to be interrupted.


@pytest.fixture
def boot(bed: Boot, guest_debs: GuestDebs) -> Boot:
    def booted(**description: object) -> Bed:
        files = {**SETTLED, DRIVER: _DRIVER_TEXT, **description.pop("files", {})}  # type: ignore[dict-item]
        description.setdefault("metadata", instance_document())
        return bed(debs=guest_debs, files=files, **description)

    return booted


def test_kills_during_the_first_boot_leave_pairs_of_host_keys(boot: Boot) -> None:
    guest = boot(files={CONFIG: "[InstanceSetup]\nhost_key_types = ecdsa,ed25519\n"})
    guest.run(["systemctl", "stop", AGENT])
    guest.run("rm -f /etc/ssh/ssh_host_rsa_key*")
    chance = random.Random(INSTANCE_ID)
    with Killer(guest) as killer:
        for number in range(20):
            guest.mds.set("instance/id", INSTANCE_ID + 1 + number // 4)
            killer.begin(chance.uniform(0.15, 0.6))
            assert killer.end() == []
            assert [name for name in host_keys(guest) if not is_pair(guest, name)] == []
        assert killer.finish() == (0, [])
    assert guest.path(INSTANCE_MARKER).read_text().strip() == str(INSTANCE_ID + 5)
    assert sorted(host_keys(guest)) == ["ssh_host_ecdsa_key", "ssh_host_ed25519_key"]
    assert [name for name in host_keys(guest) if not is_pair(guest, name)] == []


def host_keys(guest: Bed) -> list[str]:
    return [file.name for file in guest.path("/etc/ssh").glob("ssh_host_*_key")]


def is_pair(guest: Bed, name: str) -> bool:
    derived = guest.run(["ssh-keygen", "-y", "-f", f"/etc/ssh/{name}"]).stdout.split()[:2]
    public = guest.path(f"/etc/ssh/{name}.pub")
    return public.exists() and public.read_text().split()[:2] == derived


def test_a_killed_service_is_started_again_and_goes_on(boot: Boot) -> None:
    guest = boot()
    guest.run(["kill", "-KILL", str(agent_service.main_pid(guest))])
    guest.mds.set("instance/attributes/ssh-keys", f"ada:{KEYS[0]}")
    guest.wait_until(
        lambda: guest.path("/home/ada/.ssh/authorized_keys").exists(), 15, "the agent is back"
    )
    assert guest.unit_property(AGENT, "NRestarts") == "1"


def test_a_power_loss_in_the_middle_is_mended_by_the_next_boot(boot: Boot) -> None:
    guest = boot(files={CONFIG: "[Accounts]\ndeprovision_remove = true\n"})
    prepare_administrator(guest)
    chance = random.Random(7)
    for _ in range(3):
        wish = Wish.choose(chance)
        wish.ask(guest)
        time.sleep(chance.uniform(0.02, 0.2))
        guest.power_loss()
        guest.boot()
        assert is_in_force(guest, wish) == ""
    assert guest.failed_units() == ()
