"""HTTP/1.1 as it may arrive, byte by byte."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.metadata.scripted_server import Script, ScriptedServer, answer

from google_guest.metadata.endpoint import Endpoint
from google_guest.metadata.errors import (
    BadAnswer,
    Cancelled,
    ConnectFailed,
    MetadataError,
    TimedOut,
)
from google_guest.metadata.exchange import (
    BODY_LIMIT,
    Connection,
    Interrupt,
    NoAnswer,
    Request,
    Response,
)


@contextmanager
def interrupt() -> Iterator[Interrupt]:
    switch = Interrupt()
    yield switch
    switch.close()


def ask(script: Script, *, seconds: float = 5.0) -> Response:
    with ScriptedServer(script) as server:
        return ask_at(server.port, seconds=seconds)


def ask_at(port: int, *, seconds: float = 5.0) -> Response:
    deadline = time.monotonic() + seconds
    with interrupt() as switch:
        connection = Connection(Endpoint("127.0.0.1", port), deadline=deadline, interrupt=switch)
        try:
            return connection.exchange(Request("GET", "/"), deadline=deadline)
        finally:
            connection.close()


def test_request_is_written_as_http_1_1() -> None:
    request = Request("PUT", "/a?b=c", {"Metadata-Flavor": "Google"}, b"body")
    assert request.encode("host:81") == (
        b"PUT /a?b=c HTTP/1.1\r\nHost: host:81\r\nMetadata-Flavor: Google\r\n"
        b"Content-Length: 4\r\n\r\nbody"
    )


@pytest.mark.parametrize(
    ("script", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200\r\nContent-Length:2\r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\n\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nok\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n",
            b"ok0123456789",
        ),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"ok",
        ),
    ],
)
def test_body_is_complete_in_every_framing(script: bytes, body: bytes) -> None:
    assert ask(script).body == body


def test_header_names_are_lower_case_and_values_trimmed() -> None:
    response = ask(b"HTTP/1.1 200 OK\r\nETag:  abc \r\nX: 1\r\nx: 2\r\nContent-Length: 0\r\n\r\n")
    assert response.headers == {"etag": "abc", "x": "1, 2", "content-length": "0"}


@pytest.mark.parametrize(
    "script",
    [
        b"\0\1\2\3\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokmore\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
    ],
)
def test_malformed_answer_is_a_bad_answer(script: bytes) -> None:
    with pytest.raises(BadAnswer):
        ask(script)


def test_announced_body_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(BadAnswer, match="16 MiB"):
        ask(answer(b"", length=BODY_LIMIT + 1))


def _flood(head: bytes, block: bytes) -> Script:
    def send(sock: socket.socket) -> None:
        sock.sendall(head)
        for _ in range(BODY_LIMIT // 2**20 + 1):
            sock.sendall(block)

    return send


@pytest.mark.parametrize(
    "script",
    [
        _flood(b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 2**20),
        _flood(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"100000\r\n" + b"x" * 2**20 + b"\r\n",
        ),
    ],
    ids=["until close", "chunked"],
)
def test_unannounced_body_beyond_the_limit_is_refused(script: Script) -> None:
    with pytest.raises(BadAnswer, match="16 MiB"):
        ask(script)


def test_connection_closed_without_a_byte_is_no_answer() -> None:
    with pytest.raises(NoAnswer):
        ask(b"")


def test_refused_connection_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectFailed, match="refused"):
        ask_at(port)


def test_server_that_drips_cannot_outlast_the_deadline() -> None:
    stop = threading.Event()

    def drip(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not stop.wait(0.01):
            sock.sendall(b"x")

    started = time.monotonic()
    with pytest.raises(TimedOut):
        ask(drip, seconds=0.2)
    stop.set()
    assert time.monotonic() - started < 2


@contextmanager
def unresponsive_port() -> Iterator[int]:
    """A listener whose queue is full: the kernel drops further connection attempts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = []
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            waiting.append(sock)
        yield port
        for sock in waiting:
            sock.close()


def test_connection_attempt_ends_at_its_deadline() -> None:
    with unresponsive_port() as port, pytest.raises(ConnectFailed, match="no answer"):
        ask_at(port, seconds=0.1)


def _cancelled_after(seconds: float, wait: Callable[[Interrupt], object]) -> float:
    """Cancel ``wait`` from another thread; return how long it went on after that."""
    with interrupt() as switch:
        at: list[float] = []

        def cancel() -> None:
            at.append(time.monotonic())
            switch.set()

        timer = threading.Timer(seconds, cancel)
        timer.start()
        with pytest.raises(Cancelled):
            wait(switch)
        ended = time.monotonic()
        timer.join()
        return ended - at[0]


def test_pause_ends_at_once_when_interrupted() -> None:
    assert _cancelled_after(0.05, lambda switch: switch.sleep(30)) < 0.1


def test_connection_attempt_ends_at_once_when_interrupted() -> None:
    with unresponsive_port() as port:

        def wait(switch: Interrupt) -> None:
            Connection(
                Endpoint("127.0.0.1", port), deadline=time.monotonic() + 30, interrupt=switch
            )

        assert _cancelled_after(0.05, wait) < 0.1


def test_interrupt_set_beforehand_ends_the_next_wait() -> None:
    with interrupt() as switch:
        switch.set()
        switch.set()
        with pytest.raises(Cancelled):
            switch.sleep(30)


@pytest.fixture(scope="module")
def reciter() -> Iterator[ScriptedServer]:
    with ScriptedServer(b"") as server:
        yield server


_heads = st.sampled_from(
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]
)
_soup = st.lists(
    st.sampled_from([b"\r\n", b"\n", b":", b" ", b"0", b"3", b"abc", b"HTTP/1.1 100 \r\n"])
    | st.binary(max_size=20),
    max_size=20,
).map(b"".join)


@given(_heads, _soup)
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_an_answer_or_a_metadata_error(
    reciter: ScriptedServer, head: bytes, rest: bytes
) -> None:
    reciter.scripts = (head + rest,)
    try:
        response = ask_at(reciter.port)
    except MetadataError:
        return
    assert 100 <= response.status < 600
