"""The OS Login part of the metadata service: users, groups, policy, certificates, second factors.

Answers the requests below ``oslogin/`` from a directory that a test fills.  Pages end the way the
real service ends them: the last page of users is empty and carries the token ``"0"``, while the
last page of groups or members carries entries together with that token.

Reads and writes nothing outside the process.  Facts: guest-oslogin ``src/oslogin_utils.cc`` (what
is requested and how answers are read), ``src/cache_refresh/``, ``src/pam/``.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Optional, TypeVar, Union

CHALLENGE_TYPES = (
    "INTERNAL_TWO_FACTOR",
    "SECURITY_KEY_OTP",
    "AUTHZEN",
    "TOTP",
    "IDV_PREREGISTERED_PHONE",
)
LAST_PAGE = "0"
_NAME = re.compile(r"[a-zA-Z0-9._][a-zA-Z0-9._-]{0,31}")
_PAGE_LIMIT = 5000
_SESSIONS_KEPT = 1000
_ATTEMPTS = 5
_SETTINGS = frozenset(
    {"users", "groups", "certificates", "enabled", "page_size", "plain_tokens", "answers"}
)

Number = Union[int, str]
Reply = tuple[int, object]
T = TypeVar("T")


class _BadRequest(Exception):
    """The request cannot be answered as it is: status 400."""


class _NotFound(Exception):
    """Nobody and nothing of this name: status 404."""


@dataclass(frozen=True)
class Key:
    """A public key; ``expires`` is microseconds since 1970, any JSON type, None: never."""

    key: str
    expires: object = None


@dataclass(frozen=True)
class Challenge:
    """A second factor: accepted when the credential is the expected one.

    AUTHZEN carries no credential: ``approved`` says what the owner of the phone does.  ``reason``,
    when given, is the text of a rejection.
    """

    type: str
    credential: str = ""
    approved: bool = True
    reason: Optional[str] = None


@dataclass(frozen=True)
class User:
    """One OS Login user.

    ``gid`` defaults to the uid, ``email`` to ``<username>@example.com``.  ``fingerprints`` limits
    which certificates may log in.  ``profile``, when given, is served in place of the login profile
    derived from the other fields, ``session`` in place of the answer to the start of a session and
    ``continuation`` in place of the answer to all that follows in it: for answers the service
    should never give.
    """

    username: str
    uid: Number
    gid: Optional[Number] = None
    email: Optional[str] = None
    home: Optional[str] = None
    shell: Optional[str] = "/bin/bash"
    keys: tuple[Key, ...] = ()
    security_keys: tuple[str, ...] = ()
    login: bool = True
    admin: bool = False
    fingerprints: Optional[tuple[str, ...]] = None
    challenges: tuple[Challenge, ...] = ()
    profile: Optional[Mapping[str, object]] = None
    session: Optional[object] = None
    continuation: Optional[object] = None

    @property
    def address(self) -> str:
        return self.email if self.email is not None else f"{self.username}@example.com"

    def login_profile(self, *, security_keys: bool) -> Mapping[str, object]:
        if self.profile is not None:
            return self.profile
        account: dict[str, object] = {
            "primary": True,
            "username": self.username,
            "uid": self.uid,
            "gid": self.uid if self.gid is None else self.gid,
            "homeDirectory": self.home if self.home is not None else f"/home/{self.username}",
            "operatingSystemType": "LINUX",
        }
        if self.shell is not None:
            account["shell"] = self.shell
        profile: dict[str, object] = {"name": self.address, "posixAccounts": [account]}
        if self.keys:
            profile["sshPublicKeys"] = {
                f"{number:064x}": _key_document(key) for number, key in enumerate(self.keys)
            }
        if security_keys and self.security_keys:
            profile["securityKeys"] = [{"publicKey": key} for key in self.security_keys]
        return profile


@dataclass(frozen=True)
class Group:
    """One POSIX group; members are user names."""

    name: str
    gid: Number
    members: tuple[str, ...] = ()


@dataclass
class _Session:
    email: str
    challenges: list[Challenge]
    ready: list[bool]
    failures: int = 0

    def state(self, session_id: str, status: str) -> dict[str, object]:
        return {
            "status": status,
            "sessionId": session_id,
            "challenges": [
                {
                    "challengeId": number,
                    "challengeType": challenge.type,
                    "status": "READY" if ready else "PROPOSED",
                }
                for number, (challenge, ready) in enumerate(zip(self.challenges, self.ready), 1)
            ],
        }


@dataclass
class Directory:
    """The users, groups and settings that OS Login serves.  Methods may be called from any thread.

    ``enabled`` None follows the attribute ``enable-oslogin``.  ``page_size`` bounds the pages whose
    size the client does not choose.  ``answers`` maps the first name of a path below ``oslogin/``
    (``users``, ``groups``, ``authorize``, ``certificates``, ``authenticate``) to a document that is
    served for all its requests, whatever it is.  ``plain_tokens``: page tokens of digits alone,
    which a client that does not encode them understands, too.
    """

    enabled: Optional[bool] = None
    certificates: tuple[str, ...] = ()
    page_size: int = 2048
    plain_tokens: bool = False
    answers: Mapping[str, object] = field(default_factory=dict)
    _users: list[User] = field(default_factory=list)
    _groups: list[Group] = field(default_factory=list)
    _sessions: dict[str, _Session] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # Filling

    def add_user(self, username: str, uid: Number, **settings: object) -> User:
        """Add a user, or replace the one of this name; settings are the fields of User."""
        user = user_from_document({"username": username, "uid": uid, **settings})
        with self._lock:
            self._users = [known for known in self._users if known.username != username]
            self._users.append(user)
        return user

    def change_user(self, username: str, **settings: object) -> User:
        """Change some settings of a user; raises KeyError if there is none of this name."""
        with self._lock:
            known = next((user for user in self._users if user.username == username), None)
            if known is None:
                raise KeyError(f"user {username}")
            document = {one.name: getattr(known, one.name) for one in fields(User)}
            user = user_from_document({**document, **settings})
            self._users[self._users.index(known)] = user
        return user

    def remove_user(self, username: str) -> None:
        with self._lock:
            self._users = [known for known in self._users if known.username != username]

    def add_group(self, name: str, gid: Number, members: Sequence[str] = ()) -> Group:
        """Add a group, or replace the one of this name."""
        group = Group(name, gid, tuple(members))
        with self._lock:
            self._groups = [known for known in self._groups if known.name != name]
            self._groups.append(group)
        return group

    def remove_group(self, name: str) -> None:
        with self._lock:
            self._groups = [known for known in self._groups if known.name != name]

    def load(self, document: Mapping[str, object]) -> None:
        """Replace everything by a document: ``users``, ``groups``, ``certificates``, ``enabled``,
        ``page_size``, ``plain_tokens``, ``answers``, each optional.  Raises ValueError for what it
        does not understand."""
        unknown = set(document) - _SETTINGS
        if unknown:
            raise ValueError(f"unknown OS Login settings: {', '.join(sorted(unknown))}")
        users = [user_from_document(entry) for entry in _objects(document.get("users"))]
        groups = [
            Group(str(entry["name"]), _number(entry["gid"]), _texts(entry.get("members")))
            for entry in _objects(document.get("groups"))
        ]
        enabled = document.get("enabled")
        page_size = document.get("page_size", 2048)
        if not isinstance(page_size, int) or page_size < 1:
            raise ValueError("page_size is a positive number")
        answers = document.get("answers", {})
        if not isinstance(answers, Mapping):
            raise ValueError("answers is an object")
        with self._lock:
            self.answers = dict(answers)
            self._users, self._groups = users, groups
            self.certificates = _texts(document.get("certificates"))
            self.enabled = None if enabled is None else bool(enabled)
            self.page_size = page_size
            self.plain_tokens = document.get("plain_tokens") is True
            self._sessions.clear()

    # Answering

    def answer(
        self, method: str, path: Sequence[str], query: Mapping[str, str], body: bytes
    ) -> Reply:
        """Status and JSON document (or the reason of an error) for a path below ``oslogin/``."""
        try:
            with self._lock:
                if path[0] in self.answers:
                    return 200, self.answers[path[0]]
                if path[0] == "authenticate":
                    return self._authenticate(method, path[1:], body)
                if len(path) != 1 or path[0] not in (
                    "users",
                    "groups",
                    "authorize",
                    "certificates",
                ):
                    return 404, "Not found."
                if method != "GET":
                    return 405, f"Method {method} is not allowed here."
                return 200, self._lookup(path[0], query)
        except _BadRequest as problem:
            return 400, str(problem)
        except _NotFound:
            return 404, "Not found."

    def _lookup(self, what: str, query: Mapping[str, str]) -> object:
        if what == "users":
            return self._users_answer(query)
        if what == "groups":
            return self._groups_answer(query)
        if what == "authorize":
            return {"success": self._authorized(query)}
        keys = [{"publicKey": key} for key in self.certificates]
        return {"trustedCertificateAuthorities": keys}

    def _users_answer(self, query: Mapping[str, str]) -> object:
        security_keys = query.get("view", "").lower() == "securitykey"
        if "groupname" in query:
            group = self._group_named(query["groupname"])
            page, token = self._page(group.members, query, last_is_empty=False)
            return {"usernames": page, "nextPageToken": token} if page else {"nextPageToken": token}
        if "username" in query:
            if not _NAME.fullmatch(query["username"]):
                raise _BadRequest("The user name is not a POSIX name.")
            found = [user for user in self._users if user.username == query["username"]]
        elif "uid" in query:
            if not re.fullmatch(r"[0-9]{1,20}", query["uid"]):
                raise _BadRequest("The uid is not a number.")
            found = [user for user in self._users if str(user.uid) == query["uid"]]
        elif "pagesize" in query:
            users, token = self._page(self._users, query, last_is_empty=True)
            if not users:
                return {"nextPageToken": token}
            profiles = [user.login_profile(security_keys=security_keys) for user in users]
            return {"loginProfiles": profiles, "nextPageToken": token}
        else:
            raise _BadRequest("One of username, uid, groupname and pagesize is required.")
        if not found:
            raise _NotFound
        return {"loginProfiles": [found[0].login_profile(security_keys=security_keys)]}

    def _groups_answer(self, query: Mapping[str, str]) -> object:
        token = LAST_PAGE
        if "groupname" in query:
            groups = [self._group_named(query["groupname"])]
        elif "gid" in query:
            groups = [group for group in self._groups if str(group.gid) == query["gid"]][:1]
            if not groups:
                raise _NotFound
        elif "email" in query:
            names = {user.username for user in self._users if user.address == query["email"]}
            joined = [group for group in self._groups if names & set(group.members)]
            groups, token = self._page(joined, query, last_is_empty=False)
        elif "pagesize" in query:
            groups, token = self._page(self._groups, query, last_is_empty=False)
        else:
            raise _BadRequest("One of groupname, gid, email and pagesize is required.")
        if not groups:
            return {"nextPageToken": token}
        entries = [{"name": group.name, "gid": group.gid} for group in groups]
        return {"posixGroups": entries, "nextPageToken": token}

    def _page(
        self, entries: Sequence[T], query: Mapping[str, str], *, last_is_empty: bool
    ) -> tuple[list[T], str]:
        size_text = query.get("pagesize", str(self.page_size))
        if not re.fullmatch(r"[0-9]{1,9}", size_text) or not int(size_text):
            raise _BadRequest("The pagesize parameter is a positive number.")
        size = min(int(size_text), _PAGE_LIMIT)
        token = query.get("pagetoken", "")
        pattern = "([0-9]{1,9})" if self.plain_tokens else r"page/([0-9]{1,9})\+"
        match = re.fullmatch(pattern, token) if token else None
        if token and not match:
            raise _BadRequest("The pagetoken parameter is not a token of this list.")
        start = int(match.group(1)) if match else 0
        page = list(entries[start : start + size])
        end = start + len(page)
        more = bool(page) if last_is_empty else end < len(entries)
        # The slash and the plus make a client fail that does not encode tokens in its next request.
        following = str(end) if self.plain_tokens else f"page/{end}+"
        return page, following if more else LAST_PAGE

    def _group_named(self, name: str) -> Group:
        for group in self._groups:
            if group.name == name:
                return group
        raise _NotFound

    def _user_with_email(self, email: object) -> Optional[User]:
        return next((user for user in self._users if user.address == email), None)

    def _authorized(self, query: Mapping[str, str]) -> bool:
        policy = query.get("policy", "")
        if "email" not in query or policy not in ("login", "adminLogin"):
            raise _BadRequest("The parameters email and policy (login, adminLogin) are required.")
        user = self._user_with_email(query["email"])
        if user is None or not user.login:
            return False
        fingerprint = query.get("fingerprint")
        allowed = user.fingerprints
        if fingerprint is not None and allowed is not None and fingerprint not in allowed:
            return False
        return user.admin if policy == "adminLogin" else True

    # Second factors

    def _authenticate(self, method: str, path: Sequence[str], body: bytes) -> Reply:
        if not (len(path) >= 2 and path[0] == "sessions"):
            return 404, "Not found."
        if method != "POST":
            return 405, f"Method {method} is not allowed here."
        request = _json_object(body)
        if len(path) == 2 and path[1] == "start":
            return 200, self._start(request)
        if len(path) == 3 and path[2] == "continue":
            return 200, self._continue(path[1], request)
        return 404, "Not found."

    def _start(self, request: Mapping[str, object]) -> object:
        supported = request.get("supportedChallengeTypes")
        if not isinstance(request.get("email"), str) or not isinstance(supported, list):
            raise _BadRequest("The fields email and supportedChallengeTypes are required.")
        user = self._user_with_email(request["email"])
        if user is None:
            raise _NotFound
        if user.session is not None:
            return user.session
        offered = [challenge for challenge in user.challenges if challenge.type in supported]
        if not offered:
            return {"status": "NO_AVAILABLE_CHALLENGES"}
        session_id = f"session-{next(self._numbers) + 1}"
        session = _Session(user.address, offered, [number == 0 for number in range(len(offered))])
        self._sessions[session_id] = session
        while len(self._sessions) > _SESSIONS_KEPT:
            del self._sessions[next(iter(self._sessions))]
        return session.state(session_id, "CHALLENGE_REQUIRED")

    def _continue(self, session_id: str, request: Mapping[str, object]) -> object:
        user = self._user_with_email(request.get("email"))
        if user is not None and user.continuation is not None:
            return user.continuation
        session = self._sessions.get(session_id)
        if session is None:
            raise _NotFound
        if request.get("email") != session.email:
            raise _BadRequest("The session belongs to another user.")
        number = request.get("challengeId")
        if isinstance(number, str) and number.isdigit():
            number = int(number)
        if not isinstance(number, int) or not 1 <= number <= len(session.challenges):
            raise _BadRequest("The challengeId is not one of this session.")
        action = request.get("action")
        if action == "START_ALTERNATE":
            session.ready = [index == number - 1 for index in range(len(session.challenges))]
            return session.state(session_id, "CHALLENGE_REQUIRED")
        if action != "RESPOND":
            raise _BadRequest("The action is RESPOND or START_ALTERNATE.")
        if not session.ready[number - 1]:
            raise _BadRequest("The challenge has not been started.")
        return self._respond(session_id, session, session.challenges[number - 1], request)

    def _respond(
        self,
        session_id: str,
        session: _Session,
        challenge: Challenge,
        request: Mapping[str, object],
    ) -> object:
        response = request.get("proposalResponse")
        credential = response.get("credential") if isinstance(response, dict) else None
        if challenge.type == "AUTHZEN":
            accepted, reason = challenge.approved, "The login was declined on the phone."
        else:
            accepted = isinstance(credential, str) and credential == challenge.credential
            reason = "The code is wrong."
        if challenge.reason is not None:
            reason = challenge.reason
        if accepted:
            del self._sessions[session_id]
            return {"status": "AUTHENTICATED", "sessionId": session_id}
        session.failures += 1
        if session.failures >= _ATTEMPTS:
            del self._sessions[session_id]
        answer = session.state(session_id, "CHALLENGE_PENDING")
        answer["rejectionReason"] = reason
        return answer


def user_from_document(entry: Mapping[str, object]) -> User:
    """A User from JSON: its fields by name; keys and challenges also as objects."""
    unknown = set(entry) - {known.name for known in fields(User)}
    if unknown:
        raise ValueError(f"unknown user settings: {', '.join(sorted(unknown))}")
    settings = dict(entry)
    settings["keys"] = tuple(_key(key) for key in _list(entry.get("keys")))
    settings["challenges"] = tuple(_challenge(one) for one in _list(entry.get("challenges")))
    settings["security_keys"] = _texts(entry.get("security_keys"))
    if entry.get("fingerprints") is not None:
        settings["fingerprints"] = _texts(entry["fingerprints"])
    return User(**settings)  # type: ignore[arg-type]


def _key(value: object) -> Key:
    if isinstance(value, Key):
        return value
    if isinstance(value, Mapping):
        return Key(str(value["key"]), value.get("expires", value.get("expirationTimeUsec")))
    return Key(str(value))


def _key_document(key: Key) -> dict[str, object]:
    if key.expires is None:
        return {"key": key.key}
    return {"key": key.key, "expirationTimeUsec": key.expires}


def _challenge(value: object) -> Challenge:
    if isinstance(value, Challenge):
        return value
    if isinstance(value, Mapping):
        reason = value.get("reason")
        return Challenge(
            str(value["type"]),
            str(value.get("credential", "")),
            bool(value.get("approved", True)),
            None if reason is None else str(reason),
        )
    raise ValueError("a challenge is an object with type and credential")


def _list(value: object) -> Sequence[object]:
    if value is None:
        return ()
    if isinstance(value, (list, tuple)):
        return value
    raise ValueError(f"a list was expected, not {type(value).__name__}")


def _objects(value: object) -> list[Mapping[str, object]]:
    entries = []
    for entry in _list(value):
        if not isinstance(entry, Mapping):
            raise ValueError(f"an object was expected, not {type(entry).__name__}")
        entries.append(entry)
    return entries


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(entry) for entry in _list(value))


def _number(value: object) -> Number:
    if isinstance(value, (int, str)):
        return value
    raise ValueError(f"a number was expected, not {type(value).__name__}")


def _json_object(body: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _BadRequest("The body is not JSON.") from None
    if not isinstance(document, dict):
        raise _BadRequest("The body is not a JSON object.")
    return document
