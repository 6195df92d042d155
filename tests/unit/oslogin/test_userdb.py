"""The user database of systemd: calls of Varlink and what they are answered."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oslogin import userdb
from oslogin.directory import Unavailable
from oslogin.identities import Group, User

ALICE = User("alice", 2001, 2001, "/home/alice", "/bin/bash")
BOB = User("bob", 2002, 2002, "/home/bob", "/bin/sh")
GROUPS = (Group("staff", 3000, ("alice", "bob")), Group("alice", 2001, ("alice",)))


class Directory:
    """Alice, Bob and two groups."""

    def user_by_name(self, name: str) -> Optional[User]:
        return next((user for user in (ALICE, BOB) if user.name == name), None)

    def user_by_uid(self, uid: int) -> Optional[User]:
        return next((user for user in (ALICE, BOB) if user.uid == uid), None)

    def group_by_name(self, name: str) -> Optional[Group]:
        return next((group for group in GROUPS if group.name == name), None)

    def group_by_gid(self, gid: int) -> Optional[Group]:
        return next((group for group in GROUPS if group.gid == gid), None)

    def groups_of_user(self, name: str) -> tuple[int, ...]:
        return tuple(group.gid for group in GROUPS if name in group.members)


class Outage(Directory):
    def user_by_name(self, name: str) -> Optional[User]:
        raise Unavailable("no answer")


def call(method: str, more: bool = False, /, **parameters: object) -> list[Any]:
    if method.startswith("Get"):
        method = f"io.systemd.UserDatabase.{method}"
        parameters.setdefault("service", userdb.SERVICE)
    document = {"method": method, "parameters": parameters, "more": more}
    parsed = userdb.parse_call(json.dumps(document).encode())
    return list(userdb.replies(parsed, Directory()))


def error_of(answers: list[Any]) -> str:
    (only,) = answers
    return str(only["error"]).rpartition(".")[2]


@pytest.mark.parametrize("key", [{"userName": "alice"}, {"uid": 2001}])
def test_user_record_is_found_by_name_and_number(key: dict[str, object]) -> None:
    (answer,) = call("GetUserRecord", **key)
    record = answer["parameters"]["record"]
    assert (record["userName"], record["uid"], record["gid"]) == ("alice", 2001, 2001)
    assert (record["homeDirectory"], record["shell"]) == ("/home/alice", "/bin/bash")
    assert record["service"] == "com.google.OSLogin"
    assert answer["parameters"]["incomplete"] is False


def test_group_record_has_its_members() -> None:
    (answer,) = call("GetGroupRecord", groupName="staff")
    assert answer["parameters"]["record"]["members"] == ["alice", "bob"]


def test_memberships_of_a_group_are_one_reply_each() -> None:
    answers = call("GetMemberships", True, groupName="staff")
    assert [a["parameters"]["userName"] for a in answers] == ["alice", "bob"]
    assert [a.get("continues", False) for a in answers] == [True, False]


def test_memberships_of_a_user_name_its_groups() -> None:
    answers = call("GetMemberships", True, userName="alice")
    assert [a["parameters"]["groupName"] for a in answers] == ["staff", "alice"]


def test_membership_of_one_user_in_one_group_is_asked_for() -> None:
    (answer,) = call("GetMemberships", True, userName="bob", groupName="staff")
    assert answer["parameters"] == {"userName": "bob", "groupName": "staff"}
    answers = call("GetMemberships", True, userName="bob", groupName="alice")
    assert error_of(answers) == "NoRecordFound"


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("GetUserRecord", {"userName": "eve"}, "NoRecordFound"),
        ("GetUserRecord", {"uid": 2**70}, "NoRecordFound"),
        ("GetUserRecord", {"userName": "alice", "uid": 2002}, "ConflictingRecordFound"),
        ("GetUserRecord", {"userName": "alice", "uid": 9999}, "ConflictingRecordFound"),
        ("GetUserRecord", {}, "EnumerationNotSupported"),
        ("GetGroupRecord", {}, "EnumerationNotSupported"),
        ("GetMemberships", {}, "EnumerationNotSupported"),
        ("GetUserRecord", {"userName": "alice", "service": "io.systemd.Other"}, "BadService"),
        ("GetUserRecord", {"userName": "alice", "service": None}, "BadService"),
        ("GetUserRecord", {"uid": "2001"}, "InvalidParameter"),
        ("GetUserRecord", {"uid": True}, "InvalidParameter"),
        ("GetUserRecord", {"userName": 1}, "InvalidParameter"),
        ("GetNothing", {}, "MethodNotFound"),
        ("com.example.Other.Call", {}, "InterfaceNotFound"),
        ("nonsense", {}, "InterfaceNotFound"),
        ("org.varlink.service.Other", {}, "MethodNotFound"),
    ],
)
def test_call_without_a_record_has_the_error_of_the_interface(
    method: str, parameters: dict[str, object], error: str
) -> None:
    assert error_of(call(method, **parameters)) == error


def test_outage_is_told_as_one() -> None:
    document = {
        "method": "io.systemd.UserDatabase.GetUserRecord",
        "parameters": {"userName": "alice", "service": userdb.SERVICE},
    }
    parsed = userdb.parse_call(json.dumps(document).encode())
    assert error_of(list(userdb.replies(parsed, Outage()))) == "ServiceNotAvailable"


def test_service_tells_of_its_interfaces() -> None:
    (answer,) = call("org.varlink.service.GetInfo")
    interfaces = answer["parameters"]["interfaces"]
    assert "io.systemd.UserDatabase" in interfaces
    for name in interfaces:
        (described,) = call("org.varlink.service.GetInterfaceDescription", interface=name)
        assert described["parameters"]["description"].startswith(f"interface {name}\n")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["method", "parameters", "service", "userName", "uid", "more"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(st.one_of(st.binary(max_size=100), JSON.map(lambda value: json.dumps(value).encode())))
def test_any_message_is_a_call_or_a_bad_request(message: bytes) -> None:
    try:
        parsed = userdb.parse_call(message)
    except userdb.BadRequest:
        return
    assert list(userdb.replies(parsed, Directory()))


@given(
    st.sampled_from(["GetUserRecord", "GetGroupRecord", "GetMemberships"]),
    st.dictionaries(st.sampled_from(["userName", "groupName", "uid", "gid"]), JSON, max_size=3),
)
def test_any_parameters_are_answered(method: str, parameters: dict[str, object]) -> None:
    for answer in call(method, True, **parameters):
        json.dumps(answer)


def test_deep_nesting_ends_the_connection_and_nothing_else() -> None:
    with pytest.raises(userdb.BadRequest):
        userdb.parse_call(b"[" * 60000)


@pytest.fixture
def client() -> Any:
    """A connection that is served."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)

    def serve() -> None:
        with theirs:
            userdb.serve_connection(theirs, Directory(), idle_seconds=0.5)

    thread = threading.Thread(target=serve)
    thread.start()
    yield ours
    ours.close()
    thread.join(10)
    assert not thread.is_alive()


def _read(connection: socket.socket) -> Callable[[], bytes]:
    pending = bytearray()

    def read() -> bytes:
        while b"\0" not in pending:
            part = connection.recv(4096)
            if not part:
                return b""
            pending.extend(part)
        end = pending.index(0)
        message = bytes(pending[:end])
        del pending[: end + 1]
        return message

    return read


def test_calls_in_pieces_and_in_a_row_are_answered_in_order(client: socket.socket) -> None:
    request = b""
    for name in ("alice", "bob"):
        document = {
            "method": "io.systemd.UserDatabase.GetUserRecord",
            "parameters": {"userName": name, "service": userdb.SERVICE},
        }
        request += json.dumps(document).encode() + b"\0"
    read = _read(client)
    client.sendall(request[:30])
    client.sendall(request[30:])
    found = [json.loads(read())["parameters"]["record"]["uid"] for _ in range(2)]
    assert found == [2001, 2002]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"nonsense\0", id="no JSON"),
        pytest.param(b" " * 70000, id="endless"),
        pytest.param(b"", id="silent"),
        pytest.param(b"{", id="cut off"),
    ],
)
def test_connection_that_asks_nothing_is_ended(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    try:
        assert client.recv(10) == b""
    except ConnectionResetError:
        return


def test_one_way_call_is_not_answered(client: socket.socket) -> None:
    quiet = {"method": "org.varlink.service.GetInfo", "oneway": True}
    loud = {"method": "org.varlink.service.Other"}
    client.sendall(json.dumps(quiet).encode() + b"\0" + json.dumps(loud).encode() + b"\0")
    assert b"MethodNotFound" in _read(client)()
