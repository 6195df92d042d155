"""What the daemon answers on the socket of the C library: users, groups, PING.

Names and numbers that cannot be ours are answered without any look-up; the C module filters them
too, and does not have to be believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Optional, TypeVar

from oslogin import protocol
from oslogin.directory import Unavailable
from oslogin.identities import Group, User
from oslogin.protocol import Message, number_field, numbers_field, reply, string_field

if TYPE_CHECKING:
    from oslogin.dispatch import Handler, Peer
    from oslogin.lookups import Lookups

_T = TypeVar("_T")
_Fields = list[tuple[int, bytes]]

MOST_GIDS = 16_383
"""What one field of the protocol holds."""


def handlers(lookups: Lookups) -> Mapping[int, Handler]:
    """Return the handlers of nss.sock by opcode."""

    def user(find: Callable[[Message], Optional[User]]) -> Handler:
        return _handler(find, _user_fields)

    def group(find: Callable[[Message], Optional[Group]]) -> Handler:
        return _handler(find, _group_fields)

    def gids(request: Message) -> Optional[tuple[int, ...]]:
        name = _name(request)
        if lookups.user_by_name(name) is None:
            return None
        return lookups.groups_of_user(name)

    return {
        protocol.PING: ping,
        protocol.GETPWNAM: user(lambda request: lookups.user_by_name(_name(request))),
        protocol.GETPWUID: user(lambda request: lookups.user_by_uid(_id(request))),
        protocol.GETGRNAM: group(lambda request: lookups.group_by_name(_name(request))),
        protocol.GETGRGID: group(lambda request: lookups.group_by_gid(_id(request))),
        protocol.INITGROUPS: _handler(gids, _gid_fields),
    }


def ping(request: Message, peer: Peer) -> Message:
    """Say which version of the protocol this is."""
    version = number_field(protocol.PROTOCOL_VERSION, protocol.VERSION)
    return reply(request, protocol.OK, [version])


class _Incomplete(Exception):
    """The request lacks what it is about."""


def _handler(find: Callable[[Message], Optional[_T]], show: Callable[[_T], _Fields]) -> Handler:
    def answer(request: Message, peer: Peer) -> Message:
        try:
            found = find(request)
        except _Incomplete:
            return reply(request, protocol.BAD_REQUEST)
        except Unavailable:
            # The directory's streak has told; a line for each caller would flood the log.
            return reply(request, protocol.UNAVAILABLE)
        if found is None:
            return reply(request, protocol.NOT_FOUND)
        return reply(request, protocol.OK, show(found))

    return answer


def _name(request: Message) -> str:
    name = request.text(protocol.NAME)
    if name is None:
        raise _Incomplete
    return name


def _id(request: Message) -> int:
    number = request.integer(protocol.ID)
    if number is None:
        raise _Incomplete
    return number


def _user_fields(user: User) -> _Fields:
    return [
        string_field(protocol.NAME, user.name),
        number_field(protocol.ID, user.uid),
        number_field(protocol.GID, user.gid),
        string_field(protocol.GECOS, user.gecos),
        string_field(protocol.HOME, user.home),
        string_field(protocol.SHELL, user.shell),
    ]


def _group_fields(group: Group) -> _Fields:
    return [
        string_field(protocol.NAME, group.name),
        number_field(protocol.ID, group.gid),
        number_field(protocol.COUNT, len(group.members)),
        *(string_field(protocol.MEMBER, member) for member in group.members),
    ]


def _gid_fields(gids: tuple[int, ...]) -> _Fields:
    kept = gids[:MOST_GIDS]
    return [number_field(protocol.COUNT, len(kept)), numbers_field(protocol.GIDS, kept)]
