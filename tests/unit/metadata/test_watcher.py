"""Following the tree: what is published, how failures are paced and told."""

from __future__ import annotations

import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from support.timing import quickest, seconds_of
from unit.metadata.scripted_server import GENUINE, ScriptedServer, answer

from google_guest.metadata.client import MetadataClient
from google_guest.metadata.watcher import Update, Watcher
from metadata_server import Emulator

if TYPE_CHECKING:
    from unit.metadata.conftest import FakeTime

Connect = Callable[..., MetadataClient]


class Follower:
    """A watcher in a thread of its own, on the real clock."""

    def __init__(self, mds: Emulator, *, timeout_sec: float = 60) -> None:
        self.client = MetadataClient(mds.host)
        self.watcher = Watcher(self.client, timeout_sec=timeout_sec)
        self.updates: list[Update] = []
        self._arrived = threading.Condition()
        self.thread = threading.Thread(target=self.watcher.run, args=(self._take,))
        self.thread.start()

    def _take(self, update: Update) -> None:
        with self._arrived:
            self.updates.append(update)
            self._arrived.notify_all()

    def wait_for(self, count: int) -> list[Update]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.updates) >= count, 5)
            return list(self.updates)

    def stop(self) -> float:
        """Cancel; return how long the thread went on."""
        started = time.monotonic()
        self.watcher.cancel()
        self.thread.join(5)
        ended = time.monotonic()
        self.client.close()
        assert not self.thread.is_alive()
        return ended - started


@pytest.fixture
def follow(mds: Emulator) -> Iterator[Callable[..., Follower]]:
    followers: list[Follower] = []

    def start(**options: float) -> Follower:
        followers.append(Follower(mds, **options))
        return followers[-1]

    yield start
    for follower in followers:
        if follower.thread.is_alive():
            follower.stop()


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if record.levelno > logging.DEBUG]


def polls(mds: Emulator) -> list[str]:
    """The ETags with which the tree was asked for, ``-`` for the plain read."""
    return [request.query.get("last_etag", "-") for request in mds.requests() if not request.path]


# What is published.


def test_first_read_and_first_poll_publish_the_tree_once(
    mds: Emulator, follow: Callable[..., Follower]
) -> None:
    follower = follow()
    mds.wait_for_request("", 5, since=mds.wait_for_request("", 5))
    (update,) = follower.wait_for(1)
    assert update.changed and update.metadata.instance.name == "demo-1"
    assert polls(mds) == ["-", mds.etag("")]
    follower.stop()
    assert len(follower.updates) == 1


def test_change_is_published_within_200_ms(mds: Emulator, follow: Callable[..., Follower]) -> None:
    follower = follow()
    mds.wait_for_request("", 5, since=mds.wait_for_request("", 5))

    def publish() -> None:
        value = f"value {len(follower.updates)}"
        mds.set("instance/attributes/new", value)
        update = follower.wait_for(len(follower.updates) + 1)[-1]
        assert update.changed and update.metadata.instance.attributes["new"] == value
        assert update.etag == mds.etag("")

    assert quickest(lambda: seconds_of(publish), bound=0.2) < 0.2


def test_poll_that_times_out_publishes_a_tick(
    mds: Emulator, follow: Callable[..., Follower]
) -> None:
    follower = follow(timeout_sec=1)
    first, tick = follower.wait_for(2)
    assert (first.changed, tick.changed) == (True, False)
    assert tick.etag == first.etag and tick.metadata is first.metadata


def test_own_guest_attributes_publish_nothing(
    mds: Emulator, follow: Callable[..., Follower]
) -> None:
    follower = follow()
    poll = mds.wait_for_request("", 5, since=mds.wait_for_request("", 5))
    follower.client.put_guest_attribute("hostkeys", "ssh-rsa", "AAAA")
    mds.wait_for_request("", 5, method="GET", since=poll)
    follower.stop()
    assert len(follower.updates) == 1


def test_hostile_tree_is_published(connect: Connect) -> None:
    with Emulator(profile="hostile") as mds:
        (update,) = islice(Watcher(connect(mds.host)).updates(), 1)
    assert update.metadata.problems


def test_server_without_etag_is_polled_with_one_that_never_matches(connect: Connect) -> None:
    body = json.dumps({"instance": {"id": 1}}).encode()
    other = json.dumps({"instance": {"id": 2}}).encode()
    with ScriptedServer(answer(body), answer(other)) as server:
        updates = list(islice(Watcher(connect(server.host)).updates(), 2))
        assert b"last_etag=NONE&" in server.requests[1]
    assert [update.metadata.instance.id for update in updates] == [1, 2]


# Failures.


def break_until(
    mds: Emulator, fake_time: FakeTime, moment: float, kind: str, **options: Any
) -> None:
    """Break the tree now, mend it and change it as soon as the fake clock reaches ``moment``."""
    mds.fault("", kind, **options)
    pause = fake_time.sleep

    def sleep(seconds: float) -> None:
        pause(seconds)
        if fake_time.now >= moment:
            mds.clear_faults()
            mds.set("instance/attributes/mended", "yes")

    fake_time.sleep = sleep  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("html", {}),
        ("html", {"flavor": False}),
        ("status", {"status": 503}),
        ("body", {"body": "{}"}),
        ("body", {"body": '{"instance": null}'}),
        ("truncate", {}),
        ("no_flavor", {}),
        ("redirect_loop", {}),
    ],
)
def test_server_broken_for_ten_seconds_gets_few_requests_and_two_log_lines(
    mds: Emulator,
    connect: Connect,
    fake_time: FakeTime,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    options: dict[str, Any],
) -> None:
    caplog.set_level(logging.DEBUG)
    client = connect(mds.host)
    client_sleeps_through(client, fake_time)
    watcher = Watcher(client)
    updates = watcher.updates()
    first = next(updates)
    mds.clear_requests()
    break_until(mds, fake_time, fake_time.now + 10, kind, **options)
    mds.set("instance/attributes/hidden", "yes")
    second = next(updates)
    assert second.changed and second.metadata.instance.attributes["mended"] == "yes"
    assert first.metadata.instance.attributes.get("hidden") is None
    asked = len(mds.requests()) if kind != "redirect_loop" else len(mds.requests()) // 3
    assert asked <= 10
    assert all(pause >= 1 for pause in fake_time.pauses)
    assert levels(caplog) == ["WARNING", "INFO"]
    assert "works again after" in caplog.records[-1].getMessage()


def client_sleeps_through(client: MetadataClient, fake_time: FakeTime) -> None:
    """Let a later replacement of ``fake_time.sleep`` take effect."""
    client._sleep = lambda seconds: fake_time.sleep(seconds)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 412])
def test_refusal_of_the_tree_is_asked_about_once_a_minute(
    mds: Emulator, connect: Connect, fake_time: FakeTime, status: int
) -> None:
    mds.fault("", "status", status=status, count=2)
    next(Watcher(connect(mds.host)).updates())
    assert fake_time.pauses == [60.0, 60.0]


def test_overloaded_server_says_when_to_come_back(
    mds: Emulator, connect: Connect, fake_time: FakeTime
) -> None:
    mds.fault("", "status", status=429, retry_after=17, count=1)
    next(Watcher(connect(mds.host)).updates())
    assert fake_time.pauses == [17.0]


def test_pauses_double_from_one_second_to_a_minute(
    mds: Emulator, connect: Connect, fake_time: FakeTime
) -> None:
    mds.fault("", "status", status=500, count=9)
    next(Watcher(connect(mds.host)).updates())
    assert fake_time.pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_network_that_comes_up_late_is_noticed_quickly(
    mds: Emulator, connect: Connect, fake_time: FakeTime
) -> None:
    mds.offline()
    pause = fake_time.sleep

    def sleep(seconds: float) -> None:
        pause(seconds)
        if fake_time.now >= 1005:
            mds.online()

    next(Watcher(connect(mds.host, sleep=sleep)).updates())
    assert max(fake_time.pauses) <= 2
    assert sum(fake_time.pauses) < 8


def test_server_that_hangs_up_at_start_is_not_asked_more_than_once_a_second(
    mds: Emulator, connect: Connect, fake_time: FakeTime
) -> None:
    mds.fault("", "reset", count=3)
    next(Watcher(connect(mds.host)).updates())
    assert fake_time.pauses == [1.0, 2.0, 4.0]


def test_start_without_a_server_slows_down_after_a_minute(
    connect: Connect, fake_time: FakeTime
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = connect(f"127.0.0.1:{port}", sleep=None)
    pause = fake_time.sleep

    def sleep(seconds: float) -> None:
        pause(seconds)
        if fake_time.now > 1600:
            client.cancel()

    client._sleep = sleep
    assert list(Watcher(client).updates()) == []
    assert fake_time.pauses[-1] == 60.0
    assert max(fake_time.pauses[:30]) <= 2.0


def test_server_that_never_waits_is_asked_once_a_second(
    mds: Emulator, connect: Connect, fake_time: FakeTime
) -> None:
    mds.fault("", "wrong_etag")
    updates = Watcher(connect(mds.host)).updates()
    next(updates)
    mds.clear_requests()
    tick = next(updates)
    assert not tick.changed
    assert len(mds.requests()) <= 65
    assert set(fake_time.pauses) == {1.0}


def test_tree_that_changes_without_end_is_asked_for_at_most_fifty_times_a_second(
    connect: Connect, fake_time: FakeTime
) -> None:
    def tree(sock: socket.socket) -> None:
        body = json.dumps({"instance": {"id": next(numbers)}}).encode()
        sock.sendall(answer(body, headers=GENUINE + b"ETag: same\r\n"))

    numbers = itertools.count()
    with ScriptedServer(tree) as server:
        list(islice(Watcher(connect(server.host)).updates(), 30))
    assert fake_time.pauses == [0.02] * 24


def test_lost_connection_during_a_poll_is_replaced(
    mds: Emulator, follow: Callable[..., Follower]
) -> None:
    follower = follow()
    mds.wait_for_request("", 5, since=mds.wait_for_request("", 5))
    mds.offline()
    mds.online()
    mds.set("instance/attributes/new", "value")
    assert follower.wait_for(2)[1].metadata.instance.attributes["new"] == "value"


def test_poll_connection_is_kept_alive(connect: Connect) -> None:
    bodies = [json.dumps({"instance": {"id": number}}).encode() for number in range(4)]
    scripts = [
        answer(body, headers=GENUINE + b"ETag: %d\r\n" % number)
        for number, body in enumerate(bodies)
    ]
    with ScriptedServer(*scripts, keep_alive=True) as server:
        list(islice(Watcher(connect(server.host)).updates(), 4))
        assert server.connections == 1


# Stopping.


def test_cancel_ends_a_blocked_poll_within_100_ms_and_quietly(
    mds: Emulator, follow: Callable[..., Follower], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    follower = follow()
    mds.wait_for_request("", 5, since=mds.wait_for_request("", 5))
    assert follower.stop() < 0.1
    assert levels(caplog) == []


def test_cancel_ends_a_pause_within_100_ms(mds: Emulator, follow: Callable[..., Follower]) -> None:
    mds.fault("", "status", status=404)
    follower = follow()
    mds.wait_for_request("", 5)
    assert follower.stop() < 0.1


def test_last_good_tree_outlives_a_failure(mds: Emulator, connect: Connect) -> None:
    client = connect(mds.host)
    watcher = Watcher(client)
    updates = watcher.updates()
    assert watcher.metadata is None
    good = next(updates).metadata
    mds.fault("", "html")
    client._sleep = lambda _: client.cancel()
    assert list(updates) == []
    assert watcher.metadata is good
