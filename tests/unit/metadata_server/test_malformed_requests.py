"""Whatever arrives, the server answers with the platform's header and goes on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metadata_server import Emulator

Dial = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulator]:
    with Emulator() as mds:
        yield mds
        assert mds.failures == []


def _exchange(mds: Emulator, data: bytes) -> bytes:
    """Send bytes, say that no more will come, and read to the end."""
    with socket.create_connection(("127.0.0.1", mds.port), timeout=20) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while True:
            more = sock.recv(65536)
            if not more:
                return received
            received += more


def _status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:80]
    head = answer.split(b"\r\n\r\n")[0]
    assert b"\r\nMetadata-Flavor: Google" in head
    return int(answer[9:12])


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1 x\r\n\r\n", 400),
        (b"G=T / HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n", 400),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 300 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"GET * HTTP/1.1\r\n\r\n", 404),
        (b"CONNECT metadata:80 HTTP/1.1\r\n\r\n", 404),
        (b"get / HTTP/1.1\r\n\r\n", 405),
        (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", 200),
        (b"GET / HTTP/1.1\n\n", 200),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET http://x HTTP/1.1\r\n\r\n", 200),
        (b"GET /?%zz HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_malformed_request_gets_its_status(
    shared: Emulator, request_bytes: bytes, status: int
) -> None:
    assert _status(_exchange(shared, request_bytes)) == status


@pytest.mark.parametrize(
    "data", [b"", b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab"]
)
def test_client_that_leaves_in_the_middle_is_not_answered(shared: Emulator, data: bytes) -> None:
    assert _exchange(shared, data) == b""


def test_chunked_body_is_read(shared: Emulator) -> None:
    answer = _exchange(
        shared,
        b"PUT /computeMetadata/v1/instance/guest-attributes/a/b HTTP/1.1\r\n"
        b"Metadata-Flavor: Google\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n",
    )
    assert _status(answer) == 200
    assert shared.guest_attributes()["a"]["b"] == "abcde"


def test_client_that_waits_for_permission_to_send_gets_it(shared: Emulator) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=20) as sock:
        sock.sendall(
            b"PUT /computeMetadata/v1/instance/guest-attributes/a/c HTTP/1.1\r\n"
            b"Metadata-Flavor: Google\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        )
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"x")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_requests_sent_together_are_answered_in_order(shared: Emulator) -> None:
    answer = _exchange(shared, b"GET / HTTP/1.1\r\n\r\nGET /computeMetadata/ HTTP/1.1\r\n\r\n")
    assert answer.index(b"computeMetadata/\n") < answer.index(b"v1/\n")


_PROPERTY = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_bytes = st.binary(min_size=1, max_size=200).map(lambda data: data.replace(b"\n", b""))
_PARTS = """
    . .. * 0 -1 instance attributes disks service-accounts default token identity tags
    guest-attributes oslogin users authenticate sessions computeMetadata v1 _emulator set
    gce-workload-certificates credentials %00 %ff %2f % %C3%A9 \xe9 \u0661 99999999999999999999
"""
_QUERIES = """
    ? ?recursive=true ?alt=text ?alt=json&recursive=true ?alt=\xff ?&=&&=%00 ?timeout_sec=1e9
    ?wait_for_change=true&timeout_sec=0 ?wait_for_change=true&timeout_sec=0&last_etag=0
    ?pagesize=1 ?audience=x&format=full&licenses=TRUE ?username=%00 ?uid=\u00b2
"""
_ENDLESS = "?last_etag=x&wait_for_change=true&timeout_sec=" + "9" * 400
_parts = st.sampled_from(["", *_PARTS.split()])
_queries = st.sampled_from(["", _ENDLESS, *_QUERIES.split()])
_methods = st.sampled_from(["GET", "PUT", "DELETE", "POST", "HEAD", "OPTIONS", "BREW"])


@_PROPERTY
@given(_bytes)
def test_random_request_lines_get_an_answer(shared: Emulator, line: bytes) -> None:
    answer = _exchange(shared, line + b"\r\n\r\n")
    if line.strip(b"\r"):
        assert _status(answer) >= 200


@_PROPERTY
@given(_methods, st.lists(_parts, max_size=6), st.booleans(), _queries, st.binary(max_size=20))
def test_random_paths_get_an_answer(
    shared: Emulator, method: str, parts: list[str], inside: bool, query: str, body: bytes
) -> None:
    path = ("/computeMetadata/v1/" if inside else "/") + "/".join(parts) + query
    head = (
        f"{method} ".encode() + path.encode("utf-8") + b" HTTP/1.1\r\nMetadata-Flavor: Google\r\n"
    )
    answer = _exchange(shared, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert _status(answer) in {200, 301, 400, 403, 404, 405, 412}
    assert shared.failures == []


@_PROPERTY
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=20),
            st.text(st.characters(max_codepoint=255), max_size=20),
        ),
        max_size=8,
    )
)
def test_random_header_fields_get_an_answer(
    shared: Emulator, fields: list[tuple[str, str]]
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")
    answer = _exchange(shared, b"GET / HTTP/1.1\r\nConnection: close\r\n" + lines + b"\r\n")
    if answer:  # a field may announce a body that never comes
        assert _status(answer) >= 200
