"""The internet on loopback: one server that is every http host, every https host and their proxy.

Clients are sent to it by proxy variables. A CONNECT request is answered by a TLS handshake with a
certificate for the hosts below, so that the client checks names and trust as it always does.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

HOSTS = (
    "storage.googleapis.com",
    "storage.example.test",
    "scripts.example.test",
    "other.example.test",
)


@dataclass(frozen=True)
class Page:
    """One answer; ``cut_after`` bytes of the body the connection breaks, ``silent``: never."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: Optional[int] = None
    silent: bool = False


@dataclass(frozen=True)
class Visit:
    """One request: the scheme and host it was for, its path with query, its headers."""

    scheme: str
    host: str
    target: str
    headers: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.target}"

    @property
    def authorization(self) -> Optional[str]:
        return self.headers.get("authorization")


@dataclass(frozen=True)
class Certificate:
    """Files of a key and of the certificate, which is its own authority."""

    key: Path
    chain: Path


def make_certificate(folder: Path) -> Certificate:
    made = Certificate(folder / "key.pem", folder / "chain.pem")
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    argv = [*command.split(), "-subj", "/CN=web of the tests"]
    argv += ["-addext", f"subjectAltName={names}"]
    argv += ["-keyout", str(made.key), "-out", str(made.chain)]
    subprocess.run(argv, check=True, capture_output=True)
    return made


class Web:
    """The server; ``pages`` has the answers for each URL, the last one repeats."""

    def __init__(self, certificate: Certificate) -> None:
        self.pages: dict[str, list[Page]] = {}
        self.visits: list[Visit] = []
        self.connects: list[str] = []
        self.certificate = certificate
        self.closing = threading.Event()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate.chain, certificate.key)
        web = self

        class Handler(_Handler):
            pass

        Handler.web = web
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Web:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.02)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def environment(self) -> dict[str, str]:
        """What sends a client here."""
        proxy = f"http://127.0.0.1:{self.port}"
        return {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy}

    def page(self, url: str, *pages: Page) -> None:
        self.pages[url] = list(pages)

    def urls(self) -> list[str]:
        return [visit.url for visit in self.visits]


class _Handler(BaseHTTPRequestHandler):
    web: Web
    secure_host = ""
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        self.web.connects.append(self.path)
        self.send_response(200)
        self.end_headers()
        try:
            secured = self.web.context.wrap_socket(self.connection, server_side=True)
        except OSError:
            # The client refused the certificate.
            self.close_connection = True
            return
        self.secure_host = self.path.partition(":")[0]
        self.connection = secured
        self.rfile = secured.makefile("rb")
        self.wfile = _Writer(secured)  # type: ignore[assignment]
        self.close_connection = False

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        scheme = "https" if self.secure_host else "http"
        host = self.secure_host or parts.netloc or self.headers.get("Host", "")
        headers = {name.lower(): value for name, value in self.headers.items()}
        visit = Visit(scheme, host, target, headers)
        self.web.visits.append(visit)
        answers = self.web.pages.get(visit.url, [Page(b"no such page", 404)])
        self._answer(answers.pop(0) if len(answers) > 1 else answers[0])

    def _answer(self, page: Page) -> None:
        self.close_connection = True
        if page.silent:
            self.web.closing.wait()
            return
        self.send_response(page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in page.headers:
            self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(page.body[: page.cut_after])
        self.wfile.flush()
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The client was faster.
            return

    def log_message(self, format: str, *args: Any) -> None:
        return


class _Writer:
    """The write side of a TLS connection, as the handler wants it."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self.closed = False

    def write(self, data: bytes) -> int:
        self._connection.sendall(data)
        return len(data)

    def flush(self) -> None:
        return

    def close(self) -> None:
        self.closed = True
