"""``googet update``: what is installed, from what the repositories have now.

Facts: googet: cli/update/update.go.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from googet.database import InstalledPackage
from googet.operations.install import catalogue_of, installed_as
from googet.operations.installing import Installer, described_removal
from googet.operations.session import Session
from googet.operations.steps import StepOptions
from googet.pkgspec import PackageName
from googet.planning import Plan, Request, Update, find_updates, plan_install
from googet.repositories import Candidate
from googet.selection import key_of
from google_guest.records import record

_log = logging.getLogger(__name__)


@record
class UpdateOptions:
    """The flags of ``update``."""

    db_only: bool = False
    dry_run: bool = False
    force: bool = False


def update(session: Session, arguments: Sequence[str], options: UpdateOptions) -> bool:
    """Update what is installed, or only the packages named; return whether all could be."""
    screen = session.screen
    chosen, succeeded = _chosen(session, arguments)
    if not chosen:
        screen.line("No packages installed." if not arguments else "Nothing to update.")
        return succeeded
    screen.line("Searching for available updates...")
    screen.flush()
    catalogue = catalogue_of(session)
    updates = find_updates(catalogue, chosen)
    if not updates:
        screen.line("No updates available for any installed packages.")
        return succeeded
    requests = [
        Request(
            one.offer.spec.full_name,
            PackageName(one.package.spec.name, one.package.spec.arch),
            one.offer,
            allow_downgrade=True,
        )
        for one in updates
    ]

    def plan(some: Sequence[Request]) -> Plan:
        installed = list(session.installed().values())
        architectures = session.settings.architectures
        return plan_install(some, catalogue, installed, architectures=architectures)

    installer = Installer(session, plan, requests, StepOptions(options.db_only, options.force))
    installer.report()
    screen.lines(_described(one) for one in updates if _is_planned(one, installer.plan))
    _show_further_changes(session, updates, installer.plan)
    if options.dry_run:
        screen.line("Dry run: nothing was changed.")
        return installer.succeeded and succeeded
    if not installer.plan.installations:
        return installer.succeeded and succeeded
    if not screen.is_confirmed("Do you want to make these changes?"):
        screen.line("Nothing was changed.")
        return installer.succeeded and succeeded
    return installer.run() and succeeded


def _chosen(session: Session, arguments: Sequence[str]) -> tuple[list[InstalledPackage], bool]:
    if not arguments:
        return list(session.installed().values()), True
    chosen = {}
    succeeded = True
    for text in arguments:
        found = installed_as(session, text)
        if not found:
            _log.error("%s is not installed", text)
            succeeded = False
        chosen.update({key_of(package.spec): package for package in found})
    return list(chosen.values()), succeeded


def _is_planned(one: Update, plan: Plan) -> bool:
    return any(step.offer is one.offer for step in plan.installations)


def _described(one: Update) -> str:
    """Return the line that OS Config reads: six words, the first with the architecture."""
    old, new = one.package.spec, one.offer.spec
    origin = one.offer.repository.display_url if isinstance(one.offer, Candidate) else "-"
    return f"  {old.name}.{old.arch}, {old.version} --> {new.version} from {origin}"


def _show_further_changes(session: Session, updates: Sequence[Update], plan: Plan) -> None:
    """Print what is not one of the updates; no line looks like one."""
    screen = session.screen
    offers = {id(one.offer) for one in updates}
    further = [step for step in plan.installations if id(step.offer) not in offers]
    if further:
        screen.line("These packages are needed, too:")
        screen.lines(f"  {step.spec.full_name}" for step in further)
    if plan.removals:
        screen.line("The following packages will be REMOVED:")
        screen.lines(described_removal(removal) for removal in plan.removals)
    for warning in plan.warnings:
        screen.line(f"Warning: {warning}")
