"""``googet install``: packages from repositories and from files, with what they need.

All arguments become one plan and one question; an argument that cannot be installed does not keep
the others from it.

Facts: googet: cli/install/install.go, install/install.go.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Optional

from googet.database import InstalledPackage
from googet.operations.installing import Installer, Wording
from googet.operations.session import NoRepositories, Session
from googet.operations.sources import PackageFile, StoredPackage, open_file
from googet.operations.steps import StepOptions
from googet.pkgspec import PackageName, split_name
from googet.planning import Plan, Request, plan_install
from googet.selection import Catalogue, Offer
from google_guest.errors import GuestError
from google_guest.records import record

_log = logging.getLogger(__name__)

#: An argument with this ending, in this case, is a file and no name.
FILE_SUFFIX = ".goo"


@record
class InstallOptions:
    """The flags of ``install``."""

    reinstall: bool = False
    redownload: bool = False
    db_only: bool = False
    dry_run: bool = False
    force: bool = False
    allow_downgrade: bool = False


def install(session: Session, arguments: Sequence[str], options: InstallOptions) -> bool:
    """Install every argument that can be installed; return whether all could."""
    requests: list[Request] = []
    succeeded = True
    for text in dict.fromkeys(arguments):
        try:
            requests += _requests(session, text, options)
        except GuestError as error:
            _log.error("%s", error)
            succeeded = False
    if not requests:
        return succeeded

    def plan(some: Sequence[Request]) -> Plan:
        return plan_requests(session, some)

    step_options = StepOptions(options.db_only, options.force)
    installer = Installer(session, plan, requests, step_options)
    installer.report()
    if not installer.plan.installations:
        return installer.succeeded and succeeded
    names = installer.names()
    wording = Wording(
        f"Do you want to install {names}?", f"Dry run: would install {names}; nothing was changed"
    )
    if not installer.is_agreed(wording, dry_run=options.dry_run):
        if not options.dry_run:
            session.screen.line("Nothing was changed.")
        return installer.succeeded and succeeded
    return installer.run() and succeeded


def plan_requests(session: Session, requests: Sequence[Request]) -> Plan:
    """Plan requests; the repositories are only asked when what is named does not suffice."""
    installed = list(session.installed().values())
    architectures = session.settings.architectures
    files = [one.offer for one in requests if isinstance(one.offer, PackageFile)]
    if all(request.offer is not None for request in requests):
        plan = plan_install(requests, Catalogue(files), installed, architectures=architectures)
        if not any(goal.is_missing for goal in plan.goals):
            return plan
        try:
            catalogue = catalogue_of(session, files)
        except NoRepositories:
            return plan
    else:
        catalogue = catalogue_of(session, files)
    return plan_install(requests, catalogue, installed, architectures=architectures)


def catalogue_of(session: Session, files: Iterable[Offer] = ()) -> Catalogue:
    """Return what the repositories have, together with files that the user named."""
    return Catalogue([*files, *session.available.candidates])


def installed_as(session: Session, text: str) -> list[InstalledPackage]:
    """Return what is installed as ``N``, ``N.A`` or ``N.A.V``."""
    wanted = split_name(text)
    return [
        package
        for package in session.database.named(wanted.name)
        if wanted.arch in ("", package.spec.arch) and wanted.version in ("", package.spec.version)
    ]


def reinstall_requests(
    packages: Sequence[InstalledPackage], *, redownload: bool = False
) -> list[Request]:
    """Return the requests that install packages again from where they came from."""
    return [
        Request(
            package.full_name,
            PackageName(package.spec.name, package.spec.arch),
            StoredPackage(package, redownload=redownload),
            again=True,
            alone=True,
        )
        for package in packages
    ]


def _requests(session: Session, text: str, options: InstallOptions) -> list[Request]:
    file: Optional[PackageFile] = None
    if text.endswith(FILE_SUFFIX):
        file = open_file(text)
        wanted = PackageName(file.spec.name, file.spec.arch)
    elif options.reinstall:
        found = installed_as(session, text)
        if not found:
            session.screen.line(f"{text} is not installed and cannot be installed again")
        return reinstall_requests(found, redownload=options.redownload)
    else:
        wanted = split_name(text)
    again = file is not None and options.reinstall
    return [Request(text, wanted, file, again=again, allow_downgrade=options.allow_downgrade)]
