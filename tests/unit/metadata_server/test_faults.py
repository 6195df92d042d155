"""Faults: each kind as a client sees it, and to whom it happens."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time

import pytest

from metadata_server import Emulator
from metadata_server.faults import KINDS

from .conftest import Ask, ask_host


def test_status_with_retry_after(mds: Emulator, ask: Ask) -> None:
    mds.fault("instance/id", "status", status=429, retry_after=7)
    answer = ask("instance/id")
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert answer.headers["metadata-flavor"] == "Google"


def test_delay_answers_late_but_right(mds: Emulator, ask: Ask) -> None:
    mds.fault("instance/name", "delay", seconds=0.2)
    started = time.monotonic()
    assert ask("instance/name").text == "demo-1"
    assert time.monotonic() - started > 0.19


def test_hang_gives_no_answer_until_faults_are_cleared(mds: Emulator) -> None:
    mds.fault("instance/name", "hang")
    with pytest.raises(socket.timeout):
        ask_host(mds.host, "instance/name", timeout=0.2)
    link = http.client.HTTPConnection(mds.host, timeout=10)
    link.request("GET", "/computeMetadata/v1/instance/name", headers={"Metadata-Flavor": "Google"})
    mds.wait_for_request("instance/name", 5, since=mds.requests()[0])
    mds.clear_faults()
    assert link.getresponse().read() == b"demo-1"
    link.close()


def test_reset_is_a_connection_error(mds: Emulator, ask: Ask) -> None:
    mds.fault("instance/id", "reset")
    with pytest.raises(ConnectionResetError):
        ask("instance/id")


def test_truncated_body_is_shorter_than_announced(mds: Emulator, ask: Ask) -> None:
    mds.fault("", "truncate", bytes=10)
    with pytest.raises(http.client.IncompleteRead) as problem:
        ask("?recursive=true")
    assert len(problem.value.partial) == 10


@pytest.mark.parametrize("flavor", [True, False])
def test_html_takes_the_place_of_the_answer(mds: Emulator, ask: Ask, flavor: bool) -> None:
    mds.fault("", "html", flavor=flavor)
    answer = ask("?recursive=true")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert ("metadata-flavor" in answer.headers) == flavor


def test_any_body_can_take_the_place_of_the_answer(mds: Emulator, ask: Ask) -> None:
    mds.fault("", "body", body=b'{"instance":', content_type="application/json")
    assert ask("?recursive=true").body == b'{"instance":'


def test_answer_can_lack_the_platforms_header(mds: Emulator, ask: Ask) -> None:
    mds.fault("instance/name", "no_flavor")
    answer = ask("instance/name")
    assert answer.text == "demo-1"
    assert "metadata-flavor" not in answer.headers


def test_wrong_etag_is_another_one_each_time(mds: Emulator, ask: Ask) -> None:
    right = ask("?recursive=true").etag
    mds.fault("", "wrong_etag")
    assert len({right, ask("?recursive=true").etag, ask("?recursive=true").etag}) == 3


def test_etag_can_be_left_out(mds: Emulator, ask: Ask) -> None:
    mds.fault("", "wrong_etag", etag="")
    assert "etag" not in ask("?recursive=true").headers


def test_redirect_loop_leads_to_itself(mds: Emulator, ask: Ask) -> None:
    mds.fault("instance/id", "redirect_loop")
    answer = ask("instance/id?alt=text")
    assert answer.status == 302
    assert answer.headers["location"] == "/computeMetadata/v1/instance/id?alt=text"


def test_redirect_can_lead_elsewhere(mds: Emulator, ask: Ask) -> None:
    mds.fault("instance/id", "redirect_loop", location="http://192.0.2.1/")
    assert ask("instance/id").headers["location"] == "http://192.0.2.1/"


def test_offline_refuses_connections_until_online(mds: Emulator, ask: Ask) -> None:
    port = mds.port
    mds.offline()
    with pytest.raises(ConnectionRefusedError):
        ask("instance/id")
    mds.online()
    assert (ask("instance/id").status, mds.port) == (200, port)


def test_offline_cuts_existing_connections(mds: Emulator) -> None:
    with socket.create_connection(("127.0.0.1", mds.port), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        mds.offline()
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""


def test_offline_may_end_by_itself(mds: Emulator, ask: Ask) -> None:
    mds.offline(0.05)
    deadline = time.monotonic() + 10
    while True:
        try:
            assert ask("instance/id").status == 200
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


# To whom it happens


def test_count_limits_a_fault(mds: Emulator, ask: Ask) -> None:
    fault = mds.fault("instance/", "status", status=503, count=3)
    assert [ask("instance/id").status for _ in range(5)] == [503, 503, 503, 200, 200]
    assert fault.hits == 3


def test_path_prefix_limits_a_fault(mds: Emulator, ask: Ask) -> None:
    mds.fault("instance/attributes/", "status")
    paths = ["instance/attributes/ssh-keys", "instance/id", "?recursive=true", "/"]
    assert [ask(path).status for path in paths] == [500, 200, 200, 200]


def test_absolute_prefix_means_the_same(mds: Emulator, ask: Ask) -> None:
    mds.fault("/computeMetadata/v1/instance/id", "status")
    assert ask("instance/id").status == 500


def test_empty_prefix_means_everything(mds: Emulator, ask: Ask) -> None:
    mds.fault("", "status", status=503)
    assert [ask(path).status for path in ("", "instance/id", "/", "/elsewhere")] == [503] * 4


def test_exact_path_leaves_what_is_below(mds: Emulator, ask: Ask) -> None:
    mds.fault("", "status", exact=True)
    assert [ask("?recursive=true").status, ask("instance/id").status] == [500, 200]


def test_method_limits_a_fault(mds: Emulator, ask: Ask) -> None:
    mds.fault("instance/guest-attributes/", "status", method="PUT", status=503)
    path = "instance/guest-attributes/a/b"
    assert [ask(path, method="PUT", body=b"x").status, ask(path).status] == [503, 404]


@pytest.mark.parametrize(("watch", "statuses"), [(True, [200, 500]), (False, [500, 200])])
def test_fault_can_be_limited_to_long_polls_or_to_the_rest(
    mds: Emulator, ask: Ask, watch: bool, statuses: list[int]
) -> None:
    mds.fault("", "status", watch=watch)
    paths = ["?recursive=true", "?wait_for_change=true&last_etag=NONE"]
    assert [ask(path).status for path in paths] == statuses


def test_probability_spares_some(mds: Emulator, ask: Ask) -> None:
    mds.fault("instance/id", "status", probability=0.5)
    assert {ask("instance/id").status for _ in range(60)} == {200, 500}


def test_lifetime_ends_a_fault(mds: Emulator, ask: Ask) -> None:
    mds.fault("instance/id", "status", lifetime=0.05)
    deadline = time.monotonic() + 10
    while ask("instance/id").status == 500:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_altering_faults_add_up(mds: Emulator, ask: Ask) -> None:
    mds.fault("", "no_flavor")
    mds.fault("", "status", status=503)
    answer = ask("instance/id")
    assert (answer.status, "metadata-flavor" in answer.headers) == (503, False)


def test_removed_fault_is_over(mds: Emulator, ask: Ask) -> None:
    fault = mds.fault("", "status")
    mds.fault("instance/id", "no_flavor")
    mds.remove_fault(fault)
    assert "metadata-flavor" not in ask("instance/id").headers
    mds.clear_faults()
    assert "metadata-flavor" in ask("instance/id").headers


def test_requests_that_meet_a_fault_are_recorded(mds: Emulator, ask: Ask) -> None:
    mds.fault("", "status")
    ask("instance/id")
    assert [request.path for request in mds.requests()] == ["instance/id"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("nonsense", {}),
        ("status", {"seconds": 1}),
        ("hang", {"status": 1}),
        ("status", {"status": "x"}),
        ("status", {"status": 42}),
        ("delay", {"seconds": True}),
        ("reset", {"count": 1.5}),
        ("reset", {"exact": "yes"}),
        ("reset", {"probability": "x"}),
    ],
)
def test_unusable_fault_is_refused(mds: Emulator, kind: str, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="fault"):
        mds.fault("", kind, **options)


def test_all_kinds_are_documented() -> None:
    from metadata_server import faults

    assert faults.__doc__ is not None
    assert not [kind for kind in KINDS if f"``{kind}``" not in faults.__doc__]
