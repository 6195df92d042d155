"""The OS Login part of the metadata server: every request that the daemon makes, in one place.

Asks below ``http://169.254.169.254/computeMetadata/v1/oslogin/`` through the library's client: no
proxy, an answer counts only with the header ``Metadata-Flavor: Google``, and bodies are bounded.
Everything in a query is percent-encoded. An attempt that failed at the server's side is repeated
after 200 ms until the caller's deadline; an answer that says no (404, 400) never is.

Callers see typed records, ``None`` for "there is none", ``Disabled`` when OS Login is off, and
``Unavailable`` for everything that says nothing about the answer.

Source: guest-oslogin ``src/oslogin_utils.cc``, ``src/cache_refresh/cache_refresh.cc`` (requests,
pages), ``src/pam/`` (policies, sessions).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Optional, Protocol, TypeVar
from urllib.parse import quote

from google_guest.errors import GuestError
from google_guest.metadata.errors import (
    BadRequest,
    Cancelled,
    MetadataError,
    NotFound,
    ServerError,
    TooManyRequests,
    Unreachable,
)
from google_guest.metadata.exchange import Response
from google_guest.records import record
from oslogin.identities import (
    Group,
    InvalidIdentity,
    Profile,
    User,
    is_login_name,
    parse_group,
    parse_profile,
    parse_user,
)
from oslogin.pages import BadPage, read_page

USERS_PER_PAGE = 2048
GROUPS_PER_PAGE = 499
LAST_PAGE = "0"
MOST_PAGES = 10_000
PAGE_TIMEOUT = 10.0
"""Seconds for one attempt of a page."""
PAGE_RETRIES = 3
RETRY_PAUSE = 0.2
BREAKER_LIMIT = 2
"""Transport failures in a row after which nobody is asked for a while."""
BREAKER_PAUSE = 10.0
_SINGLE_LIMIT = 1024 * 1024
"""Bytes of an answer about one user or group."""
_FIELDS = {"Connection": "close"}
# What the reference's HTTP library sends for a body that is JSON.
_POST_FIELDS = {**_FIELDS, "Content-Type": "application/x-www-form-urlencoded"}

log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Unavailable(GuestError):
    """The metadata server gave no answer that says anything: worth asking again later."""


class Disabled(GuestError):
    """OS Login is off for this instance: the list of users or groups does not exist."""


@record
class Nobody:
    """There is none: by the server's word (``status`` 404 or 400), or because its answer cannot be
    used (0), which says nothing about whether the user or group exists."""

    status: int = 404


class _Refused(Exception):
    """Status 404 or 400; ``first`` says whether it was the first page of a list."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
        self.first = True


class Client(Protocol):
    """What of ``google_guest.metadata.client.MetadataClient`` is used."""

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Optional[Mapping[str, str]] = ...,
        headers: Optional[Mapping[str, str]] = ...,
        body: Optional[bytes] = ...,
        timeout: float = ...,
    ) -> Response:
        """Make one attempt; see ``MetadataClient.request``."""

    def sleep(self, seconds: float) -> None:
        """Pause, or raise ``Cancelled``."""


class Breaker:
    """Stops asking a server that cannot be reached: see ``BREAKER_LIMIT``.

    Threads share one without a lock: a lost update costs one more or one less attempt.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._closed_at = 0.0

    def check(self) -> None:
        """Raise ``Unavailable`` while nobody is to be asked; let one probe through afterwards."""
        if self._failures < BREAKER_LIMIT:
            return
        now = self._clock()
        if now < self._closed_at:
            raise Unavailable("the metadata server was not reached within the last 10 s")
        # Everybody else waits until the probe has told.
        self._closed_at = now + BREAKER_PAUSE

    def failed(self) -> None:
        """Count a failure of the transport."""
        self._failures += 1
        if self._failures >= BREAKER_LIMIT:
            self._closed_at = self._clock() + BREAKER_PAUSE

    def answered(self) -> None:
        """The server gave an answer, of whatever kind."""
        self._failures = 0


class Directory:
    """Asks for users, groups, policies and sessions; threads may share one.

    Deadlines are in terms of ``clock``.
    """

    def __init__(
        self,
        client: Client,
        *,
        cloud_run: bool = False,
        breaker: Optional[Breaker] = None,
        clock: Callable[[], float] = time.monotonic,
        on_answer: Callable[[], None] = lambda: None,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        """Ask through ``client``.

        ``on_answer`` is called for each answer that says something, ``on_failure`` for each
        attempt that brought none.
        """
        self._client = client
        self._cloud_run = cloud_run
        self._breaker = breaker
        self._clock = clock
        self._on_answer = on_answer
        self._on_failure = on_failure

    # One user

    def user_by_name(
        self, name: str, *, security_keys: bool = False, deadline: float
    ) -> Optional[Profile]:
        """Return the profile of ``name``, or None; raise ``Unavailable``."""
        found = self.find_user(name=name, security_keys=security_keys, deadline=deadline)
        return found if isinstance(found, Profile) else None

    def user_by_uid(self, uid: int, *, deadline: float) -> Optional[Profile]:
        """Return the profile of ``uid``, or None; raise ``Unavailable``."""
        found = self.find_user(uid=uid, deadline=deadline)
        return found if isinstance(found, Profile) else None

    def find_user(
        self,
        *,
        name: Optional[str] = None,
        uid: Optional[int] = None,
        security_keys: bool = False,
        deadline: float,
    ) -> Profile | Nobody:
        """Return the profile of ``name`` or ``uid``, or how there is none."""
        query = {"username": name} if name is not None else {"uid": str(uid)}
        if security_keys:
            query["view"] = "securityKey"
        try:
            document = self._object("users", query, deadline)
            return parse_profile(document, name=name, uid=uid, cloud_run=self._cloud_run)
        except _Refused as refused:
            return Nobody(refused.status)
        except InvalidIdentity as error:
            log.warning("user %s: %s", name if name is not None else uid, error)
            return Nobody(0)

    # Groups

    def group_by_name(self, name: str, *, deadline: float) -> Optional[Group]:
        """Return the group ``name`` with its members, or None; raise ``Unavailable``."""
        found = self.find_group(name=name, deadline=deadline)
        return found if isinstance(found, Group) else None

    def group_by_gid(self, gid: int, *, deadline: float) -> Optional[Group]:
        """Return the group ``gid`` with its members, or None; raise ``Unavailable``."""
        found = self.find_group(gid=gid, deadline=deadline)
        return found if isinstance(found, Group) else None

    def find_group(
        self, *, name: Optional[str] = None, gid: Optional[int] = None, deadline: float
    ) -> Group | Nobody:
        """Return the group with its members, or how there is none."""
        query = {"groupname": name} if name is not None else {"gid": str(gid)}
        try:
            document = self._object("groups", query, deadline)
            entries = document.get("posixGroups")
            if not isinstance(entries, list) or not entries:
                return Nobody()
            found = parse_group(entries[0], name=name, gid=gid)
        except _Refused as refused:
            return Nobody(refused.status)
        except InvalidIdentity as error:
            log.warning("group %s: %s", name if name is not None else gid, error)
            return Nobody(0)
        return Group(found.name, found.gid, self.members_of(found.name, deadline=deadline))

    def groups_of(self, email: str, *, deadline: float) -> tuple[Group, ...]:
        """Return the groups, without members, of the user whose address is ``email``."""
        found: list[Group] = []
        try:
            for page in self._pages("groups", {"email": email}, "posixGroups", _group, deadline):
                found += page
        except _Refused as refused:
            if not refused.first:
                raise Unavailable("a page in the midst of a list was refused") from refused
        return tuple(found)

    def members_of(self, group: str, *, deadline: Optional[float] = None) -> tuple[str, ...]:
        """Return the login names of a group's members; no deadline: as for pages."""
        found: list[str] = []
        query = {"groupname": group}
        try:
            for page in self._pages("users", query, "usernames", _member, deadline):
                found += page
        except _Refused as refused:
            if not refused.first:
                raise Unavailable("a page in the midst of a list was refused") from refused
        return tuple(found)

    # Everything

    def all_users(self) -> Iterator[User]:
        """Walk all users page by page; raise ``Disabled`` or ``Unavailable`` at any of them."""

        def take(profile: object) -> Optional[User]:
            try:
                return parse_user(profile, cloud_run=self._cloud_run)
            except InvalidIdentity as error:
                log.warning("left out: %s", error)
                return None

        yield from self._all("users", "loginProfiles", USERS_PER_PAGE, take)

    def all_groups(self) -> Iterator[Group]:
        """Walk all groups with their members; nothing if groups are not in use.

        A group whose members cannot be read is left out. Raises as ``all_users`` does.
        """
        for group in self._all("groups", "posixGroups", GROUPS_PER_PAGE, _group):
            try:
                yield Group(group.name, group.gid, self.members_of(group.name))
            except Unavailable as error:
                log.warning("group %s is left out: %s", group.name, error)

    # Policies and sessions

    def is_authorized(
        self, email: str, policy: str, *, fingerprint: str = "", deadline: float
    ) -> bool:
        """Return whether ``policy`` (login, adminLogin) lets the user in: JSON's true alone does.

        Raises ``Unavailable``; a 404 or 400 is a no.
        """
        query = {"email": email, "policy": policy}
        if fingerprint:
            query["fingerprint"] = fingerprint
        try:
            return self._object("authorize", query, deadline).get("success") is True
        except _Refused:
            return False

    def start_session(
        self, email: str, *, deadline: float, types: tuple[str, ...] = ()
    ) -> dict[str, object]:
        """Start a session of two-factor authentication; return the answer's object."""
        body = {"email": email, "supportedChallengeTypes": list(types or CHALLENGE_TYPES)}
        return self._post("authenticate/sessions/start", body, deadline)

    def continue_session(
        self, session_id: str, body: Mapping[str, object], *, deadline: float
    ) -> dict[str, object]:
        """Send ``body`` to a session; return the answer's object."""
        if session_id in ("", ".", ".."):
            raise Unavailable("the session has no usable name")
        path = f"authenticate/sessions/{quote(session_id, safe='', errors='replace')}/continue"
        return self._post(path, body, deadline)

    # Requests

    def _post(self, path: str, body: Mapping[str, object], deadline: float) -> dict[str, object]:
        """Send JSON once: what asked a person for a code must not be repeated blindly."""
        data = json.dumps(body).encode()
        try:
            response = self._attempt("POST", path, {}, data, deadline - self._clock())
        except MetadataError as error:
            raise Unavailable(str(error)) from error
        return _decoded(response.body, path)

    def _object(self, path: str, query: Mapping[str, str], deadline: float) -> dict[str, object]:
        body = self._get(path, query, deadline)
        if len(body) > _SINGLE_LIMIT:
            raise Unavailable(f"oslogin/{path}: the answer is larger than 1 MiB")
        return _decoded(body, path)

    def _get(self, path: str, query: Mapping[str, str], deadline: float) -> bytes:
        """Return a body, trying until ``deadline``; raise ``_Refused`` or ``Unavailable``."""
        while True:
            remaining = deadline - self._clock()
            try:
                return self._attempt("GET", path, query, None, remaining).body
            except NotFound as error:
                raise _Refused(404) from error
            except BadRequest as error:
                raise _Refused(400) from error
            except MetadataError as error:
                pointless = not isinstance(error, Unreachable)
                if pointless or deadline - self._clock() <= RETRY_PAUSE:
                    raise Unavailable(str(error)) from error
            self._pause(RETRY_PAUSE)

    def _pause(self, seconds: float) -> None:
        try:
            self._client.sleep(seconds)
        except MetadataError as error:
            raise Unavailable(str(error)) from error

    def _attempt(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Optional[bytes],
        timeout: float,
    ) -> Response:
        breaker = self._breaker
        if timeout <= 0:
            raise Unavailable(f"oslogin/{path}: no time is left")
        if breaker is not None:
            breaker.check()
        try:
            response = self._client.request(
                method,
                f"oslogin/{path}",
                query=query,
                headers=_FIELDS if body is None else _POST_FIELDS,
                body=body,
                timeout=timeout,
            )
        except MetadataError as error:
            if isinstance(error, Unreachable) and not isinstance(
                error, (ServerError, TooManyRequests)
            ):
                if breaker is not None:
                    breaker.failed()
            elif breaker is not None:
                breaker.answered()
            if isinstance(error, (NotFound, BadRequest)):
                self._on_answer()
            elif not isinstance(error, Cancelled):
                self._on_failure(error)
            raise
        if breaker is not None:
            breaker.answered()
        self._on_answer()
        return response

    # Pages

    def _all(
        self, path: str, key: str, size: int, take: Callable[[object], Optional[_T]]
    ) -> Iterator[_T]:
        query = {"pagesize": str(size)}
        try:
            for page in self._pages(path, query, key, take, None, size):
                yield from page
        except _Refused as refused:
            if refused.first and refused.status == 404:
                raise Disabled("OS Login is off for this instance") from refused
            raise Unavailable(f"oslogin/{path}: a page was refused") from refused

    def _pages(
        self,
        path: str,
        query: Mapping[str, str],
        key: str,
        take: Callable[[object], Optional[_T]],
        deadline: Optional[float],
        size: Optional[int] = None,
    ) -> Iterator[list[_T]]:
        """Yield what ``take`` makes of the entries of one page after the other."""
        token = ""
        seen: set[str] = set()
        for number in range(MOST_PAGES):
            asked = {**query, "pagetoken": token} if token else query
            try:
                entries, count, next_token = read_page(self._page(path, asked, deadline), key, take)
                token = _checked(next_token, count, seen, key, size)
            except _Refused as refused:
                refused.first = number == 0
                raise
            except BadPage as error:
                raise Unavailable(f"oslogin/{path}: {error}") from error
            yield entries
            if token == LAST_PAGE:
                return
        raise Unavailable(f"oslogin/{path}: more than {MOST_PAGES} pages")

    def _page(self, path: str, query: Mapping[str, str], deadline: Optional[float]) -> bytes:
        if deadline is not None:
            return self._get(path, query, deadline)
        left = PAGE_RETRIES
        while True:
            try:
                return self._attempt("GET", path, query, None, PAGE_TIMEOUT).body
            except NotFound as error:
                raise _Refused(404) from error
            except BadRequest as error:
                raise _Refused(400) from error
            except MetadataError as error:
                left -= 1
                if left < 0 or not isinstance(error, Unreachable):
                    raise Unavailable(str(error)) from error
            self._pause(RETRY_PAUSE * 2 ** (PAGE_RETRIES - left))


CHALLENGE_TYPES = (
    "INTERNAL_TWO_FACTOR",
    "SECURITY_KEY_OTP",
    "AUTHZEN",
    "TOTP",
    "IDV_PREREGISTERED_PHONE",
)
"""The kinds of second factors that this program can ask for."""


def _checked(
    token: object, count: Optional[int], seen: set[str], key: str, size: Optional[int]
) -> str:
    """Return the token of a page that is one of a list in progress; raise ``BadPage``."""
    if not isinstance(token, str) or not token:
        raise BadPage("the page does not say whether another one follows")
    if token in seen:
        raise BadPage("the token of a page repeats")
    seen.add(token)
    if size is not None and count is not None and count > size:
        raise BadPage(f"the page has {count} entries, {size} were asked for")
    # Users end with a page that has none. Groups and members may be absent altogether.
    ends = token == LAST_PAGE
    if (count == 0 and not (ends and key == "loginProfiles")) or (count is None and not ends):
        raise BadPage(f"the page has no {key}")
    return token


def _group(entry: object) -> Optional[Group]:
    try:
        return parse_group(entry)
    except InvalidIdentity as error:
        log.warning("left out: %s", error)
        return None


def _member(name: object) -> Optional[str]:
    if isinstance(name, str) and is_login_name(name):
        return name
    log.warning("left out: a member whose name could be no login name")
    return None


def _decoded(body: bytes, path: str) -> dict[str, object]:
    try:
        document = json.loads(body.decode())
    except (ValueError, RecursionError):
        # The text of the error would show the answer.
        raise Unavailable(f"oslogin/{path}: the answer is not JSON") from None
    if not isinstance(document, dict):
        raise Unavailable(f"oslogin/{path}: the answer is no object")
    return document
