"""``googet remove``: packages and everything that needs them, what nothing else needs first.

Facts: googet: cli/remove/remove.go, remove/remove.go.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from googet.operations.install import installed_as
from googet.operations.installing import described_removal
from googet.operations.session import Session
from googet.operations.steps import PreparedRemoval, StepOptions, Steps
from googet.pkgspec import split_name
from googet.preload import load_everything
from googet.removal import Removal, plan_removal
from googet.selection import Key, PackageSet, answers_name, key_of
from google_guest.errors import GuestError

_log = logging.getLogger(__name__)


def remove(
    session: Session, arguments: Sequence[str], *, db_only: bool = False, dry_run: bool = False
) -> bool:
    """Remove every argument (N, N.A or N.A.V) with its dependents; return whether all could be.

    What is not installed is said so and counts as removed.
    """
    screen = session.screen
    targets: dict[str, list[Key]] = {}
    for text in dict.fromkeys(arguments):
        found = installed_as(session, text)
        if found:
            targets[text] = [key_of(package.spec) for package in found]
        else:
            screen.line(f"{text} is not installed")
    if not targets:
        return True
    installed = session.installed()
    asked = {key for keys in targets.values() for key in keys}
    removals = plan_removal(list(installed.values()), [installed[key] for key in sorted(asked)])
    names = ", ".join(targets)
    if dry_run or screen.asks:
        screen.line("The following packages will be removed:")
        screen.lines(described_removal(removal) for removal in removals)
    if dry_run:
        screen.line(f"Dry run: would remove {names}; nothing was changed")
        return True
    if not screen.is_confirmed(f"Do you want to remove {names} and what needs it?"):
        screen.line("Nothing was changed.")
        return True
    screen.line(f"Removing {names} and what needs it...")
    screen.flush()
    steps = Steps(session, StepOptions(db_only))
    try:
        gone = _carry_out(session, removals, steps)
    finally:
        steps.close()
    for text, keys in targets.items():
        if gone.issuperset(keys):
            screen.line(f"Removal of {text} completed")
    return gone.issuperset(asked)


def _carry_out(session: Session, removals: Sequence[Removal], steps: Steps) -> set[Key]:
    """Remove one after the other; what something that stays needs, stays, too."""
    stuck = PackageSet()
    prepared: dict[Key, PreparedRemoval] = {}
    for removal in removals:
        spec = removal.package.spec
        try:
            prepared[key_of(spec)] = steps.prepare_removal(removal)
        except (GuestError, OSError) as error:
            _log.error("%s cannot be removed: %s", spec.full_name, error)
            stuck.add(spec)
    load_everything()
    gone: set[Key] = set()
    for removal in removals:
        spec = removal.package.spec
        if key_of(spec) in stuck:
            continue
        needing = [
            other.full_name
            for other in stuck
            if any(answers_name(spec, split_name(text)) for text in other.dependencies)
        ]
        try:
            if needing:
                raise GuestError(f"{needing[0]} needs it")
            steps.remove(prepared[key_of(spec)])
        except (GuestError, OSError) as error:
            _log.error("%s is not removed: %s", spec.full_name, error)
            stuck.add(spec)
            continue
        _log.info("%s is removed", spec.full_name)
        gone.add(key_of(spec))
    session.screen.flush()
    return gone
