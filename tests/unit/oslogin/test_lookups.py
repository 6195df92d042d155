"""What lookups remember, for how long, and that equal questions share one request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Optional, Union

import pytest

from oslogin.directory import Nobody, Unavailable
from oslogin.identities import Group, Profile, User
from oslogin.lookups import MOST_ENTRIES, Lookups

ADA = User("ada", 2000, 2000, "/home/ada", "/bin/bash")


class FakeDirectory:
    """Users and groups by name, what it was asked, and how it fails."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {"ada": ADA}
        self.groups: dict[str, Group] = {}
        self.asked: list[tuple[str, object]] = []
        self.failure: Optional[Exception] = None
        self.nobody = 404
        self.deadline = 0.0
        self.before: Callable[[], object] = lambda: None

    def find_user(
        self, *, name: Optional[str] = None, uid: Optional[int] = None, deadline: float
    ) -> Union[Profile, Nobody]:
        self._ask("user", name or uid, deadline)
        for user in self.users.values():
            if name == user.name or uid == user.uid:
                return Profile(user, f"{user.name}@x")
        return Nobody(self.nobody)

    def find_group(
        self, *, name: Optional[str] = None, gid: Optional[int] = None, deadline: float
    ) -> Union[Group, Nobody]:
        self._ask("group", name or gid, deadline)
        for group in self.groups.values():
            if name == group.name or gid == group.gid:
                return group
        return Nobody(self.nobody)

    def groups_of(self, email: str, *, deadline: float) -> tuple[Group, ...]:
        self._ask("groups", email, deadline)
        return tuple(self.groups.values())

    def _ask(self, kind: str, what: object, deadline: float) -> None:
        self.asked.append((kind, what))
        self.deadline = deadline
        self.before()
        if self.failure is not None:
            raise self.failure


class World:
    """Lookups, the directory behind them, and a clock."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.directory = FakeDirectory()
        self.found: list[User] = []
        self.lookups = Lookups(
            self.directory,  # type: ignore[arg-type]
            clock=lambda: self.now,
            on_found=self.found.append,
            **options,
        )

    @property
    def requests(self) -> int:
        return len(self.directory.asked)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(("age", "requests"), [(59.9, 1), (60.1, 2)])
def test_found_user_is_fresh_for_a_minute(world: World, age: float, requests: int) -> None:
    world.lookups.user_by_name("ada")
    world.now += age
    assert world.lookups.user_by_name("ada") == ADA
    assert world.requests == requests


def test_user_found_by_name_is_known_by_number(world: World) -> None:
    world.lookups.user_by_name("ada")
    assert world.lookups.user_by_uid(2000) == ADA
    assert world.requests == 1


def test_found_user_is_stale_for_six_hours(world: World) -> None:
    world.lookups.user_by_name("ada")
    world.directory.failure = Unavailable("down")
    world.now += 6 * 3600 - 1
    assert world.lookups.user_by_name("ada") == ADA
    world.now += 2
    with pytest.raises(Unavailable):
        world.lookups.user_by_name("ada")


@pytest.mark.parametrize(("status", "seconds"), [(404, 30), (400, 300), (0, 30)])
def test_nobody_is_remembered(world: World, status: int, seconds: float) -> None:
    world.directory.nobody = status
    for age, requests in ((0.0, 1), (seconds - 0.1, 1), (0.2, 2)):
        world.now += age
        assert world.lookups.user_by_name("zoe") is None
        assert world.requests == requests


def test_nobody_is_never_stale(world: World) -> None:
    world.lookups.user_by_name("zoe")
    world.now += 31
    world.directory.failure = Unavailable("down")
    with pytest.raises(Unavailable):
        world.lookups.user_by_name("zoe")


def test_failure_is_not_remembered(world: World) -> None:
    world.directory.failure = Unavailable("down")
    with pytest.raises(Unavailable):
        world.lookups.user_by_name("ada")
    world.directory.failure = None
    assert world.lookups.user_by_name("ada") == ADA


def test_error_of_our_own_does_not_leave_others_waiting(world: World) -> None:
    world.directory.failure = RuntimeError("a mistake")
    with pytest.raises(RuntimeError):
        world.lookups.user_by_name("ada")
    world.directory.failure = None
    assert world.lookups.user_by_name("ada") == ADA


def test_equal_questions_in_flight_are_one_request(world: World) -> None:
    go = threading.Event()
    world.directory.before = lambda: go.wait(5.0)
    answers: list[Optional[User]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(world.lookups.user_by_name("ada")))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(5.0)
    assert answers == [ADA] * 12
    assert world.requests == 1


@pytest.mark.parametrize(("answered", "budget"), [(True, 4.5), (False, 0.9)])
def test_budget_is_short_until_the_server_has_answered(answered: bool, budget: float) -> None:
    world = World(has_answered=lambda: answered)
    world.lookups.user_by_name("ada")
    assert world.directory.deadline == world.now + budget


@pytest.mark.parametrize("name", ["*", "-x", "", "a" * 33, ".."])
def test_impossible_names_are_no_request(world: World, name: str) -> None:
    assert world.lookups.user_by_name(name) is None
    assert world.lookups.groups_of_user(name) == ()
    assert world.requests == 0


@pytest.mark.parametrize("number", [0, 27, 999, 65534, 4294967295])
def test_impossible_uids_are_no_request(world: World, number: int) -> None:
    assert world.lookups.user_by_uid(number) is None
    assert world.requests == 0


def test_real_group_comes_before_the_users_own(world: World) -> None:
    real = Group("staffers", 2000, ("bob",))
    world.directory.groups["staffers"] = real
    assert world.lookups.group_by_gid(2000) == real


def test_users_own_group_where_no_real_one_is(world: World) -> None:
    own = Group("ada", 2000, ("ada",))
    assert world.lookups.group_by_gid(2000) == own
    assert world.lookups.group_by_name("ada") == own


def test_users_own_group_also_where_groups_fail(world: World) -> None:
    world.lookups.user_by_name("ada")
    world.directory.failure = Unavailable("503")
    assert world.lookups.group_by_name("ada") == Group("ada", 2000, ("ada",))
    with pytest.raises(Unavailable):
        world.lookups.group_by_name("team")


def test_groups_are_not_asked_for_where_none_are_in_use() -> None:
    world = World(groups_in_use=lambda: False)
    assert world.lookups.group_by_name("ada") == Group("ada", 2000, ("ada",))
    assert world.lookups.groups_of_user("ada") == ()
    assert {kind for kind, _ in world.directory.asked} == {"user"}


def test_groups_of_a_user_are_numbers(world: World) -> None:
    world.directory.groups = {"a": Group("a", 3001), "b": Group("b", 3000), "c": Group("c", 3001)}
    assert world.lookups.groups_of_user("ada") == (3001, 3000)


def test_entries_are_bounded(world: World) -> None:
    for number in range(MOST_ENTRIES + 50):
        world.lookups.user_by_name(f"u{number}")
    assert len(world.lookups._entries) == MOST_ENTRIES


def test_found_users_are_told(world: World) -> None:
    for _ in range(2):
        world.lookups.user_by_name("ada")
    assert world.found == [ADA]


def test_nothing_is_known_after_forgetting(world: World) -> None:
    world.lookups.user_by_name("ada")
    world.lookups.forget()
    world.lookups.user_by_name("ada")
    assert world.requests == 2
