"""Second factors of OS Login through a real sshd and PAM: who is asked what, and who gets in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from support import agent_service
from support.bed import Bed
from support.commands import run_command
from support.debs import OSLOGIN, GuestDebs
from support.documents import instance_document
from support.guest import Key, ssh_argv
from support.network import enter_namespace

PAM_SSHD = "/etc/pam.d/sshd"
UNITS = "google-oslogind-nss.socket google-oslogind-auth.socket google-oslogind.service"
TOTP = {"type": "TOTP", "credential": "123456", "reason": "100%n%s wrong"}
PHONE = {"type": "AUTHZEN"}
CODE = "Enter your one-time password: "
NUMBER = "Enter the number for the authentication method to use: "
REFUSAL = "OS Login did not accept this login."

# Each has a name of its own: one start for each user in two seconds.
PEOPLE: dict[str, dict[str, object]] = {
    "right": {"challenges": [TOTP]},
    "wrong": {"challenges": [TOTP]},
    "ssh.right": {"challenges": [TOTP]},
    "ssh.wrong": {"challenges": [TOTP]},
    "menu": {"challenges": [PHONE, TOTP]},
    "retry": {"challenges": [PHONE, TOTP]},
    "giveup": {"challenges": [PHONE, TOTP]},
    "phone": {"challenges": [PHONE]},
    "nothing": {"session": {"status": "NO_AVAILABLE_CHALLENGES"}},
    "zero": {"session": {"status": "CHALLENGE_REQUIRED", "sessionId": "s", "challenges": []}},
    "offline": {"challenges": [TOTP]},
    "sa_robot": {},
    "admin": {"admin": True},
}

# What the reference's manuals and its control program put in account stacks from 2019 on.
OLD_ACCOUNT_STACKS = {
    "control-2019": (
        "account [success=ok ignore=ignore default=die] pam_oslogin_login.so\n"
        "account [success=ok default=ignore] pam_oslogin_admin.so\n"
    ),
    "manual-2021": (
        "account requisite pam_oslogin_login.so\naccount optional pam_oslogin_admin.so\n"
    ),
    "admins-2024": (
        "account [success=1 default=ignore] pam_oslogin_login.so\n"
        "account required pam_localuser.so\n"
    ),
}


class Talk(NamedTuple):
    """How a login went, and what its user was shown."""

    succeeded: bool
    shown: str


class Instance(NamedTuple):
    """The bed with two-factor authentication on; the keys that sshd knows."""

    guest: Bed
    key: Key
    folder: Path

    def authenticate(self, user: str, *answers: str, service: str = "second-factor") -> Talk:
        """One run of a PAM stack by pamtester."""
        done = self.guest.run(
            ["pamtester", service, user, "authenticate"],
            input="".join(f"{answer}\n" for answer in answers),
            check=False,
        )
        return Talk(done.status == 0, done.stdout + done.stderr)

    def account(self, user: str, service: str) -> bool:
        done = self.guest.run(["pamtester", service, user, "acct_mgmt"], check=False)
        return done.status == 0

    def ssh(self, user: str, answers: Sequence[str]) -> tuple[Talk, list[str]]:
        """Log in with the key, then by keyboard; also the questions that ssh was asked."""
        script, asked = self.folder / f"{user}.sh", self.folder / f"{user}.asked"
        given = self.folder / f"{user}.answers"
        given.write_text("".join(f"{answer}\n" for answer in answers))
        asked.write_text("")
        script.write_text(
            "#!/bin/sh\n"
            f"printf '%s\\n=\\n' \"$1\" >>'{asked}'\n"
            f"head -n 1 '{given}'; sed -i 1d '{given}'\n"
        )
        script.chmod(0o755)
        options = ["BatchMode=no", "NumberOfPasswordPrompts=1", "LogLevel=INFO"]
        options += ["PreferredAuthentications=publickey,keyboard-interactive"]
        argv = ssh_argv(user, self.guest.nics[0].address, self.key, options)
        done = run_command(
            [
                *enter_namespace(self.guest.state.outside),
                *("env", f"SSH_ASKPASS={script}", "SSH_ASKPASS_REQUIRE=force", *argv, "id -un"),
            ],
            purpose=f"log in as {user} with two factors",
            check=False,
        )
        succeeded = (done.status, done.stdout.strip()) == (0, user)
        return Talk(succeeded, done.stdout + done.stderr), asked.read_text().split("\n=\n")[:-1]

    def bodies(self, user: str) -> list[dict[str, object]]:
        """What the server was sent in the sessions of a user."""
        requests = self.guest.mds.requests("oslogin/authenticate")
        documents = [json.loads(request.body) for request in requests]
        return [body for body in documents if body.get("email") == f"{user}@example.com"]


@pytest.fixture(scope="module")
def instance(guest_debs: GuestDebs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    document = instance_document()
    debs = guest_debs.with_packages(OSLOGIN)
    with Bed(debs=debs, metadata=document, packages=("pamtester",)) as guest:
        agent_service.await_first_passes(guest)
        guest.run(["useradd", "-m", "-s", "/bin/bash", "-p", "*", "local"])
        key = guest.new_key()
        guest.mds.set_oslogin(
            {
                "users": [
                    {"username": name, "uid": 20001 + number, "keys": [key.public], **more}
                    for number, (name, more) in enumerate(PEOPLE.items())
                ]
            }
        )
        guest.mds.set("instance/attributes/enable-oslogin-2fa", "TRUE")
        guest.mds.set("instance/attributes/enable-oslogin", "TRUE")
        stack = guest.path(PAM_SSHD)
        guest.wait_until(
            lambda: "pam_oslogin_login.so" in stack.read_text(), what="two factors are on"
        )
        guest.wait_until(
            lambda: guest.run("getent passwd right", check=False).status == 0, what="names resolve"
        )
        guest.write("/etc/pam.d/second-factor", "auth required pam_oslogin_login.so\n")
        guest.write(
            "/etc/pam.d/local-ignored",
            "auth [success=done perm_denied=die default=ignore] pam_oslogin_login.so"
            " local_users=ignore\nauth required pam_permit.so\n",
        )
        for name, text in OLD_ACCOUNT_STACKS.items():
            guest.write(f"/etc/pam.d/{name}", f"{text}account required pam_permit.so\n")
        yield Instance(guest, key, tmp_path_factory.mktemp("ask"))


def test_ssh_asks_once_and_lets_in_who_answers(instance: Instance) -> None:
    talk, asked = instance.ssh("ssh.right", ["123456"])
    assert talk.succeeded, talk.shown
    assert [question.count(CODE) for question in asked] == [1]


def test_ssh_shows_why_a_code_was_not_accepted(instance: Instance) -> None:
    talk, asked = instance.ssh("ssh.wrong", ["000000"])
    assert not talk.succeeded and len(asked) >= 1
    assert "100%n%s wrong" in talk.shown + "".join(asked)
    journal = instance.guest.journal()
    assert "'ssh.wrong' denied: policy" in journal and "000000" not in journal


def test_right_code_succeeds(instance: Instance) -> None:
    talk = instance.authenticate("right", "123456")
    assert talk.succeeded and CODE in talk.shown


def test_wrong_code_is_denied_with_the_reason_shown_literally(instance: Instance) -> None:
    talk = instance.authenticate("wrong", "1")
    assert not talk.succeeded and "100%n%s wrong" in talk.shown


def test_menu_offers_both_and_starts_the_one_that_is_not_ready(instance: Instance) -> None:
    talk = instance.authenticate("menu", "2", "123456")
    assert talk.succeeded, talk.shown
    assert "1: Google phone prompt" in talk.shown and NUMBER in talk.shown
    actions = [body.get("action") for body in instance.bodies("menu")]
    assert actions == [None, "START_ALTERNATE", "RESPOND"]


def test_bad_number_may_be_corrected_once(instance: Instance) -> None:
    assert instance.authenticate("retry", "9", "2", "123456").succeeded


def test_second_bad_number_is_a_denial(instance: Instance) -> None:
    talk = instance.authenticate("giveup", "9", "x", "2", "123456")
    assert not talk.succeeded and CODE not in talk.shown


def test_phone_prompt_sends_no_credential(instance: Instance) -> None:
    assert instance.authenticate("phone", "secret").succeeded
    body = instance.bodies("phone")[-1]
    assert body["action"] == "RESPOND" and "proposalResponse" not in body


@pytest.mark.parametrize("user", ["nothing", "zero", "stranger", "root", "local"])
def test_who_has_no_second_factor_is_denied(instance: Instance, user: str) -> None:
    talk = instance.authenticate(user, "1")
    assert not talk.succeeded and REFUSAL in talk.shown


def test_service_account_is_not_asked(instance: Instance) -> None:
    talk = instance.authenticate("sa_robot")
    assert talk.succeeded and "Enter" not in talk.shown


def test_local_user_passes_where_the_module_is_told_to_ignore_it(instance: Instance) -> None:
    assert instance.authenticate("local", service="local-ignored").succeeded
    assert not instance.authenticate("stranger", service="local-ignored").succeeded


def test_service_that_is_stopped_denies_and_leaves_local_users(instance: Instance) -> None:
    instance.guest.run(f"systemctl stop {UNITS}")
    try:
        talk = instance.authenticate("offline", "123456")
        assert not talk.succeeded and REFUSAL in talk.shown
        assert instance.account("root", "control-2019")
        assert not instance.account("offline", "control-2019")
    finally:
        instance.guest.run("systemctl start google-oslogind-nss.socket google-oslogind-auth.socket")


def test_socket_for_decisions_is_root_s_alone(instance: Instance) -> None:
    program = (
        "import socket, sys\n"
        "try: socket.socket(socket.AF_UNIX).connect('/run/google-oslogin/auth.sock')\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    argv = ["/usr/bin/python3", "-c", program]
    assert instance.guest.run(argv, user="local").stdout == "PermissionError\n"
    assert instance.guest.run(argv).stdout == ""


@pytest.mark.parametrize("service", OLD_ACCOUNT_STACKS)
def test_old_account_lines_let_in_local_users_and_ours(instance: Instance, service: str) -> None:
    for user in ("root", "local", "admin", "right"):
        assert instance.account(user, service), user


def test_old_lines_in_su_and_sshd_break_neither(instance: Instance) -> None:
    guest = instance.guest
    kept = {path: guest.path(path).read_text() for path in (PAM_SSHD, "/etc/pam.d/su")}
    # As the reference left it: first in su; after the marker in sshd.
    old = "account    [success=bad ignore=ignore] pam_oslogin_login.so\n"
    guest.write("/etc/pam.d/su", old + kept["/etc/pam.d/su"])
    guest.write(PAM_SSHD, kept[PAM_SSHD] + OLD_ACCOUNT_STACKS["control-2019"])
    try:
        assert guest.run("su -s /bin/sh -c 'id -un' local").stdout == "local\n"
        talk, _ = instance.ssh("ssh.right", ["123456"])
        assert talk.succeeded, talk.shown
    finally:
        for path, text in kept.items():
            guest.write(path, text)
    assert guest.run("su -s /bin/sh -c 'id -un' right").stdout == "right\n"
