"""Answers to "who is this", with a memory: caches, stale answers, one request for equal questions.

The metadata server is asked through ``oslogin.directory`` and never about policies: those are asked
anew each time, elsewhere. What was found is fresh for a minute and, while the server cannot be
reached, good for six hours; "nobody" is remembered for half a minute, "no POSIX name" for five.
Equal questions in flight share one request. A question that cannot have an answer is no request.

Times are those of a monotonic clock, so that a clock that is set moves nothing.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Optional, Union

from google_guest.records import record
from oslogin.directory import Directory, Nobody, Unavailable
from oslogin.identities import (
    Group,
    Profile,
    User,
    is_gid,
    is_group_name,
    is_login_name,
    is_uid,
    self_group,
)

BUDGET = 4.5
"""Seconds for one request of the C library."""
FIRST_BUDGET = 0.9
"""The same until the server has answered once since boot: boot waits for nothing."""
FRESH = 60.0
STALE = 6 * 3600.0
UNKNOWN_FOR = 30.0
IMPOSSIBLE_FOR = 300.0
MOST_ENTRIES = 10_000
_GROUP_SHARE = 1.5
"""Seconds of the budget for a real group before the user's own is looked at: the server fails for
all groups of some projects that have none (guest-oslogin issue 45)."""


@record
class Account:
    """What is remembered of a profile: keys are not."""

    user: User
    email: str


_Found = Union[Account, Group, tuple[int, ...]]


@record
class _Entry:
    value: Optional[_Found]
    fresh_until: float
    stale_until: float


class _Flight:
    """A request that others wait for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: Optional[_Found] = None
        self.failure: Optional[Exception] = None


class Lookups:
    """Users and groups by name and number; threads share one."""

    def __init__(
        self,
        directory: Directory,
        *,
        clock: Callable[[], float] = time.monotonic,
        has_answered: Callable[[], bool] = lambda: True,
        groups_in_use: Callable[[], bool] = lambda: True,
        on_found: Callable[[User], None] = lambda user: None,
    ) -> None:
        """Ask ``directory``.

        ``has_answered`` says whether the server ever did since boot, ``groups_in_use`` whether
        asking for groups makes sense, ``on_found`` is told of each user that a request found.
        """
        self._directory = directory
        self._clock = clock
        self._has_answered = has_answered
        self._groups_in_use = groups_in_use
        self._on_found = on_found
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._flights: dict[Hashable, _Flight] = {}

    def user_by_name(self, name: str) -> Optional[User]:
        """Return the user ``name`` or None; raise ``Unavailable``."""
        account = self._account(name)
        return account.user if account else None

    def user_by_uid(self, uid: int) -> Optional[User]:
        """Return the user ``uid`` or None; raise ``Unavailable``."""
        if not is_uid(uid):
            return None
        found = self._remembered(("uid", uid), lambda deadline: self._ask_uid(uid, deadline))
        return found.user if isinstance(found, Account) else None

    def group_by_name(self, name: str) -> Optional[Group]:
        """Return the group ``name``, else the group a user of that name has for itself, or None.

        Raises ``Unavailable``.
        """
        if not is_group_name(name):
            return None
        return self._group(
            ("group", name),
            lambda deadline: self._directory.find_group(name=name, deadline=deadline),
            lambda: self.user_by_name(name),
        )

    def group_by_gid(self, gid: int) -> Optional[Group]:
        """Return the group ``gid``, else the group a user of that uid has for itself, or None.

        Raises ``Unavailable``.
        """
        if not is_gid(gid):
            return None
        return self._group(
            ("gid", gid),
            lambda deadline: self._directory.find_group(gid=gid, deadline=deadline),
            lambda: self.user_by_uid(gid),
        )

    def groups_of_user(self, name: str) -> tuple[int, ...]:
        """Return the gids of the groups that ``name`` is a member of; raise ``Unavailable``."""
        account = self._account(name)
        if account is None or not account.email or not self._groups_in_use():
            return ()
        found = self._remembered(("groups", name), lambda end: self._ask_gids(account.email, end))
        return found if isinstance(found, tuple) else ()

    def forget(self) -> None:
        """Forget everything, as after a refresh that found another truth."""
        with self._lock:
            self._entries.clear()

    # Asking

    def _account(self, name: str) -> Optional[Account]:
        if not is_login_name(name):
            return None
        found = self._remembered(("user", name), lambda end: self._ask_name(name, end))
        return found if isinstance(found, Account) else None

    def _ask_name(self, name: str, deadline: float) -> tuple[Optional[_Found], float]:
        return self._told(self._directory.find_user(name=name, deadline=deadline))

    def _ask_uid(self, uid: int, deadline: float) -> tuple[Optional[_Found], float]:
        return self._told(self._directory.find_user(uid=uid, deadline=deadline))

    def _told(self, found: Union[Profile, Nobody]) -> tuple[Optional[_Found], float]:
        if isinstance(found, Nobody):
            return None, _lifetime(found)
        account = Account(found.user, found.email)
        # Whoever asks for a name asks for the number next (ls -l), and the reverse.
        for key in (("user", account.user.name), ("uid", account.user.uid)):
            self._keep(key, account, FRESH)
        self._on_found(account.user)
        return account, FRESH

    def _ask_gids(self, email: str, deadline: float) -> tuple[Optional[_Found], float]:
        groups = self._directory.groups_of(email, deadline=deadline)
        return tuple(dict.fromkeys(group.gid for group in groups)), FRESH

    def _group(
        self,
        key: Hashable,
        find: Callable[[float], Union[Group, Nobody]],
        owner: Callable[[], Optional[User]],
    ) -> Optional[Group]:
        failure: Optional[Unavailable] = None
        if self._groups_in_use():

            def ask(deadline: float) -> tuple[Optional[_Found], float]:
                found = find(min(deadline, self._clock() + _GROUP_SHARE))
                return (found, FRESH) if isinstance(found, Group) else (None, _lifetime(found))

            try:
                real = self._remembered(key, ask)
                if isinstance(real, Group):
                    return real
            except Unavailable as error:
                failure = error
        user = owner()
        own = self_group(user) if user is not None else None
        if own is None and failure is not None:
            raise failure
        return own

    def _remembered(
        self, key: Hashable, ask: Callable[[float], tuple[Optional[_Found], float]]
    ) -> Optional[_Found]:
        """Return the value of ``key``: remembered, found by an equal request, or asked for."""
        budget = BUDGET if self._has_answered() else FIRST_BUDGET
        with self._lock:
            now = self._clock()
            entry = self._entries.get(key)
            if entry is not None and now < entry.fresh_until:
                self._entries.move_to_end(key)
                return entry.value
            flight = self._flights.get(key)
            mine = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight()
        if mine:
            self._fly(key, flight, ask, now + budget)
        elif not flight.done.wait(budget):
            flight = None
        if flight is not None and flight.failure is None:
            return flight.value
        if entry is not None and entry.value is not None and self._clock() < entry.stale_until:
            return entry.value
        if flight is None or isinstance(flight.failure, Unavailable):
            reason = "no answer in time" if flight is None else str(flight.failure)
            raise Unavailable(reason)
        raise Unavailable("the request failed") from flight.failure

    def _fly(
        self,
        key: Hashable,
        flight: _Flight,
        ask: Callable[[float], tuple[Optional[_Found], float]],
        deadline: float,
    ) -> None:
        """Ask, remember, and tell those that wait, whatever happens."""
        try:
            flight.value, lifetime = ask(deadline)
            self._keep(key, flight.value, lifetime)
        except Unavailable as error:
            flight.failure = error
        except BaseException as error:
            flight.failure = error if isinstance(error, Exception) else Unavailable("stopped")
            raise
        finally:
            with self._lock:
                self._flights.pop(key, None)
            flight.done.set()

    def _keep(self, key: Hashable, value: Optional[_Found], lifetime: float) -> None:
        with self._lock:
            now = self._clock()
            stale_until = now + (STALE if value is not None else lifetime)
            self._entries[key] = _Entry(value, now + lifetime, stale_until)
            self._entries.move_to_end(key)
            while len(self._entries) > MOST_ENTRIES:
                self._entries.popitem(last=False)


def _lifetime(nobody: Nobody) -> float:
    return IMPOSSIBLE_FOR if nobody.status == 400 else UNKNOWN_FOR
