"""The four switches of OS Login on a booted instance, and configuration files of every kind.

One instance for all. Each test begins with OS Login off and leaves it off.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Optional

import pytest
from support import agent_service
from support.agent_service import SETTLED
from support.bed import Bed
from support.debs import OSLOGIN, GuestDebs
from support.documents import instance_document
from support.guest import Key

SSHD, NSSWITCH, PAM = "/etc/ssh/sshd_config", "/etc/nsswitch.conf", "/etc/pam.d/sshd"
EDITED = (SSHD, NSSWITCH, PAM, "/etc/security/group.conf")
SERVICES = "/run/google-guest-agent/oslogin-services.json"
START = "#### Google OS Login control. Do not edit this section. ####"
PREFIX = "instance/attributes/enable-oslogin"
SUFFIXES = ("-2fa", "-sk", "-certificates", "")


@pytest.fixture(scope="module")
def booted(guest_debs: GuestDebs) -> Iterator[Bed]:
    debs = guest_debs.with_packages(OSLOGIN)
    with Bed(debs=debs, metadata=instance_document(), files=dict(SETTLED)) as guest:
        agent_service.await_first_passes(guest)
        yield guest


@pytest.fixture
def guest(booted: Bed) -> Iterator[Bed]:
    before = contents(booted)
    yield booted
    for path, data in before.items():
        booted.path(path).write_bytes(data)
    switch(booted)
    booted.run(["systemctl", "reload", "google-guest-agent.service"])
    booted.wait_until(lambda: contents(booted) == before, what="everything is set back")
    booted.run(["systemctl", "reload-or-restart", "ssh.service"])


@pytest.fixture
def local(guest: Bed) -> Iterator[Key]:
    """The key of `eve`, a local user."""
    key = guest.new_key()
    guest.run(["useradd", "-m", "-s", "/bin/bash", "-p", "*", "eve"])
    guest.run("install -d -m 700 -o eve -g eve ~eve/.ssh")
    guest.write("/home/eve/.ssh/authorized_keys", f"{key.public}\n", mode=0o644)
    yield key
    guest.run(["userdel", "-rf", "eve"])


def contents(guest: Bed) -> Mapping[str, bytes]:
    return {path: guest.path(path).read_bytes() for path in EDITED}


def switch(guest: Bed, *on: str) -> None:
    """Switch OS Login's parts on (`""` is OS Login itself), and the others off."""
    with guest.mds.batch():
        for suffix in SUFFIXES:
            guest.mds.set(f"{PREFIX}{suffix}", "TRUE" if suffix in on else "FALSE")


def lines(guest: Bed, path: str) -> list[str]:
    return guest.path(path).read_text().splitlines()


def enable(guest: Bed, *on: str, hint: str = "google_authorized_principals") -> list[str]:
    """Switch OS Login on; return sshd's header once `hint` is in it."""
    switch(guest, "", *on)

    def header() -> Optional[list[str]]:
        text = guest.path(SSHD).read_text()
        block = text.partition(f"{START}\n")[2].partition("\n####")[0]
        in_force = hint in block and not guest.path(SERVICES).exists()
        return block.splitlines() if text.startswith(START) and in_force else None

    found: list[str] = guest.wait_until(header, what="OS Login is in force")
    return found


def names(header: list[str]) -> list[str]:
    return [line.split()[0] for line in header]


def test_keys_and_certificates_are_offered_and_principals_come_first(guest: Bed) -> None:
    assert names(enable(guest)) == [
        *("TrustedUserCAKeys", "AuthorizedPrincipalsCommand", "AuthorizedPrincipalsCommandUser"),
        *("AuthorizedKeysCommand", "AuthorizedKeysCommandUser"),
    ]


def test_certificates_alone_have_no_keys_command(guest: Bed) -> None:
    enable(guest)
    switch(guest, "", "-certificates")
    guest.wait_until(
        lambda: "AuthorizedKeysCommand /" not in guest.path(SSHD).read_text(),
        what="keys are offered no more",
    )
    assert "AuthorizedPrincipalsCommand" in guest.path(SSHD).read_text()


def test_security_keys_turn_certificates_off(guest: Bed) -> None:
    header = enable(guest, "-sk", "-certificates", hint="google_authorized_keys_sk")
    assert names(header) == ["AuthorizedKeysCommand", "AuthorizedKeysCommandUser"]


def test_two_factors_are_asked_behind_the_groups(guest: Bed) -> None:
    header = enable(guest, "-2fa", hint="AuthenticationMethods")
    assert header[-2:] == [
        "AuthenticationMethods publickey,keyboard-interactive",
        "ChallengeResponseAuthentication yes",
    ]
    found = lines(guest, PAM)
    group = next(n for n, line in enumerate(found) if "pam_group.so" in line)
    login = next(n for n, line in enumerate(found) if "pam_oslogin_login.so" in line)
    assert group < login


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_a_file_that_ends_in_a_match_keeps_its_meaning(guest: Bed, user: str) -> None:
    with open(guest.path(SSHD), "a") as file:
        file.write("Match User bob\n    X11Forwarding no\n    Banner /etc/motd")
    before = guest.path(SSHD).read_bytes()
    enable(guest)
    # In one command: the service, which knows of no alice, takes her file away at its next refresh.
    file = "/var/google-users.d/alice"
    shown = guest.run(
        f"printf 'Match User alice\\n    AuthorizedKeysFile none\\n' >{file};"
        f"sshd -T -C user={user},host=h,addr=10.0.0.1; rm -f {file}"
    ).stdout.splitlines()
    assert ("authorizedkeysfile none" in shown) == (user == "alice")
    assert ("banner /etc/motd" in shown) == (user == "bob")
    switch(guest)
    guest.wait_until(
        lambda: guest.path(SSHD).read_bytes().rstrip(b"\n") == before, what="the file is as before"
    )


def test_services_stand_before_a_comment(guest: Bed) -> None:
    text = guest.path(NSSWITCH).read_text()
    guest.path(NSSWITCH).write_text(text.replace("passwd:         files", "passwd: files # mine"))
    enable(guest)
    assert "passwd: files cache_oslogin oslogin # mine" in lines(guest, NSSWITCH)


def test_lines_behind_a_block_without_end_survive(guest: Bed) -> None:
    text = guest.path(SSHD).read_text()
    guest.path(SSHD).write_text(
        f"{START}\nAuthorizedKeysCommand /usr/bin/google_authorized_keys\n"
        f"AuthorizedKeysCommandUser root\nPrintMotd no\n{text}"
    )
    guest.run(["systemctl", "reload", "google-guest-agent.service"])
    guest.wait_until(
        lambda: guest.path(SSHD).read_text() == f"PrintMotd no\n{text}", what="ours alone is gone"
    )


def test_a_configuration_that_sshd_refuses_changes_nothing(guest: Bed) -> None:
    text = guest.path(SSHD).read_text()
    guest.path(SSHD).write_text(f"{text}\nNoSuchDirective yes\n")
    before = contents(guest)
    since = len(agent_service.log_lines(guest))
    switch(guest, "")
    guest.wait_until(
        lambda: agent_service.above_info(agent_service.log_lines(guest, after=since)),
        what="the agent complains",
    )
    assert contents(guest) == before


def test_a_missing_helper_changes_nothing(guest: Bed) -> None:
    before = contents(guest)
    guest.run("mv /usr/bin/google_authorized_keys /root/")
    since = len(agent_service.log_lines(guest))
    try:
        switch(guest, "")
        guest.wait_until(
            lambda: any(
                "not installed" in line.text for line in agent_service.log_lines(guest, after=since)
            ),
            what="the agent says that OS Login is not installed",
        )
        assert contents(guest) == before
    finally:
        guest.run("mv /root/google_authorized_keys /usr/bin/")


@contextmanager
def logging_in(guest: Bed, key: Key) -> Iterator[list[str]]:
    """Log in as eve over and over; the list gets what each failed login said."""
    failures: list[str] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            login = guest.ssh("eve", key, "true", check=False)
            if login.status:
                failures.append(login.stderr)

    thread = threading.Thread(target=work)
    thread.start()
    yield failures
    done.set()
    thread.join(60)


def test_a_local_user_gets_in_at_every_moment(guest: Bed, local: Key) -> None:
    assert guest.ssh("eve", local, "true").status == 0
    with logging_in(guest, local) as failures:
        for _ in range(3):
            enable(guest)
            switch(guest)
            guest.wait_until(
                lambda: (
                    START not in guest.path(SSHD).read_text() and not guest.path(SERVICES).exists()
                ),
                what="OS Login is off",
            )
    assert failures == []


def test_leftovers_of_the_last_boot_go(guest: Bed) -> None:
    before = contents(guest)
    enable(guest)
    guest.poweroff()
    switch(guest)
    guest.boot()
    guest.wait_until(lambda: contents(guest) == before, what="everything is as before")
