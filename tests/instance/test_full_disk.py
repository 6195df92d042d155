"""A root file system without a free byte: who could log in still can, and nothing is cut short."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from support import agent_service
from support.agent_service import AGENT, SETTLED
from support.bed import Bed
from support.commands import run_command
from support.debs import GuestDebs
from support.documents import instance_document
from support.guest import Key

KEYS = "instance/attributes/ssh-keys"
RECORD = "/var/lib/google/managed_users.json"
PLENTY = 1 << 30


def resize(guest: Bed, size: int) -> None:
    """Give the bed's memory file system, on which its root's writes land, another size."""
    options = f"remount,size={size}"
    run_command(["mount", "-o", options, str(guest.directory)], purpose="resize a file system")


def fill(guest: Bed) -> None:
    """Leave not a single block."""
    facts = os.statvfs(guest.directory)
    resize(guest, (facts.f_blocks - facts.f_bfree) * facts.f_frsize)
    assert os.statvfs(guest.directory).f_bfree == 0


@pytest.fixture(scope="module")
def course(guest_debs: GuestDebs) -> Iterator[tuple[Bed, Key]]:
    """An instance with a user and a full disk, for whom metadata wants more."""
    with Bed(debs=guest_debs, metadata=instance_document(), files=dict(SETTLED)) as guest:
        key, second = guest.new_key(), guest.new_key()
        guest.mds.set(KEYS, f"ada:{key.public}")
        guest.wait_until(guest.path(keys_path("ada")).exists, what="ada has a key")
        guest.wait_until(lambda: "ada" in recorded(guest), what="ada is remembered")
        fill(guest)
        guest.mds.set(KEYS, f"ada:{key.public}\nada:{second.public}\nbob:{key.public}")
        guest.wait_until(
            lambda: agent_service.status(guest)["features"]["accounts"]["error"],
            what="the agent says what it cannot do",
        )
        yield guest, key
        resize(guest, PLENTY)


def keys_path(user: str) -> str:
    return f"/home/{user}/.ssh/authorized_keys"


def recorded(guest: Bed) -> list[str]:
    return sorted(json.loads(guest.path(RECORD).read_text())["users"])


def test_a_known_user_logs_in_and_becomes_root_on_a_full_disk(course: tuple[Bed, Key]) -> None:
    guest, key = course
    assert guest.ssh("ada", key, "sudo -n id -u").stdout == "0\n"


def test_nothing_is_cut_short_on_a_full_disk(course: tuple[Bed, Key]) -> None:
    guest, key = course
    assert guest.path(keys_path("ada")).read_text() == f"# Added by Google\n{key.public}\n"
    assert "ada" in recorded(guest)
    fresh = "find /etc /home /var/lib/google -type f -empty -newer /etc/google_instance_id"
    assert guest.run(f"{fresh} ! -name .updated ! -name '*.lock'").stdout == ""
    assert guest.run("find / -xdev -name '*.google-*'").stdout == ""


def test_a_full_disk_is_told_and_survived(course: tuple[Bed, Key]) -> None:
    guest = course[0]
    assert agent_service.is_active(guest)
    assert guest.unit_property(AGENT, "NRestarts") == "0"
    assert "No space left" in agent_service.status(guest)["features"]["accounts"]["error"]


def test_with_space_again_the_next_pass_does_the_rest(course: tuple[Bed, Key]) -> None:
    guest, key = course
    resize(guest, PLENTY)
    guest.run(["systemctl", "reload", AGENT])
    guest.wait_until(
        lambda: guest.ssh("bob", key, "sudo -n id -u", check=False).stdout == "0\n",
        what="the new user may log in and become root",
    )
    assert guest.path(keys_path("ada")).read_text().count("# Added by Google") == 2
    guest.wait_until(lambda: recorded(guest) == ["ada", "bob"], what="both are remembered")
    assert agent_service.traces(guest) == []
