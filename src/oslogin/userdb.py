"""OS Login's users and groups for systemd: ``io.systemd.UserDatabase`` over Varlink.

systemd's own name service module (``systemd`` in nsswitch.conf) and ``userdbctl`` ask every socket
below /run/systemd/userdb; with this one they know OS Login users where our NSS object is not
installed. A message is one JSON object that ends with NUL. What is asked here is answered from the
daemon's lookups and never by asking the system, and a question meant for another service is
refused, so nothing comes back to where it came from.

Users are not enumerated: the cache file is for that, and a list of everybody would cost the
metadata server a walk over all pages for each ``userdbctl``.

Source: systemd, docs "User/Group Record Lookup API via Varlink" and "JSON User Records"; the
protocol: varlink.org.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, Optional, Protocol, Union

from google_guest.records import record
from oslogin.directory import Unavailable
from oslogin.identities import Group, User

SERVICE = "com.google.OSLogin"
INTERFACE = "io.systemd.UserDatabase"
LONGEST_REQUEST = 65536
"""Bytes of one message."""
IDLE_SECONDS = 60.0
SEND_SECONDS = 5.0
_VARLINK = "org.varlink.service"

_DESCRIPTION = """\
interface io.systemd.UserDatabase

method GetUserRecord(
  uid: ?int,
  userName: ?string,
  service: string
) -> (record: object, incomplete: bool)

method GetGroupRecord(
  gid: ?int,
  groupName: ?string,
  service: string
) -> (record: object, incomplete: bool)

method GetMemberships(
  userName: ?string,
  groupName: ?string,
  service: string
) -> (userName: string, groupName: string)

error NoRecordFound()
error BadService()
error ServiceNotAvailable()
error ConflictingRecordFound()
error EnumerationNotSupported()
"""
_SERVICE_DESCRIPTION = """\
interface org.varlink.service

method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
"""
_Parameters = Mapping[str, object]
_Reply = dict[str, object]


class UserLookups(Protocol):
    """What is needed of ``oslogin.lookups``; each raises ``Unavailable`` in an outage."""

    def user_by_name(self, name: str) -> Optional[User]: ...
    def user_by_uid(self, uid: int) -> Optional[User]: ...
    def group_by_name(self, name: str) -> Optional[Group]: ...
    def group_by_gid(self, gid: int) -> Optional[Group]: ...
    def groups_of_user(self, name: str) -> tuple[int, ...]: ...


class BadRequest(Exception):
    """The bytes are no Varlink call: the connection is of no further use."""


class _Refused(Exception):
    """A call that is answered with an error of Varlink."""

    def __init__(self, error: str, parameters: Optional[_Reply] = None) -> None:
        super().__init__(error)
        self.reply: _Reply = {"error": error, "parameters": parameters or {}}


@record
class Call:
    """One method call."""

    method: str
    parameters: _Parameters
    more: bool = False
    oneway: bool = False


def serve_connection(
    connection: socket.socket, lookups: UserLookups, *, idle_seconds: float = IDLE_SECONDS
) -> None:
    """Answer the calls of one client until it closes, is silent or talks nonsense.

    The caller closes the connection.
    """
    try:
        for message in _messages(connection, idle_seconds):
            call = parse_call(message)
            for answer in replies(call, lookups):
                connection.settimeout(SEND_SECONDS)
                if not call.oneway:
                    connection.sendall(json.dumps(answer).encode("ascii") + b"\0")
    except (BadRequest, OSError):
        return


def parse_call(message: bytes) -> Call:
    """Return the call that ``message`` (without its NUL) is; raise ``BadRequest``."""
    try:
        document = json.loads(message.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadRequest("no JSON") from error
    if not isinstance(document, dict):
        raise BadRequest("a call is an object")
    method, parameters = document.get("method"), document.get("parameters")
    if not isinstance(method, str) or not isinstance(parameters, (dict, type(None))):
        raise BadRequest("a call names a method and has an object of parameters")
    return Call(
        method,
        parameters or {},
        more=document.get("more") is True,
        oneway=document.get("oneway") is True,
    )


def replies(call: Call, lookups: UserLookups) -> Iterator[_Reply]:
    """Yield the replies to a call: one, or several for memberships when more are wanted."""
    interface, _, method = call.method.rpartition(".")
    try:
        if interface == _VARLINK:
            yield {"parameters": _service_reply(method, call.parameters)}
        elif interface == INTERFACE:
            yield from _records(method, call, lookups)
        else:
            raise _Refused(f"{_VARLINK}.InterfaceNotFound", {"interface": interface})
    except _Refused as refused:
        yield refused.reply
    except Unavailable:
        yield {"error": f"{INTERFACE}.ServiceNotAvailable", "parameters": {}}


def _messages(connection: socket.socket, idle_seconds: float) -> Iterator[bytes]:
    data = bytearray()
    deadline = time.monotonic() + idle_seconds
    while True:
        end = data.find(0)
        if end >= 0:
            message = bytes(data[:end])
            del data[: end + 1]
            yield message
            deadline = time.monotonic() + idle_seconds
            continue
        if len(data) > LONGEST_REQUEST:
            raise BadRequest("the message is too long")
        # A client that sends a byte now and then does not keep a thread for ever.
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(LONGEST_REQUEST)
        if not part:
            return
        data += part


def _service_reply(method: str, parameters: _Parameters) -> _Reply:
    if method == "GetInfo":
        return {
            "vendor": "Google",
            "product": "OS Login",
            "version": "1",
            "url": "https://cloud.google.com/compute/docs/oslogin",
            "interfaces": [_VARLINK, INTERFACE],
        }
    if method == "GetInterfaceDescription":
        interface = parameters.get("interface")
        if interface == INTERFACE:
            return {"description": _DESCRIPTION}
        if interface == _VARLINK:
            return {"description": _SERVICE_DESCRIPTION}
        if isinstance(interface, str):
            raise _Refused(f"{_VARLINK}.InterfaceNotFound", {"interface": interface})
        raise _invalid("interface")
    raise _Refused(f"{_VARLINK}.MethodNotFound", {"method": f"{_VARLINK}.{method}"})


def _records(method: str, call: Call, lookups: UserLookups) -> Iterator[_Reply]:
    parameters = call.parameters
    if method not in ("GetUserRecord", "GetGroupRecord", "GetMemberships"):
        raise _Refused(f"{_VARLINK}.MethodNotFound", {"method": call.method})
    # Also one that userdbd knows under another name: answering would have it ask in a circle.
    if parameters.get("service") != SERVICE:
        raise _Refused(f"{INTERFACE}.BadService")
    if method == "GetMemberships":
        yield from _memberships(call, lookups)
        return
    found = (
        _user_record(parameters, lookups)
        if method == "GetUserRecord"
        else _group_record(parameters, lookups)
    )
    yield {"parameters": {"record": found, "incomplete": False}}


def _user_record(parameters: _Parameters, lookups: UserLookups) -> _Reply:
    name, uid = _text(parameters, "userName"), _number(parameters, "uid")
    user = _one(
        None if name is None else lookups.user_by_name(name),
        None if uid is None else lookups.user_by_uid(uid),
        by_name=name is not None,
        by_number=uid is not None,
    )
    return {
        "userName": user.name,
        "uid": user.uid,
        "gid": user.gid,
        "realName": user.gecos or user.name,
        "homeDirectory": user.home,
        "shell": user.shell,
        "disposition": "regular",
        "service": SERVICE,
    }


def _group_record(parameters: _Parameters, lookups: UserLookups) -> _Reply:
    name, gid = _text(parameters, "groupName"), _number(parameters, "gid")
    group = _one(
        None if name is None else lookups.group_by_name(name),
        None if gid is None else lookups.group_by_gid(gid),
        by_name=name is not None,
        by_number=gid is not None,
    )
    return {
        "groupName": group.name,
        "gid": group.gid,
        "members": list(group.members),
        "disposition": "regular",
        "service": SERVICE,
    }


def _one(by_name_found: Any, by_number_found: Any, *, by_name: bool, by_number: bool) -> Any:
    """Return the record that both keys mean, where both are given."""
    if not by_name and not by_number:
        raise _Refused(f"{INTERFACE}.EnumerationNotSupported")
    found = by_name_found if by_name else by_number_found
    if found is None:
        raise _Refused(f"{INTERFACE}.NoRecordFound")
    if by_name and by_number and found != by_number_found:
        raise _Refused(f"{INTERFACE}.ConflictingRecordFound")
    return found


def _memberships(call: Call, lookups: UserLookups) -> Iterator[_Reply]:
    user, group = _text(call.parameters, "userName"), _text(call.parameters, "groupName")
    if user is None and group is None:
        raise _Refused(f"{INTERFACE}.EnumerationNotSupported")
    pairs = list(_pairs(user, group, lookups))
    if not pairs:
        raise _Refused(f"{INTERFACE}.NoRecordFound")
    if not call.more:
        # A client that takes one reply gets the first.
        pairs = pairs[:1]
    for place, (member, name) in enumerate(pairs):
        answer: _Reply = {"parameters": {"userName": member, "groupName": name}}
        if place + 1 < len(pairs):
            answer["continues"] = True
        yield answer


def _pairs(
    user: Optional[str], group: Optional[str], lookups: UserLookups
) -> Iterator[tuple[str, str]]:
    if group is not None:
        found = lookups.group_by_name(group)
        for member in found.members if found is not None else ():
            if user is None or member == user:
                yield member, group
    elif user is not None and lookups.user_by_name(user) is not None:
        for gid in lookups.groups_of_user(user):
            found = lookups.group_by_gid(gid)
            if found is not None:
                yield user, found.name


def _text(parameters: _Parameters, name: str) -> Optional[str]:
    value = parameters.get(name)
    if value is not None and not isinstance(value, str):
        raise _invalid(name)
    return value


def _number(parameters: _Parameters, name: str) -> Optional[int]:
    value: Union[object, None] = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _invalid(name)
    return value


def _invalid(parameter: str) -> _Refused:
    return _Refused(f"{_VARLINK}.InvalidParameter", {"parameter": parameter})
