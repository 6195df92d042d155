"""One pass of one feature: decide, plan, apply, and say what came of it.

The agent, ``google-guest apply`` and ``google-guest plan`` share these functions, so that what the
plan prints is what the agent does.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Optional

from google_guest.changes import Outcome, apply_all
from google_guest.features import Decision, Feature, Inputs, Plan, Stage
from google_guest.records import record


@record
class Pass:
    """A feature's decision, its plan and, if the plan was applied, the outcome."""

    feature: Feature
    decision: Decision
    plan: Plan
    outcome: Outcome

    @property
    def ok(self) -> bool:
        """Whether everything that was wanted is in force."""
        return self.outcome.ok

    @property
    def errors(self) -> tuple[str, ...]:
        """The failures that somebody should look at, a line each."""
        return tuple(
            f"{change.describe()}: {error}"
            for change, error in self.outcome.failed
            if not _is_read_only(error)
        )

    @property
    def skipped(self) -> str:
        """What was not done because a file system is read-only, on purpose and for good mostly."""
        refused = [change for change, error in self.outcome.failed if _is_read_only(error)]
        if not refused:
            return ""
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        return f"read-only file system: cannot {refused[0].describe()}{more}"

    @property
    def is_failure(self) -> bool:
        """Whether something went wrong that is no read-only file system's doing."""
        return bool(self.errors) or not (self.ok or self.skipped)


def plan_feature(feature: Feature, inputs: Inputs) -> tuple[Decision, Plan]:
    """Return whether ``feature`` is on and what it wants changed; changes nothing."""
    if inputs.metadata is None and feature.stage is not Stage.EARLY:
        return Decision(False, "no metadata"), Plan()
    if feature.live_only and not inputs.system.is_live:
        return Decision(False, "needs the running machine"), Plan()
    decision = feature.enabled(inputs)
    if decision.on:
        return decision, feature.plan(inputs)
    return decision, feature.plan_off(inputs) if feature.plan_off else Plan()


def run_pass(
    feature: Feature, inputs: Inputs, *, stopping: Callable[[], bool] = lambda: False
) -> Pass:
    """Plan and apply ``feature``; ``stopping`` ends the pass between two changes."""
    decision, plan = plan_feature(feature, inputs)
    outcome = apply_all(plan.changes, inputs.system, stopping=stopping)
    return Pass(feature, decision, plan, outcome)


def _is_read_only(error: Optional[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.EROFS:
            return True
        error = error.__cause__
    return False
