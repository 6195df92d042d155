"""Second factors: the conversation, its limits, and that only AUTHENTICATED lets anybody in."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.errors import GuestError
from oslogin import protocol
from oslogin.authorization import Decision, Reason, Verdict
from oslogin.challenges import MOST_SESSIONS, Sessions, Step
from oslogin.identities import Profile, User

TOTP = {"challengeId": 1, "challengeType": "TOTP", "status": "READY"}
AUTHZEN = {"challengeId": 2, "challengeType": "AUTHZEN", "status": "PROPOSED"}
OTHER = {"challengeId": 3, "challengeType": "SMOKE_SIGNAL", "status": "READY"}
SESSION = {"status": "CHALLENGE_REQUIRED", "sessionId": "s/1", "challenges": [TOTP]}
ACCEPTED = {"status": "AUTHENTICATED"}
ME = 7


class Server:
    def __init__(self) -> None:
        self.session: object = SESSION
        self.answers: list[object] = [ACCEPTED]
        self.sent: list[Mapping[str, object]] = []
        self.starts = 0

    def start_session(self, email: str, *, deadline: float) -> Mapping[str, object]:
        self.starts += 1
        return _or_raise(self.session)

    def continue_session(
        self, session_id: str, body: Mapping[str, object], *, deadline: float
    ) -> Mapping[str, object]:
        assert session_id == "s/1"
        self.sent.append(body)
        return _or_raise(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


def _or_raise(value: object) -> Mapping[str, object]:
    if isinstance(value, Exception):
        raise value
    return value  # type: ignore[return-value]


def _find(name: str) -> Decision:
    if name in ("nobody", "sa_nobody"):
        return Decision(Verdict.UNKNOWN_USER, Reason.UNKNOWN_USER)
    user = User(name, 2000, 2000, "/home/x", "/bin/sh")
    return Decision(Verdict.ALLOWED, profile=Profile(user, f"{name}@example.com"))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(server: Server, clock: Clock) -> Sessions:
    return Sessions(server, _find, clock=clock)


def _challenges(*entries: object) -> dict[str, object]:
    return {**SESSION, "challenges": list(entries)}


def test_the_right_code_lets_the_user_in(sessions: Sessions, server: Server) -> None:
    step = sessions.begin("alice", ME)
    assert step.prompts == ((protocol.ECHO_ON, "Enter your one-time password: "),)
    assert sessions.reply(step.handle, " 123456\r\n", ME).result == protocol.SUCCESS
    assert server.sent == [
        {
            "email": "alice@example.com",
            "challengeId": 1,
            "action": "RESPOND",
            "proposalResponse": {"credential": "123456"},
        }
    ]


def test_a_wrong_code_is_denied_with_the_reason_as_it_is(
    sessions: Sessions, server: Server
) -> None:
    server.answers = [{"status": "CHALLENGE_PENDING", "rejectionReason": "no %n%s \x1b[2J"}]
    step = sessions.reply(sessions.begin("alice", ME).handle, "0", ME)
    assert step == Step(((protocol.ERROR_TEXT, "no %n%s ?[2J"),), protocol.REFUSED)


@pytest.mark.parametrize(
    "status", ["authenticated", "AUTHENTICATED ", "", None, True, ["AUTHENTICATED"], 1, {}]
)
def test_no_other_status_lets_anybody_in(
    sessions: Sessions, server: Server, status: object
) -> None:
    server.answers = [{"status": status}]
    handle = sessions.begin("alice", ME).handle
    assert sessions.reply(handle, "1", ME).result == protocol.REFUSED


def test_several_factors_make_a_menu(sessions: Sessions, server: Server) -> None:
    server.session = _challenges(TOTP, OTHER, AUTHZEN)
    assert sessions.begin("alice", ME).prompts == (
        (
            protocol.ECHO_ON,
            "Please choose from the available authentication methods: \n"
            "1: Security code from Google Authenticator application\n"
            "2: Google phone prompt\n\n"
            "Enter the number for the authentication method to use: ",
        ),
    )


def test_a_factor_that_is_not_ready_is_started_first(sessions: Sessions, server: Server) -> None:
    server.session = _challenges(TOTP, AUTHZEN)
    step = sessions.begin("alice", ME)
    step = sessions.reply(step.handle, "2", ME)
    assert server.sent == [
        {"email": "alice@example.com", "challengeId": 2, "action": "START_ALTERNATE"}
    ]
    assert "Press enter to continue" in step.prompts[0][1]


def test_the_telephone_gets_no_credential(sessions: Sessions, server: Server) -> None:
    server.session = _challenges({**AUTHZEN, "status": "READY"})
    step = sessions.begin("alice", ME)
    assert sessions.reply(step.handle, "typed", ME).result == protocol.SUCCESS
    assert server.sent == [{"email": "alice@example.com", "challengeId": 2, "action": "RESPOND"}]


def test_one_wrong_number_is_forgiven(sessions: Sessions, server: Server) -> None:
    server.session = _challenges(TOTP, AUTHZEN)
    step = sessions.begin("alice", ME)
    step = sessions.reply(step.handle, "9", ME)
    assert [style for style, _ in step.prompts] == [protocol.ERROR_TEXT, protocol.ECHO_ON]
    assert sessions.reply(step.handle, "1", ME).result is None


@pytest.mark.parametrize("answer", ["9", "0", "-1", "", "x", "1 2", "٣", "9" * 900])
def test_two_wrong_numbers_are_denied(sessions: Sessions, server: Server, answer: str) -> None:
    server.session = _challenges(TOTP, AUTHZEN)
    step = sessions.begin("alice", ME)
    step = sessions.reply(step.handle, answer, ME)
    assert sessions.reply(step.handle, answer, ME).result == protocol.REFUSED


@pytest.mark.parametrize(
    "session",
    [
        {"status": "NO_AVAILABLE_CHALLENGES"},
        {},
        {"status": ""},
        {"status": "CHALLENGE_REQUIRED", "challenges": [TOTP]},
        {"status": "CHALLENGE_REQUIRED", "sessionId": "s/1"},
        {**SESSION, "sessionId": ""},
        {**SESSION, "sessionId": "a\nb"},
        _challenges(),
        _challenges(OTHER),
        _challenges(TOTP, {"challengeId": 2, "challengeType": "TOTP"}),
        _challenges({**TOTP, "challengeId": True}),
        {"status": "AUTHENTICATED"},
        {**SESSION, "status": "AUTHENTICATED", "challenges": []},
        [],
        None,
        GuestError("503"),
    ],
)
def test_a_session_without_a_usable_factor_is_denied(
    sessions: Sessions, server: Server, session: object
) -> None:
    server.session = session
    assert sessions.begin("alice", ME).result == protocol.REFUSED
    assert len(sessions) == 0


def test_service_accounts_are_exempt_if_they_exist(sessions: Sessions, server: Server) -> None:
    assert sessions.begin("sa_1", ME).result == protocol.SUCCESS
    assert sessions.begin("sa_nobody", ME).result == protocol.REFUSED
    assert server.starts == 0


def test_unknown_users_are_denied(sessions: Sessions) -> None:
    assert sessions.begin("nobody", ME).result == protocol.REFUSED


def test_a_handle_is_good_for_its_own_connection_only(sessions: Sessions) -> None:
    handle = sessions.begin("alice", ME).handle
    assert sessions.reply(handle, "1", ME + 1).result == protocol.REFUSED
    assert sessions.reply(handle, "1", ME).result == protocol.SUCCESS


def test_a_finished_conversation_takes_no_further_answer(sessions: Sessions) -> None:
    handle = sessions.begin("alice", ME).handle
    sessions.reply(handle, "1", ME)
    assert sessions.reply(handle, "1", ME).result == protocol.REFUSED


@pytest.mark.parametrize("way", ["close", "abort", "idle"])
def test_a_conversation_is_forgotten(sessions: Sessions, clock: Clock, way: str) -> None:
    handle = sessions.begin("alice", ME).handle
    if way == "close":
        sessions.close(ME)
    elif way == "abort":
        sessions.abort(handle, ME)
    else:
        clock.now += 120.1
    assert sessions.reply(handle, "1", ME).result == protocol.REFUSED


def test_nobody_aborts_another_s_conversation(sessions: Sessions) -> None:
    handle = sessions.begin("alice", ME).handle
    sessions.abort(handle, ME + 1)
    assert sessions.reply(handle, "1", ME).result == protocol.SUCCESS


def test_one_user_starts_once_in_two_seconds(
    sessions: Sessions, server: Server, clock: Clock
) -> None:
    sessions.begin("alice", ME)
    assert sessions.begin("alice", ME).result == protocol.REFUSED
    assert sessions.begin("bob", ME).result is None
    clock.now += 2.0
    assert sessions.begin("alice", ME).result is None
    assert server.starts == 3


def test_at_most_sixty_four_logins_wait(sessions: Sessions, clock: Clock) -> None:
    for number in range(MOST_SESSIONS):
        assert sessions.begin(f"user{number}", ME).result is None
    assert sessions.begin("late", ME).result == protocol.REFUSED
    clock.now += 121
    assert sessions.begin("late", ME).result is None


def test_an_outage_while_answering_denies(sessions: Sessions, server: Server) -> None:
    server.answers = [GuestError("timeout")]
    handle = sessions.begin("alice", ME).handle
    assert sessions.reply(handle, "1", ME).result == protocol.REFUSED


@pytest.mark.parametrize("answers", [[ACCEPTED], [{"status": "x"}], [GuestError("down")]])
def test_credentials_are_not_logged(
    sessions: Sessions,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    answers: list[object],
) -> None:
    server.answers = answers
    with caplog.at_level(logging.DEBUG):
        sessions.reply(sessions.begin("alice", ME).handle, "87654321", ME)
    assert caplog.text and "87654321" not in caplog.text


def test_a_missing_method_is_logged_with_its_class(
    sessions: Sessions, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.session = {"status": "NO_AVAILABLE_CHALLENGES"}
    sessions.begin("alice", ME)
    assert "no-2fa-method" in caplog.text


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_STATUS = st.sampled_from(["AUTHENTICATED", "READY", "CHALLENGE_REQUIRED", "", "PROPOSED"]) | _JSON
_CHALLENGE = (
    st.fixed_dictionaries(
        {},
        optional={
            "challengeId": st.integers() | st.text(max_size=5) | _JSON,
            "challengeType": st.sampled_from(["TOTP", "AUTHZEN", "X"]) | _JSON,
            "status": _STATUS,
        },
    )
    | _JSON
)
_SESSION = (
    st.fixed_dictionaries(
        {},
        optional={
            "status": _STATUS,
            "sessionId": st.just("s/1") | _JSON,
            "challenges": st.lists(_CHALLENGE, max_size=3) | _JSON,
        },
    )
    | _JSON
)
_ANSWER = st.fixed_dictionaries({}, optional={"status": _STATUS, "rejectionReason": _JSON}) | _JSON


@given(_SESSION, st.lists(_ANSWER, min_size=1, max_size=4), st.lists(st.text(max_size=9)))
def test_no_documents_crash_it_or_let_anybody_in(
    session: object, answers: list[object], typed: list[str]
) -> None:
    server = Server()
    server.session, server.answers = session, list(answers)
    given_answers: list[object] = []
    real = server.continue_session

    def continue_session(
        session_id: str, body: Mapping[str, object], *, deadline: float
    ) -> Mapping[str, object]:
        assert isinstance(session_id, str)
        given_answers.append(server.answers[0])
        return real("s/1", body, deadline=deadline)

    server.continue_session = continue_session  # type: ignore[method-assign]
    sessions = Sessions(server, _find)
    step: Optional[Step] = sessions.begin("alice", ME)
    for text in [*typed, "1", "1", "1"]:
        assert step is not None
        if step.result is not None:
            break
        step = sessions.reply(step.handle, text, ME)
    assert step is not None
    if step.result == protocol.SUCCESS:
        last = given_answers[-1]
        assert isinstance(last, Mapping) and last["status"] == "AUTHENTICATED"
    else:
        assert step.result == protocol.REFUSED
