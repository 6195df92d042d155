"""OS Login's package exchanged, removed and purged in running instances while OS Login is on.

Two instances, each with a life of its own whose steps are taken once: an upgrade and the removal of
our package, and the change from Debian's package to ours. At every step somebody with a local
account logs in.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.agent_service import SETTLED
from support.bed import Bed
from support.debs import OSLOGIN, GuestDebs, next_versions
from support.documents import instance_document
from support.guest import Key

SWITCH = "instance/attributes/enable-oslogin"
SERVICE = "google-oslogind.service"
CACHE = "/etc/oslogin/identity.v1.cache"
FORMER = "/etc/oslogin_passwd.cache"
FOLDER = "/var/tmp/packages"
SHOW_CONFIGURATION = (
    "sha256sum /etc/ssh/sshd_config /etc/nsswitch.conf /etc/pam.d/* /etc/security/*.conf;"
    " find /etc/ssh /etc/sudoers.d /etc/pam.d /etc/security -printf '%m %u %p\\n' | sort"
)
LEFT = (
    "ls -d /etc/oslogin* /etc/sudoers.d/google-* /var/google-* /run/google-sudoers.d"
    " /run/google-oslogin /run/systemd/userdb/*OSLogin* /etc/ssh/oslogin_trustedca.pub 2>/dev/null"
)

SHOW_LINES = (
    "grep -rEi 'oslogin|os login|google_auth|google-users' /etc/ssh/sshd_config /etc/nsswitch.conf"
    " /etc/pam.d /etc/security /etc/sudoers.d"
)

# They share instances.
pytestmark = pytest.mark.xdist_group("oslogin-packages")


@dataclass
class Life:
    """An instance, and what was seen at the steps of its life."""

    guest: Bed
    local: Key
    remote: Key
    local_logins: dict[str, bool] = field(default_factory=dict)
    remote_logins: dict[str, bool] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)

    def step(self, name: str) -> None:
        self.local_logins[name] = self._may_log_in("bob", self.local)
        self.remote_logins[name] = self._may_log_in("ada", self.remote)
        self.note(name, SHOW_CONFIGURATION)

    def note(self, name: str, command: str) -> None:
        self.seen[name] = self.guest.run(["sh", "-c", command], check=False).stdout

    def _may_log_in(self, user: str, key: Key) -> bool:
        return self.guest.ssh(user, key, "true", check=False).status == 0

    def dpkg(self, *arguments: str, debs: Sequence[Path] = ()) -> None:
        folder = self.guest.path(FOLDER)
        folder.mkdir(exist_ok=True)
        for deb in debs:
            shutil.copy(deb, folder)
        names = [f"{FOLDER}/{deb.name}" for deb in debs]
        self.guest.run(["dpkg", "--auto-deconfigure", *arguments, *names], timeout=120)

    def switch_on(self) -> None:
        self.guest.mds.set(SWITCH, "true")
        self.guest.wait_until(
            lambda: self._may_log_in("ada", self.remote), 30, "ada can log in", interval=0.5
        )


def settle(guest: Bed) -> Life:
    """With a person of OS Login and somebody who has an account and a key of their own."""
    life = Life(guest, guest.new_key(), guest.new_key())
    guest.mds.oslogin_user("ada", uid=2001, keys=[life.remote.public])
    guest.run("useradd -m -s /bin/bash bob && install -d -m 0700 -o bob -g bob /home/bob/.ssh")
    guest.write("/home/bob/.ssh/authorized_keys", f"{life.local.public}\n")
    guest.run("chown bob:bob /home/bob/.ssh/authorized_keys")
    return life


@pytest.fixture(scope="module")
def ours(guest_debs: GuestDebs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """On, upgraded, removed, purged."""
    debs = guest_debs.with_packages(OSLOGIN)
    files = dict(SETTLED)
    with Bed("bookworm", debs=debs, metadata=instance_document(), files=files) as guest:
        life = settle(guest)
        life.step("off")
        life.switch_on()
        life.step("on")
        before = guest.unit_property(SERVICE, "MainPID")
        life.dpkg("-i", debs=next_versions(debs, tmp_path_factory.mktemp("next")))
        life.seen["processes"] = f"{before} {guest.unit_property(SERVICE, 'MainPID')}"
        life.step("upgraded")
        life.note("score", f"systemd-analyze security --no-pager {SERVICE} | tail -1")
        life.note(
            "verified", "systemd-analyze verify --man=no /lib/systemd/system/google-oslog* 2>&1"
        )
        life.dpkg("--remove", OSLOGIN)
        life.step("removed")
        # The agent hears of new metadata while the package is away.
        guest.mds.set("instance/attributes/unrelated", "1")
        guest.wait_until(lambda: guest.mds.waiting_clients, what="the agent has heard of it")
        life.step("after metadata")
        life.dpkg("--purge", OSLOGIN)
        life.step("purged")
        life.note("left", LEFT)
        life.note("units", "systemctl list-units --all --no-legend '*oslogin*'")
        yield life


@pytest.fixture(scope="module")
def theirs(guest_debs: GuestDebs, debian_deb: Path) -> Iterator[Life]:
    """With Debian's agent and package, on; then with ours; then removed."""
    files = {**SETTLED, FORMER: "old:*:2999:2999::/home/old:/bin/bash\n"}
    with Bed(
        "bookworm",
        debs=(debian_deb,),
        packages=(OSLOGIN,),
        metadata=instance_document(),
        files=files,
    ) as guest:
        life = settle(guest)
        life.step("off")
        life.switch_on()
        life.step("debian's")
        life.dpkg("-i", debs=guest_debs.with_packages(OSLOGIN))
        life.step("just changed")
        guest.wait_until(
            lambda: guest.path(CACHE).exists() and not guest.path(FORMER).exists(),
            60,
            "our cache is there and the former one is gone",
        )
        life.switch_on()
        life.step("ours")
        life.dpkg("--remove", OSLOGIN)
        life.step("removed")
        life.note("lines", SHOW_LINES)
        yield life


@pytest.mark.parametrize("step", ["off", "on", "upgraded", "removed", "after metadata", "purged"])
def test_local_account_can_log_in_at_every_step(ours: Life, step: str) -> None:
    assert ours.local_logins[step]


def test_people_of_os_login_can_log_in_while_it_is_on_and_installed(ours: Life) -> None:
    assert ours.remote_logins == {
        "off": False,
        "on": True,
        "upgraded": True,
        "removed": False,
        "after metadata": False,
        "purged": False,
    }


def test_upgrade_starts_the_service_anew(ours: Life) -> None:
    before, after = ours.seen["processes"].split()
    assert before != "0" and before != after


def test_upgrade_changes_no_configuration(ours: Life) -> None:
    assert ours.seen["upgraded"] == ours.seen["on"]


@pytest.mark.parametrize("step", ["removed", "after metadata", "purged"])
def test_removal_sets_every_file_back_byte_for_byte(ours: Life, step: str) -> None:
    assert ours.seen["on"] != ours.seen["off"]
    assert ours.seen[step] == ours.seen["off"]


def test_purge_leaves_neither_files_nor_units(ours: Life) -> None:
    assert (ours.seen["left"], ours.seen["units"]) == ("", "")


def test_units_are_sound(ours: Life) -> None:
    assert ours.seen["verified"] == ""


def test_service_is_hardly_exposed(ours: Life) -> None:
    score = float(ours.seen["score"].split(":")[1].split()[0])
    assert score <= 2.0


def test_local_account_can_log_in_throughout_the_change_from_debians_package(theirs: Life) -> None:
    assert set(theirs.local_logins.values()) == {True}


def test_people_of_os_login_can_log_in_before_and_after_the_change(theirs: Life) -> None:
    assert theirs.remote_logins["debian's"] and theirs.remote_logins["ours"]
    assert not theirs.remote_logins["removed"]


def test_removal_after_the_change_leaves_no_line_of_either(theirs: Life) -> None:
    assert theirs.seen["lines"] == ""
