"""Waiting for changes: what wakes a client, what does not, and how a wait ends."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Optional

import pytest

from metadata_server import Emulator

from .conftest import Ask, Response, ask_host

Poll = Callable[..., "Future[Response]"]


@pytest.fixture
def poll(mds: Emulator) -> Iterator[Poll]:
    """Start a long poll in the background and return when the server has it."""
    with ThreadPoolExecutor(8) as pool:

        def start(
            path: str = "", *, last_etag: Optional[str] = None, timeout: float = 20.0
        ) -> Future[Response]:
            query = f"recursive=true&alt=json&wait_for_change=true&timeout_sec={timeout}"
            if last_etag is not None:
                query += f"&last_etag={last_etag}"
            seen = mds.request_count
            future = pool.submit(ask_host, mds.host, f"{path}?{query}", timeout=30)
            _until(lambda: (mds.request_count > seen and _waiting(mds) > 0) or future.done())
            return future

        yield start
        mds.offline()  # whatever still waits must not hold the pool


def _waiting(mds: Emulator) -> int:
    return mds.waiting_clients


def _until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.002)


def test_without_a_change_the_answer_comes_after_the_timeout_with_the_same_etag(ask: Ask) -> None:
    etag = ask("?recursive=true").etag
    started = time.monotonic()
    answer = ask(f"?recursive=true&wait_for_change=true&timeout_sec=1&last_etag={etag}")
    assert 0.95 < time.monotonic() - started < 3
    assert (answer.status, answer.etag) == (200, etag)
    assert isinstance(answer.json, dict)


def test_timeout_may_be_a_fraction(ask: Ask) -> None:
    started = time.monotonic()
    assert ask("?wait_for_change=true&timeout_sec=0.05").status == 200
    assert 0.04 < time.monotonic() - started < 1


@pytest.mark.parametrize("etag", ["NONE", "0", "ffffffffffffffff", ""])
def test_an_etag_that_is_not_current_is_answered_at_once(ask: Ask, etag: str) -> None:
    started = time.monotonic()
    assert ask(f"?recursive=true&wait_for_change=True&last_etag={etag}").status == 200
    assert time.monotonic() - started < 2


def test_without_last_etag_the_poll_waits_for_the_next_change(mds: Emulator, poll: Poll) -> None:
    waiting = poll()
    assert not waiting.done()
    mds.set("instance/attributes/color", "blue")
    document = waiting.result(10).json
    assert isinstance(document, dict)
    assert document["instance"]["attributes"]["color"] == "blue"


def test_setting_an_attribute_wakes_a_root_watch_within_200_ms(
    mds: Emulator, ask: Ask, poll: Poll
) -> None:
    etag = ask("?recursive=true").etag
    delays = []
    for number in range(5):
        waiting = poll(last_etag=etag)
        started = time.monotonic()
        mds.set("instance/attributes/color", str(number))
        answer = waiting.result(10)
        delays.append(time.monotonic() - started)
        assert answer.etag != etag
        etag = answer.etag
    assert sorted(delays)[2] < 0.2


def test_a_watch_on_another_subtree_stays_blocked(mds: Emulator, ask: Ask, poll: Poll) -> None:
    disks = poll("instance/disks/", last_etag=ask("instance/disks/").etag)
    root = poll(last_etag=ask("?recursive=true").etag)
    mds.set("instance/attributes/color", "blue")
    assert root.result(10).status == 200
    assert not disks.done()
    mds.set("instance/disks/0/mode", "READ_ONLY")
    assert disks.result(10).json == [
        {
            "deviceName": "boot",
            "index": 0,
            "interface": "NVME",
            "mode": "READ_ONLY",
            "type": "PERSISTENT-BALANCED",
        }
    ]


def test_a_leaf_can_be_watched(mds: Emulator, ask: Ask) -> None:
    threading.Timer(0.05, lambda: mds.set("instance/preempted", "TRUE")).start()
    answer = ask("instance/preempted?wait_for_change=true&timeout_sec=10")
    assert answer.text == "TRUE"


def test_writing_the_same_value_wakes_nobody(mds: Emulator, ask: Ask, poll: Poll) -> None:
    etag = ask("?recursive=true").etag
    started = time.monotonic()
    waiting = poll(last_etag=etag, timeout=0.4)
    mds.set("instance/name", "".join(["demo", "-1"]))
    mds.replace(json.loads(json.dumps(mds.get())))
    assert waiting.result(10).etag == etag
    assert time.monotonic() - started > 0.35


def test_a_batch_is_one_change(mds: Emulator, ask: Ask, poll: Poll) -> None:
    waiting = poll(last_etag=ask("?recursive=true").etag)
    with mds.batch():
        mds.set("instance/attributes/a", "1")
        mds.set("instance/attributes/b", "2")
        mds.delete("instance/attributes/startup-script")
    document = waiting.result(10).json
    assert isinstance(document, dict)
    attributes = document["instance"]["attributes"]
    assert (attributes["a"], attributes["b"]) == ("1", "2")
    assert "startup-script" not in attributes


def test_a_watched_directory_that_vanishes_is_not_found(mds: Emulator, poll: Poll) -> None:
    waiting = poll("instance/virtual-clock/")
    mds.delete("instance/virtual-clock")
    assert waiting.result(10).status == 404


def test_plain_reads_do_not_move_the_etag(ask: Ask) -> None:
    before = ask("?recursive=true").etag
    ask("instance/id")
    ask("instance/?recursive=true&alt=text")
    assert ask("?recursive=true").etag == before


def test_a_wait_ends_when_the_client_leaves(mds: Emulator) -> None:
    sock = socket.create_connection(("127.0.0.1", mds.port), timeout=10)
    sock.sendall(
        b"GET /computeMetadata/v1/?wait_for_change=true HTTP/1.1\r\n"
        b"Host: x\r\nMetadata-Flavor: Google\r\n\r\n"
    )
    _until(lambda: _waiting(mds) == 1)
    sock.close()
    _until(lambda: _waiting(mds) == 0)


def test_a_wait_goes_on_when_the_client_sends_its_next_request_early(mds: Emulator) -> None:
    request = b"GET /computeMetadata/v1/instance/name%s HTTP/1.1\r\nMetadata-Flavor: Google\r\n\r\n"
    with socket.create_connection(("127.0.0.1", mds.port), timeout=10) as sock:
        sock.sendall(request % b"?wait_for_change=true")
        _until(lambda: _waiting(mds) == 1)
        sock.sendall(request % b"")
        mds.set("instance/name", "renamed")
        received = b""
        while received.count(b"renamed") < 2:
            data = sock.recv(65536)
            assert data, received
            received += data


def test_a_wait_ends_when_the_server_stops() -> None:
    mds = Emulator().start()
    sock = socket.create_connection(("127.0.0.1", mds.port), timeout=10)
    sock.sendall(
        b"GET /computeMetadata/v1/?wait_for_change=true HTTP/1.1\r\n"
        b"Host: x\r\nMetadata-Flavor: Google\r\n\r\n"
    )
    _until(lambda: _waiting(mds) == 1)
    mds.stop()
    assert sock.recv(1) == b""
    sock.close()


def test_hundreds_of_clients_can_wait_and_all_wake(mds: Emulator) -> None:
    count = 300
    links = []
    for _ in range(count):
        link = http.client.HTTPConnection(mds.host, timeout=20)
        link.request(
            "GET",
            "/computeMetadata/v1/?recursive=true&wait_for_change=true",
            headers={"Metadata-Flavor": "Google"},
        )
        links.append(link)
    _until(lambda: _waiting(mds) == count)
    mds.set("instance/attributes/color", "blue")
    assert {link.getresponse().status for link in links} == {200}
    for link in links:
        link.close()
