"""google_oslogin_nss_cache: who does the refresh, and how the program ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.oslogin.fake_daemon import fake_daemon

from oslogin import nss_cache, protocol
from oslogin.protocol import Message
from oslogin.refresh import Outcome


class Here:
    """A refresh in this process."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.calls: list[bool] = []

    def __call__(self, cloud_run: bool) -> Outcome:
        self.calls.append(cloud_run)
        return self.outcome


@pytest.fixture
def update(tmp_path: Path) -> Callable[..., int]:
    def call(here: Here, **options: object) -> int:
        return nss_cache.update(
            **{
                "socket": str(tmp_path / "auth.sock"),
                "owner": os.geteuid(),
                "cache": str(tmp_path / "cache"),
                "refresh": here,
                **options,
            }
        )

    return call


def answer(status: int) -> Callable[[Message], bytes]:
    def reply(request: Message) -> bytes:
        fields = (protocol.number_field(protocol.COUNT, 3),)
        return protocol.encode(protocol.reply(request, status, fields))

    return reply


@pytest.mark.parametrize("status", [protocol.OK, protocol.DISABLED])
def test_daemon_does_it(tmp_path: Path, update: Callable[..., int], status: int) -> None:
    here = Here(Outcome())
    with fake_daemon(tmp_path, answer(status)) as daemon:
        assert update(here) == 0
    assert [request.opcode for request in daemon.requests] == [protocol.REFRESH]
    assert here.calls == []


@pytest.mark.parametrize(("cached", "expected"), [(True, 0), (False, 255)])
def test_failure_counts_only_without_a_cache_of_before(
    tmp_path: Path, update: Callable[..., int], cached: bool, expected: int
) -> None:
    if cached:
        (tmp_path / "cache").touch()
    with fake_daemon(tmp_path, answer(protocol.UNAVAILABLE)):
        assert update(Here(Outcome())) == expected


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome(users=1), 0),
        (Outcome(disabled=True), 0),
        (Outcome(failure="no answer"), 255),
    ],
)
def test_without_a_daemon_it_is_done_here(
    update: Callable[..., int], outcome: Outcome, expected: int
) -> None:
    here = Here(outcome)
    assert update(here) == expected
    assert here.calls == [False]


def test_cloud_run_is_always_done_here(tmp_path: Path, update: Callable[..., int]) -> None:
    here = Here(Outcome())
    with fake_daemon(tmp_path, answer(protocol.OK)) as daemon:
        assert update(here, cloud_run=True) == 0
    assert (here.calls, daemon.requests) == ([True], [])


def test_daemon_that_is_silent_is_not_overtaken(tmp_path: Path, update: Callable[..., int]) -> None:
    here = Here(Outcome())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "auth.sock"))
        listener.listen()
        assert update(here, seconds=0.2) == 255
    assert here.calls == []


@pytest.mark.parametrize("arguments", [["--other"], ["--cloud_run", "x"], ["x"]])
def test_unknown_argument_is_status_1(arguments: list[str]) -> None:
    assert nss_cache.main(arguments) == 1
