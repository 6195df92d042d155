"""A web server on loopback that says exactly what a test tells it to, and remembers who asked."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional, Union
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    """One answer; it breaks off after ``cut_after`` bytes, or never comes (``silent``)."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: Optional[int] = None
    silent: bool = False


@dataclass(frozen=True)
class Visit:
    """One request; names of headers in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def authorization(self) -> Optional[str]:
        return self.headers.get("authorization")

    @property
    def range(self) -> Optional[str]:
        return self.headers.get("range")


Answer = Union[Reply, Callable[[Visit], Reply]]


class Origin:
    """The server; ``pages`` has the answers for each path, the last one repeats."""

    def __init__(self) -> None:
        self.pages: dict[str, list[Answer]] = {}
        self.visits: list[Visit] = []
        self.closing = threading.Event()

        class Handler(_Handler):
            origin = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> Origin:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def page(self, path: str, *answers: Answer) -> str:
        self.pages[path] = list(answers)
        return self.url + path

    def file(self, path: str, body: bytes, *, ranges: bool = True) -> str:
        """Serve ``body``, and parts of it if ``ranges``."""

        def answer(visit: Visit) -> Reply:
            match = re.fullmatch(r"bytes=(\d+)-", visit.range or "")
            if not ranges or match is None:
                return Reply(body)
            start = int(match[1])
            if start >= len(body):
                return Reply(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return Reply(body[start:], 206, {"Content-Range": span})

        return self.page(path, answer)

    def paths(self) -> list[str]:
        return [visit.path for visit in self.visits]


class _Handler(BaseHTTPRequestHandler):
    origin: Origin
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        visit = Visit(self.command, self.path, headers, self.rfile.read(length))
        self.origin.visits.append(visit)
        answers = self.origin.pages.get(visit.path, [Reply(b"no such page", 404)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self._answer(answer if isinstance(answer, Reply) else answer(visit))

    do_POST = do_GET

    def _answer(self, reply: Reply) -> None:
        if reply.silent:
            self.close_connection = True
            self.origin.closing.wait()
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in reply.headers:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[: reply.cut_after])
        if reply.cut_after is not None:
            self.wfile.flush()
            self.close_connection = True
            try:
                self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                # The client was faster.
                return

    def log_message(self, format: str, *args: Any) -> None:
        return
