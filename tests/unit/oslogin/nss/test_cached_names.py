"""Names that the identity cache has: right records, exact buffers, no trust in a bad file."""

from __future__ import annotations

import errno
import os
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.oslogin.nss.cache_files import (
    CachedGroup,
    CachedUser,
    cache_file,
    self_groups,
    user,
    with_header_crc,
)
from unit.oslogin.nss.name_service import (
    NOTFOUND,
    SUCCESS,
    TRYAGAIN,
    UNAVAIL,
    Driver,
    Files,
)

Publish = Callable[[bytes], None]
USERS = [user("alice", 2000, (3000, 2000)), user("bob", 2001), user("carol.d", 2002, (3000,))]
GROUPS = [*self_groups(USERS), CachedGroup("devs", 3000, ("alice", "carol.d"))]
EVERY_FUNCTION = [
    *(("pwnam", one.name) for one in USERS),
    *(("pwuid", one.uid) for one in USERS),
    *(("grnam", group.name) for group in GROUPS),
    *(("grgid", group.gid) for group in GROUPS),
    *(("groups", f"{one.name},1,0,16") for one in USERS),
    ("setpw", ""),
    *([("pwent", "")] * 4),
    ("setgr", ""),
    *([("grent", "")] * 5),
]


def passwd_fields(one: CachedUser) -> tuple[str, ...]:
    return (one.name, "*", str(one.uid), str(one.gid), one.gecos, one.home, one.shell)


def group_fields(group: CachedGroup) -> tuple[str, ...]:
    return (group.name, "x", str(group.gid), *group.members)


@pytest.mark.parametrize("service", ["oslogin", "cache_oslogin"])
def test_cached_user_is_found_by_name_and_uid(driver: Driver, cache: Publish, service: str) -> None:
    cache(cache_file(USERS, GROUPS))
    for one in USERS:
        for question in (("pwnam", one.name), ("pwuid", one.uid)):
            answer = driver.ask(*question, service=service)
            assert (answer.status, answer.fields) == (SUCCESS, passwd_fields(one))


@pytest.mark.parametrize("service", ["oslogin", "cache_oslogin"])
def test_cached_group_is_found_by_name_and_gid(
    driver: Driver, cache: Publish, service: str
) -> None:
    cache(cache_file(USERS, GROUPS))
    for group in GROUPS:
        for question in (("grnam", group.name), ("grgid", group.gid)):
            answer = driver.ask(*question, service=service)
            assert (answer.status, answer.fields) == (SUCCESS, group_fields(group))


def test_two_thousand_and_one_users_come_back(driver: Driver, cache: Publish) -> None:
    names = [f"n{number:04x}" for number in range(2001)]
    random.Random(4).shuffle(names)
    users = [user(name, 5000 + 2 * place) for place, name in enumerate(names)]
    cache(cache_file(users, self_groups(users)))
    service = "cache_oslogin"
    by_name = driver.ask_all([(service, "pwnam", one.name) for one in users])
    by_uid = driver.ask_all([(service, "pwuid", one.uid) for one in users])
    by_gid = driver.ask_all([(service, "grgid", one.gid) for one in users])
    assert [answer.fields for answer in by_name] == [passwd_fields(one) for one in users]
    assert [answer.fields for answer in by_uid] == [passwd_fields(one) for one in users]
    assert [answer.fields[0] for answer in by_gid] == names
    absent = driver.ask_all([(service, "pwuid", uid) for uid in (4999, 5001, 7777, 9002)])
    assert {(answer.status, answer.error) for answer in absent} == {(NOTFOUND, errno.ENOENT)}


def test_name_that_begins_another_is_not_taken_for_it(driver: Driver, cache: Publish) -> None:
    names = ("a", "b", "bar", "bart", "baz", "foo")
    cache(cache_file([user(name, 2000 + place) for place, name in enumerate(names)]))
    for name in names:
        assert driver.ask("pwnam", name).fields[0] == name
    for name in ("ba", "bartender", "fo", "foobar"):
        answer = driver.ask("pwnam", name, service="cache_oslogin")
        assert (answer.status, answer.error) == (NOTFOUND, errno.ENOENT)


def test_user_needs_its_exact_room(driver: Driver, cache: Publish) -> None:
    one = CachedUser("al", 2000, 2000, "/home/al", "/bin/sh", "x")
    cache(cache_file([one]))
    room = sum(len(text) + 1 for text in ("al", "*", "x", "/home/al", "/bin/sh"))
    for size in range(room):
        answer = driver.ask("pwnam", "al", size)
        assert (answer.status, answer.error) == (TRYAGAIN, errno.ERANGE)
    assert driver.ask("pwnam", "al", room).fields == passwd_fields(one)


@pytest.mark.parametrize("count", [0, 1, 500])
def test_group_needs_its_exact_room(driver: Driver, cache: Publish, count: int) -> None:
    group = CachedGroup("devs", 3000, [f"member{number}" for number in range(count)])
    cache(cache_file([], [group]))
    pointer = struct.calcsize("P")
    room = (count + 1) * pointer + sum(len(text) + 1 for text in ("devs", "x", *group.members))
    short = driver.ask("grgid", 3000, room - 1)
    assert (short.status, short.error) == (TRYAGAIN, errno.ERANGE)
    assert driver.ask("grgid", 3000, room).fields == group_fields(group)


def test_missing_cache_is_unavailable_and_no_such_user(driver: Driver) -> None:
    for service in ("cache_oslogin", "oslogin"):
        answer = driver.ask("pwnam", "alice", service=service)
        assert (answer.status, answer.error) == (UNAVAIL, errno.ENOENT)


def test_empty_cache_has_nobody(driver: Driver, cache: Publish) -> None:
    cache(cache_file([]))
    for function, argument in (("pwnam", "alice"), ("pwuid", 2000), ("grgid", 2000)):
        assert driver.ask(function, argument, service="cache_oslogin").status == NOTFOUND
    assert driver.ask("pwent", service="cache_oslogin").status == NOTFOUND


def test_flipped_byte_never_gives_a_wrong_record(driver: Driver, cache: Publish) -> None:
    data = cache_file(USERS, GROUPS)
    questions = [("cache_oslogin", *question) for question in EVERY_FUNCTION]
    cache(data)
    right = driver.ask_all(questions)
    assert all(answer.status == SUCCESS for answer in right[:14])
    users = {passwd_fields(one) for one in USERS}
    groups = {group_fields(group) for group in GROUPS}
    for place in range(len(data)):
        cache(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        for question, expected, answer in zip(questions, right, driver.ask_all(questions)):
            assert answer.error != errno.EINVAL
            if answer.status != SUCCESS:
                assert answer.status in (NOTFOUND, UNAVAIL, TRYAGAIN), (place, question)
            elif question[1] == "pwent":
                assert answer.fields in users, (place, question)
            elif question[1] == "grent":
                assert answer.fields in groups, (place, question)
            else:
                assert answer.fields == expected.fields, (place, question)


def test_flipped_bit_that_the_header_hides_never_gives_a_wrong_record(
    driver: Driver, cache: Publish
) -> None:
    """As one who writes over the file would: the header's own checksum is made to fit again."""
    data = cache_file(USERS, GROUPS)
    questions = [("cache_oslogin", *question) for question in EVERY_FUNCTION[:17]]
    cache(data)
    right = driver.ask_all(questions)
    for bit in range(48 * 8, 188 * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        cache(with_header_crc(bytes(changed)))
        for expected, answer in zip(right, driver.ask_all(questions)):
            assert answer.status != SUCCESS or answer.fields == expected.fields, bit


def test_truncated_cache_is_unavailable_at_every_length(driver: Driver, cache: Publish) -> None:
    data = cache_file(USERS, GROUPS)
    questions = [("cache_oslogin", *question) for question in EVERY_FUNCTION]
    for length in range(len(data)):
        cache(data[:length])
        for question, answer in zip(questions, driver.ask_all(questions)):
            expected = SUCCESS if question[1] in ("setpw", "setgr") else UNAVAIL
            assert answer.status == expected, (length, question)


def test_other_major_version_is_unavailable(driver: Driver, cache: Publish) -> None:
    cache(cache_file(USERS, GROUPS, major=2))
    assert driver.ask("pwnam", "alice", service="cache_oslogin").status == UNAVAIL


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_cache_that_others_may_write_is_ignored(
    driver: Driver, cache: Publish, files: Files, mode: int
) -> None:
    cache(cache_file(USERS))
    files.cache.chmod(mode)
    assert driver.ask("pwnam", "alice").status == UNAVAIL


@pytest.mark.skipif(os.geteuid() != 0, reason="another owner needs root")
def test_cache_of_another_owner_is_ignored(driver: Driver, cache: Publish, files: Files) -> None:
    cache(cache_file(USERS))
    os.chown(files.cache, 1000, 0)
    assert driver.ask("pwnam", "alice").status == UNAVAIL


def test_cache_behind_a_symlink_is_ignored(
    driver: Driver, cache: Publish, files: Files, tmp_path: Path
) -> None:
    real = tmp_path / "real"
    real.write_bytes(cache_file(USERS))
    files.cache.symlink_to(real)
    assert driver.ask("pwnam", "alice", service="cache_oslogin").status == UNAVAIL
    cache(cache_file(USERS))
    assert driver.ask("pwnam", "alice", service="cache_oslogin").status == SUCCESS


def test_cache_that_is_a_pipe_does_not_hang(driver: Driver, cache: Publish, files: Files) -> None:
    os.mkfifo(files.cache, 0o644)
    assert driver.ask("pwnam", "alice", service="cache_oslogin").status == UNAVAIL


@pytest.mark.parametrize("uid", [999, 0, 65534, 65535, 4294967295])
def test_reserved_uid_in_the_file_is_not_believed(driver: Driver, cache: Publish, uid: int) -> None:
    cache(cache_file([CachedUser("alice", uid, 2000, "/")]))
    assert driver.ask("pwnam", "alice", service="cache_oslogin").status == UNAVAIL


def test_cloud_run_has_root_by_any_name(driver: Driver, cache: Publish) -> None:
    cache(cache_file([CachedUser("alice", 0, 0, "/")], flags=9))
    answer = driver.ask("pwnam", "alice")
    assert answer.fields == ("alice", "*", "0", "0", "", "/", "/bin/bash")


def test_enumeration_yields_each_user_and_group_once(driver: Driver, cache: Publish) -> None:
    cache(cache_file(USERS, GROUPS))
    service = "cache_oslogin"
    for restart in range(2):
        assert driver.ask("setpw", service=service).status == SUCCESS
        users = driver.ask_all([(service, "pwent", "")] * 5)
        assert [answer.fields for answer in users[:3]] == [passwd_fields(one) for one in USERS]
        assert [answer.status for answer in users[3:]] == [NOTFOUND, NOTFOUND], restart
    groups = driver.ask_all([(service, "setgr", ""), *([(service, "grent", "")] * 6)])[1:]
    expected = sorted(GROUPS, key=lambda group: group.name)
    assert [answer.fields for answer in groups[:4]] == [group_fields(group) for group in expected]
    assert [answer.status for answer in groups[4:]] == [NOTFOUND, NOTFOUND]


def test_small_buffer_does_not_advance_an_enumeration(driver: Driver, cache: Publish) -> None:
    cache(cache_file(USERS))
    service = "cache_oslogin"
    driver.ask("setpw", service=service)
    for one in USERS:
        short = driver.ask("pwent", "", 10, service)
        assert (short.status, short.error) == (TRYAGAIN, errno.ERANGE)
        assert driver.ask("pwent", "", 100, service).fields == passwd_fields(one)


def test_lookups_between_do_not_disturb_an_enumeration(driver: Driver, cache: Publish) -> None:
    cache(cache_file(USERS, GROUPS))
    service = "cache_oslogin"
    driver.ask("setpw", service=service)
    for one in USERS:
        assert driver.ask("pwent", service=service).fields == passwd_fields(one)
        driver.ask("grgid", 2002, service=service)
        driver.ask("pwnam", "alice", service=service)
        driver.ask("pwuid", 2001, service=service)
    assert driver.ask("pwent", service=service).status == NOTFOUND


def test_only_the_cache_service_enumerates(driver: Driver, cache: Publish) -> None:
    cache(cache_file(USERS, GROUPS))
    for kind in ("pw", "gr"):
        assert driver.ask(f"set{kind}").status == SUCCESS
        assert driver.ask(f"{kind}ent").status == NOTFOUND
        assert driver.ask(f"end{kind}").status == SUCCESS


@pytest.mark.parametrize("service", ["oslogin", "cache_oslogin"])
@pytest.mark.parametrize(
    "argument, expected",
    [
        ("alice,1,0,16", ["7", "3000", "3001", "3002"]),
        ("alice,1,0,1", ["7", "3000", "3001", "3002"]),
        ("alice,3001,0,16", ["7", "3000", "3002"]),
        ("alice,1,2,2", ["7", "3000"]),
        ("alice,1,3,1", ["7", "3000", "3001"]),
    ],
    ids=["room", "grows", "skips the primary group", "limit", "grows up to the limit"],
)
def test_groups_of_a_cached_user(
    driver: Driver, cache: Publish, service: str, argument: str, expected: list[str]
) -> None:
    cache(cache_file([user("alice", 2000, (3000, 3001, 3000, 3002))]))
    answer = driver.ask("groups", argument, service=service)
    assert (answer.status, list(answer.fields)) == (SUCCESS, expected)


def test_groups_of_a_thousand_memberships(driver: Driver, cache: Publish) -> None:
    gids = range(3000, 4000)
    cache(cache_file([user("alice", 2000, gids)]))
    answer = driver.ask("groups", "alice,1,0,4")
    assert answer.fields == ("7", *map(str, gids))


@pytest.mark.parametrize("flavour", ["plain", "tsan"])
def test_readers_of_a_replaced_file_see_right_records_only(
    build: Callable[[str], Path], cache: Publish, flavour: str
) -> None:
    generations = []
    for count in (40, 60):
        users = [user(f"u{number:05}", 10000 + number) for number in range(count)]
        generations.append(cache_file(users, self_groups(users)))
    cache(generations[0])
    process = subprocess.Popen(
        [str(build(flavour)), "threads", "16"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    for replacement in range(1000):
        cache(generations[replacement % 2])
    out, _ = process.communicate(timeout=120)
    asked, wrong = out.split()
    assert (process.returncode, wrong) == (0, "0") and int(asked) > 100


def test_fork_inside_an_enumeration_lets_both_finish(
    build: Callable[[str], Path], cache: Publish
) -> None:
    users = [user(f"u{number:05}", 10000 + number) for number in range(200)]
    cache(cache_file(users, self_groups(users)))
    done = subprocess.run(
        [str(build("plain")), "fork"], stdout=subprocess.PIPE, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == ["190", "190"]


def test_impossible_names_and_ids_cost_no_system_call(build: Callable[[str], Path]) -> None:
    done = subprocess.run([str(build("plain")), "filtered"], timeout=30, check=False)
    assert done.returncode == 0


def test_bypass_variable_ends_every_lookup(
    build: Callable[[str], Path], cache: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache(cache_file(USERS, GROUPS))
    monkeypatch.setenv("GOOGLE_OSLOGIN_NSS_BYPASS", "1")
    bypassed = Driver([str(build("plain"))])
    for service in ("oslogin", "cache_oslogin"):
        for function, argument in EVERY_FUNCTION:
            if not function.startswith("set"):
                answer = bypassed.ask(function, argument, service=service)
                assert (answer.status, answer.error) == (NOTFOUND, errno.ENOENT)
    bypassed.close()
