"""HTTP/1.1 on one client connection: reading requests, writing answers, noticing a hang-up.

Written on the socket itself because the emulator must do what a library server prevents: answer a
malformed request line with the platform's headers, cut a body short, send a reset, and notice that
a client left while its request is still waiting.

Reads and writes only the connection given to it.  Facts: RFC 9110 and RFC 9112 (message syntax,
``Expect: 100-continue``, chunked bodies, persistence), the header set of recorded metadata answers.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Optional

_LINE_LIMIT = 65_536
_HEADER_LIMIT = 262_144
_RECEIVE = 65_536
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])")

TEXT = "application/text"
JSON = "application/json"
HTML = "text/html; charset=UTF-8"


class ConnectionEnded(Exception):
    """The client left, or the server is stopping: nobody is there to answer."""


class Malformed(Exception):
    """The request cannot be understood; ``status`` is the answer, then the connection ends."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Headers(Mapping[str, str]):
    """Header fields with the spelling they arrived in; looked up in any case, last one wins."""

    def __init__(self, fields: tuple[tuple[str, str], ...] = ()) -> None:
        self.fields = fields
        self._by_name = {name.lower(): value for name, value in fields}

    def __getitem__(self, name: str) -> str:
        return self._by_name[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._by_name

    def __iter__(self) -> Iterator[str]:
        return iter({name.lower(): name for name, _ in self.fields}.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"Headers({self.fields!r})"


@dataclass(frozen=True)
class Message:
    """One request as it arrived."""

    method: str
    target: str
    version: tuple[int, int]
    headers: Headers
    body: bytes

    @property
    def keeps_connection(self) -> bool:
        options = {
            option.strip().lower() for option in self.headers.get("connection", "").split(",")
        }
        return "close" not in options if self.version >= (1, 1) else "keep-alive" in options


@dataclass(frozen=True)
class Answer:
    """One response.  ``headers`` come on top of those every answer carries."""

    status: int
    body: bytes = b""
    content_type: str = TEXT
    etag: Optional[str] = None
    headers: tuple[tuple[str, str], ...] = ()
    flavor: bool = True
    close: bool = False
    body_sent: Optional[int] = field(default=None)  # bytes of the body really sent, None: all

    def encode(self, *, close: bool, without_body: bool = False) -> bytes:
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {self.status} {phrase}"]
        if self.flavor:
            lines.append("Metadata-Flavor: Google")
        if self.etag:
            lines.append(f"ETag: {self.etag}")
        lines += [
            f"Content-Type: {self.content_type}",
            f"Date: {formatdate(usegmt=True)}",
            "Server: Metadata Server for VM",
            f"Content-Length: {len(self.body)}",
            "X-XSS-Protection: 0",
            "X-Frame-Options: SAMEORIGIN",
        ]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if close:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
        return head if without_body else head + self.body[: self.body_sent]


def error_page(status: int, reason: str, *, close: bool = False) -> Answer:
    """An error in the form people know from the platform: a small HTML page."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    page = (
        "<!DOCTYPE html>\n<html lang=en>\n"
        f"<title>Error {status} ({phrase})!!1</title>\n"
        f"<p><b>{status}.</b> <ins>{phrase}</ins>\n<p>{reason}\n</html>\n"
    )
    return Answer(status, page.encode("utf-8"), HTML, close=close)


class Link:
    """One client connection.  One thread reads and writes; ``shut`` may come from any thread."""

    def __init__(self, sock: socket.socket, *, trusted: bool = False) -> None:
        self.sock = sock
        self.trusted = trusted  # arrived on the control socket, whose file mode is the permission
        self._received = bytearray()
        self._ended = False
        self._closing = threading.Lock()

    # Reading

    def read_message(self, *, body_limit: int) -> Optional[Message]:
        """The next request; None when the client is done.  Raises Malformed."""
        line = self._read_line(first=True)
        while line == b"":  # RFC 9112 section 2.2: tolerate empty lines before a request
            line = self._read_line(first=True)
        if line is None:
            return None
        method, target, version = _parse_request_line(line)
        headers = self._read_headers()
        if "100-continue" in headers.get("expect", "").lower() and version >= (1, 1):
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._read_body(headers, body_limit)
        return Message(method, target, version, headers, body)

    def _read_headers(self) -> Headers:
        fields: list[tuple[str, str]] = []
        size = 0
        while True:
            line = self._read_line()
            if not line:
                return Headers(tuple(fields))
            size += len(line)
            if size > _HEADER_LIMIT or len(fields) >= 256:
                raise Malformed(431, "The request has too many header fields.")
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or not _TOKEN.fullmatch(name):
                raise Malformed(400, "The request has a malformed header field.")
            fields.append((name, value.strip(" \t")))

    def _read_body(self, headers: Headers, limit: int) -> bytes:
        coding = headers.get("transfer-encoding", "").strip().lower()
        if coding:
            if coding != "chunked":
                raise Malformed(501, "The request uses an unknown transfer coding.")
            return self._read_chunks(limit)
        length = headers.get("content-length", "0")
        if not re.fullmatch(r"[0-9]{1,15}", length):
            raise Malformed(400, "The request has a malformed Content-Length.")
        if int(length) > limit:
            raise Malformed(413, "The request body is too large.")
        return self._read_exactly(int(length))

    def _read_chunks(self, limit: int) -> bytes:
        body = bytearray()
        while True:
            size_text = (self._read_line() or b"").split(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", size_text):
                raise Malformed(400, "The request has a malformed chunk.")
            size = int(size_text, 16)
            if size == 0:
                while self._read_line():  # trailer fields
                    pass
                return bytes(body)
            if len(body) + size > limit:
                raise Malformed(413, "The request body is too large.")
            body += self._read_exactly(size)
            if self._read_line() != b"":
                raise Malformed(400, "The request has a malformed chunk.")

    def _read_line(self, *, first: bool = False) -> Optional[bytes]:
        """A line without its end; None (only for the first) when the client has closed."""
        searched = 0
        while True:
            end = self._received.find(b"\n", searched)
            if max(end, searched) > _LINE_LIMIT:
                raise Malformed(414 if first else 431, "The request has too long a line.")
            if end >= 0:
                line = bytes(self._received[:end])
                del self._received[: end + 1]
                return line[:-1] if line.endswith(b"\r") else line
            searched = len(self._received)
            if not self._receive():
                if first and not self._received:
                    return None
                raise ConnectionEnded
        return None

    def _read_exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            if not self._receive():
                raise ConnectionEnded
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _receive(self) -> bool:
        if self._ended:
            return False
        try:
            data = self.sock.recv(_RECEIVE)
        except (BlockingIOError, ssl.SSLWantReadError):
            raise
        except (OSError, ValueError):
            data = b""
        self._ended = not data
        self._received += data
        return bool(data)

    def hung_up(self) -> bool:
        """Whether the client has closed; anything it sent meanwhile is kept for later."""
        try:
            self.sock.settimeout(0)
            while len(self._received) < _LINE_LIMIT and self._receive():
                pass
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except (OSError, ValueError):
            self._ended = True
        finally:
            try:
                self.sock.settimeout(None)
            except OSError:
                self._ended = True
        return self._ended

    @property
    def has_room(self) -> bool:
        """Whether more may be received while a request waits."""
        return len(self._received) < _LINE_LIMIT

    # Writing

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except (OSError, ValueError):
            raise ConnectionEnded from None

    def finish(self) -> None:
        """End politely: let the client read the answer before unread data would reset it."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(0.5)
            for _ in range(64):
                if not self.sock.recv(_RECEIVE):
                    break
        except (OSError, ValueError):
            pass  # the client was faster
        self.close()

    def reset(self) -> None:
        """End with a TCP reset."""
        with contextlib.suppress(OSError):  # already gone is what a reset achieves
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def shut(self) -> None:
        """Make every pending read and write of this connection end."""
        with self._closing, contextlib.suppress(OSError):  # never connected or already gone
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._closing:
            self.sock.close()


def _parse_request_line(line: bytes) -> tuple[str, str, tuple[int, int]]:
    match = _REQUEST_LINE.fullmatch(line.decode("latin-1"))
    if not match:
        raise Malformed(400, "The request line is malformed.")
    method, target, major, minor = match.groups()
    if major != "1":
        raise Malformed(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    return method, target, (1, int(minor))
