"""The framing of netlink messages, and one bounded conversation with the kernel.

Reads and writes AF_NETLINK/NETLINK_ROUTE sockets. Bytes are not trusted: every length is checked,
and whatever arrives, the only exception that leaves this module is :class:`NetlinkError`.

Facts: netlink(7), rtnetlink(7), linux/netlink.h, and the kernel's Documentation/userspace-api/
netlink (dump consistency, extended acknowledgements, strict checking of dump requests).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Optional, Protocol, TypeVar

from google_guest.records import record

# The values of Linux, spelled out because socket lacks them on the other systems this imports on.
AF_NETLINK = 16
NETLINK_ROUTE = 0
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
MSG_TRUNC = 0x20

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_ACK_TLVS = 0x200

REPLY_TIMEOUT = 5.0
"""Seconds to wait for one datagram; the kernel answers at once."""
CONVERSATION_TIMEOUT = 15.0
"""Seconds after which a dump that has not ended is given up."""
DUMP_ATTEMPTS = 6
FIRST_BUFFER = 1 << 16
LARGEST_BUFFER = 1 << 20

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR_CODE = struct.Struct("=i")
_ATTRIBUTE_KIND_MASK = 0x3FFF
_ERROR_MESSAGE = 1

Parsed = TypeVar("Parsed")


class NetlinkError(OSError):
    """The kernel refused a request (``errno`` says why) or its answer makes no sense (EBADMSG)."""


class NetlinkUnavailable(NetlinkError):
    """No rtnetlink socket can be opened here: another system, or a sandbox that forbids it."""


class RouteSocket(Protocol):
    """What this package needs of a ``socket.socket``."""

    def send(self, data: bytes, /) -> int: ...

    def recvmsg(self, size: int, /) -> tuple[bytes, list[Any], int, Any]: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...

    def settimeout(self, seconds: Optional[float], /) -> None: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


OpenSocket = Callable[[int], RouteSocket]
"""Opens a socket that is subscribed to the groups of a bit mask (0: none)."""


@record
class Message:
    """One netlink message without its header's length."""

    kind: int
    flags: int
    sequence: int
    payload: bytes


def open_route_socket(groups: int = 0) -> socket.socket:
    """Return a bound rtnetlink socket subscribed to the multicast ``groups`` (a bit mask).

    Raises:
        NetlinkUnavailable: the system or a sandbox does not allow it.
    """
    try:
        opened = socket.socket(AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
    except OSError as error:
        raise NetlinkUnavailable(error.errno, f"rtnetlink socket: {error.strerror}") from error
    try:
        opened.bind((0, groups))
    except OSError as error:
        opened.close()
        raise NetlinkUnavailable(error.errno, f"rtnetlink socket: {error.strerror}") from error
    return opened


def malformed(what: str) -> NetlinkError:
    """Return the error for bytes that are no netlink message."""
    return NetlinkError(errno.EBADMSG, f"malformed netlink data: {what}")


def split_messages(data: bytes) -> Iterator[Message]:
    """Yield the messages of one datagram.

    Raises:
        NetlinkError: a length points outside of the datagram.
    """
    offset = 0
    while offset < len(data):
        if len(data) - offset < _HEADER.size:
            raise malformed("part of a header")
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or length > len(data) - offset:
            raise malformed(f"message length {length}")
        yield Message(kind, flags, sequence, data[offset + _HEADER.size : offset + length])
        offset += _aligned(length)


def split_attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes in ``data`` by kind; of a repeated kind the last one.

    Raises:
        NetlinkError: a length points outside of ``data``.
    """
    found: dict[int, bytes] = {}
    offset = 0
    while offset < len(data):
        if len(data) - offset < _ATTRIBUTE.size:
            raise malformed("part of an attribute header")
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or length > len(data) - offset:
            raise malformed(f"attribute length {length}")
        found[kind & _ATTRIBUTE_KIND_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """Return the attribute ``kind`` with ``value``, padded to the alignment."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def message(kind: int, flags: int, payload: bytes, *, sequence: int = 1) -> bytes:
    """Return a whole netlink message from the kernel's side or ours."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def error_of(reply: Message) -> Optional[NetlinkError]:
    """Return what an NLMSG_ERROR or NLMSG_DONE message complains of, None for success.

    The kernel's own sentence (an extended acknowledgement) is used where it sent one.
    """
    if len(reply.payload) < _ERROR_CODE.size:
        # Old kernels end a dump with a bare NLMSG_DONE; an NLMSG_ERROR always has its code.
        return None if reply.kind == NLMSG_DONE else malformed("error message without a code")
    (code,) = _ERROR_CODE.unpack_from(reply.payload)
    if code == 0:
        return None
    if code > 0:
        return None if reply.kind == NLMSG_DONE else malformed(f"error code {code}")
    number = min(-code, 0x7FFF)
    said = _kernel_sentence(reply)
    text = os.strerror(number)
    return NetlinkError(number, f"{text} ({said})" if said else text)


def _kernel_sentence(reply: Message) -> str:
    """Return the text of the extended acknowledgement in ``reply``, or nothing."""
    if not reply.flags & NLM_F_ACK_TLVS:
        return ""
    start = _ERROR_CODE.size
    if reply.kind == NLMSG_ERROR:
        # The request follows the code: its header alone if capped, else all of it.
        start += _HEADER.size
        if not reply.flags & NLM_F_CAPPED:
            if len(reply.payload) < start:
                return ""
            (request_length,) = struct.unpack_from("=I", reply.payload, _ERROR_CODE.size)
            start = _ERROR_CODE.size + _aligned(request_length)
    try:
        said = split_attributes(reply.payload[start:]).get(_ERROR_MESSAGE, b"")
    except NetlinkError:
        return ""
    return said.rstrip(b"\0").decode("ascii", "replace")


def request(open_socket: OpenSocket, kind: int, flags: int, payload: bytes) -> None:
    """Send one request and wait for its acknowledgement.

    Raises:
        NetlinkUnavailable: no socket can be opened.
        NetlinkError: the kernel refused; ``errno`` is its reason.
    """
    with _Conversation(open_socket) as conversation:
        conversation.send(kind, flags | NLM_F_ACK, payload)
        for reply in conversation.replies(FIRST_BUFFER):
            if reply.kind == NLMSG_ERROR:
                problem = error_of(reply)
                if problem is not None:
                    raise problem
                return


def dump(
    open_socket: OpenSocket,
    kind: int,
    payload: bytes,
    parse: Callable[[Message], Optional[Parsed]],
) -> list[Parsed]:
    """Return what ``parse`` makes of every message of a dump, the Nones left out.

    A dump during which the kernel's table changed, or that did not fit into the buffer, is
    started again.

    Raises:
        NetlinkUnavailable: no socket can be opened.
        NetlinkError: the kernel refused, sent nonsense, or never gave a consistent answer.
    """
    size = FIRST_BUFFER
    for _ in range(DUMP_ATTEMPTS):
        try:
            found = _dump_once(open_socket, kind, payload, parse, size)
        except _Truncated:
            size = min(size * 4, LARGEST_BUFFER)
            continue
        if found is not None:
            return found
    raise NetlinkError(
        errno.EAGAIN, "the kernel's tables changed during every attempt to list them"
    )


class _Truncated(NetlinkError):
    """A datagram was longer than the buffer."""


def _dump_once(
    open_socket: OpenSocket,
    kind: int,
    payload: bytes,
    parse: Callable[[Message], Optional[Parsed]],
    size: int,
) -> Optional[list[Parsed]]:
    """Return the parsed dump, or None if the kernel marked it as inconsistent."""
    found: list[Parsed] = []
    interrupted = False
    with _Conversation(open_socket) as conversation:
        conversation.send(kind, NLM_F_DUMP, payload)
        for reply in conversation.replies(size):
            interrupted = interrupted or bool(reply.flags & NLM_F_DUMP_INTR)
            if reply.kind in (NLMSG_DONE, NLMSG_ERROR):
                problem = error_of(reply)
                if problem is not None:
                    raise problem
                break
            parsed = parse(reply)
            if parsed is not None:
                found.append(parsed)
    return None if interrupted else found


class _Conversation:
    """One socket for one request and its answer: no state between requests, so none to repair."""

    def __init__(self, open_socket: OpenSocket) -> None:
        self._socket = open_socket(0)

    def __enter__(self) -> _Conversation:
        self._socket.settimeout(REPLY_TIMEOUT)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            try:
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            except OSError:
                # Kernels before 4.20 lack some: answers are then longer or less explained.
                continue
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, kind: int, flags: int, payload: bytes) -> None:
        try:
            self._socket.send(message(kind, flags | NLM_F_REQUEST, payload))
        except OSError as error:
            raise NetlinkError(error.errno, f"rtnetlink request: {error.strerror}") from error

    def replies(self, size: int) -> Iterator[Message]:
        """Yield the messages that answer our request; the caller stops at the last one."""
        deadline = time.monotonic() + CONVERSATION_TIMEOUT
        while time.monotonic() < deadline:
            try:
                data, _, flags, sender = self._socket.recvmsg(size)
            except (OSError, ValueError) as error:
                number = getattr(error, "errno", None) or errno.ETIMEDOUT
                raise NetlinkError(number, f"rtnetlink answer: {error}") from error
            if flags & MSG_TRUNC:
                raise _Truncated(errno.EMSGSIZE, "rtnetlink answer longer than the buffer")
            if isinstance(sender, tuple) and sender and sender[0] != 0:
                continue  # From a process, not from the kernel.
            if not data:
                raise malformed("empty datagram")
            for reply in split_messages(data):
                if reply.sequence != 1 or reply.kind == NLMSG_NOOP:
                    continue
                if reply.kind == NLMSG_OVERRUN:
                    raise NetlinkError(errno.ENOBUFS, "rtnetlink answer lost")
                yield reply
        raise NetlinkError(errno.ETIMEDOUT, "rtnetlink answer without an end")


def _aligned(length: int) -> int:
    return (length + 3) & ~3
