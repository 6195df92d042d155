"""From a plan to installed packages: ask, fetch everything, then place one package after another.

A package that cannot be had takes only those requests with it that need it, and nothing of them is
begun. A package that fails while it is placed leaves the machine as before its own turn; what
needs it is left out, the rest goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from googet.operations.session import Session
from googet.operations.steps import PreparedInstallation, StepOptions, Steps
from googet.planning import Change, Goal, Installation, Plan, Request
from googet.preload import load_everything
from googet.removal import Removal
from googet.selection import Key, PackageSet, key_of
from google_guest.errors import GuestError
from google_guest.records import record

_log = logging.getLogger(__name__)

#: Plans requests: one goal for each.
Planner = Callable[[Sequence[Request]], Plan]

_HEADINGS = {
    Change.INSTALL: "The following packages will be installed:",
    Change.REINSTALL: "The following packages will be installed again:",
    Change.UPGRADE: "The following packages will be upgraded:",
    Change.DOWNGRADE: "The following packages will be DOWNGRADED:",
}


@record
class Wording:
    """What is printed around a plan."""

    question: str
    dry_run: str


class Installer:
    """Carries out what a planner plans for some requests."""

    def __init__(
        self, session: Session, planner: Planner, requests: Sequence[Request], options: StepOptions
    ) -> None:
        self._session = session
        self._planner = planner
        self._requests = list(requests)
        self._options = options
        self._prepared: dict[Key, PreparedInstallation] = {}
        self.plan = planner(requests)
        self._names = {step.key: step.spec.full_name for step in self.plan.installations}
        #: Nothing that was asked for has failed so far.
        self.succeeded = not any(goal.error for goal in self.plan.goals)

    def report(self) -> None:
        """Print and log what needs no installation and what cannot be planned."""
        for goal in self.plan.goals:
            if goal.error:
                _log.error("%s cannot be installed: %s", goal.text, goal.error)
            elif goal.present:
                self._session.screen.line(
                    f"{goal.present} or a newer version is already installed on the system"
                )

    def is_agreed(self, wording: Wording, *, dry_run: bool) -> bool:
        """Show the plan and ask; always False in a dry run, which asks nothing."""
        screen = self._session.screen
        if dry_run or screen.asks:
            show_plan(self._session, self.plan)
        if dry_run:
            screen.line(wording.dry_run)
            return False
        return screen.is_confirmed(wording.question)

    def names(self) -> str:
        """Return the full names of what was asked for and will be installed."""
        return ", ".join(self._name(goal) for goal in self.plan.goals if goal.key is not None)

    def run(self) -> bool:
        """Carry the plan out; return whether everything that was asked for is done."""
        screen = self._session.screen
        for goal in self.plan.goals:
            if goal.key is not None:
                screen.line(f"Installing {self._name(goal)} and dependencies...")
        screen.flush()
        steps = Steps(self._session, self._options)
        try:
            self._prepare(steps)
            load_everything()
            self._place(steps)
        finally:
            steps.close()
        return self.succeeded

    def _prepare(self, steps: Steps) -> None:
        """Prepare every step; leave out the requests that need one that cannot be prepared.

        The smaller plan is made anew, because what a lost package would have removed stays now. It
        never does more than was agreed to.
        """
        agreed = {step.spec.full_name for step in self.plan.installations}
        agreed_removals = {key_of(one.package.spec) for one in self.plan.removals}
        while True:
            lost = self.plan.lost_with(self._prepare_steps(steps))
            if not lost:
                return
            self.succeeded = False
            kept = []
            for request, goal in zip(self._requests, self.plan.goals):
                if goal.key in lost:
                    _log.error("%s is not installed", self._name(goal))
                elif not goal.error:
                    kept.append(request)
            self._requests, shown = kept, self.plan
            self.plan = self._planner(kept)
            for goal in self.plan.goals:
                if goal.error:
                    _log.error("%s cannot be installed: %s", goal.text, goal.error)
            steps_left = {step.spec.full_name for step in self.plan.installations}
            removals_left = {key_of(one.package.spec) for one in self.plan.removals}
            if not (steps_left <= agreed and removals_left <= agreed_removals):
                raise GuestError("what is left would need other changes than those shown")
            if len(shown.installations) == len(self.plan.installations):
                raise GuestError("what is left cannot be installed")

    def _prepare_steps(self, steps: Steps) -> list[Key]:
        broken = []
        for step in self.plan.installations:
            if step.key in self._prepared:
                self._prepared[step.key] = steps.renewed(self._prepared[step.key], step)
                continue
            try:
                self._prepared[step.key] = steps.prepare_installation(step)
            except (GuestError, OSError) as error:
                _log.error("%s: %s", step.spec.full_name, error)
                broken.append(step.key)
        return broken

    def _place(self, steps: Steps) -> None:
        screen = self._session.screen
        failed: set[Key] = set()
        asked = {goal.key for goal in self.plan.goals}
        for step in self.plan.installations:
            reason = self._obstacle(step, steps, failed)
            if not reason:
                try:
                    steps.install(self._prepared[step.key])
                except (GuestError, OSError) as error:
                    reason = str(error)
            if reason:
                _log.error("%s is not installed: %s", step.spec.full_name, reason)
                failed.add(step.key)
                self.succeeded = False
                continue
            _log.info("%s is installed", step.spec.full_name)
            if step.key in asked:
                screen.line(f"Installation of {step.spec.full_name} and all dependencies completed")
                screen.flush()

    def _obstacle(self, step: Installation, steps: Steps, failed: set[Key]) -> str:
        """Say why a step is not tried after another one has failed, "" if it can be."""
        if not failed:
            return ""
        for key in step.requires:
            if key in failed:
                return f"it needs {'.'.join(key)}, which is not installed"
        leaving = {key_of(one.spec) for one in step.previous}
        leaving.update(key_of(removal.package.spec) for removal in step.removals)
        staying = PackageSet(one.spec for key, one in steps.installed.items() if key not in leaving)
        for other, clause in staying.conflicts_of(step.spec):
            return f"{other.full_name} is still installed ({clause})"
        return ""

    def _name(self, goal: Goal) -> str:
        name = self._names.get(goal.key) if goal.key is not None else None
        return name or goal.text


def show_plan(session: Session, plan: Plan) -> None:
    """Print what a plan does, as lists."""
    screen = session.screen
    for change, heading in _HEADINGS.items():
        steps = [step for step in plan.installations if step.change is change]
        if steps:
            screen.line(heading)
            screen.lines(_described(step) for step in steps)
    if plan.removals:
        screen.line("The following packages will be REMOVED:")
        screen.lines(described_removal(removal) for removal in plan.removals)
    for warning in plan.warnings:
        screen.line(f"Warning: {warning}")


def described_removal(removal: Removal) -> str:
    """Return the line of a package that goes."""
    spec = removal.package.spec
    reason = f" ({removal.reason})" if removal.reason else ""
    return f"  {spec.name}.{spec.arch} {spec.version}{reason}"


def _described(step: Installation) -> str:
    if step.change in (Change.INSTALL, Change.REINSTALL):
        return f"  {step.spec.full_name}"
    old = step.previous[0].spec
    before = old.version if old.arch == step.spec.arch else f"{old.arch} {old.version}"
    return f"  {step.spec.full_name} (now {before})"
