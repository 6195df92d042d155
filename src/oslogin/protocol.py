"""What the C modules, the helpers and the daemon say to each other over a Unix stream socket.

A message is a header of 16 bytes, little-endian (magic ``GOL1``, u32 length of the payload, u16
opcode, u16 status, u32 number of the request), and a payload of fields: u16 tag, u16 length, bytes.
A reply has the opcode of its request with the highest bit set, and its number. Strings carry their
NUL, counted in the length, so that C can point into what it received.

A receiver skips tags that it does not know. A field that occurs twice and must not, a length that
does not fit its tag, a string without its NUL or with one more, and bytes left over make the whole
message wrong: ``decode`` raises ``ProtocolError`` and nothing else, and the daemon answers
BAD_REQUEST.

sshd starts a helper for each attempt to log in, and an interpreter has 13 ms for it. This module
therefore imports ``struct`` and nothing else. The facts are this project's own.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Optional

MAGIC = b"GOL1"
VERSION = 1
REPLY = 0x8000

# Opcodes of nss.sock ...
PING, GETPWNAM, GETPWUID, GETGRNAM, GETGRGID, INITGROUPS = 1, 2, 3, 4, 5, 6
# ... and of auth.sock.
AUTHORIZE, KEYS, PRINCIPALS, REFRESH = 32, 33, 34, 35
CHAL_BEGIN, CHAL_REPLY, CHAL_ABORT = 48, 49, 50
NSS_OPCODES = frozenset({PING, GETPWNAM, GETPWUID, GETGRNAM, GETGRGID, INITGROUPS})
AUTH_OPCODES = frozenset(
    {PING, AUTHORIZE, KEYS, PRINCIPALS, REFRESH, CHAL_BEGIN, CHAL_REPLY, CHAL_ABORT}
)

# Tags.
NAME, ID, GID, GECOS, HOME, SHELL, COUNT, MEMBER, GIDS, PROTOCOL_VERSION = range(1, 11)
SERVICE, RHOST, CERT, MODE, HANDLE, ANSWER, STYLE, PROMPT, LINE, RESULT, POLICY, FLAGS = range(
    16, 28
)

# Statuses.
OK, NOT_FOUND, UNAVAILABLE, BUSY, BAD_REQUEST, DENIED, DISABLED, INTERNAL, TOO_LARGE = range(9)
BAD_VERSION = 9

# Values of RESULT, POLICY, MODE, STYLE and FLAGS.
SUCCESS, REFUSED, RESULT_UNAVAILABLE, IGNORE, AUTH_ERROR, USER_UNKNOWN = range(6)
POLICY_LOGIN, POLICY_ADMIN = 1, 2
MODE_KEYS, MODE_SECURITY_KEYS = 0, 1
ECHO_OFF, ECHO_ON, ERROR_TEXT, INFO_TEXT = 1, 2, 3, 4
FLAG_CLOUD_RUN = 1

HEADER_SIZE = 16
NSS_REQUEST_LIMIT = 256
"""Bytes of a whole request on nss.sock, header included."""
AUTH_REQUEST_LIMIT = 65536
REPLY_LIMIT = 1 << 20
HANDLE_SIZE = 16

_HEADER = struct.Struct("<4sIHHI")
_FIELD = struct.Struct("<HH")
_NUMBER = struct.Struct("<I")
_LONGEST = 0xFFFF
_STRINGS = frozenset({NAME, GECOS, HOME, SHELL, MEMBER, SERVICE, RHOST, CERT, ANSWER, PROMPT, LINE})
_NUMBERS = frozenset({ID, GID, COUNT, PROTOCOL_VERSION, MODE, STYLE, RESULT, POLICY, FLAGS})
_REPEATABLE = frozenset({MEMBER, STYLE, PROMPT, LINE})
# Bytes without the NUL.
_LIMITS = {CERT: 60000, ANSWER: 1024}


class ProtocolError(Exception):
    """The bytes are no message, or the message is none of this protocol."""


class Message:
    """A request (``status`` 0) or a reply; ``fields`` are tags with their bytes, in order."""

    __slots__ = ("fields", "number", "opcode", "status")

    def __init__(
        self,
        opcode: int,
        fields: Iterable[tuple[int, bytes]] = (),
        *,
        status: int = OK,
        number: int = 0,
    ) -> None:
        self.opcode = opcode
        self.fields = tuple(fields)
        self.status = status
        self.number = number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        # No values: keys and answers to challenges are among them.
        tags = ",".join(str(tag) for tag, _ in self.fields)
        return f"Message({self.opcode:#x}, status={self.status}, tags=[{tags}])"

    def _values(self) -> tuple[object, ...]:
        return (self.opcode, self.status, self.number, self.fields)

    def raw(self, tag: int) -> Optional[bytes]:
        """Return the bytes of the first field with this tag."""
        for found, data in self.fields:
            if found == tag:
                return data
        return None

    def text(self, tag: int) -> Optional[str]:
        """Return the string of this tag, without its NUL; bytes outside UTF-8 are escaped."""
        data = self.raw(tag)
        return None if data is None else _text(data)

    def texts(self, tag: int) -> tuple[str, ...]:
        """Return the strings of all fields with this tag."""
        return tuple(_text(data) for found, data in self.fields if found == tag)

    def integer(self, tag: int) -> Optional[int]:
        """Return the number of this tag."""
        data = self.raw(tag)
        if data is None:
            return None
        value: int = _NUMBER.unpack(data)[0]
        return value

    def integers(self, tag: int) -> tuple[int, ...]:
        """Return the numbers of an array (GIDS)."""
        data = self.raw(tag) or b""
        return struct.unpack(f"<{len(data) // 4}I", data)

    def prompts(self) -> tuple[tuple[int, str], ...]:
        """Return (style, text) of all prompts, in order; raise ``ProtocolError``.

        A prompt without its style before it, and the other way round, are errors.
        """
        found: list[tuple[int, str]] = []
        style: Optional[int] = None
        for tag, data in self.fields:
            if tag == STYLE:
                if style is not None:
                    raise ProtocolError("a style without its prompt")
                style = _NUMBER.unpack(data)[0]
            elif tag == PROMPT:
                if style is None:
                    raise ProtocolError("a prompt without its style")
                found.append((style, _text(data)))
                style = None
        if style is not None:
            raise ProtocolError("a style without its prompt")
        return tuple(found)


class Header:
    """The first 16 bytes of a message; ``length`` is that of the payload in bytes."""

    __slots__ = ("length", "number", "opcode", "status")

    def __init__(self, length: int, opcode: int, status: int, number: int) -> None:
        self.length = length
        self.opcode = opcode
        self.status = status
        self.number = number


def string_field(tag: int, text: str) -> tuple[int, bytes]:
    """Return a string field; raise ``ProtocolError`` when it cannot be one."""
    try:
        data = text.encode("utf-8", "surrogateescape") + b"\0"
    except UnicodeEncodeError as error:
        raise ProtocolError("a string that has no bytes") from error
    _check(tag, data)
    return tag, data


def number_field(tag: int, value: int) -> tuple[int, bytes]:
    """Return a field with one number of 32 bits."""
    try:
        return tag, _NUMBER.pack(value)
    except struct.error as error:
        raise ProtocolError(f"{value} is no number of 32 bits") from error


def numbers_field(tag: int, values: Sequence[int]) -> tuple[int, bytes]:
    """Return a field with an array of at most 16,383 numbers of 32 bits."""
    if len(values) * 4 > _LONGEST:
        raise ProtocolError("too many numbers for one field")
    try:
        return tag, struct.pack(f"<{len(values)}I", *values)
    except struct.error as error:
        raise ProtocolError("a number of more than 32 bits") from error


def bytes_field(tag: int, data: bytes) -> tuple[int, bytes]:
    """Return a field with these bytes (HANDLE)."""
    _check(tag, data)
    return tag, data


def reply(request: Message, status: int = OK, fields: Iterable[tuple[int, bytes]] = ()) -> Message:
    """Return the reply to ``request``."""
    return Message(request.opcode | REPLY, fields, status=status, number=request.number)


def encode(message: Message) -> bytes:
    """Return the bytes of a message; raise ``ProtocolError`` when a field or all is too long."""
    parts = [b""]
    length = 0
    for tag, data in message.fields:
        if len(data) > _LONGEST:
            raise ProtocolError(f"a field of tag {tag} is longer than its length can say")
        parts += (_FIELD.pack(tag, len(data)), data)
        length += _FIELD.size + len(data)
    if length > REPLY_LIMIT:
        raise ProtocolError("the message is longer than 1 MiB")
    parts[0] = _HEADER.pack(MAGIC, length, message.opcode, message.status, message.number)
    return b"".join(parts)


def decode_header(data: bytes, limit: int = REPLY_LIMIT) -> Header:
    """Return what the first 16 bytes say.

    Raises ``ProtocolError`` when they are no header, or the whole message would have more than
    ``limit`` bytes (of payload, for a reply).
    """
    if len(data) < HEADER_SIZE:
        raise ProtocolError("the header is cut off")
    magic, length, opcode, status, number = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ProtocolError("no message of this protocol")
    if length > (limit if opcode & REPLY else limit - HEADER_SIZE):
        raise ProtocolError("the message is too long")
    return Header(length, opcode, status, number)


def decode_payload(header: Header, payload: bytes) -> Message:
    """Return the message of a header and its payload; raise ``ProtocolError``."""
    if len(payload) != header.length:
        raise ProtocolError("the payload has not the length that its header says")
    fields: list[tuple[int, bytes]] = []
    seen: set[int] = set()
    at = 0
    while at < len(payload):
        if len(payload) - at < _FIELD.size:
            raise ProtocolError("a field is cut off")
        tag, length = _FIELD.unpack_from(payload, at)
        at += _FIELD.size
        if len(payload) - at < length:
            raise ProtocolError("a field is cut off")
        data = payload[at : at + length]
        at += length
        if not _is_known(tag):
            continue
        _check(tag, data)
        if tag in seen and tag not in _REPEATABLE:
            raise ProtocolError(f"tag {tag} occurs twice")
        seen.add(tag)
        fields.append((tag, data))
    return Message(header.opcode, fields, status=header.status, number=header.number)


def decode(data: bytes, limit: int = REPLY_LIMIT) -> Message:
    """Return the message that ``data`` is, whole; raise ``ProtocolError``."""
    return decode_payload(decode_header(data, limit), data[HEADER_SIZE:])


def _is_known(tag: int) -> bool:
    return tag in _STRINGS or tag in _NUMBERS or tag in (GIDS, HANDLE)


def _text(data: bytes) -> str:
    return data[:-1].decode("utf-8", "surrogateescape")


def _check(tag: int, data: bytes) -> None:
    """Raise ``ProtocolError`` when a known tag cannot have these bytes."""
    length = len(data)
    if length > _LONGEST:
        raise ProtocolError(f"a field of tag {tag} is longer than its length can say")
    if tag in _STRINGS:
        if data.find(b"\0") != length - 1 or length == 0:
            raise ProtocolError(f"tag {tag} is no string that ends with its only NUL")
        if length - 1 > _LIMITS.get(tag, _LONGEST):
            raise ProtocolError(f"tag {tag} is too long")
    elif tag in _NUMBERS:
        if length != _NUMBER.size:
            raise ProtocolError(f"tag {tag} is no number of 32 bits")
    elif (tag == HANDLE and length != HANDLE_SIZE) or (tag == GIDS and length % 4):
        raise ProtocolError(f"tag {tag} has the wrong length")
