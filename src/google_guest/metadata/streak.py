"""Log lines for something that keeps failing: one when it starts, one when it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Optional


class Streak:
    """A run of failures of one thing, told to people in two lines.

    The first failure is a WARNING, its repeats are DEBUG, the recovery is an INFO with the time it
    took. Threads may share one.
    """

    def __init__(
        self, subject: str, logger: logging.Logger, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._subject = subject
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        self._since: Optional[float] = None
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Note one more failure that will be tried again."""
        with self._lock:
            first = self._since is None
            if self._since is None:
                self._since = self._clock()
            self._failures += 1
        level = logging.WARNING if first else logging.DEBUG
        self._logger.log(level, "%s: %s; trying again", self._subject, error)

    def recovered(self) -> None:
        """Note a success; only the one that ends a streak is worth a line."""
        with self._lock:
            since, failures = self._since, self._failures
            self._since, self._failures = None, 0
        if since is not None:
            seconds = self._clock() - since
            self._logger.info(
                "%s: works again after %.1f s (%d failures)", self._subject, seconds, failures
            )
