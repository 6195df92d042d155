"""OS Login when things fail: what the service, its server, its cache and the network may do.

One instance: `ada` is in its cache and may log in; `eve` is local. Every test mends what it broke.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from support import agent_service
from support.agent_service import SETTLED
from support.bed import Bed
from support.debs import OSLOGIN, GuestDebs
from support.documents import instance_document
from support.guest import Key
from support.timing import quickest, seconds_of

SERVICE = "google-oslogind.service"
CACHE = "/etc/oslogin/identity.v1.cache"
SWITCH = "instance/attributes/enable-oslogin"
AT_ONCE = 1.0
DEADLINE = 5.0
HELPER_DEADLINE = 20.0
BUSY = 2.0
"""Seconds that a busy machine may take beside."""


class Instance(NamedTuple):
    guest: Bed
    ada: Key
    eve: Key


@pytest.fixture(scope="module")
def booted(guest_debs: GuestDebs) -> Iterator[Instance]:
    debs = guest_debs.with_packages(OSLOGIN)
    with Bed(debs=debs, metadata=instance_document(), files=dict(SETTLED)) as guest:
        ada, eve = guest.new_key(), guest.new_key()
        guest.run("useradd -m -s /bin/bash -p '*' eve && install -d -m 755 ~eve/.ssh")
        guest.write("/home/eve/.ssh/authorized_keys", f"{eve.public}\n")
        agent_service.await_first_passes(guest)
        directory(guest, ada)
        guest.mds.set(SWITCH, "TRUE")
        guest.wait_until(guest.path(CACHE).exists, what="the identity cache is made")
        guest.wait_until(lambda: logs_in(guest, "ada", ada), what="ada logs in")
        yield Instance(guest, ada, eve)


@pytest.fixture
def instance(booted: Instance) -> Iterator[Instance]:
    yield booted
    booted.guest.mds.clear_faults()
    booted.guest.run(["systemctl", "reset-failed"])
    booted.guest.run("systemctl start google-oslogind-nss.socket google-oslogind-auth.socket")


def directory(guest: Bed, ada: Key, *further: str) -> None:
    users: list[dict[str, object]] = [
        {"username": "ada", "uid": 20001, "admin": True, "keys": [{"key": ada.public}]}
    ]
    users += [{"username": name, "uid": 20002 + n} for n, name in enumerate(further)]
    guest.mds.set_oslogin({"users": users, "page_size": 2})


def logs_in(guest: Bed, user: str, key: Key) -> bool:
    return guest.ssh(user, key, "true", check=False, timeout=90).status == 0


def getent(guest: Bed, name: str) -> tuple[int, float]:
    """The exit status of a lookup, and its seconds."""
    began = time.monotonic()
    done = guest.run(["getent", "passwd", name], check=False)
    return done.status, time.monotonic() - began


def is_found_at_once(guest: Bed, name: str) -> bool:
    def find() -> float:
        status, seconds = getent(guest, name)
        assert status == 0
        return seconds

    return quickest(find, bound=AT_ONCE) < AT_ONCE


def assert_local_users_never_wait(guest: Bed, eve: Key) -> None:
    assert is_found_at_once(guest, "eve")

    def groups() -> None:
        assert guest.run(["id", "-nG", "eve"]).stdout == "eve\n"

    assert quickest(lambda: seconds_of(groups), bound=AT_ONCE) < AT_ONCE
    # sshd asks us for keys of everybody; its own file is what opens.
    assert guest.run("su - eve -c true").status == 0


def refused(guest: Bed, ada: Key) -> float:
    """Try to log in as ada, who must be refused; the seconds that it took."""
    began = time.monotonic()
    assert not logs_in(guest, "ada", ada)
    return time.monotonic() - began


def said(guest: Bed, text: str) -> bool:
    return text in guest.journal()


def test_stopped_service_and_sockets(instance: Instance) -> None:
    guest, ada, eve = instance
    guest.run(f"systemctl stop 'google-oslogind*.socket' {SERVICE}")
    assert getent(guest, "ada")[0] == 0
    status, seconds = getent(guest, "stranger")
    assert (status, seconds < AT_ONCE) == (2, True)
    assert_local_users_never_wait(guest, eve)
    assert refused(guest, ada) < AT_ONCE + BUSY
    assert logs_in(guest, "eve", eve)


def test_hung_service(instance: Instance) -> None:
    guest, ada, eve = instance
    getent(guest, "a-first-stranger")
    guest.run(["systemctl", "kill", "-s", "STOP", SERVICE])
    try:
        assert_local_users_never_wait(guest, eve)
        assert is_found_at_once(guest, "ada")
        status, seconds = getent(guest, "another")
        assert status == 2 and DEADLINE - 0.2 < seconds < DEADLINE + BUSY
    finally:
        guest.run(["systemctl", "kill", "-s", "CONT", SERVICE])
    guest.wait_until(lambda: logs_in(guest, "ada", ada), what="ada logs in again")


def test_service_killed_in_the_middle_of_an_answer(instance: Instance) -> None:
    guest, ada, eve = instance
    number = guest.mds.fault("oslogin/users", "hang")
    waiting = guest.run("(getent passwd nobody-knows; echo $?) >/root/answer & sleep 0.5")
    assert waiting.status == 0
    guest.run(["systemctl", "kill", "-s", "KILL", SERVICE])
    guest.wait_until(
        lambda: guest.path("/root/answer").read_text().strip() == "2", what="the lookup ended"
    )
    guest.mds.remove_fault(number)
    assert_local_users_never_wait(guest, eve)
    guest.wait_until(lambda: logs_in(guest, "ada", ada), what="the service is back")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("status", {"status": 503}),
        ("status", {"status": 429}),
        ("reset", {}),
        ("truncate", {}),
        ("html", {}),
        ("no_flavor", {}),
        ("redirect_loop", {}),
        ("body", {"body": '{"loginProfiles": [[null, {"name": 7}]]', "content_type": "text/json"}),
        ("body", {"body": "[" * 100_000, "content_type": "application/json"}),
        ("body", {"body": '{"loginProfiles": 4, "success": "true"}', "content_type": "text/json"}),
    ],
)
def test_metadata_server_that_gives_no_good_answer(
    instance: Instance, kind: str, settings: dict[str, object]
) -> None:
    guest, eve = instance.guest, instance.eve
    guest.mds.fault("oslogin", kind, **settings)
    cache = guest.path(CACHE).read_bytes()
    assert_local_users_never_wait(guest, eve)
    assert is_found_at_once(guest, "ada")
    status, seconds = getent(guest, f"stranger-{kind}-{len(settings)}")
    assert status == 2 and seconds < DEADLINE + BUSY
    guest.run("google_oslogin_nss_cache", check=False, timeout=150)
    assert guest.path(CACHE).read_bytes() == cache
    assert guest.run("sudo -u ada sudo -n id -un").stdout == "root\n"
    assert guest.unit_property(SERVICE, "ActiveState") in ("active", "inactive")


@pytest.mark.parametrize(
    ("kind", "settings"), [("status", {"status": 503}), ("html", {}), ("truncate", {})]
)
def test_keys_are_for_nobody_whom_the_server_does_not_vouch_for(
    instance: Instance, kind: str, settings: dict[str, object]
) -> None:
    guest = instance.guest
    guest.mds.fault("oslogin/authorize", kind, **settings)
    began = time.monotonic()
    shown = guest.run("google_authorized_keys ada", check=False, timeout=60)
    assert (shown.status, shown.stdout) == (0, "")
    assert time.monotonic() - began < HELPER_DEADLINE + BUSY
    assert guest.run("sudo -u ada sudo -n id -un").stdout == "root\n"


def test_silent_metadata_server(instance: Instance) -> None:
    guest, ada, eve = instance
    guest.drop_metadata_packets()
    try:
        assert_local_users_never_wait(guest, eve)
        assert getent(guest, "ada")[0] == 0
        status, seconds = getent(guest, "stranger-in-silence")
        assert status == 2 and seconds < DEADLINE + BUSY
        for unit in ("ssh", "cron", "systemd-logind", "dbus", "rsyslog"):
            began = time.monotonic()
            guest.run(["systemctl", "restart", f"{unit}.service"])
            assert time.monotonic() - began < AT_ONCE + BUSY, unit
        assert logs_in(guest, "eve", eve)
        began = time.monotonic()
        shown = guest.run("google_authorized_keys ada", check=False, timeout=60)
        assert (shown.status, shown.stdout) == (0, "")
        assert time.monotonic() - began < HELPER_DEADLINE + BUSY
        assert guest.run("sudo -u ada sudo -n id -un").stdout == "root\n"
    finally:
        guest.restore_metadata()
    guest.wait_until(
        lambda: said(guest, "class metadata") or said(guest, "metadata:"),
        what="the refusal has a class",
    )
    guest.wait_until(lambda: logs_in(guest, "ada", ada), 30, what="ada logs in again")


def test_second_page_that_fails_publishes_nothing(instance: Instance) -> None:
    guest, ada, _ = instance
    directory(guest, ada, "bo", "cy", "di", "ed")
    guest.run("google_oslogin_nss_cache")
    before = guest.path(CACHE).read_bytes()
    directory(guest, ada)
    pages = [r for r in guest.mds.requests("oslogin/users") if "pagesize" in r.target]
    assert pages, "users come in pages"
    guest.mds.oslogin_answers({"users": {"loginProfiles": [], "nextPageToken": "1"}})
    try:
        guest.run("google_oslogin_nss_cache", check=False, timeout=150)
        assert guest.path(CACHE).read_bytes() == before
    finally:
        guest.mds.oslogin_answers({})
    guest.run("google_oslogin_nss_cache")
    assert guest.path(CACHE).read_bytes() != before


def test_directory_that_is_off_takes_the_cache_along(instance: Instance) -> None:
    guest = instance.guest
    guest.mds.oslogin_enabled(False)
    try:
        guest.run("google_oslogin_nss_cache")
        assert not guest.path(CACHE).exists()
        assert getent(guest, "ada")[0] == 2
    finally:
        guest.mds.oslogin_enabled(None)
        guest.run("google_oslogin_nss_cache")
    assert guest.path(CACHE).exists()


@pytest.mark.parametrize("damage", ["rm -f", "truncate -s 100", "truncate -s 0", "chmod 666"])
def test_bad_cache_is_mended_by_the_next_start(instance: Instance, damage: str) -> None:
    guest, eve = instance.guest, instance.eve
    size = guest.path(CACHE).stat().st_size
    guest.run(["systemctl", "stop", SERVICE])
    guest.run(f"{damage} {CACHE}")
    assert_local_users_never_wait(guest, eve)
    assert getent(guest, "ada")[0] == 0

    def is_whole() -> bool:
        path = guest.path(CACHE)
        found = path.stat() if path.exists() else None
        return found is not None and found.st_size == size and found.st_mode & 0o777 == 0o644

    guest.wait_until(is_whole, what="the cache is mended")


def test_idle_service_ends_and_comes_back_when_asked(instance: Instance) -> None:
    guest, ada, _ = instance
    guest.run(["systemctl", "stop", SERVICE])
    assert guest.unit_property(SERVICE, "ActiveState") == "inactive"
    assert logs_in(guest, "ada", ada)
    assert guest.unit_property(SERVICE, "ActiveState") == "active"


def test_service_is_small(instance: Instance) -> None:
    guest = instance.guest
    pid = guest.unit_property(SERVICE, "MainPID")
    text = guest.run(f"grep VmRSS /proc/{pid}/status").stdout
    assert int(text.split()[1]) < 40 * 1024, text


def test_sandbox_is_tight(instance: Instance) -> None:
    text = instance.guest.run(["systemd-analyze", "security", "--no-pager", SERVICE]).stdout
    line = next(line for line in text.splitlines() if "Overall exposure" in line)
    assert float(line.split(":")[1].split()[0]) < 2.0, line
