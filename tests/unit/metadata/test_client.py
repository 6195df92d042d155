"""One-shot reads, one long poll and guest attributes against a loopback server."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.metadata.scripted_server import GENUINE, ScriptedServer, answer

from google_guest.metadata.answers import request_target
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.endpoint import Endpoint
from google_guest.metadata.errors import (
    BadAnswer,
    BadRedirect,
    BadRequest,
    Cancelled,
    ConnectFailed,
    Forbidden,
    MetadataError,
    NotConfigured,
    NotFound,
    NotGoogle,
    ServerError,
    TimedOut,
    TooManyRequests,
    Unreachable,
)
from google_guest.metadata.tree import parse_metadata
from metadata_server import Emulator

if TYPE_CHECKING:
    from unit.metadata.conftest import FakeTime

Connect = Callable[..., MetadataClient]


def refusing_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if record.levelno > logging.DEBUG]


# What is read.


def test_large_instance_id_is_unchanged_as_text_and_json(mds: Emulator, connect: Connect) -> None:
    mds.set("instance/id", 9007199254740993123)
    client = connect(mds.host)
    assert client.get_text("instance/id") == "9007199254740993123"
    document: Any = client.get_json("instance/")
    assert document["id"] == 9007199254740993123


def test_whole_tree_is_read_with_its_etag(mds: Emulator, connect: Connect) -> None:
    tree = connect(mds.host).get_metadata()
    assert parse_metadata(tree.document).instance.name == "demo-1"
    assert tree.etag == mds.etag("")


def test_empty_text_is_a_value(mds: Emulator, connect: Connect) -> None:
    mds.set("instance/attributes/empty", "")
    assert connect(mds.host).get_text("instance/attributes/empty") == ""


def test_bytes_that_are_not_utf_8_are_replaced_in_text(connect: Connect) -> None:
    with ScriptedServer(answer(b"caf\xe9")) as server:
        client = connect(server.host)
        assert client.get_text("instance/name") == "caf\ufffd"
        assert client.get_bytes("instance/name") == b"caf\xe9"


def test_request_carries_the_header_that_the_server_demands(
    mds: Emulator, connect: Connect
) -> None:
    connect(mds.host).get_text("instance/id")
    (request,) = mds.requests()
    assert request.headers["Metadata-Flavor"] == "Google"
    assert "X-Forwarded-For" not in request.headers


def test_extra_headers_are_sent(mds: Emulator, connect: Connect) -> None:
    connect(mds.host).report({"X-Google-Guest-Agent": "CgRuYW1l"})
    (request,) = mds.requests()
    assert (request.path, request.headers["X-Google-Guest-Agent"]) == ("", "CgRuYW1l")


def test_header_with_a_line_break_is_never_sent(mds: Emulator, connect: Connect) -> None:
    with pytest.raises(BadRequest):
        connect(mds.host).report({"X-Google-Guest-OS": "a\r\nX-Forwarded-For: b"})
    assert mds.requests() == []


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("instance/id", "/computeMetadata/v1/instance/id"),
        ("/instance//id", "/computeMetadata/v1/instance/id"),
        ("instance/disks/", "/computeMetadata/v1/instance/disks/"),
        ("", "/computeMetadata/v1/"),
        ("/computeMetadata/v1/instance/id", "/computeMetadata/v1/instance/id"),
        ("instance/attributes/a b?c", "/computeMetadata/v1/instance/attributes/a%20b%3Fc"),
        (
            "instance/service-accounts/a@b.c/email",
            "/computeMetadata/v1/instance/service-accounts/a@b.c/email",
        ),
    ],
)
def test_paths_are_normalised(path: str, target: str) -> None:
    assert request_target(path) == target


@given(st.text(), st.dictionaries(st.text(), st.text(), max_size=3))
def test_any_path_makes_a_target_of_printable_ascii(path: str, query: dict[str, str]) -> None:
    target = request_target(path, query)
    assert target.isascii() and target.isprintable() and " " not in target


# Where it is read.


def test_environment_names_the_server(mds: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", mds.host)
    with MetadataClient() as client:
        assert client.get_text("instance/name") == "demo-1"


def test_environment_may_hold_a_url(mds: Emulator, connect: Connect) -> None:
    client = connect(environ={"GCE_METADATA_HOST": f"http://{mds.host}/"})
    assert client.get_text("instance/name") == "demo-1"


def test_unusable_environment_is_an_error_that_shows_it() -> None:
    with pytest.raises(MetadataError, match="not a host"):
        MetadataClient(environ={"GCE_METADATA_HOST": "not a host"})


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_proxy_of_the_environment_is_ignored(
    mds: Emulator, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{refusing_port()}")
    monkeypatch.setenv("GCE_METADATA_HOST", mds.host)
    with MetadataClient() as client:
        assert client.get_text("instance/name", budget=0) == "demo-1"


def test_next_candidate_is_asked_when_the_first_refuses(mds: Emulator, connect: Connect) -> None:
    candidates = (Endpoint("127.0.0.1", refusing_port()), Endpoint("127.0.0.1", mds.port))
    client = connect(candidates=candidates)
    assert client.get_text("instance/name", budget=0) == "demo-1"


def test_next_candidate_is_asked_when_the_first_is_not_google(
    mds: Emulator, connect: Connect
) -> None:
    with ScriptedServer(answer(headers=b"")) as portal:
        candidates = (Endpoint("127.0.0.1", portal.port), Endpoint("127.0.0.1", mds.port))
        assert connect(candidates=candidates).get_text("instance/name", budget=0) == "demo-1"


def test_candidate_that_answered_is_remembered(mds: Emulator, connect: Connect) -> None:
    with ScriptedServer(answer(headers=b"")) as portal:
        candidates = (Endpoint("127.0.0.1", portal.port), Endpoint("127.0.0.1", mds.port))
        client = connect(candidates=candidates)
        client.get_text("instance/name")
        client.get_text("instance/name")
        assert portal.connections == 1


def test_other_candidates_are_asked_again_after_three_failed_connections(
    mds: Emulator, connect: Connect
) -> None:
    first = ScriptedServer(answer(b"first"))
    candidates = (Endpoint("127.0.0.1", first.port), Endpoint("127.0.0.1", mds.port))
    client = connect(candidates=candidates)
    assert client.get_text("instance/name", budget=0) == "first"
    first.close()
    for _ in range(3):
        with pytest.raises(ConnectFailed):
            client.get_text("instance/name", budget=0)
    assert client.get_text("instance/name", budget=0) == "demo-1"


def test_answer_of_somebody_else_counts_as_unreachable(mds: Emulator, connect: Connect) -> None:
    mds.fault("instance/name", "no_flavor")
    with pytest.raises(NotGoogle) as raised:
        connect(mds.host).get_text("instance/name")
    assert isinstance(raised.value, Unreachable)
    assert len(mds.requests()) == 1


# What is tried again.


def test_three_503_then_the_value_with_one_warning(
    mds: Emulator, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mds.fault("instance/name", "status", status=503, count=3)
    assert connect(mds.host).get_text("instance/name") == "demo-1"
    assert len(mds.requests()) == 4
    assert levels(caplog) == ["WARNING", "INFO"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (403, Forbidden),
        (404, NotFound),
        (405, BadRequest),
        (410, BadRequest),
        (412, NotConfigured),
    ],
)
def test_refusal_is_final_after_one_request(
    mds: Emulator,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    status: int,
    kind: type[MetadataError],
) -> None:
    caplog.set_level(logging.INFO)
    mds.fault("instance/name", "status", status=status)
    with pytest.raises(kind, match=str(status)):
        connect(mds.host).get_text("instance/name")
    assert len(mds.requests()) == 1
    assert levels(caplog) == []


def test_absent_key_costs_one_request(mds: Emulator, connect: Connect) -> None:
    with pytest.raises(NotFound):
        connect(mds.host).get_text("instance/attributes/absent")
    assert len(mds.requests()) == 1


def test_refused_connections_are_retried_from_a_tenth_to_two_seconds_within_the_budget(
    connect: Connect, fake_time: FakeTime
) -> None:
    client = connect(f"127.0.0.1:{refusing_port()}")
    with pytest.raises(ConnectFailed):
        client.get_text("instance/id", budget=30)
    assert fake_time.pauses[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    assert 28 <= sum(fake_time.pauses) <= 30


def test_jitter_is_part_of_the_budget(connect: Connect, fake_time: FakeTime) -> None:
    client = connect(f"127.0.0.1:{refusing_port()}", jitter=lambda: 1.0)
    with pytest.raises(ConnectFailed):
        client.get_text("instance/id", budget=10)
    assert fake_time.pauses[0] == pytest.approx(0.125)
    assert sum(fake_time.pauses) <= 10


def test_budget_of_zero_is_one_attempt(connect: Connect, fake_time: FakeTime) -> None:
    with pytest.raises(ConnectFailed):
        connect(f"127.0.0.1:{refusing_port()}").get_text("instance/id", budget=0)
    assert fake_time.pauses == []


def test_silent_server_is_asked_once(mds: Emulator, connect: Connect) -> None:
    mds.fault("instance/name", "hang")
    with pytest.raises(TimedOut):
        connect(mds.host).get_text("instance/name", timeout=0.1)
    assert len(mds.requests()) == 1


def test_reset_connection_is_retried(mds: Emulator, connect: Connect) -> None:
    mds.fault("instance/name", "reset", count=2)
    assert connect(mds.host).get_text("instance/name") == "demo-1"


@pytest.mark.parametrize("fault", ["html", "truncate"])
def test_bad_text_is_retried_three_times_a_second_apart(
    mds: Emulator, connect: Connect, fake_time: FakeTime, fault: str
) -> None:
    mds.fault("instance/name", fault)
    with pytest.raises(BadAnswer):
        connect(mds.host).get_text("instance/name")
    assert fake_time.pauses == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"a":', b"\xff\xfe", b"[" * 100_000, b"9" * 5_000, b"[]", b"{}", b"null"],
)
def test_bad_tree_is_retried_three_times_a_second_apart(
    connect: Connect, fake_time: FakeTime, body: bytes
) -> None:
    with ScriptedServer(answer(body)) as server:
        with pytest.raises(BadAnswer):
            connect(server.host).get_metadata()
        assert len(server.requests) == 4
    assert fake_time.pauses == [1.0, 1.0, 1.0]


def test_bad_answer_that_recovers_gives_the_value(mds: Emulator, connect: Connect) -> None:
    mds.fault("", "html", count=3)
    assert connect(mds.host).get_metadata().etag == mds.etag("")


@pytest.mark.parametrize(("asked", "pause"), [("7", 7.0), ("0", 1.0), ("99999", None)])
def test_server_that_is_overloaded_says_when_to_come_back(
    connect: Connect, fake_time: FakeTime, asked: str, pause: float | None
) -> None:
    throttled = answer(
        status="429 Too Many", headers=GENUINE + f"Retry-After: {asked}\r\n".encode()
    )
    with ScriptedServer(throttled, answer()) as server:
        client = connect(server.host)
        if pause is None:
            with pytest.raises(TooManyRequests):
                client.get_text("instance/id")
            assert fake_time.pauses == []
        else:
            assert client.get_text("instance/id") == "value"
            assert fake_time.pauses == [pause]


@pytest.mark.parametrize("asked", [b"", b"Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n"])
def test_overloaded_server_without_a_usable_time_gets_doubling_pauses(
    connect: Connect, fake_time: FakeTime, asked: bytes
) -> None:
    throttled = answer(status="429 Too Many", headers=GENUINE + asked)
    with ScriptedServer(throttled, throttled, throttled, answer()) as server:
        connect(server.host).get_text("instance/id")
    assert fake_time.pauses == [1.0, 2.0, 4.0]


def test_server_that_fails_for_good_is_reported_when_the_budget_ends(
    mds: Emulator, connect: Connect
) -> None:
    mds.fault("", "status", status=503)
    with pytest.raises(ServerError, match="503"):
        connect(mds.host).get_text("instance/id", budget=3)


# Redirects.


def test_directory_without_slash_is_followed_with_the_header(
    mds: Emulator, connect: Connect
) -> None:
    names = connect(mds.host).get_text("instance/attributes").split("\n")
    assert "enable-oslogin" in names
    assert [request.headers["Metadata-Flavor"] for request in mds.requests()] == ["Google"] * 2


def test_redirect_loop_ends_after_two_steps(mds: Emulator, connect: Connect) -> None:
    mds.fault("instance/name", "redirect_loop")
    with pytest.raises(BadRedirect):
        connect(mds.host).get_text("instance/name")
    assert len(mds.requests()) == 3


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.2:1/x", "https://{host}/x", "//example.com/x", "ftp://{host}/", "", "x y"],
)
def test_redirect_to_elsewhere_is_not_followed(connect: Connect, location: str) -> None:
    script = answer(status="302 Found", headers=GENUINE + b"Location: LOCATION\r\n")
    with ScriptedServer() as server:
        where = location.format(host=server.host).encode()
        server.scripts = (script.replace(b"LOCATION", where),)
        with pytest.raises(BadRedirect):
            connect(server.host).get_text("instance/id")
        assert len(server.requests) == 1


# Connections.


def test_connection_is_reused(connect: Connect) -> None:
    with ScriptedServer(answer(), keep_alive=True) as server:
        client = connect(server.host)
        assert [client.get_text("instance/id") for _ in range(3)] == ["value"] * 3
        assert server.connections == 1


def test_connection_that_the_server_closed_meanwhile_is_replaced(connect: Connect) -> None:
    with ScriptedServer(answer(), keep_alive=True) as server:
        client = connect(server.host)
        client.get_text("instance/id", budget=0)
        server.cut()
        assert client.get_text("instance/id", budget=0) == "value"
        assert server.connections == 2


def test_connection_with_bytes_left_over_is_not_reused(connect: Connect) -> None:
    with ScriptedServer(answer() + answer(b"smuggled"), keep_alive=True) as server:
        client = connect(server.host)
        assert [client.get_text("instance/id") for _ in range(2)] == ["value"] * 2


def test_threads_may_share_a_client(mds: Emulator, connect: Connect) -> None:
    client = connect(mds.host)
    values: list[str] = []
    threads = [
        threading.Thread(target=lambda: values.append(client.get_text("instance/name")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert values == ["demo-1"] * 8


# The long poll.


def test_poll_with_another_etag_is_answered_at_once(mds: Emulator, connect: Connect) -> None:
    assert connect(mds.host).wait_for_change(None).etag == mds.etag("")


def test_poll_without_a_change_ends_with_the_same_etag(mds: Emulator, connect: Connect) -> None:
    started = time.monotonic()
    tree = connect(mds.host).wait_for_change(mds.etag(""), timeout_sec=1)
    assert tree.etag == mds.etag("")
    assert 0.8 <= time.monotonic() - started < 3


def test_poll_ends_within_200_ms_of_a_change(mds: Emulator, connect: Connect) -> None:
    client = connect(mds.host)
    before = mds.etag("")
    set_at: list[float] = []

    def change() -> None:
        mds.wait_for_request("", 5)
        set_at.append(time.monotonic())
        mds.set("instance/attributes/new", "value")

    thread = threading.Thread(target=change)
    thread.start()
    tree = client.wait_for_change(before)
    ended = time.monotonic()
    thread.join()
    assert ended - set_at[0] < 0.2
    assert tree.etag == mds.etag("") != before


def test_poll_is_not_repeated(mds: Emulator, connect: Connect) -> None:
    mds.fault("", "status", status=503)
    with pytest.raises(ServerError):
        connect(mds.host).wait_for_change("NONE")
    assert len(mds.requests()) == 1


def test_blocked_poll_ends_within_100_ms_of_cancel(
    mds: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = MetadataClient(mds.host)
    cancelled_at: list[float] = []

    def cancel() -> None:
        mds.wait_for_request("", 5)
        cancelled_at.append(time.monotonic())
        client.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        client.wait_for_change(mds.etag(""))
    ended = time.monotonic()
    thread.join()
    client.close()
    assert ended - cancelled_at[0] < 0.1
    assert levels(caplog) == []


def test_cancelled_client_makes_no_more_requests(mds: Emulator, connect: Connect) -> None:
    client = connect(mds.host)
    client.cancel()
    with pytest.raises(Cancelled):
        client.get_text("instance/id")
    with pytest.raises(Cancelled):
        client.sleep(1)
    assert mds.requests() == []


# Guest attributes.


def test_guest_attribute_is_written(mds: Emulator, connect: Connect) -> None:
    connect(mds.host).put_guest_attribute("hostkeys", "ssh-ed25519", "AAAAC3Nz")
    assert mds.guest_attributes() == {"hostkeys": {"ssh-ed25519": "AAAAC3Nz"}}


def test_disabled_guest_attributes_are_one_info_line(
    mds: Emulator, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mds.set("instance/attributes/enable-guest-attributes", "FALSE")
    client = connect(mds.host)
    for algorithm in ("ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256"):
        client.put_guest_attribute("hostkeys", algorithm, "AAAA")
    assert levels(caplog) == ["INFO"]
    assert len(mds.requests()) == 3


def test_disabled_guest_attributes_are_an_error_for_who_wants_to_know(
    mds: Emulator, connect: Connect
) -> None:
    mds.set("instance/attributes/enable-guest-attributes", "FALSE")
    with pytest.raises(Forbidden):
        connect(mds.host).write_guest_attribute("hostkeys", "ssh-rsa", "AAAA")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_overloaded_server_gets_five_more_writes(
    mds: Emulator, connect: Connect, fake_time: FakeTime, status: int
) -> None:
    mds.fault("instance/guest-attributes", "status", status=status)
    with pytest.raises(Unreachable):
        connect(mds.host).put_guest_attribute("ns", "key", "value")
    assert len(mds.requests()) == 6
    assert fake_time.pauses == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_write_succeeds_once_the_server_recovers(mds: Emulator, connect: Connect) -> None:
    mds.fault("instance/guest-attributes", "status", status=503, count=2)
    connect(mds.host).put_guest_attribute("ns", "key", b"value")
    assert mds.guest_attributes() == {"ns": {"key": "value"}}


@pytest.mark.parametrize(
    ("namespace", "key", "size"),
    [
        ("", "k", 1),
        ("ns", "", 1),
        ("ns", "..", 1),
        ("n" * 129, "k", 1),
        ("ns", "k", 256 * 1024 + 1),
    ],
)
def test_impossible_guest_attribute_is_refused_unsent(
    mds: Emulator, connect: Connect, namespace: str, key: str, size: int
) -> None:
    with pytest.raises(BadRequest):
        connect(mds.host).put_guest_attribute(namespace, key, "x" * size)
    assert mds.requests() == []


def test_slash_in_a_guest_attribute_cannot_reach_another_key(connect: Connect) -> None:
    with ScriptedServer(answer(b"")) as server:
        connect(server.host).put_guest_attribute("ns", "../../attributes/x", "v")
        (request,) = server.requests
    assert b" /computeMetadata/v1/instance/guest-attributes/ns/..%2F..%2Fattributes%2Fx " in request


# Anything.


@given(st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n" + GENUINE + b"\r\n"]))
@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_answer_is_a_tree_or_a_metadata_error(
    connect: Connect, soup: bytes, head: bytes
) -> None:
    with ScriptedServer(head + soup) as server:
        client = connect(server.host)
        try:
            client.get_metadata(budget=0)
        except MetadataError as error:
            assert str(error)
        try:
            client.get_text("instance/id", budget=0)
        except MetadataError as error:
            assert str(error)
        client.close()
