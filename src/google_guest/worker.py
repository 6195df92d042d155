"""A feature's worker: one pass at a time, the newest request wins, failures come back later.

The worker has a thread only while a pass runs. A request that arrives meanwhile is remembered as
one further pass, which then sees the newest inputs.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable
from typing import Optional

from google_guest.changes import Change, Outcome
from google_guest.features import BUILT_IN, Decision, Feature, Inputs, Plan
from google_guest.metadata.tree import Metadata
from google_guest.reconcile import Pass, run_pass
from google_guest.records import record
from google_guest.system import System

log = logging.getLogger(__name__)

_NEVER = object()


class Worker:
    """Runs the passes of ``feature`` and keeps what the loop must know about them."""

    def __init__(
        self,
        feature: Feature,
        *,
        inputs: Callable[[], Inputs],
        finished: Callable[[Worker, Pass], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.feature = feature
        self.passes = 0
        self.successes = 0
        self.failures = 0
        """Failed passes in a row."""
        self.last: Optional[Pass] = None
        self._inputs = inputs
        self._finished = finished
        self._stopping = stopping
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._again = False
        self._seen: Hashable = _NEVER
        self._retry_at: Optional[float] = None
        self._drift_at: Optional[float] = None
        self._recheck_at: Optional[float] = None
        self._notes: frozenset[str] = frozenset()
        self._errors: frozenset[str] = frozenset()
        self._skipped = ""
        self._decision: Optional[Decision] = None

    def wants(self, metadata: Metadata) -> bool:
        """Return whether the feature's part of the metadata differs from its last request."""
        return self.feature.inputs_of(metadata) != self._seen

    def submit(self, metadata: Optional[Metadata]) -> None:
        """Ask for a pass: now, or once more after the one that runs."""
        if metadata is not None:
            self._seen = self.feature.inputs_of(metadata)
        self._retry_at = self._drift_at = self._recheck_at = None
        with self._lock:
            if self._thread is not None:
                self._again = True
                return
            name = self.feature.name
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            result = self._one_pass()
            with self._lock:
                again = self._again and not self._stopping()
                self._again = False
                if not again:
                    self._thread = None
            self._finished(self, result)
            if not again:
                return

    def _one_pass(self) -> Pass:
        try:
            return run_pass(self.feature, self._inputs(), stopping=self._stopping)
        except Exception as error:
            # A mistake in a feature must not end the agent: it costs this feature a pass.
            log.exception("%s: internal error", self.feature.name)
            outcome = Outcome(failed=[(WholePass(self.feature.name), error)])
            return Pass(self.feature, Decision(True, "failed"), Plan(), outcome)

    def join(self, timeout: float) -> None:
        """Wait for the running pass to end, ``timeout`` seconds at most."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def note_result(self, result: Pass, now: float) -> None:
        """Log what the pass did and set when the next one is due (in the loop's thread)."""
        self.last = result
        self.passes += 1
        name = self.feature.name
        for change in result.outcome.applied:
            log.info("%s: %s", name, change.describe())
        self._log_new_decision(result.decision)
        self._log_new_notes(result.plan)
        errors = frozenset(result.errors)
        for error in sorted(errors - self._errors):
            log.error("%s: %s", name, error)
        if self._errors and result.ok:
            log.info("%s: works again", name)
        self._errors = errors
        if result.skipped and result.skipped != self._skipped:
            log.info("%s: skipped, %s", name, result.skipped)
        self._skipped = result.skipped
        if result.ok:
            self.successes += 1
            self.failures = 0
        elif result.outcome.failed:
            self.failures += 1
            self._retry_at = now + self._retry_delay()
        self._recheck_at = result.plan.recheck_at
        if self.feature.drift_interval is not None and result.decision.on:
            self._drift_at = now + self.feature.drift_interval

    def _log_new_decision(self, decision: Decision) -> None:
        if self._decision == decision:
            return
        # A default that nobody touched is news to nobody.
        is_news = self._decision is not None or decision.layer != BUILT_IN
        log.log(
            logging.INFO if is_news else logging.DEBUG,
            "%s: %s, %s (%s)",
            self.feature.name,
            "on" if decision.on else "off",
            decision.reason,
            decision.layer,
        )
        self._decision = decision

    def _log_new_notes(self, plan: Plan) -> None:
        levels = {note: logging.INFO for note in plan.notes}
        levels.update((warning, logging.WARNING) for warning in plan.warnings)
        for note in sorted(levels.keys() - self._notes):
            log.log(levels[note], "%s: %s", self.feature.name, note)
        self._notes = frozenset(levels)

    def _retry_delay(self) -> float:
        # The exponent is capped: 2.0 ** 10**6 would overflow.
        exponent = min(self.failures - 1, 32)
        delay = min(self.feature.retry_first * 2.0**exponent, self.feature.retry_last)
        return delay * (0.9 + os.urandom(1)[0] / 1275.0)

    def is_due(self, now: float, wall: float) -> bool:
        """Return whether a retry, a drift check or a re-check is due."""
        return self.time_left(now, wall) <= 0

    def time_left(self, now: float, wall: float) -> float:
        """Return the seconds until the next pass is due without any event."""
        left = float("inf")
        for deadline in (self._retry_at, self._drift_at):
            if deadline is not None:
                left = min(left, deadline - now)
        if self._recheck_at is not None:
            left = min(left, self._recheck_at - wall)
        return left


@record
class WholePass(Change):
    """Stands for a pass that broke before it had a plan."""

    name: str

    @property
    def subject(self) -> str:
        """The feature."""
        return self.name

    def describe(self) -> str:
        """Return what failed."""
        return "plan"

    def apply(self, system: System) -> None:
        """Do nothing: there was no plan."""
