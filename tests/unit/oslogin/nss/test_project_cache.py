"""The object reads what the project's own writer writes, and both agree with the second writer."""

from __future__ import annotations

import random
from collections.abc import Callable

from unit.oslogin.nss.cache_files import CachedGroup, cache_file, self_groups, user
from unit.oslogin.nss.name_service import NOTFOUND, SUCCESS, Driver

from oslogin import identity_cache


def written(users: list, groups: list) -> bytes:
    """The project's file; it adds the self-groups by itself."""
    gids = {one.name: tuple(one.gids) for one in users}
    return identity_cache.build(users, groups, gids, generation=1, built_at=1700000000, flags=7)


def test_two_thousand_and_one_users_of_the_project_come_back(
    driver: Driver, cache: Callable[[bytes], None]
) -> None:
    names = [f"n{number:04x}" for number in range(2001)]
    random.Random(5).shuffle(names)
    users = [user(name, 5000 + place, (5000 + place,)) for place, name in enumerate(names)]
    cache(written(users, []))
    answers = driver.ask_all([("cache_oslogin", "pwnam", one.name) for one in users])
    assert [answer.fields[:4] for answer in answers] == [
        (one.name, "*", str(one.uid), str(one.gid)) for one in users
    ]
    answers = driver.ask_all([("cache_oslogin", "grgid", one.gid) for one in users])
    assert [answer.fields for answer in answers] == [
        (one.name, "x", str(one.gid), one.name) for one in users
    ]
    driver.ask("setpw", service="cache_oslogin")
    listed = driver.ask_all([("cache_oslogin", "pwent", "")] * 2002)
    assert [answer.fields[0] for answer in listed[:-1]] == sorted(names)
    assert listed[-1].status == NOTFOUND


def test_real_group_goes_before_the_self_group(
    driver: Driver, cache: Callable[[bytes], None]
) -> None:
    users = [user("alice", 2000, (2000, 3000)), user("bob", 2001, (2001,))]
    groups = [CachedGroup("team", 2000, ("bob",)), CachedGroup("devs", 3000, ("alice", "bob"))]
    cache(written(users, groups))
    assert driver.ask("grgid", 2000).fields == ("team", "x", "2000", "bob")
    assert driver.ask("grgid", 2001).fields == ("bob", "x", "2001", "bob")
    assert driver.ask("grnam", "devs").fields == ("devs", "x", "3000", "alice", "bob")
    answer = driver.ask("groups", "alice,2000,0,16")
    assert (answer.status, answer.fields) == (SUCCESS, ("7", "3000"))


def test_both_writers_give_the_same_answers(driver: Driver, cache: Callable[[bytes], None]) -> None:
    users = [user("alice", 2000, (3000, 2000)), user("bob", 2001, (2001,))]
    groups = [CachedGroup("devs", 3000, ("alice", "bob"))]
    questions = [
        ("cache_oslogin", function, argument)
        for function, argument in [
            *(("pwnam", one.name) for one in users),
            *(("grgid", gid) for gid in (2000, 2001, 3000)),
            *(("groups", f"{one.name},1,0,16") for one in users),
        ]
    ]
    cache(written(users, groups))
    ours = [answer[:3] for answer in driver.ask_all(questions)]
    cache(cache_file(users, [*groups, *self_groups(users)]))
    assert ours == [answer[:3] for answer in driver.ask_all(questions)]
    assert {answer[0] for answer in ours} == {SUCCESS}
