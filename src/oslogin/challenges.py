"""Second factors: the conversation between a login and the metadata server's sessions.

A conversation begins with a user, shows prompts, takes one answer for each, and ends with a result.
It ends with success in two cases only: the server's status is exactly ``AUTHENTICATED``, or the
user is a service account (``sa_``) that exists. Whatever else the server says or leaves out is a
denial. Answers go to the server and nowhere else; neither they nor the server's documents are
logged.

A conversation belongs to the connection that began it, is found by a random handle, and is
forgotten when it ends, when its connection closes or after 120 s without an answer.

Source: guest-oslogin ``src/oslogin_utils.cc`` and ``src/pam/pam_oslogin_login.cc`` (states, texts
and requests); pull request 37 (no challenge is a denial).
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Optional, Protocol

from google_guest.errors import GuestError
from google_guest.records import field, record
from oslogin import protocol
from oslogin.authorization import Decision, Reason, log_denial

MOST_SESSIONS = 64
IDLE_SECONDS = 120.0
START_SECONDS = 2.0
"""Between two starts for one user: each may ring a telephone."""
REQUEST_SECONDS = 28.0
PHONE_SECONDS = 85.0
"""For an answer that its owner gives on a telephone; the client waits for 90."""
LONGEST_REASON = 1000

SUPPORTED = (
    "INTERNAL_TWO_FACTOR",
    "SECURITY_KEY_OTP",
    "AUTHZEN",
    "TOTP",
    "IDV_PREREGISTERED_PHONE",
)
"""In the order in which they are announced."""
PHONE = "AUTHZEN"
_AUTHENTICATED = "AUTHENTICATED"

_MENU = {
    "AUTHZEN": "Google phone prompt",
    "TOTP": "Security code from Google Authenticator application",
    "INTERNAL_TWO_FACTOR": "Security code from security key",
    "SECURITY_KEY_OTP": "Security code from a security key",
    "IDV_PREREGISTERED_PHONE": "Voice or text message verification code",
}
_PROMPTS = {
    "AUTHZEN": ("A login prompt has been sent to your enrolled device. Press enter to continue"),
    "TOTP": "Enter your one-time password: ",
    "INTERNAL_TWO_FACTOR": "Enter your security code: ",
    "SECURITY_KEY_OTP": "Enter your security code by visiting https://g.co/sc: ",
    "IDV_PREREGISTERED_PHONE": (
        "A security code has been sent to your phone. Enter code to continue: "
    ),
}
_MENU_HEAD = "Please choose from the available authentication methods: "
_MENU_QUESTION = "Enter the number for the authentication method to use: "
_BAD_NUMBER = "That is not one of the numbers above."
_SESSION_ID = re.compile(r"[\x21-\x7e]{1,512}")
_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NUMBER = re.compile(r"[0-9]{1,3}")
_BLANKS = " \t\r\n"

_log = logging.getLogger(__name__)


class Factors(Protocol):
    """What is asked of the metadata server: ``oslogin.directory.Directory``."""

    def start_session(self, email: str, *, deadline: float) -> Mapping[str, object]:
        """Begin a session."""

    def continue_session(
        self, session_id: str, body: Mapping[str, object], *, deadline: float
    ) -> Mapping[str, object]:
        """Answer, or choose."""


@record
class Step:
    """What the login is to show and ask now, or how the conversation ended."""

    prompts: tuple[tuple[int, str], ...] = ()
    """(style, text): texts to show, and one question as the last."""
    result: Optional[int] = None
    """A RESULT of ``oslogin.protocol`` at the end, None while it goes on."""
    handle: bytes = b""
    """Names the conversation while it goes on."""


@record
class Challenge:
    """One of the second factors that a session offers."""

    id: object
    """As it came, a number or a text: it goes back like that."""
    type: str
    status: str


@record
class _Session:
    user: str
    email: str = field(repr=False)
    id: str = field(repr=False)
    challenges: tuple[Challenge, ...]


class _Conversation:
    """Where one login stands."""

    def __init__(self, connection: int, session: _Session, now: float) -> None:
        self.connection = connection
        self.session = session
        self.chosen: Optional[Challenge] = None
        self.retried = False
        self.used = now


class Sessions:
    """All conversations of the daemon. Methods may be called from any thread."""

    def __init__(
        self,
        factors: Factors,
        find: Callable[[str], Decision],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``find`` returns a user's profile: ``Authorizer.find``."""
        self._factors = factors
        self._find = find
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[bytes, _Conversation] = {}
        self._starts: dict[str, float] = {}
        self._starting = 0

    def begin(self, user: str, connection: int) -> Step:
        """Begin the conversation of a login as ``user`` over a connection."""
        found = self._find(user)
        if found.profile is None or not found.is_allowed:
            return _denied(user, found.reason, found.detail)
        if user.startswith("sa_"):
            _log.info("second factor of %s: not asked of service accounts", user)
            return Step(result=protocol.SUCCESS)
        refusal = self._reserve(user)
        if refusal:
            return _denied(user, Reason.NO_SECOND_FACTOR, refusal)
        try:
            return self._start(user, found.profile.email, connection)
        finally:
            with self._lock:
                self._starting -= 1

    def reply(self, handle: bytes, answer: str, connection: int) -> Step:
        """Take the answer to the last question of a conversation."""
        with self._lock:
            self._forget_idle()
            conversation = self._open.get(handle)
            if conversation is None or conversation.connection != connection:
                return Step(result=protocol.REFUSED)
            # One answer at a time: another of the same handle finds nothing.
            del self._open[handle]
        user = conversation.session.user
        try:
            step = self._advance(conversation, answer.strip(_BLANKS))
        except _Denied as denial:
            return _denied(user, denial.reason, str(denial), shown=denial.shown)
        if step.result is None:
            return self._keep(handle, conversation, step.prompts)
        _log.info("second factor of %s: accepted", user)
        return step

    def abort(self, handle: bytes, connection: int) -> Step:
        """Forget a conversation; the result is a denial whether there was one or not."""
        with self._lock:
            conversation = self._open.get(handle)
            if conversation is not None and conversation.connection == connection:
                del self._open[handle]
        return Step(result=protocol.REFUSED)

    def close(self, connection: int) -> None:
        """Forget the conversations of a connection that is gone."""
        with self._lock:
            for handle, conversation in list(self._open.items()):
                if conversation.connection == connection:
                    del self._open[handle]

    def __len__(self) -> int:
        with self._lock:
            self._forget_idle()
            return len(self._open)

    def _reserve(self, user: str) -> str:
        """Count a start; return what speaks against it."""
        with self._lock:
            self._forget_idle()
            now = self._clock()
            for name, at in list(self._starts.items()):
                if now - at >= START_SECONDS:
                    del self._starts[name]
            if user in self._starts:
                return "the last attempt was less than two seconds ago"
            if len(self._open) + self._starting >= MOST_SESSIONS:
                return "too many logins wait for a second factor"
            self._starts[user] = now
            self._starting += 1
            return ""

    def _start(self, user: str, email: str, connection: int) -> Step:
        deadline = time.monotonic() + REQUEST_SECONDS
        try:
            document = self._factors.start_session(email, deadline=deadline)
            session = _parse_session(user, email, document)
        except _Denied as denial:
            return _denied(user, denial.reason, str(denial), shown=denial.shown)
        except GuestError as error:
            return _denied(user, Reason.METADATA, str(error))
        conversation = _Conversation(connection, session, self._clock())
        if len(session.challenges) > 1:
            return self._keep(os.urandom(protocol.HANDLE_SIZE), conversation, _menu(session))
        try:
            prompts = self._choose(conversation, session.challenges[0])
        except _Denied as denial:
            return _denied(user, denial.reason, str(denial), shown=denial.shown)
        return self._keep(os.urandom(protocol.HANDLE_SIZE), conversation, prompts)

    def _keep(
        self, handle: bytes, conversation: _Conversation, prompts: tuple[tuple[int, str], ...]
    ) -> Step:
        with self._lock:
            conversation.used = self._clock()
            self._open[handle] = conversation
        return Step(prompts=prompts, handle=handle)

    def _advance(self, conversation: _Conversation, answer: str) -> Step:
        session = conversation.session
        if conversation.chosen is not None:
            return self._respond(session, conversation.chosen, answer)
        number = int(answer) if _NUMBER.fullmatch(answer) else 0
        if 1 <= number <= len(session.challenges):
            return Step(prompts=self._choose(conversation, session.challenges[number - 1]))
        if conversation.retried:
            raise _Denied("no authentication method was chosen", shown=_BAD_NUMBER)
        conversation.retried = True
        question = (protocol.ECHO_ON, _MENU_QUESTION)
        return Step(prompts=((protocol.ERROR_TEXT, _BAD_NUMBER), question))

    def _choose(
        self, conversation: _Conversation, challenge: Challenge
    ) -> tuple[tuple[int, str], ...]:
        session = conversation.session
        if challenge.status != "READY":
            body = {
                "email": session.email,
                "challengeId": challenge.id,
                "action": "START_ALTERNATE",
            }
            self._continue(session, body, REQUEST_SECONDS)
        conversation.chosen = challenge
        return ((protocol.ECHO_ON, _PROMPTS[challenge.type]),)

    def _respond(self, session: _Session, challenge: Challenge, answer: str) -> Step:
        body: dict[str, object] = {
            "email": session.email,
            "challengeId": challenge.id,
            "action": "RESPOND",
        }
        seconds = PHONE_SECONDS
        if challenge.type != PHONE:
            body["proposalResponse"] = {"credential": answer}
            seconds = REQUEST_SECONDS
        document = self._continue(session, body, seconds)
        if document.get("status") == _AUTHENTICATED:
            return Step(result=protocol.SUCCESS)
        reason = _shown_reason(document.get("rejectionReason"))
        raise _Denied("the second factor was not accepted", Reason.POLICY, shown=reason)

    def _continue(
        self, session: _Session, body: Mapping[str, object], seconds: float
    ) -> Mapping[str, object]:
        deadline = time.monotonic() + seconds
        try:
            document = self._factors.continue_session(session.id, body, deadline=deadline)
        except GuestError as error:
            raise _Denied(str(error), Reason.METADATA) from error
        if not isinstance(document, Mapping):
            raise _Denied("the answer is no object", Reason.METADATA)
        return document

    def _forget_idle(self) -> None:
        now = self._clock()
        for handle, conversation in list(self._open.items()):
            if now - conversation.used > IDLE_SECONDS:
                del self._open[handle]


class _Denied(Exception):
    """The login is denied; ``shown`` is what the user is told, if anything."""

    def __init__(
        self, detail: str, reason: Reason = Reason.NO_SECOND_FACTOR, *, shown: str = ""
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.shown = shown


def _denied(user: str, reason: Reason, detail: str = "", *, shown: str = "") -> Step:
    log_denial(user, reason, detail)
    prompts = ((protocol.ERROR_TEXT, shown),) if shown else ()
    return Step(prompts=prompts, result=protocol.REFUSED)


def _parse_session(user: str, email: str, document: object) -> _Session:
    """Return the session with the challenges that we can put; raise ``_Denied``."""
    if not isinstance(document, Mapping):
        raise _Denied("the answer is no object", Reason.METADATA)
    status = document.get("status")
    if not isinstance(status, str) or not status:
        raise _Denied("the answer has no status", Reason.METADATA)
    if status == "NO_AVAILABLE_CHALLENGES":
        raise _Denied("the account has no second factor enrolled")
    session_id = document.get("sessionId")
    if not isinstance(session_id, str) or not _SESSION_ID.fullmatch(session_id):
        raise _Denied("the answer has no session", Reason.METADATA)
    entries = document.get("challenges")
    if not isinstance(entries, list):
        raise _Denied("the answer has no challenges", Reason.METADATA)
    challenges = tuple(_parse_challenge(entry) for entry in entries)
    usable = tuple(challenge for challenge in challenges if challenge.type in SUPPORTED)
    if not usable:
        raise _Denied("none of the account's second factors can be used here")
    return _Session(user, email, session_id, usable)


def _parse_challenge(entry: object) -> Challenge:
    if isinstance(entry, Mapping):
        number, kind, status = (
            entry.get(key) for key in ("challengeId", "challengeType", "status")
        )
        has_number = isinstance(number, (int, str)) and not isinstance(number, bool)
        if has_number and isinstance(kind, str) and isinstance(status, str):
            return Challenge(number, kind, status)
    raise _Denied("a challenge lacks its number, type or status", Reason.METADATA)


def _menu(session: _Session) -> tuple[tuple[int, str], ...]:
    lines = [_MENU_HEAD]
    for number, challenge in enumerate(session.challenges, 1):
        lines.append(f"{number}: {_MENU[challenge.type]}")
    lines += ["", _MENU_QUESTION]
    return ((protocol.ECHO_ON, "\n".join(lines)),)


def _shown_reason(value: object) -> str:
    """Return the server's reason as it may be shown: literal, printable, of bounded length."""
    if not isinstance(value, str):
        return ""
    return _UNPRINTABLE.sub("?", value)[:LONGEST_REASON]
