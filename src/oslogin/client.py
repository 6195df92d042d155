"""One question to the daemon, for programs that have 13 ms to start.

Imports ``_socket`` and ``time`` beside the protocol, which the interpreter has built in or loaded;
``socket`` alone would cost as much as the rest of a helper. The daemon must be root: whoever else
listens on the path is not believed.
"""

from __future__ import annotations

import _socket
import struct
import time

from oslogin import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CREDENTIALS = struct.Struct("3i")
_PIECE = 65536
_REQUEST_NUMBER = 1


class Unreachable(Exception):
    """The daemon is not there, does not answer in time, or answers nonsense."""


class NotThere(Unreachable):
    """Nobody listens: the daemon is not installed, or OS Login is off."""


def ask(
    path: str,
    request: protocol.Message,
    *,
    seconds: float,
    owner: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> protocol.Message:
    """Return the daemon's reply to ``request``; raise ``Unreachable``.

    ``seconds`` bounds all of it: connecting, sending and receiving. ``owner`` is the uid that the
    daemon must have.
    """
    deadline = clock() + seconds
    request.number = _REQUEST_NUMBER
    try:
        data = protocol.encode(request)
    except protocol.ProtocolError as error:
        raise Unreachable(f"the request cannot be sent: {error}") from error
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        _connect(connection, path)
        if _peer_uid(connection) != owner:
            raise Unreachable(f"{path} does not belong to the OS Login daemon")
        connection.sendall(data, getattr(_socket, "MSG_NOSIGNAL", 0))

        def receive(size: int) -> bytes:
            return _receive(connection, size, deadline, clock)

        header = protocol.decode_header(receive(protocol.HEADER_SIZE))
        if header.opcode != request.opcode | protocol.REPLY or header.number != request.number:
            raise Unreachable("the OS Login daemon answered another question")
        return protocol.decode_payload(header, receive(header.length))
    except protocol.ProtocolError as error:
        raise Unreachable(f"the OS Login daemon's answer is wrong: {error}") from error
    except OSError as error:
        raise Unreachable(f"no answer from the OS Login daemon: {error}") from error
    finally:
        connection.close()


def _connect(connection: _socket.socket, path: str) -> None:
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotThere(f"the OS Login daemon does not run: {error}") from error


def _receive(
    connection: _socket.socket, size: int, deadline: float, clock: Callable[[], float]
) -> bytes:
    parts = []
    while size:
        left = deadline - clock()
        if left <= 0:
            raise Unreachable("the OS Login daemon does not answer in time")
        connection.settimeout(left)
        part = connection.recv(min(size, _PIECE))
        if not part:
            raise Unreachable("the OS Login daemon closed the connection")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _peer_uid(connection: _socket.socket) -> int:
    option = getattr(_socket, "SO_PEERCRED", None)
    if option is None:
        # Other systems than Linux have no such option; the folder is writable for root alone.
        return 0
    data = connection.getsockopt(_socket.SOL_SOCKET, option, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid
