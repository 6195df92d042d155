"""One HTTP/1.1 request and its answer on one plain socket.

The standard library's ``http.client`` would load ``ssl`` and ``email`` (6 MiB of resident memory in
every process that only wants to ask a link-local server for text), has no limit on the time of a
whole answer, and cannot be stopped from another thread. This module speaks the part of HTTP/1.1
that such a server needs: Content-Length, chunked and connection-delimited bodies, keep-alive. Every
length is bounded, every wait ends at a deadline (``time.monotonic``) or by an ``Interrupt``, and
whatever bytes arrive, the only errors raised are those of ``google_guest.metadata.errors``.

Source: RFC 9112 (HTTP/1.1 messages), RFC 9110 (fields, statuses).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import selectors
import socket
import threading
import time
from collections.abc import Mapping
from typing import Optional

from google_guest.metadata.endpoint import Endpoint, SocketAddress, addresses_of
from google_guest.metadata.errors import BadAnswer, Cancelled, ConnectFailed, TimedOut
from google_guest.records import field, record

BODY_LIMIT = 16 * 1024 * 1024
_HEAD_LIMIT = 64 * 1024
_RECEIVE = 64 * 1024
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_IN_PROGRESS = frozenset(
    {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK)}
)
# poll(2) where there is one: select(2) fails for descriptors above 1023.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


@record
class Request:
    """What to send; ``target`` and the headers must already be free of line breaks."""

    method: str
    target: str
    """Path and query, percent-encoded."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Optional[bytes] = None

    def encode(self, authority: str) -> bytes:
        """Return the message as it goes onto the wire."""
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body is not None:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (self.body or b"")


@record
class Response:
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; repeated ones joined by a comma."""
    body: bytes


class Interrupt:
    """A switch that, once set by any thread, ends every wait that watches it."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    def set(self) -> None:
        """End all waits, present and future."""
        if not self.event.is_set():
            self.event.set()
            # The byte is never read: the socket stays readable for every later wait. After
            # close() nobody waits any more, so that nobody needs waking either.
            with contextlib.suppress(OSError):
                self._writer.send(b"\0")

    def sleep(self, seconds: float) -> None:
        """Return after ``seconds``; raise ``Cancelled`` at once when set."""
        with _Selector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            selector.select(max(0.0, seconds))
        if self.event.is_set():
            raise Cancelled("cancelled")

    def wait_for(self, sock: socket.socket, events: int, deadline: float) -> None:
        """Return when ``sock`` is ready; raise ``TimedOut`` or ``Cancelled``."""
        with _Selector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            selector.register(sock, events)
            ready = selector.select(max(0.0, deadline - time.monotonic()))
        if self.event.is_set():
            raise Cancelled("cancelled")
        if not ready:
            raise TimedOut("no answer in time")

    def close(self) -> None:
        """Free the descriptors; no wait may follow."""
        self._reader.close()
        self._writer.close()


class NoAnswer(ConnectFailed):
    """The connection ended before the first byte of an answer."""


class Connection:
    """A connection to one endpoint, good for one exchange after the other."""

    def __init__(self, endpoint: Endpoint, *, deadline: float, interrupt: Interrupt) -> None:
        """Connect; raise ``ConnectFailed`` or ``Cancelled``."""
        self.endpoint = endpoint
        self.idle_since = time.monotonic()
        self.reusable = False
        self._interrupt = interrupt
        self._socket = _connect(endpoint, deadline, interrupt)

    def exchange(self, request: Request, *, deadline: float) -> Response:
        """Send ``request`` and return the complete answer."""
        self.reusable = False
        self._send(request.encode(self.endpoint.authority), deadline)
        reader = _Reader(self._socket, self._interrupt, deadline)
        response, keep = reader.response()
        self.reusable = keep
        self.idle_since = time.monotonic()
        return response

    def is_quiet(self) -> bool:
        """Return whether the idle connection is still open and has nothing unasked to read."""
        with _Selector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return not selector.select(0)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                self._interrupt.wait_for(self._socket, selectors.EVENT_WRITE, deadline)
            except OSError as error:
                raise NoAnswer(f"{self.endpoint.authority}: {error.strerror}") from error


def _connect(endpoint: Endpoint, deadline: float, interrupt: Interrupt) -> socket.socket:
    addresses = addresses_of(endpoint, deadline=deadline, cancelled=interrupt.event)
    complaint = "no address"
    for address in addresses:
        try:
            return _connect_to(address, deadline, interrupt)
        except TimedOut:
            complaint = "no answer to the connection attempt"
        except OSError as error:
            complaint = error.strerror or str(error)
    raise ConnectFailed(f"{endpoint.authority}: {complaint}")


def _connect_to(address: SocketAddress, deadline: float, interrupt: Interrupt) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(where)
        if code in _IN_PROGRESS:
            interrupt.wait_for(sock, selectors.EVENT_WRITE, deadline)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


class _Reader:
    """Reads one answer from a socket; bounded in time and space."""

    def __init__(self, sock: socket.socket, interrupt: Interrupt, deadline: float) -> None:
        self._socket = sock
        self._interrupt = interrupt
        self._deadline = deadline
        self._buffer = bytearray()
        self._head_left = _HEAD_LIMIT
        self._answered = False

    def response(self) -> tuple[Response, bool]:
        """Return the answer and whether the connection can carry another one."""
        if not self._fill():
            raise NoAnswer("the connection was closed without an answer")
        version, status = self._status()
        headers = self._fields()
        while status < 200:
            # Interim answers (RFC 9110 section 15.2) precede the real one; the limit on the
            # head counts them all.
            version, status = self._status()
            headers = self._fields()
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise BadAnswer("the body is compressed, which was not asked for")
        body, delimited = self._body(status, headers)
        options = headers.get("connection", "").lower()
        keep = "close" not in options if version == 1 else "keep-alive" in options
        return Response(status, headers, body), keep and delimited and not self._buffer

    def _status(self) -> tuple[int, int]:
        match = _STATUS.fullmatch(self._line())
        if match is None:
            raise BadAnswer("the answer is not HTTP/1")
        return int(match.group(1)), int(match.group(2))

    def _fields(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        while line := self._line():
            match = _FIELD.fullmatch(line)
            if match is None:
                raise BadAnswer("the answer has a malformed header")
            name = match.group(1).decode("ascii").lower()
            value = match.group(2).decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        return fields

    def _body(self, status: int, headers: Mapping[str, str]) -> tuple[bytes, bool]:
        """Return the body and whether its end was marked by something else than the close."""
        if status in (204, 304):
            return b"", True
        coding = headers.get("transfer-encoding")
        if coding is not None:
            if coding.lower() != "chunked":
                raise BadAnswer("the body has an unknown transfer coding")
            return self._chunks(), True
        length = headers.get("content-length")
        if length is None:
            while self._fill():
                self._check_size(len(self._buffer))
            return self._take(len(self._buffer)), False
        # Equal repeated lengths are one length (RFC 9112 section 6.3).
        lengths = {part.strip() for part in length.split(",")}
        digits = lengths.pop()
        if lengths or not digits.isascii() or not digits.isdigit() or len(digits) > 15:
            raise BadAnswer("the answer has a malformed length")
        self._check_size(int(digits))
        return self._exactly(int(digits)), True

    def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            match = _CHUNK.fullmatch(self._line(counted=False))
            if match is None:
                raise BadAnswer("the answer has a malformed chunk")
            size = int(match.group(1), 16)
            if size == 0:
                self._fields()
                return bytes(body)
            self._check_size(len(body) + size)
            body += self._exactly(size)
            if self._line(counted=False):
                raise BadAnswer("the answer has a malformed chunk")

    def _line(self, *, counted: bool = True) -> bytes:
        """Return the next line without its end; ``counted`` ones share the limit of the head."""
        limit = self._head_left if counted else 1024
        while (end := self._buffer.find(b"\n", 0, limit)) < 0:
            if len(self._buffer) >= limit:
                raise BadAnswer("the answer has an endless header")
            self._more()
        if counted:
            self._head_left -= end + 1
        return self._take(end + 1).rstrip(b"\r\n")

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return taken

    def _check_size(self, size: int) -> None:
        if size > BODY_LIMIT:
            raise BadAnswer(f"the answer is larger than {BODY_LIMIT // 1024 // 1024} MiB")

    def _more(self) -> None:
        if not self._fill():
            raise BadAnswer("the answer is truncated")

    def _fill(self) -> bool:
        """Receive once; return False at the end of the stream."""
        while True:
            if time.monotonic() >= self._deadline:
                raise TimedOut("no complete answer in time")
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                self._interrupt.wait_for(self._socket, selectors.EVENT_READ, self._deadline)
            except OSError as error:
                if self._answered:
                    raise BadAnswer(f"the answer is truncated: {error.strerror}") from error
                raise NoAnswer(f"no answer: {error.strerror}") from error
            else:
                self._buffer += data
                self._answered = True
                return bool(data)
