"""Names that the service is asked for: what each of its answers, and its silence, becomes."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.oslogin.nss.cache_files import (
    cache_file,
    fields,
    group_payload,
    number,
    text,
    user,
    user_payload,
)
from unit.oslogin.nss.name_service import (
    NOTFOUND,
    SUCCESS,
    TRYAGAIN,
    UNAVAIL,
    Driver,
    Files,
    Script,
    Service,
    reply,
)

OUTAGE = (TRYAGAIN, errno.EAGAIN)
NO_SERVICE = (UNAVAIL, errno.ENOENT)
NO_SUCH = (NOTFOUND, errno.ENOENT)
USER_FIELDS = ("alice", "*", "2000", "2000", "", "/home/alice", "/bin/bash")


def says(payload: bytes, **changed: Any) -> Script:
    return lambda request: reply(request, payload, **changed)


def test_user_of_the_service_is_found(driver: Driver, service: Service) -> None:
    service.script = says(user_payload())
    assert driver.ask("pwnam", "alice").fields == USER_FIELDS
    assert driver.ask("pwuid", 2000).fields == USER_FIELDS
    assert [request[:4] for request in service.requests] == [b"GOL1", b"GOL1"]
    assert service.requests[0][8:12] == b"\2\0\0\0" and service.requests[1][8:12] == b"\3\0\0\0"
    assert service.requests[0][16:] == fields((1, text("alice")))
    assert service.requests[1][16:] == fields((2, number(2000)))


def test_group_of_the_service_is_found(driver: Driver, service: Service) -> None:
    service.script = says(group_payload("devs", 3000, ["alice", "bob"]))
    assert driver.ask("grnam", "devs").fields == ("devs", "x", "3000", "alice", "bob")
    assert driver.ask("grgid", 3000).fields == ("devs", "x", "3000", "alice", "bob")
    assert [request[8] for request in service.requests] == [4, 5]


def test_group_without_members_is_found(driver: Driver, service: Service) -> None:
    service.script = says(group_payload("devs", 3000, []))
    assert driver.ask("grnam", "devs").fields == ("devs", "x", "3000")


@pytest.mark.parametrize(
    "status, expected",
    [
        (1, NO_SUCH),
        (2, OUTAGE),
        (3, OUTAGE),
        (4, NO_SERVICE),
        (5, NO_SERVICE),
        (6, NO_SUCH),
        (7, NO_SERVICE),
        (8, NO_SERVICE),
        (9, NO_SERVICE),
        (77, NO_SERVICE),
    ],
)
@pytest.mark.parametrize("question", [("pwnam", "alice"), ("grgid", 3000), ("groups", "al,1,0,4")])
def test_status_of_the_service_becomes(
    driver: Driver,
    service: Service,
    status: int,
    expected: tuple[int, int],
    question: tuple[str, object],
) -> None:
    service.script = says(b"", status=status)
    assert driver.ask(*question)[:2] == expected


GOOD = user_payload()
GARBAGE = {
    "wrong magic": says(GOOD, magic=b"GOL2"),
    "wrong id": says(GOOD, request_id=1),
    "wrong opcode": says(GOOD, opcode=0x8004),
    "request as reply": says(GOOD, opcode=2),
    "payload cut": says(GOOD[:-3], length=len(GOOD)),
    "oversize": says(GOOD, length=1024 * 1024 + 1),
    "four gigabytes": says(GOOD, length=0xFFFFFFFF),
    "nothing": lambda request: b"",
    "half a header": lambda request: b"GOL1\0\0",
    "empty payload": says(b""),
    "other name": says(user_payload("bob")),
    "name longer": says(user_payload("alicea")),
    "name twice": says(GOOD + fields((1, text("alice")))),
    "uid twice": says(GOOD + fields((2, number(2000)))),
    "uid 999": says(user_payload(uid=999)),
    "uid of nobody": says(user_payload(uid=65534)),
    "uid -1": says(user_payload(uid=4294967295)),
    "gid of sudo": says(user_payload(gid=number(27))),
    "gid 0": says(user_payload(gid=number(0))),
    "short number": says(user_payload(gid=b"\1\0\0")),
    "long number": says(user_payload(gid=number(2000) + b"\0")),
    "no NUL": says(user_payload(home=b"/home/alice")),
    "NUL inside": says(user_payload(home=b"/home\0alice\0")),
    "empty string without NUL": says(user_payload(gecos=b"")),
    "colon": says(user_payload(home=text("/home:0:0"))),
    "line feed": says(user_payload(gecos=text("a\nroot"))),
    "home too long": says(user_payload(home=text("/" + "h" * 255))),
    "field longer than the payload": says(GOOD + struct.pack("<HH", 99, 5) + b"abcd"),
    "one byte more": says(GOOD + b"\0"),
}


@pytest.mark.parametrize("script", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_no_answer(driver: Driver, service: Service, script: Script) -> None:
    service.script = script
    assert driver.ask("pwnam", "alice")[:2] == NO_SERVICE


def test_answer_about_another_uid_is_none(driver: Driver, service: Service) -> None:
    service.script = says(user_payload(uid=2001))
    assert driver.ask("pwuid", 2000)[:2] == NO_SERVICE


@pytest.mark.parametrize("payload", [user_payload(), group_payload("alice", 2000, ["alice", "b"])])
def test_payload_cut_at_each_byte_is_no_answer(
    driver: Driver, service: Service, payload: bytes
) -> None:
    function = "pwnam" if payload == user_payload() else "grnam"
    for length in range(len(payload)):
        service.script = says(payload[:length])
        assert driver.ask(function, "alice")[:2] == NO_SERVICE, length
    service.script = says(payload)
    assert driver.ask(function, "alice").status == SUCCESS


def test_unknown_tags_are_passed_over(driver: Driver, service: Service) -> None:
    service.script = says(fields((99, b"later")) + user_payload() + fields((0, b""), (98, b"\0")))
    assert driver.ask("pwnam", "alice").fields == USER_FIELDS


@pytest.mark.parametrize(
    "payload",
    [
        fields((1, text("devs")), (2, number(3000)), (7, number(2)), (8, text("a"))),
        fields((1, text("devs")), (2, number(3000)), (7, number(0)), (8, text("a"))),
        fields((1, text("devs")), (2, number(3000))),
        fields((1, text("devs")), (2, number(27)), (7, number(0))),
        group_payload("devs", 3000, ["a,b"]),
        group_payload("devs", 3000, [""]),
        group_payload("devs", 3000, ["m" * 33]),
    ],
    ids=["more counted", "fewer counted", "none counted", "gid", "comma", "empty", "long"],
)
def test_bad_group_is_no_answer(driver: Driver, service: Service, payload: bytes) -> None:
    service.script = says(payload)
    assert driver.ask("grnam", "devs")[:2] == NO_SERVICE


def test_user_needs_room_for_the_payload(driver: Driver, service: Service) -> None:
    service.script = says(user_payload())
    room = len(user_payload()) + len("*") + 1
    for size in (1, 10, room - 2, room - 1):
        assert driver.ask("pwnam", "alice", size)[:2] == (TRYAGAIN, errno.ERANGE)
    assert driver.ask("pwnam", "alice", room).fields == USER_FIELDS


def test_group_needs_room_for_payload_and_pointers(driver: Driver, service: Service) -> None:
    members = [f"m{place:04}" for place in range(500)]
    payload = group_payload("devs", 3000, members)
    service.script = says(payload)
    room = len(payload) + 501 * struct.calcsize("P") + len("x") + 1
    assert driver.ask("grnam", "devs", room - 1)[:2] == (TRYAGAIN, errno.ERANGE)
    assert driver.ask("grnam", "devs", room).fields == ("devs", "x", "3000", *members)


def gids_payload(*gids: int) -> bytes:
    packed = b"".join(map(number, gids))
    return fields((7, number(len(gids))), (9, packed))


def test_groups_of_a_user_of_the_service(driver: Driver, service: Service, files: Files) -> None:
    service.script = says(gids_payload(3000, 3001, 3000, 3002))
    assert driver.ask("groups", "alice,1,0,16").fields == ("7", "3000", "3001", "3002")
    assert driver.ask("groups", "alice,3000,0,1").fields == ("7", "3001", "3002")
    limited = driver.ask("groups", "alice,1,2,2")
    assert (limited.status, limited.fields) == (SUCCESS, ("7", "3000"))
    service.script = says(gids_payload(*range(3000, 19383)))
    assert len(driver.ask("groups", "alice,1,0,16").fields) == 16384


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        fields((9, number(3000))),
        fields((7, number(2)), (9, number(3000))),
        fields((7, number(1)), (9, number(27))),
        fields((7, number(1)), (9, number(3000)), (9, number(3001))),
        fields((7, number(1)), (9, b"\1\2\3")),
        fields((7, number(1)), (9, number(3000)))[:-1],
    ],
    ids=["empty", "not counted", "miscounted", "gid of sudo", "twice", "odd", "cut"],
)
def test_bad_list_of_groups_adds_none(driver: Driver, service: Service, payload: bytes) -> None:
    service.script = says(payload)
    answer = driver.ask("groups", "alice,1,0,16")
    assert (*answer[:2], answer.fields) == (*NO_SERVICE, ("7",))


def test_local_user_costs_no_connection(driver: Driver, service: Service, files: Files) -> None:
    files.passwd.write_text(
        "root:x:0:0::/root:/bin/sh\n" + "x" * 900 + "\nwww-data:x:33:33::/:/n\n"
    )
    try:
        assert driver.ask("groups", "www-data,1,0,16")[:2] == NO_SUCH
        assert driver.ask("groups", "root,1,0,16")[:2] == NO_SUCH
        assert not service.requests
        for name in ("www-dat", "www-dataa", "ww", "x"):
            driver.ask("groups", f"{name},1,0,16")
        assert len(service.requests) == 4
    finally:
        files.passwd.unlink()


def test_cached_user_costs_no_connection(
    driver: Driver, service: Service, cache: Callable[[bytes], None]
) -> None:
    cache(cache_file([user("alice", 2000, (3000,))]))
    assert driver.ask("pwnam", "alice").status == SUCCESS
    assert driver.ask("groups", "alice,1,0,16").status == SUCCESS
    assert not service.requests
    driver.ask("pwnam", "bob")
    assert len(service.requests) == 1


def test_bad_cache_is_passed_over(
    driver: Driver, service: Service, cache: Callable[[bytes], None]
) -> None:
    cache(b"GOSLIDC1" + bytes(500))
    service.script = says(user_payload())
    assert driver.ask("pwnam", "alice").fields == USER_FIELDS
    assert driver.ask("pwnam", "alice", service="cache_oslogin")[:2] == NO_SERVICE


def test_stopped_service_costs_no_time(driver: Driver) -> None:
    answers = driver.ask_all([("oslogin", "pwnam", f"user{place}") for place in range(50)])
    assert {answer[:2] for answer in answers} == {NO_SERVICE}
    assert sorted(answer.micros for answer in answers)[25] < 1000


def test_socket_without_a_listener_is_no_service(driver: Driver, files: Files) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(files.socket))
    left.close()
    try:
        assert driver.ask("pwnam", "alice")[:2] == NO_SERVICE
    finally:
        files.socket.unlink()


def test_full_backlog_is_an_outage(driver: Driver, files: Files) -> None:
    full = Service(files.socket, backlog=0)
    waiting = socket.socket(socket.AF_UNIX)
    try:
        waiting.connect(str(files.socket))
        answer = driver.ask("pwnam", "alice")
        assert answer[:2] == OUTAGE and answer.micros < 100_000
    finally:
        waiting.close()
        full.close()


def test_hung_service_is_an_outage_at_the_deadline(driver: Driver, service: Service) -> None:
    service.script = lambda request: None
    for question in (("pwnam", "alice"), ("grgid", 3000), ("groups", "alice,1,0,4")):
        answer = driver.ask(*question)
        assert answer[:2] == OUTAGE
        assert 290_000 < answer.micros < 500_000


def test_hung_service_is_given_five_seconds(build: Callable[..., Path], service: Service) -> None:
    service.script = lambda request: None
    real = Driver([str(build("plain", "-UOSLOGIN_DEADLINE_MS", "-DOSLOGIN_DEADLINE_MS=5000"))])
    answer = real.ask("pwnam", "alice")
    real.close()
    assert answer[:2] == OUTAGE
    assert 4_800_000 < answer.micros < 5_200_000


def test_service_of_another_user_is_not_believed(
    build: Callable[..., Path], service: Service
) -> None:
    service.script = says(user_payload())
    stranger = Driver([str(build("plain", "-UOSLOGIN_TRUSTED_UID", "-DOSLOGIN_TRUSTED_UID=12345"))])
    assert stranger.ask("pwnam", "alice")[:2] == NO_SERVICE
    stranger.close()
    assert not service.requests
