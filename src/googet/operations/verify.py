"""``googet verify``: does a package work, and are its files what was installed?

Facts: googet: cli/verify/verify.go, verify/verify.go.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from googet.archive import extract_member
from googet.commands import run_verify
from googet.database import InstalledPackage
from googet.operations.install import installed_as, reinstall_requests
from googet.operations.installing import Installer
from googet.operations.session import Session
from googet.operations.sources import discard_folder, stored_archive, unpack
from googet.operations.steps import StepOptions
from googet.placing import damaged_files
from googet.planning import Plan, Request, plan_install
from googet.selection import Catalogue
from google_guest.errors import GuestError

_log = logging.getLogger(__name__)


def verify(
    session: Session, arguments: Sequence[str], *, reinstall: bool = False, skip_files: bool = False
) -> bool:
    """Verify every argument; return whether all are sound, or were made so by ``reinstall``."""
    succeeded = True
    for text in dict.fromkeys(arguments):
        found = installed_as(session, text)
        if not found:
            _log.error("%s is not installed", text)
            succeeded = False
        for package in found:
            succeeded &= _verify_one(session, package, reinstall=reinstall, skip_files=skip_files)
    return succeeded


def _verify_one(
    session: Session, package: InstalledPackage, *, reinstall: bool, skip_files: bool
) -> bool:
    screen = session.screen
    screen.line(f"Verifying {package.full_name}...")
    problems = []
    if package.spec.verify.path:
        problems += _run_command(session, package)
    if not skip_files:
        problems += damaged_files(package, session.host)
    for problem in problems:
        _log.error("%s: %s", package.full_name, problem)
    if not problems:
        screen.line(f"Verification of {package.full_name} completed")
        return True
    if not reinstall:
        _log.error("Verification of %s failed; -reinstall installs it again", package.full_name)
        return False

    def plan(requests: Sequence[Request]) -> Plan:
        installed = list(session.installed().values())
        return plan_install(requests, Catalogue(()), installed, architectures=())

    requests = reinstall_requests([package])
    return Installer(session, plan, requests, StepOptions()).run()


def _run_command(session: Session, package: InstalledPackage) -> list[str]:
    """Run the package's verify command; a second time with everything extracted if it fails."""
    spec = package.spec
    folder = session.cache / spec.full_name
    try:
        archive = stored_archive(session, package)
        discard_folder(folder)
        folder.mkdir(parents=True)
        extract_member(archive.path, spec.verify.path, folder)
        outcome = run_verify(spec, folder, session.host, console=session.screen.output)
        if not outcome.success:
            unpack(session, archive, spec)
            outcome = run_verify(spec, folder, session.host, console=session.screen.output)
        return [] if outcome.success else [outcome.message]
    except GuestError as error:
        return [str(error)]
    except OSError as error:
        return [f"{error.filename or folder}: {error.strerror or error}"]
    finally:
        discard_folder(folder)
