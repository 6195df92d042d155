"""One package at a time: prepared without touching the machine, then carried out as a whole.

Preparing brings the archive into the cache, verifies and extracts it and finds what speaks against
placing it. Carrying out is one transaction: what the package replaces is uninstalled, its files are
placed, its command runs, the database is written. If anything fails, the files and rows are again
what they were; an uninstall script that ran is not undone by running another one.

Facts: googet: install/install.go, remove/remove.go (order of the steps).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from googet.applications import find_application, register, unregister
from googet.architectures import ARCHITECTURES
from googet.commands import needs_archive, run_install, run_uninstall
from googet.database import InstalledPackage
from googet.operations.session import Session
from googet.operations.sources import (
    Archive,
    SourceError,
    StoredPackage,
    discard_folder,
    fetch,
    promise,
    stored_archive,
    unpack,
)
from googet.pkgspec import PackageSpec
from googet.placing import (
    PlacementPlan,
    check_conflicts,
    check_destinations,
    conflicts,
    obsolete,
    plan_files,
    transfers,
)
from googet.planning import Installation
from googet.removal import Removal
from googet.selection import Key, key_of
from googet.transaction import Transaction
from google_guest.errors import GuestError
from google_guest.records import record, replace

_log = logging.getLogger(__name__)


class StepError(GuestError):
    """A package could not be installed or removed; everything of it is as before."""


@record
class StepOptions:
    """How packages are placed."""

    #: Write the database and nothing else.
    db_only: bool = False
    #: Overwrite the files of other packages where the settings forbid it.
    force: bool = False


@record
class PreparedRemoval:
    """A package to remove, with its archive extracted if its uninstall command needs it."""

    key: Key
    unpacked: Optional[Path] = None


@record
class PreparedInstallation:
    """A package to place: verified, extracted, and every destination known."""

    step: Installation
    archive: Archive
    placement: PlacementPlan
    #: None when only the database is written and there are no files to record.
    unpacked: Optional[Path] = None
    removals: tuple[PreparedRemoval, ...] = ()


class Steps:
    """Carries out steps one after the other and knows what is installed in between."""

    def __init__(self, session: Session, options: StepOptions) -> None:
        self._session = session
        self._options = options
        self._unpacked: set[Path] = set()
        self.installed = session.installed()
        # Which packages recorded a path: asked for every package of thousands.
        self._owners: dict[str, set[Key]] = {}
        for package in self.installed.values():
            self._index(package)

    def close(self) -> None:
        """Delete what was extracted and not used."""
        for folder in self._unpacked:
            discard_folder(folder)
        self._unpacked.clear()

    # Without touching the machine.

    def prepare_installation(self, step: Installation) -> PreparedInstallation:
        """Fetch, verify and extract a package; raises GuestError for what forbids placing it."""
        session = self._session
        check_destinations(step.spec, session.host)
        if self._options.db_only and not step.spec.files:
            return PreparedInstallation(
                step,
                promise(session, step.offer),
                PlacementPlan(),
                removals=tuple(map(self.prepare_removal, step.removals)),
            )
        archive = fetch(session, step.offer)
        unpacked = unpack(session, archive, step.spec)
        self._unpacked.add(unpacked)
        placement = plan_files(step.spec, unpacked, session.host)
        if session.settings.strict_conflicts and not self._options.force:
            others = self._sharing(placement.recorded, leaving=_leaving(step))
            check_conflicts(conflicts(placement, others, session.host), strict=True, force=False)
        return PreparedInstallation(
            step, archive, placement, unpacked, tuple(map(self.prepare_removal, step.removals))
        )

    def prepare_removal(self, removal: Removal) -> PreparedRemoval:
        """Extract what an uninstall command needs; raises GuestError if it cannot be had."""
        package = self.installed[key_of(removal.package.spec)]
        key = key_of(package.spec)
        if self._options.db_only or not needs_archive(package.spec):
            return PreparedRemoval(key)
        try:
            archive = stored_archive(self._session, package)
            folder = unpack(self._session, archive, package.spec)
        except GuestError as error:
            raise SourceError(
                f"{error}; its uninstall script is in there: -db_only would only forget"
                f" {package.full_name}"
            ) from error
        self._unpacked.add(folder)
        return PreparedRemoval(key, folder)

    def renewed(self, prepared: PreparedInstallation, step: Installation) -> PreparedInstallation:
        """Return what was prepared for a step of a plan that has been made anew."""
        removals = {key_of(removal.package.spec) for removal in step.removals}
        kept = tuple(removal for removal in prepared.removals if removal.key in removals)
        return replace(prepared, step=step, removals=kept)

    def _sharing(self, paths: Iterable[str], *, leaving: set[Key]) -> list[InstalledPackage]:
        """Return the packages, without the leaving ones, that recorded one of the paths."""
        found: set[Key] = set()
        for path in paths:
            found |= self._owners.get(self._path_key(path), set())
        return [self.installed[key] for key in sorted(found - leaving)]

    def _index(self, package: InstalledPackage) -> None:
        for path in package.installed_files or {}:
            self._owners.setdefault(self._path_key(path), set()).add(key_of(package.spec))

    def _path_key(self, path: str) -> str:
        return self._session.host.paths.key(path)

    # For real.

    def install(self, prepared: PreparedInstallation) -> None:
        """Place a package and whatever it displaces; raises GuestError, and all is as before."""
        session, step = self._session, prepared.step
        host, name = session.host, step.spec.full_name
        leaving = [
            self.installed[key]
            for key in (key_of(package.spec) for package in step.previous)
            if key in self.installed
        ]
        replaced = [self.installed[removal.key] for removal in prepared.removals]
        paths = [path for one in leaving + replaced for path in one.installed_files or {}]
        others = self._sharing([*paths, *prepared.placement.recorded], leaving=_leaving(step))
        found = conflicts(prepared.placement, others, host)
        check_conflicts(found, strict=session.settings.strict_conflicts, force=self._options.force)
        session.screen.lines(f"Warning: {one.path} of {one.owner} is overwritten" for one in found)
        with Transaction(session.root, host, session.database, title=f"install {name}") as txn:
            if prepared.unpacked is not None:
                self._scratch(txn, prepared.unpacked, name)
            for removal in prepared.removals:
                self._uninstall(txn, removal)
            ran = False
            given: tuple[InstalledPackage, ...] = ()
            if prepared.unpacked is not None and not self._options.db_only:
                txn.discard(
                    obsolete(
                        leaving + replaced, prepared.placement, others, host, root=session.root
                    )
                )
                txn.place(prepared.placement)
                ran = self._run_install(step.spec, prepared.unpacked)
                given = transfers(prepared.placement, others, host)
            package = self._recorded(prepared, leaving)
            self._discard_archives(txn, leaving + replaced, keep=prepared.archive.path)
            for one in (*given, package):
                txn.put(one)
            gone = [one for one in leaving + replaced if key_of(one.spec) != step.key]
            for one in gone:
                txn.remove(one.spec.name, one.spec.arch)
            done = txn.commit()
            self._note(given + (package,), gone)
            if ran and prepared.unpacked is not None:
                register(step.spec, prepared.unpacked, session.root, host, now=time.time())
        self._tell(name, done.left, done.at_restart)

    def remove(self, prepared: PreparedRemoval) -> None:
        """Remove a package; raises GuestError, and it is there as before."""
        session = self._session
        package = self.installed[prepared.key]
        others = self._sharing(package.installed_files or {}, leaving={prepared.key})
        title = f"remove {package.full_name}"
        with Transaction(session.root, session.host, session.database, title=title) as txn:
            self._uninstall(txn, prepared)
            if not self._options.db_only:
                txn.discard(obsolete([package], None, others, session.host, root=session.root))
            self._discard_archives(txn, [package], keep=None)
            txn.remove(*prepared.key)
            done = txn.commit()
            self._note((), [package])
        self._tell(package.full_name, done.left, done.at_restart)

    def _scratch(self, txn: Transaction, folder: Path, name: str) -> None:
        txn.scratch(folder, name)
        self._unpacked.discard(folder)

    def _run_install(self, spec: PackageSpec, folder: Path) -> bool:
        screen, name = self._session.screen, spec.full_name
        screen.flush()
        outcome = run_install(spec, folder, self._session.host, console=screen.output)
        if not outcome.success:
            raise StepError(f"{name}: {outcome.message}")
        if outcome.reboot_required:
            screen.line(f"{name} needs a restart of this machine to be complete")
        return outcome.ran

    def _uninstall(self, txn: Transaction, prepared: PreparedRemoval) -> None:
        package = self.installed[prepared.key]
        logs = prepared.unpacked
        if logs is None and not self._options.db_only and _has_own_uninstaller(package):
            logs = self._session.cache / package.full_name
            discard_folder(logs)
            logs.mkdir(mode=0o700)
        if logs is not None:
            self._scratch(txn, logs, package.full_name)
        if logs is None or self._options.db_only:
            return
        screen = self._session.screen
        screen.flush()
        outcome = run_uninstall(
            package, prepared.unpacked, self._session.host, logs=logs, console=screen.output
        )
        if not outcome.success:
            raise StepError(f"{package.full_name}: {outcome.message}")
        if outcome.reboot_required:
            screen.line(f"{package.full_name} needs a restart of this machine to be gone")

    def _recorded(
        self, prepared: PreparedInstallation, leaving: Iterable[InstalledPackage]
    ) -> InstalledPackage:
        """Return the record of a package that has just been placed."""
        spec, offer, archive = prepared.step.spec, prepared.step.offer, prepared.archive
        local_path = str(archive.path)
        files = prepared.placement.recorded
        app = find_application(spec, local_path, self._session.host)
        if isinstance(offer, StoredPackage):
            return replace(
                self.installed[key_of(spec)],
                local_path=local_path,
                installed_files=files,
                installed_app=app,
            )
        before = next((one for one in leaving if key_of(one.spec) == key_of(spec)), None)
        return InstalledPackage(
            spec=spec,
            source_repo=archive.source_repo,
            download_url=archive.download_url,
            checksum=archive.checksum,
            local_path=local_path,
            installed_files=files,
            installed_app=app,
            extra={} if before is None else before.extra,
        )

    def _discard_archives(
        self, txn: Transaction, packages: Iterable[InstalledPackage], *, keep: Optional[Path]
    ) -> None:
        """Have the cached archives of these packages deleted; files elsewhere are not ours."""
        for package in packages:
            path = Path(package.local_path) if package.local_path else None
            if path is None or path.parent != self._session.cache or path == keep:
                continue
            txn.discard_cached(path)

    def _note(self, put: Iterable[InstalledPackage], gone: Iterable[InstalledPackage]) -> None:
        for package in (*gone, *put):
            before = self.installed.pop(key_of(package.spec), None)
            for path in (before.installed_files or {}) if before is not None else ():
                self._owners[self._path_key(path)].discard(key_of(package.spec))
        for package in put:
            self.installed[key_of(package.spec)] = package
            self._index(package)
        for package in gone:
            # The application is registered by the name alone, whatever the architecture.
            name = package.spec.name
            others = any((name, arch) in self.installed for arch in ARCHITECTURES)
            if not others and not self._options.db_only:
                unregister(name, self._session.host)

    def _tell(self, name: str, left: Iterable[str], at_restart: Iterable[str]) -> None:
        for path in left:
            _log.warning("%s: %s could not be deleted", name, path)
        for path in at_restart:
            _log.info("%s: %s is in use and is deleted at the next restart", name, path)


def _leaving(step: Installation) -> set[Key]:
    """Return what is not there beside the package any more when the step is done."""
    leaving = {step.key}
    leaving.update(key_of(package.spec) for package in step.previous)
    leaving.update(key_of(removal.package.spec) for removal in step.removals)
    return leaving


def _has_own_uninstaller(package: InstalledPackage) -> bool:
    """Say whether the software of a package may be removed by what it registered itself."""
    return bool(package.installed_app.reg or package.spec.install.path)
