"""Where to look for the metadata server, and whom to believe."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.metadata.endpoint import (
    WELL_KNOWN,
    Endpoint,
    Endpoints,
    addresses_of,
    is_confined,
    parse_endpoint,
)
from google_guest.metadata.errors import Cancelled, ConnectFailed, MetadataError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("mds.example", "mds.example", 80),
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        (" 127.0.0.1:8080\n", "127.0.0.1", 8080),
        ("[::1]:8080", "::1", 8080),
        ("[fd20:ce::254]", "fd20:ce::254", 80),
        ("fd20:ce::254", "fd20:ce::254", 80),
        ("http://mds.example", "mds.example", 80),
        ("http://127.0.0.1:8080/computeMetadata/v1/", "127.0.0.1", 8080),
        ("http://[::1]:8080/", "::1", 8080),
    ],
)
def test_endpoint_is_read_in_every_form(text: str, host: str, port: int) -> None:
    assert parse_endpoint(text) == Endpoint(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "https://mds.example",
        "ftp://mds.example",
        "host:port",
        "host:0",
        "host:65536",
        "host:-1",
        "two words",
        "a\r\nX-Header: b",
        "http://",
        ":80",
        "[::1",
        "user@host name",
    ],
)
def test_unusable_endpoint_is_refused(text: str) -> None:
    with pytest.raises(MetadataError, match="names no metadata server"):
        parse_endpoint(text)


@given(st.text())
def test_any_text_is_an_endpoint_or_refused(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except MetadataError:
        return
    assert endpoint.authority.isprintable() and 0 < endpoint.port < 65536


@pytest.mark.parametrize(
    ("endpoint", "authority"),
    [
        (Endpoint("169.254.169.254"), "169.254.169.254"),
        (Endpoint("fd20:ce::254"), "[fd20:ce::254]"),
        (Endpoint("::1", 8080), "[::1]:8080"),
        (Endpoint("localhost", 8080), "localhost:8080"),
    ],
)
def test_authority_is_written_as_in_urls(endpoint: Endpoint, authority: str) -> None:
    assert endpoint.authority == authority


def test_well_known_endpoints_are_tried_by_address_first() -> None:
    hosts = [endpoint.host for endpoint in Endpoints(WELL_KNOWN).order()]
    assert hosts == ["169.254.169.254", "fd20:ce::254", "metadata.google.internal"]


def test_endpoint_that_answered_is_the_only_one_tried() -> None:
    endpoints = Endpoints(WELL_KNOWN)
    endpoints.answered(WELL_KNOWN[1])
    assert endpoints.order() == (WELL_KNOWN[1],)


def test_all_endpoints_are_tried_again_after_three_failed_connections_in_a_row() -> None:
    endpoints = Endpoints(WELL_KNOWN)
    endpoints.answered(WELL_KNOWN[1])
    endpoints.connect_failed()
    endpoints.connect_failed()
    endpoints.answered(WELL_KNOWN[1])
    endpoints.connect_failed()
    endpoints.connect_failed()
    assert endpoints.order() == (WELL_KNOWN[1],)
    endpoints.connect_failed()
    assert endpoints.order() == WELL_KNOWN


@pytest.mark.parametrize(
    ("address", "confined"),
    [
        ("169.254.169.254", True),
        ("127.0.0.1", True),
        ("fd20:ce::254", True),
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("::1", True),
        ("10.0.0.5", False),
        ("192.0.2.1", False),
        ("169.25.0.1", False),
        ("2001:db8::1", False),
        ("fd20:cf::254", False),
    ],
)
def test_addresses_beyond_a_router_are_told_apart(address: str, confined: bool) -> None:
    assert is_confined(address) is confined


def test_name_that_leads_beyond_a_router_is_not_trusted() -> None:
    forged = Endpoint("192.0.2.1", link_local_only=True)
    with pytest.raises(ConnectFailed, match="not trusted"):
        addresses_of(forged, deadline=time.monotonic() + 5, cancelled=threading.Event())


def test_name_of_this_machine_is_looked_up() -> None:
    found = addresses_of(
        Endpoint("localhost", 8080), deadline=time.monotonic() + 5, cancelled=threading.Event()
    )
    assert all(is_confined(address[0]) and address[1] == 8080 for _, address in found)


def test_slow_resolver_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    cancelled = threading.Event()
    cancelled.set()

    def slow(*_: object, flags: int, **__: object) -> list[object]:
        if flags:
            raise OSError("not numeric")
        release.wait(10)
        return []

    monkeypatch.setattr("socket.getaddrinfo", slow)
    with pytest.raises(Cancelled):
        addresses_of(Endpoint("mds"), deadline=time.monotonic() + 9, cancelled=cancelled)
    release.set()


def test_slow_resolver_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def slow(*_: object, flags: int, **__: object) -> list[object]:
        if flags:
            raise OSError("not numeric")
        release.wait(10)
        return []

    monkeypatch.setattr("socket.getaddrinfo", slow)
    with pytest.raises(ConnectFailed, match="took too long"):
        addresses_of(Endpoint("mds"), deadline=time.monotonic(), cancelled=threading.Event())
    release.set()
