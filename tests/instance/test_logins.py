"""Logins with keys from metadata through a real sshd: who gets in, and who no longer does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agent_service import AGENT, SETTLED
from support.bed import Bed
from support.debs import GuestDebs
from support.documents import instance_document
from support.guest import Key

KEYS = "instance/attributes/ssh-keys"
LIFETIME = 4
"""Seconds: enough for a login before the end."""

Boot = Callable[[], Bed]


@pytest.fixture
def boot(bed: Callable[..., Bed], guest_debs: GuestDebs) -> Boot:
    """Boot an instance that had its first boot and whose metadata names nobody."""
    return lambda: bed(debs=guest_debs, metadata=instance_document(), files=dict(SETTLED))


def keys_file(guest: Bed, user: str) -> Path:
    return guest.path(f"/home/{user}/.ssh/authorized_keys")


def await_key(guest: Bed, user: str, key: Key) -> None:
    file = keys_file(guest, user)
    guest.wait_until(
        lambda: file.is_file() and key.public in file.read_text(), what=f"a key of {user} is there"
    )


def may_log_in(guest: Bed, user: str, key: Key) -> bool:
    """Whether sshd lets this user in with this key; any other failure is an error."""
    done = guest.ssh(user, key, "true", check=False)
    assert done.status == 0 or "Permission denied" in done.stderr, done.stderr
    return done.status == 0


def expiring(key: Key, seconds: float) -> str:
    """The key as a line of metadata that counts for some seconds."""
    end = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(time.time() + seconds))
    kind, blob = key.public.split()[:2]
    return f'{kind} {blob} google-ssh {{"userName":"b@example.com","expireOn":"{end}"}}'


def test_a_key_that_metadata_no_longer_has_is_refused_and_the_others_are_not(boot: Boot) -> None:
    guest = boot()
    kept, dropped = guest.new_key(), guest.new_key()
    guest.mds.set(KEYS, f"bob:{kept.public}\nbob:{dropped.public}")
    await_key(guest, "bob", dropped)
    assert may_log_in(guest, "bob", kept) and may_log_in(guest, "bob", dropped)
    guest.mds.set(KEYS, f"bob:{kept.public}")
    guest.wait_until(lambda: not may_log_in(guest, "bob", dropped), what="the key is refused")
    assert may_log_in(guest, "bob", kept)


def test_an_expired_key_is_refused_while_the_metadata_server_is_silent(boot: Boot) -> None:
    guest = boot()
    key = guest.new_key()
    line = expiring(key, LIFETIME)
    guest.mds.set(KEYS, f"bob:{line}")
    guest.wait_until(
        lambda: keys_file(guest, "bob").is_file() and line in keys_file(guest, "bob").read_text(),
        what="the key is there",
    )
    assert may_log_in(guest, "bob", key)
    guest.drop_metadata_packets()
    guest.wait_until(
        lambda: not may_log_in(guest, "bob", key), LIFETIME + 5, "the key is refused", interval=0.5
    )
    assert guest.unit_property(AGENT, "ActiveState") == "active"


def test_a_user_without_keys_in_metadata_loses_sudo_as_well(boot: Boot) -> None:
    guest = boot()
    key, own = guest.new_key(), guest.new_key()
    guest.mds.set(KEYS, f"bob:{key.public}")
    await_key(guest, "bob", key)
    assert guest.ssh("bob", key, "sudo -n id -u").stdout == "0\n"
    with keys_file(guest, "bob").open("a") as file:
        file.write(f"{own.public}\n")
    guest.mds.set(KEYS, "")
    guest.wait_until(lambda: not may_log_in(guest, "bob", key), what="the key is refused")
    guest.wait_until(
        lambda: guest.ssh("bob", own, "sudo -n id -u", check=False).status != 0,
        what="sudo is refused",
    )
    assert may_log_in(guest, "bob", own)


def test_the_administrator_s_own_key_opens_before_during_and_after_keys_of_ours(
    boot: Boot,
) -> None:
    guest = boot()
    own, ours = guest.new_key(), guest.new_key()
    guest.run(["useradd", "-m", "-s", "/bin/bash", "-p", "*", "admin"])
    guest.run(["install", "-d", "-m", "700", "-o", "admin", "-g", "admin", "/home/admin/.ssh"])
    text = f'# mine\n\nenvironment="A=1" {own.public}'
    file = "/home/admin/.ssh/authorized_keys"
    guest.run(f"cat >{file} && chown admin: {file} && chmod 600 {file}", input=text)
    assert may_log_in(guest, "admin", own)
    guest.mds.set(KEYS, f"admin:{ours.public}")
    await_key(guest, "admin", ours)
    assert may_log_in(guest, "admin", own) and may_log_in(guest, "admin", ours)
    guest.mds.set(KEYS, "")
    guest.wait_until(
        lambda: keys_file(guest, "admin").read_text() == text, what="the file is as it was"
    )
    assert may_log_in(guest, "admin", own) and not may_log_in(guest, "admin", ours)
