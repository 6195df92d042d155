"""The daemon's sockets: who connects, what they may ask, and how long they may take.

One thread waits for everybody: it accepts, reads requests as they arrive, and hands whole ones to
``workers``. A client that sends slowly, sends garbage, or stops reading costs its own connection
and nobody else's time: a request has half a second to arrive, a reply two seconds to leave, and
the connection of a login three minutes in all. Users other than root have eight requests in flight.

Sockets come from systemd with their names (sd_listen_fds(3)): ``nss`` (anybody; one request per
connection), ``auth`` (root), ``userdb`` (anybody; another protocol, a thread for each connection).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Optional

from google_guest.records import record
from google_guest.system.service import WakeUp
from oslogin import protocol
from oslogin.dispatch import Peer
from oslogin.protocol import Message, ProtocolError
from oslogin.workers import Workers

if TYPE_CHECKING:
    from oslogin.dispatch import Handler

READ_TIME = 0.5
"""Seconds from a request's first byte (the first one: from the connection) to its last."""
SEND_TIME = 2.0
CONNECTION_TIME = 180.0
MOST_IN_FLIGHT = 8
"""Requests of one user other than root that are worked on at a time."""
MOST_CONNECTIONS = 512
MOST_OF_A_USER = 64
_ACCEPTED_AT_ONCE = 64
_FIRST_DESCRIPTOR = 3
_RECEIVE = 16 * 1024
_PEER = struct.Struct("3i")

log = logging.getLogger(__name__)


@record
class Service:
    """What one kind of socket offers."""

    name: str
    handlers: Mapping[int, Handler] = {}
    request_limit: int = protocol.NSS_REQUEST_LIMIT
    root_only: bool = False
    one_request: bool = True
    talk: Optional[Callable[[socket.socket, Peer], None]] = None
    """Serves a whole connection in another protocol; the handlers are unused then."""


class _Connection:
    def __init__(self, sock: socket.socket, service: Service, peer: Peer, now: float) -> None:
        self.socket = sock
        self.service = service
        self.peer = peer
        self.buffer = bytearray()
        self.ends_at = now + CONNECTION_TIME
        self.deadline = now + READ_TIME


class Server:
    """Serves until ``stop``, or until nothing has happened for ``idle`` seconds (0: for ever)."""

    def __init__(
        self,
        *,
        idle: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        is_busy: Callable[[], bool] = lambda: False,
        tick: Callable[[], float] = lambda: 3600.0,
        on_closed: Callable[[Peer], None] = lambda peer: None,
    ) -> None:
        """``is_busy`` says whether other work forbids an idle exit; ``tick`` is called after each
        wake-up and returns after how many seconds it wants to be called again; ``on_closed`` is
        told of each connection of ``auth`` that has ended.
        """
        self._idle = idle
        self._clock = clock
        self._is_busy = is_busy
        self._tick = tick
        self._on_closed = on_closed
        self._selector = selectors.DefaultSelector()
        self._wake = WakeUp()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._workers = Workers()
        self._numbers = itertools.count(1)
        self._reading: set[_Connection] = set()
        self._of_user: dict[int, int] = {}
        self._in_flight: dict[int, int] = {}
        self._working = 0
        self._done: deque[tuple[_Connection, bool]] = deque()
        self._stopping = False
        self._active_at = clock()

    def listen(self, sock: socket.socket, service: Service) -> None:
        """Serve the connections that ``sock`` accepts."""
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, service)

    def on_signals(self, numbers: tuple[int, ...]) -> None:
        """Stop at one of these signals."""
        self._wake.on_signals(numbers, lambda number: self.stop())

    def stop(self) -> None:
        """End ``run`` soon; from any thread or signal handler."""
        self._stopping = True
        self._wake.wake()

    def wake(self) -> None:
        """Have ``tick`` called soon; from any thread."""
        self._wake.wake()

    def run(self) -> None:
        """Serve; see the class."""
        while not self._stopping:
            pause = min(self._until_deadline(), max(0.0, self._tick()))
            for key, _ in self._selector.select(pause):
                if isinstance(key.data, _Connection):
                    self._receive(key.data)
                elif isinstance(key.data, Service):
                    self._accept(key.fileobj, key.data)
                else:
                    self._wake.drain()
            self._collect()
            self._expire()
            if self._is_idle():
                log.info("nothing to do for %.0f s: ends until it is asked again", self._idle)
                return

    def close(self) -> None:
        """Close every connection; listening sockets stay with whoever made them."""
        for connection in list(self._reading):
            self._close(connection)
        self._selector.close()

    # Connections

    def _accept(self, listener: object, service: Service) -> None:
        assert isinstance(listener, socket.socket)
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("no connection can be accepted: %s", error.strerror)
                # Out of descriptors: the listener stays readable, and this must not spin.
                time.sleep(0.05)
                return
            self._active_at = self._clock()
            try:
                peer = self._peer(sock)
            except OSError:
                sock.close()
                continue
            if not self._is_welcome(peer, service):
                sock.close()
                continue
            sock.setblocking(False)
            connection = _Connection(sock, service, peer, self._active_at)
            self._of_user[peer.uid] = self._of_user.get(peer.uid, 0) + 1
            if service.talk is None:
                self._read(connection)
            else:
                self._submit_talk(connection, service.talk)

    def _peer(self, sock: socket.socket) -> Peer:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        pid, uid, _ = _PEER.unpack(data)
        return Peer(uid & 0xFFFFFFFF, pid, next(self._numbers))

    def _is_welcome(self, peer: Peer, service: Service) -> bool:
        if peer.is_root:
            return True
        if service.root_only:
            log.warning("%s: uid %d has no business here", service.name, peer.uid)
            return False
        others = sum(self._of_user.values()) - self._of_user.get(0, 0)
        return self._of_user.get(peer.uid, 0) < MOST_OF_A_USER and others < MOST_CONNECTIONS

    def _read(self, connection: _Connection) -> None:
        self._reading.add(connection)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _pause(self, connection: _Connection) -> None:
        self._reading.discard(connection)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.socket)

    def _close(self, connection: _Connection) -> None:
        self._pause(connection)
        connection.socket.close()
        self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        _count_down(self._of_user, connection.peer.uid)
        if not connection.service.one_request:
            self._on_closed(connection.peer)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        now = self._active_at = self._clock()
        if not connection.buffer:
            connection.deadline = min(now + READ_TIME, connection.ends_at)
        connection.buffer += data
        self._take_request(connection)

    def _take_request(self, connection: _Connection) -> None:
        """Hand the request over if all of it has arrived."""
        buffer = connection.buffer
        if len(buffer) < protocol.HEADER_SIZE:
            return
        number = 0
        try:
            header = protocol.decode_header(
                bytes(buffer[: protocol.HEADER_SIZE]), connection.service.request_limit
            )
            number = header.number
            end = protocol.HEADER_SIZE + header.length
            if len(buffer) < end:
                return
            payload = bytes(buffer[protocol.HEADER_SIZE : end])
            request = protocol.decode_payload(header, payload)
            if header.opcode & protocol.REPLY:
                raise ProtocolError("a reply is no request")
        except ProtocolError:
            magic = bytes(buffer[:4])
            foreign = magic != protocol.MAGIC and magic[:3] == protocol.MAGIC[:3]
            status = protocol.BAD_VERSION if foreign else protocol.BAD_REQUEST
            self._pause(connection)
            # What follows in the stream cannot be understood any more.
            self._send(connection, Message(protocol.REPLY, status=status, number=number), 0)
            self._close(connection)
            return
        del buffer[:end]
        self._pause(connection)
        self._submit(connection, request)

    # Work

    def _submit(self, connection: _Connection, request: Message) -> None:
        peer = connection.peer
        if self._may_start(peer):

            def job() -> None:
                sent = False
                try:
                    sent = self._send(connection, self._answer(connection, request))
                finally:
                    self._done.append((connection, sent))
                    self._wake.wake()

            if self._workers.submit(job, privileged=peer.is_root):
                self._started(peer)
                return
        self._send(connection, protocol.reply(request, protocol.BUSY), 0)
        self._close(connection)

    def _submit_talk(
        self, connection: _Connection, talk: Callable[[socket.socket, Peer], None]
    ) -> None:
        peer = connection.peer

        def job() -> None:
            try:
                talk(connection.socket, peer)
            except OSError as error:
                log.debug("%s: %s", connection.service.name, error.strerror)
            finally:
                self._done.append((connection, False))
                self._wake.wake()

        if self._may_start(peer) and self._workers.submit(job, privileged=False):
            self._started(peer)
        else:
            self._close(connection)

    def _may_start(self, peer: Peer) -> bool:
        return peer.is_root or self._in_flight.get(peer.uid, 0) < MOST_IN_FLIGHT

    def _started(self, peer: Peer) -> None:
        self._in_flight[peer.uid] = self._in_flight.get(peer.uid, 0) + 1
        self._working += 1

    def _answer(self, connection: _Connection, request: Message) -> Message:
        if connection.peer.pid == os.getpid():
            # A lookup of our own that came back to us: whoever asks must not wait for itself.
            return protocol.reply(request, protocol.NOT_FOUND)
        handler = connection.service.handlers.get(request.opcode)
        if handler is None:
            return protocol.reply(request, protocol.BAD_REQUEST)
        try:
            return handler(request, connection.peer)
        except ProtocolError:
            return protocol.reply(request, protocol.TOO_LARGE)
        except Exception:
            log.exception("operation %d failed", request.opcode)
            return protocol.reply(request, protocol.INTERNAL)

    def _send(self, connection: _Connection, message: Message, seconds: float = SEND_TIME) -> bool:
        """Send a reply within ``seconds``; return whether the connection is still good."""
        try:
            data = memoryview(protocol.encode(message))
        except ProtocolError:
            too_large = Message(message.opcode, status=protocol.TOO_LARGE, number=message.number)
            data = memoryview(protocol.encode(too_large))
        deadline = self._clock() + seconds
        try:
            while data:
                try:
                    data = data[connection.socket.send(data) :]
                except BlockingIOError:
                    left = deadline - self._clock()
                    if left <= 0 or not _is_writable(connection.socket, left):
                        return False
        except OSError:
            return False
        return True

    def _collect(self) -> None:
        """Take the connections back from the workers."""
        while self._done:
            connection, good = self._done.popleft()
            _count_down(self._in_flight, connection.peer.uid)
            self._working -= 1
            now = self._active_at = self._clock()
            if not good or connection.service.one_request or now >= connection.ends_at:
                connection.socket.close()
                self._forget(connection)
                continue
            # The next request may be a person's answer, or be here already.
            connection.deadline = connection.ends_at
            if connection.buffer:
                connection.deadline = min(now + READ_TIME, connection.ends_at)
            self._read(connection)
            self._take_request(connection)

    # Time

    def _until_deadline(self) -> float:
        now = self._clock()
        due = [connection.deadline for connection in self._reading]
        if self._idle and not self._working and not self._reading:
            due.append(self._active_at + self._idle)
        # An hour: some selectors cannot count further than weeks, and nothing depends on it.
        return max(0.0, min(due) - now) if due else 3600.0

    def _expire(self) -> None:
        now = self._clock()
        for connection in [one for one in self._reading if one.deadline <= now]:
            self._close(connection)

    def _is_idle(self) -> bool:
        if not self._idle or self._working or self._reading:
            return False
        if self._is_busy():
            self._active_at = self._clock()
            return False
        return self._clock() - self._active_at >= self._idle


def passed_sockets(environ: Mapping[str, str]) -> dict[str, list[socket.socket]]:
    """Return the sockets that systemd passed to this process, by name (sd_listen_fds(3))."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = environ.get("LISTEN_FDS", "")
    if not count.isascii() or not count.isdigit() or int(count) > MOST_CONNECTIONS:
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[socket.socket]] = {}
    for offset in range(int(count)):
        sock = socket.socket(fileno=_FIRST_DESCRIPTOR + offset)
        sock.set_inheritable(False)
        name = names[offset] if offset < len(names) else "unknown"
        found.setdefault(name, []).append(sock)
    return found


def _is_writable(sock: socket.socket, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        return bool(selector.select(seconds))


def _count_down(counts: dict[int, int], key: int) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
