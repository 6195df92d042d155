"""``googet check``: applications that are installed, though googet did not install them.

A repository's package whose application (Add or Remove Programs) is there can be recorded as
installed, so that ``update`` looks after it, or be installed over it. Systems without a registry of
applications have none.

Facts: googet: cli/check/check.go.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from googet.applications import find_application
from googet.operations.install import catalogue_of
from googet.operations.installing import Installer
from googet.operations.session import Session
from googet.operations.steps import StepOptions
from googet.pkgspec import PackageName
from googet.planning import Plan, Request, plan_install
from googet.selection import Offer, ranked

_log = logging.getLogger(__name__)


def check(session: Session, *, db_only: bool = True, dry_run: bool = False) -> bool:
    """Find such packages, and record or install them; return whether all could be."""
    screen, host = session.screen, session.host
    if host.name != "windows":
        screen.line("This system keeps no registry of applications: there is nothing to check.")
        return True
    screen.line("Looking for installed applications that packages are about...")
    screen.flush()
    catalogue = catalogue_of(session)
    installed = list(session.installed().values())
    present = {package.spec.name for package in installed}
    found: dict[str, tuple[Offer, str]] = {}
    for name in catalogue.names():
        if name in present:
            continue
        offers = ranked(catalogue, PackageName(name), architectures=session.settings.architectures)
        direct = [offer for offer in offers if offer.spec.name == name]
        if not direct:
            continue
        application = find_application(direct[0].spec, "", host)
        if application.name:
            found[name] = direct[0], application.name
    succeeded = True
    if found and not dry_run:
        requests = [
            Request(
                offer.spec.full_name,
                PackageName(name, offer.spec.arch),
                offer,
                alone=db_only,
            )
            for name, (offer, _) in found.items()
        ]

        def plan(some: Sequence[Request]) -> Plan:
            return plan_install(
                some, catalogue, installed, architectures=session.settings.architectures
            )

        installer = Installer(session, plan, requests, StepOptions(db_only))
        installer.report()
        if installer.plan.installations:
            succeeded = installer.run()
    screen.lines(f" {name}: {application}" for name, (_, application) in sorted(found.items()))
    return succeeded
