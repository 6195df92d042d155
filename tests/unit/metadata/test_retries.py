"""The table of pauses."""

from __future__ import annotations

import pytest

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
)
from google_guest.metadata.retries import ReadRetries, WatchPauses, WriteRetries, random_fraction

FINAL = [BadRedirect, BadRequest, Cancelled, Forbidden, NotConfigured, NotFound, NotGoogle]


@pytest.mark.parametrize("kind", [*FINAL, TimedOut])
def test_read_is_not_repeated_after(kind: type[MetadataError]) -> None:
    assert ReadRetries(lambda: 0.0).delay_after(kind("x")) is None


@pytest.mark.parametrize("kind", [*FINAL, BadAnswer])
def test_write_is_not_repeated_after(kind: type[MetadataError]) -> None:
    assert WriteRetries().delay_after(kind("x")) is None


def test_kinds_of_failure_are_counted_apart() -> None:
    retries = ReadRetries(lambda: 0.0)
    failures = [ConnectFailed("x"), BadAnswer("x"), ServerError("x"), TooManyRequests("x")]
    assert [retries.delay_after(failure) for failure in failures] == [0.1, 1.0, 0.2, 1.0]


def test_watch_reconnects_at_once_after_one_silent_poll_only() -> None:
    pauses = WatchPauses()
    assert [pauses.delay_after(TimedOut("x")) for _ in range(4)] == [0.0, 1.0, 2.0, 4.0]


def test_watch_starts_over_after_a_success() -> None:
    pauses = WatchPauses()
    for _ in range(5):
        pauses.delay_after(ServerError("x"))
    pauses.reset()
    assert pauses.delay_after(ServerError("x")) == 1.0


@pytest.mark.parametrize(("asked", "pause"), [(0.0, 1.0), (45.0, 45.0), (1e9, 300.0)])
def test_watch_follows_retry_after_within_bounds(asked: float, pause: float) -> None:
    assert WatchPauses().delay_after(TooManyRequests("x", retry_after=asked)) == pause


def test_jitter_adds_at_most_a_quarter() -> None:
    assert ReadRetries(lambda: 1.0).delay_after(ConnectFailed("x")) == pytest.approx(0.125)


def test_random_fraction_is_a_fraction() -> None:
    drawn = {random_fraction() for _ in range(100)}
    assert len(drawn) > 1 and all(0 <= number <= 1 for number in drawn)
