"""When the identity cache is made anew: at start, every six hours, when asked, when it is damaged.

Work runs in a thread of its own that lives only as long as the work; the daemon's loop calls
``tick`` and sleeps for as long as that says. A daemon that ended for want of work and is started
again finds a mark of its last refresh below /run and does not begin anew.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Optional

from google_guest.metadata.retries import random_fraction
from oslogin.identities import User
from oslogin.refresh import Outcome, Refresh

INTERVAL = 6 * 3600.0
"""Seconds between refreshes, a tenth more or less."""
CHECK_INTERVAL = 600.0
"""Seconds between looks at whether the file is still whole."""
REWRITE_DELAY = 5.0
"""Seconds in which users found by lookups are collected before the file is rewritten."""
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
MOST_FOUND = 1000
_FAILURES_WORTH_STAYING = 10

log = logging.getLogger(__name__)


class Schedule:
    """Decides when to refresh; see the module's docstring. Threads share it."""

    def __init__(
        self,
        refresh: Refresh,
        *,
        mark: str,
        wake: Callable[[], None],
        on_changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``mark`` is a file on a file system that a boot empties; ``wake`` has ``tick`` called."""
        self._refresh = refresh
        self._mark = mark
        self._wake = wake
        self._on_changed = on_changed
        self._clock = clock
        self._changed = threading.Condition()
        self._running = False
        self._wanted = 0
        self._done = 0
        self._outcome = Outcome(failure="no refresh has run")
        self._failures = 0
        self._found: dict[str, User] = {}
        self._rewrite_at: Optional[float] = None
        now = clock()
        self._check_at = now
        self._refresh_at = self._next_after(_time_of(mark), now)

    def tick(self) -> float:
        """Start what is due; return after how many seconds to come again."""
        with self._changed:
            if self._running:
                return 3600.0
            now = self._clock()
            work: Optional[Callable[[], None]] = None
            if self._wanted > self._done or now >= self._refresh_at:
                work = self._run_refresh
            elif now >= self._check_at:
                work = self._run_check
            elif self._rewrite_at is not None and now >= self._rewrite_at:
                work = self._run_rewrite
            if work is None:
                due = [self._refresh_at, self._check_at, self._rewrite_at]
                return max(0.0, min(when for when in due if when is not None) - now)
            self._running = True
            try:
                thread = threading.Thread(target=self._work, args=(work,), daemon=True)
                thread.start()
            except RuntimeError as error:
                log.warning("no refresh can start: %s", error)
                self._running = False
                self._refresh_at = now + FIRST_PAUSE
                return FIRST_PAUSE
            return 3600.0

    def is_busy(self) -> bool:
        """Whether the daemon should not end now."""
        with self._changed:
            failing = 0 < self._failures <= _FAILURES_WORTH_STAYING
            waiting = self._wanted > self._done or self._rewrite_at is not None
            return self._running or waiting or failing

    def found(self, user: User) -> None:
        """A lookup found this user: see that it is in the file within half a minute."""
        with self._changed:
            if len(self._found) >= MOST_FOUND:
                return
            self._found[user.name] = user
            if self._rewrite_at is not None:
                return
            self._rewrite_at = self._clock() + REWRITE_DELAY
        self._wake()

    def request(self, timeout: float) -> Optional[Outcome]:
        """Refresh now and return what came of it; None if it takes longer than ``timeout``."""
        with self._changed:
            self._wanted += 1
            mine = self._wanted
        self._wake()
        with self._changed:
            in_time = self._changed.wait_for(lambda: self._done >= mine, timeout)
            return self._outcome if in_time else None

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("the identity cache could not be made")
            with self._changed:
                self._refresh_at = self._clock() + LONGEST_PAUSE
                self._done = self._wanted
                self._outcome = Outcome(failure="an error of the program, see the log")
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()
            self._wake()

    def _run_refresh(self) -> None:
        with self._changed:
            target = self._wanted
            self._found.clear()
            self._rewrite_at = None
        outcome = self._refresh.run()
        now = self._clock()
        if outcome.failure:
            self._note_failure(outcome.failure)
        else:
            _write_mark(self._mark, now)
        if outcome.changed:
            # Before anybody is told that it is done.
            self._on_changed()
        with self._changed:
            if outcome.failure:
                pause = min(FIRST_PAUSE * 2 ** min(self._failures, 10), LONGEST_PAUSE)
                self._failures += 1
                self._refresh_at = now + pause
            else:
                self._failures = 0
                share = 12 if outcome.groups_failed else 1
                self._refresh_at = now + _spread(INTERVAL / share)
            self._check_at = now + CHECK_INTERVAL
            self._outcome = outcome
            self._done = target
            self._changed.notify_all()

    def _note_failure(self, failure: str) -> None:
        level = logging.DEBUG if self._failures else logging.WARNING
        log.log(level, "the identity cache stays as it is: %s; trying again", failure)

    def _run_check(self) -> None:
        # Off for the instance: no file is right then, and its absence no damage.
        good = self._refresh.check() or self._outcome.disabled
        with self._changed:
            now = self._clock()
            self._check_at = now + CHECK_INTERVAL
            if not good and not self._failures:
                self._refresh_at = now

    def _run_rewrite(self) -> None:
        with self._changed:
            found = list(self._found.values())
            self._found.clear()
            self._rewrite_at = None
        self._refresh.rewrite(found)

    def _next_after(self, last: Optional[float], now: float) -> float:
        if last is None or last > now:
            return now
        return max(now, last + _spread(INTERVAL))


def _spread(seconds: float) -> float:
    return seconds * (0.9 + 0.2 * random_fraction())


def _time_of(mark: str) -> Optional[float]:
    """Return the monotonic time in the mark; None without a good one."""
    try:
        with open(mark, encoding="ascii") as stream:
            return float(stream.read(64))
    except (OSError, ValueError):
        return None


def _write_mark(mark: str, now: float) -> None:
    temporary = f"{mark}.new"
    try:
        with open(temporary, "w", encoding="ascii") as stream:
            stream.write(f"{now:.3f}\n")
        os.replace(temporary, mark)
    except OSError as error:
        # The next start refreshes once more.
        log.debug("%s: %s", mark, error.strerror)
