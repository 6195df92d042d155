"""When to come back to a metadata server that failed: the whole policy in one place.

==========================  ==============================  ===============================
Failure                     One-shot read                   Watch loop
==========================  ==============================  ===============================
no connection, 5xx          0.1 s doubling to 2 s, jitter   1 s doubling to 60 s
no answer in time           no retry                        at once, then as above
bad answer                  3 retries, 1 s apart            1 s doubling to 60 s
not Google's answer         no retry                        1 s doubling to 60 s
429                         Retry-After, else 1 s           Retry-After, else 1 s doubling
                            doubling to 30 s                to 30 s
400, 403, 404, 405, 412     no retry                        60 s
==========================  ==============================  ===============================

Writes of guest attributes are repeated five times, 1 s doubling to 16 s. No pause after a request
that reached a server is shorter than a second, in the watch loop: reference agents that came back
at once after a bad answer have sent millions of requests within minutes (guest-agent issue 283).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Optional

from google_guest.metadata.errors import (
    BadAnswer,
    BadRedirect,
    ConnectFailed,
    MetadataError,
    ServerError,
    TimedOut,
    TooManyRequests,
    Unreachable,
)

_LONGEST_RETRY_AFTER = 300.0
_SHORTEST_RETRY_AFTER = 1.0
_REFUSED_PAUSE = 60.0
_WRITE_RETRIES = 5


def random_fraction() -> float:
    """Return a number from 0 to 1; without ``random``, which loads a megabyte of hashing."""
    return int.from_bytes(os.urandom(2), "big") / 0xFFFF


def _doubling(first: float, longest: float) -> Iterator[float]:
    delay = first
    while True:
        yield delay
        delay = min(delay * 2, longest)


def _asked(error: TooManyRequests) -> Optional[float]:
    if error.retry_after is None:
        return None
    return min(max(error.retry_after, _SHORTEST_RETRY_AFTER), _LONGEST_RETRY_AFTER)


class ReadRetries:
    """The pauses of one one-shot read."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._unreachable = _doubling(0.1, 2.0)
        self._throttled = _doubling(1.0, 30.0)
        self._bad_answers_left = 3

    def delay_after(self, error: MetadataError) -> Optional[float]:
        """Return the seconds to wait, or None if repeating is pointless."""
        if isinstance(error, TooManyRequests):
            return _asked(error) or next(self._throttled)
        if isinstance(error, (ConnectFailed, ServerError)):
            return next(self._unreachable) * (1 + self._jitter() / 4)
        if isinstance(error, BadAnswer) and not isinstance(error, BadRedirect):
            self._bad_answers_left -= 1
            return 1.0 if self._bad_answers_left >= 0 else None
        return None


class WriteRetries:
    """The pauses of one write."""

    def __init__(self) -> None:
        self._delays = _doubling(1.0, 30.0)
        self._left = _WRITE_RETRIES

    def delay_after(self, error: MetadataError) -> Optional[float]:
        """Return the seconds to wait, or None if the write has failed for good."""
        self._left -= 1
        if self._left < 0:
            return None
        if isinstance(error, TooManyRequests):
            return _asked(error) or next(self._delays)
        if isinstance(error, (ConnectFailed, ServerError, TimedOut)):
            return next(self._delays)
        return None


class WatchPauses:
    """The pauses of a watch loop; it never gives up."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the failures: the server works."""
        self._failing = _doubling(1.0, 60.0)
        self._throttled = _doubling(1.0, 30.0)
        self._may_reconnect = True

    def delay_after(self, error: MetadataError) -> float:
        """Return the seconds to wait before the next request."""
        if isinstance(error, TooManyRequests):
            return _asked(error) or next(self._throttled)
        if isinstance(error, TimedOut) and self._may_reconnect:
            # A silent server often means a connection that died with the old host.
            self._may_reconnect = False
            return 0.0
        if isinstance(error, (Unreachable, BadAnswer)):
            return next(self._failing)
        return _REFUSED_PAUSE
