"""The messages of auth.sock: keys, principals and results as helpers and PAM modules get them."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest

from google_guest.errors import GuestError
from google_guest.records import record
from oslogin import auth_handlers, protocol
from oslogin.authorization import Authorizer
from oslogin.challenges import Sessions
from oslogin.dispatch import Peer
from oslogin.grants import Grants
from oslogin.identities import Key, Profile, User
from oslogin.keys import Keys, key_lines
from oslogin.protocol import Message, number_field, string_field

NOW = 1_700_000_000_000_000
ROOT = Peer(0, 1, 1)


@record
class Certificate:
    fingerprint: str
    principals: tuple[str, ...]


CERTIFICATES = {
    "mine": Certificate("f1", ("alice",)),
    "other": Certificate("f2", ("mallory",)),
    "bare": Certificate("", ("alice",)),
}


class Server:
    def __init__(self) -> None:
        self.profile: Optional[Profile] = _profile("alice")
        self.login: Optional[bool] = True
        self.admin: Optional[bool] = False
        self.fingerprints: list[str] = []
        self.session: dict[str, object] = {
            "status": "CHALLENGE_REQUIRED",
            "sessionId": "s",
            "challenges": [{"challengeId": 1, "challengeType": "TOTP", "status": "READY"}],
        }
        self.answer: dict[str, object] = {"status": "AUTHENTICATED"}

    def user_by_name(
        self, name: str, *, security_keys: bool = False, deadline: float
    ) -> Optional[Profile]:
        if self.login is None:
            raise GuestError("down")
        profile = self.profile
        return profile if profile is None or profile.user.name == name else None

    def is_authorized(
        self, email: str, policy: str, *, fingerprint: str = "", deadline: float
    ) -> bool:
        self.fingerprints.append(fingerprint)
        answer = self.login if policy == "login" else self.admin
        if answer is None:
            raise GuestError("down")
        return answer

    def start_session(self, email: str, *, deadline: float) -> dict[str, object]:
        return self.session

    def continue_session(
        self, session_id: str, body: object, *, deadline: float
    ) -> dict[str, object]:
        return self.answer


def _profile(name: str) -> Profile:
    return Profile(
        User(name, 2000, 2000, f"/home/{name}", "/bin/bash"),
        f"{name}@example.com",
        (Key("live", None), Key("edge", NOW), Key("past", NOW - 1)),
        ("sk",),
    )


class Daemon:
    def __init__(self, folder: Path) -> None:
        self.server = Server()
        self.grants = Grants(users=str(folder / "users"), sudoers=(str(folder / "sudoers"),))
        authorizer = Authorizer(self.server, self.grants)
        sessions = Sessions(self.server, authorizer.find)
        keys = Keys(authorizer, CERTIFICATES.get, now_usec=lambda: NOW)
        self.handlers = auth_handlers.handlers(authorizer, sessions, keys)

    def ask(self, opcode: int, *fields: tuple[int, bytes]) -> Message:
        reply = self.handlers[opcode](Message(opcode, fields, number=9), ROOT)
        assert protocol.decode(protocol.encode(reply)) == reply
        assert (reply.opcode, reply.number) == (opcode | protocol.REPLY, 9)
        return reply

    def authorize(self, name: str, policy: int = protocol.POLICY_LOGIN) -> Optional[int]:
        reply = self.ask(
            protocol.AUTHORIZE,
            string_field(protocol.NAME, name),
            number_field(protocol.POLICY, policy),
        )
        return reply.integer(protocol.RESULT)

    def keys(self, name: str, mode: int = protocol.MODE_KEYS) -> tuple[str, ...]:
        fields = (string_field(protocol.NAME, name), number_field(protocol.MODE, mode))
        return self.ask(protocol.KEYS, *fields).texts(protocol.LINE)

    def principals(self, name: str, certificate: str, flags: int = 0) -> Message:
        return self.ask(
            protocol.PRINCIPALS,
            string_field(protocol.NAME, name),
            string_field(protocol.CERT, certificate),
            number_field(protocol.FLAGS, flags),
        )


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path)


def test_a_key_that_expired_a_microsecond_ago_is_left_out(daemon: Daemon) -> None:
    assert daemon.keys("alice") == ("live", "edge")


def test_security_keys_replace_the_others(daemon: Daemon) -> None:
    assert daemon.keys("alice", protocol.MODE_SECURITY_KEYS) == ("sk",)


def test_service_accounts_use_ordinary_keys() -> None:
    lines = key_lines(_profile("sa_1"), security_keys=True, now_usec=NOW)
    assert lines == ("live", "edge")


@pytest.mark.parametrize("login", [False, None])
def test_who_may_not_log_in_gets_no_key(daemon: Daemon, login: Optional[bool]) -> None:
    daemon.server.login = login
    assert daemon.keys("alice") == ()


def test_a_login_without_key_is_logged_with_its_class(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.server.profile = Profile(_profile("alice").user, "a@example.com")
    assert daemon.keys("alice") == ()
    assert "no-key" in caplog.text


def test_principals_are_the_user_itself(daemon: Daemon) -> None:
    assert daemon.principals("alice", "mine").texts(protocol.LINE) == ("alice",)
    assert daemon.server.fingerprints == ["f1", "f1"]


def test_somebody_else_s_certificate_gives_nothing_and_asks_nobody(daemon: Daemon) -> None:
    reply = daemon.principals("alice", "other")
    assert (reply.status, reply.texts(protocol.LINE)) == (protocol.OK, ())
    assert daemon.server.fingerprints == []


@pytest.mark.parametrize("certificate", ["bare", "junk"])
def test_no_certificate_of_ours_is_a_bad_request(daemon: Daemon, certificate: str) -> None:
    assert daemon.principals("alice", certificate).status == protocol.BAD_REQUEST


@pytest.mark.parametrize(
    ("user", "admin", "lines"),
    [("root", True, ("alice",)), ("root", False, ()), ("alice", True, ())],
)
def test_cloud_run_lets_administrators_become_root(
    daemon: Daemon, user: str, admin: bool, lines: tuple[str, ...]
) -> None:
    daemon.server.admin = admin
    reply = daemon.principals(user, "mine", protocol.FLAG_CLOUD_RUN)
    assert reply.texts(protocol.LINE) == lines


def test_results_of_an_account_check(daemon: Daemon) -> None:
    assert daemon.authorize("alice") == protocol.SUCCESS
    assert daemon.authorize("alice", protocol.POLICY_ADMIN) == protocol.REFUSED
    assert daemon.authorize("bob") == protocol.USER_UNKNOWN
    assert daemon.authorize("-x") == protocol.USER_UNKNOWN
    daemon.server.login = False
    assert daemon.authorize("alice") == protocol.REFUSED


def test_an_outage_is_told_by_whether_the_user_was_let_in_before(daemon: Daemon) -> None:
    daemon.server.login = None
    assert daemon.authorize("alice") == protocol.RESULT_UNAVAILABLE
    daemon.grants.admit("alice")
    assert daemon.authorize("alice") == protocol.REFUSED


def test_a_second_factor_from_question_to_result(daemon: Daemon) -> None:
    reply = daemon.ask(protocol.CHAL_BEGIN, string_field(protocol.NAME, "alice"))
    assert reply.prompts() == ((protocol.ECHO_ON, "Enter your one-time password: "),)
    handle = reply.raw(protocol.HANDLE)
    assert handle is not None
    reply = daemon.ask(
        protocol.CHAL_REPLY, (protocol.HANDLE, handle), string_field(protocol.ANSWER, "1")
    )
    assert reply.integer(protocol.RESULT) == protocol.SUCCESS


def test_an_abort_is_answered(daemon: Daemon) -> None:
    reply = daemon.ask(protocol.CHAL_ABORT, (protocol.HANDLE, bytes(16)))
    assert reply.integer(protocol.RESULT) == protocol.REFUSED


@pytest.mark.parametrize(
    "opcode",
    [
        protocol.AUTHORIZE,
        protocol.KEYS,
        protocol.PRINCIPALS,
        protocol.CHAL_BEGIN,
        protocol.CHAL_REPLY,
        protocol.CHAL_ABORT,
    ],
)
def test_a_request_that_lacks_what_it_is_about_is_refused(daemon: Daemon, opcode: int) -> None:
    assert daemon.ask(opcode).status == protocol.BAD_REQUEST


@pytest.mark.parametrize(("opcode", "tag"), [(protocol.AUTHORIZE, protocol.POLICY)])
def test_an_unknown_policy_is_refused(daemon: Daemon, opcode: int, tag: int) -> None:
    reply = daemon.ask(opcode, string_field(protocol.NAME, "alice"), number_field(tag, 3))
    assert reply.status == protocol.BAD_REQUEST
