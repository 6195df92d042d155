"""A running emulator and a plain HTTP client for the emulator's own tests."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Callable, Optional

import pytest

from metadata_server import Emulator

FLAVOR = {"Metadata-Flavor": "Google"}


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    @property
    def json(self) -> object:
        return json.loads(self.body)

    @property
    def etag(self) -> str:
        return self.headers["etag"]


Ask = Callable[..., Response]


def ask_host(
    host: str,
    path: str,
    *,
    method: str = "GET",
    body: Optional[bytes] = None,
    headers: Mapping[str, str] = FLAVOR,
    timeout: float = 20.0,
) -> Response:
    target = path if path.startswith("/") else "/computeMetadata/v1/" + path
    connection = http.client.HTTPConnection(host, timeout=timeout)
    try:
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, fields, response.read())
    finally:
        connection.close()


@pytest.fixture
def mds() -> Iterator[Emulator]:
    with Emulator(profile="linux") as emulator:
        yield emulator
        failures = emulator.failures
    assert not failures, f"the emulator failed: {failures!r}"


@pytest.fixture
def ask(mds: Emulator) -> Ask:
    """Ask the emulator for a path below ``/computeMetadata/v1/`` (or one with a leading slash)."""

    def ask_it(path: str, **options: object) -> Response:
        return ask_host(mds.host, path, **options)  # type: ignore[arg-type]

    return ask_it


@pytest.fixture
def dial(mds: Emulator) -> Iterator[Callable[[], socket.socket]]:
    """Open raw TCP connections to the emulator."""
    opened = []

    def connect() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", mds.port), timeout=20)
        opened.append(sock)
        return sock

    yield connect
    for sock in opened:
        sock.close()


@pytest.fixture(scope="session")
def ipv6() -> bool:
    """Whether this machine has an IPv6 loopback address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True
