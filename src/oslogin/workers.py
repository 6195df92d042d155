"""Threads for requests, started when there is work and gone when there is none.

Root's work goes first and has threads that nobody else can occupy: a flood of lookups by users must
not keep anybody from logging in.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Optional

MOST_THREADS = 32
MOST_FOR_OTHERS = 24
"""Threads that work for users other than root."""
MOST_WAITING = 512
LINGER = 5.0
"""Seconds that a thread waits for more work."""

log = logging.getLogger(__name__)
Job = Callable[[], None]


class Workers:
    """Runs jobs, which must not raise; see the module's docstring."""

    def __init__(self, *, threads: int = MOST_THREADS, for_others: int = MOST_FOR_OTHERS) -> None:
        self._most = threads
        self._most_for_others = for_others
        self._changed = threading.Condition()
        self._first: deque[Job] = deque()
        self._others: deque[Job] = deque()
        self._threads = 0
        self._idle = 0
        self._working_for_others = 0

    def submit(self, job: Job, *, privileged: bool) -> bool:
        """Have ``job`` run soon; return False if there is no room for it."""
        with self._changed:
            waiting = len(self._first) + len(self._others)
            if waiting >= MOST_WAITING:
                return False
            (self._first if privileged else self._others).append(job)
            if self._idle <= waiting and self._threads < self._most and not self._start():
                if self._threads == 0:
                    (self._first if privileged else self._others).pop()
                    return False
            self._changed.notify()
            return True

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._threads += 1
        try:
            thread.start()
        except RuntimeError as error:
            self._threads -= 1
            log.warning("no more threads: %s", error)
            return False
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                taken = self._take()
                while taken is None:
                    self._idle += 1
                    worth_staying = self._changed.wait(LINGER)
                    self._idle -= 1
                    taken = self._take()
                    if taken is None and not worth_staying:
                        self._threads -= 1
                        return
            job, for_others = taken
            try:
                job()
            except Exception:
                log.exception("a request failed")
            finally:
                if for_others:
                    with self._changed:
                        self._working_for_others -= 1
                        self._changed.notify()

    def _take(self) -> Optional[tuple[Job, bool]]:
        if self._first:
            return self._first.popleft(), False
        if self._others and self._working_for_others < self._most_for_others:
            self._working_for_others += 1
            return self._others.popleft(), True
        return None
