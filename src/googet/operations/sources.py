"""Where the ``.goo`` of a package comes from, and how it gets into the cache.

A package comes from a repository, from a file that the user named, or from what the database
recorded when it was installed (to install it again, or to run its uninstall script).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

from googet.archive import ArchiveError, extract, read_archive_spec, sha256_of
from googet.atomic import replacing
from googet.database import InstalledPackage
from googet.operations.session import Session
from googet.pkgspec import PackageSpec, file_name, read_spec
from googet.planning import DEFAULT_PRIORITY
from googet.repositories import Candidate
from googet.selection import Offer
from googet.urls import package_url
from google_guest.errors import GuestError
from google_guest.records import record

_log = logging.getLogger(__name__)

#: A file that the user named is taken before anything that a repository has.
_FILE_PRIORITY = 1 << 31


class SourceError(GuestError):
    """The archive of a package cannot be had, or is not what it is said to be."""


@record
class PackageFile:
    """A ``.goo`` file that the user named."""

    path: Path
    spec: PackageSpec

    @property
    def priority(self) -> int:
        """Above that of every repository."""
        return _FILE_PRIORITY


@record
class StoredPackage:
    """An installed package, to be installed again from where it came from."""

    package: InstalledPackage
    #: Fetch it again although the file in the cache is good.
    redownload: bool = False

    @property
    def spec(self) -> PackageSpec:
        """The spec that was recorded."""
        return self.package.spec

    @property
    def priority(self) -> int:
        """That of a repository that says nothing."""
        return DEFAULT_PRIORITY


@record
class Archive:
    """A ``.goo`` in the cache and what the database records about its origin."""

    path: Path
    source_repo: str = ""
    download_url: str = ""
    checksum: str = ""


def open_file(text: str) -> PackageFile:
    """Return the package in a ``.goo`` file; raises SourceError or ArchiveError."""
    path = Path(text)
    try:
        return PackageFile(path.absolute(), read_archive_spec(path))
    except OSError as error:
        raise SourceError(f"{text} cannot be read: {error.strerror or error}") from error


def fetch(session: Session, offer: Offer) -> Archive:
    """Bring the archive of an offer into the cache, verified; raises GuestError."""
    session.cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    if isinstance(offer, PackageFile):
        return _fetch_file(session, offer)
    if isinstance(offer, StoredPackage):
        return stored_archive(session, offer.package, redownload=offer.redownload)
    if isinstance(offer, Candidate):
        target = session.cache / file_name(offer.spec)
        return _fetch_candidate(session, offer, target)
    raise TypeError(f"{offer!r} has no source")


def promise(session: Session, offer: Offer) -> Archive:
    """Return what :func:`fetch` would, without fetching what a repository has."""
    if isinstance(offer, Candidate):
        return _described(offer, session.cache / file_name(offer.spec))
    return fetch(session, offer)


def download(session: Session, candidate: Candidate, folder: Path) -> Path:
    """Download a package into a folder that the user named; return where it is."""
    return _fetch_candidate(session, candidate, folder / file_name(candidate.spec)).path


def stored_archive(
    session: Session, package: InstalledPackage, *, redownload: bool = False
) -> Archive:
    """Return the archive that a package was installed from, fetched again if it must be.

    An empty checksum in the database vouches for any file, as it always has.
    """
    path = Path(package.local_path or session.cache / file_name(package.spec))
    archive = Archive(path, package.source_repo, package.download_url, package.checksum)
    if not redownload and _is_intact(path, package.checksum):
        return archive
    if not package.download_url:
        raise SourceError(
            f"{package.full_name}: {path} is missing or changed, and it is not known where to"
            " download it again"
        )
    if redownload:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    session.transport.download(package.download_url, path, sha256=package.checksum)
    return archive


def unpack(session: Session, archive: Archive, spec: PackageSpec) -> Path:
    """Extract an archive into a fresh folder of the cache and return that folder.

    Raises:
        SourceError: the archive is that of another package than ``spec`` says.
    """
    folder = session.cache / spec.full_name
    discard_folder(folder)
    try:
        names = extract(archive.path, folder)
        inner = _inner_spec(folder, names)
    except OSError as error:
        raise SourceError(
            f"{archive.path} cannot be extracted: {error.strerror or error}"
        ) from error
    if (inner.name, inner.arch, inner.version) != (spec.name, spec.arch, spec.version):
        discard_folder(folder)
        raise SourceError(
            f"{archive.path} is {inner.full_name}, although {spec.full_name} was promised"
        )
    return folder


def discard_folder(folder: Path) -> None:
    """Delete a folder of extracted files, as far as that is possible."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning("%s cannot be deleted: %s", folder, error.strerror or error)


def _inner_spec(folder: Path, names: tuple[str, ...]) -> PackageSpec:
    for name in names:
        if name.endswith(".pkgspec"):
            return read_spec((folder / name).read_bytes())
    raise ArchiveError(f"{folder.name}: there is no package spec in the archive")


def _fetch_candidate(session: Session, candidate: Candidate, target: Path) -> Archive:
    archive = _described(candidate, target)
    session.transport.download(archive.download_url, target, sha256=archive.checksum)
    return archive


def _described(candidate: Candidate, target: Path) -> Archive:
    origin = candidate.repository.display_url
    url = package_url(candidate.repository, candidate.entry.source)
    return Archive(target, origin, url, candidate.entry.checksum)


def _fetch_file(session: Session, file: PackageFile) -> Archive:
    target = session.cache / file_name(file.spec)
    try:
        # A package that is in the cache already must not be copied over itself.
        if not (target.exists() and os.path.samefile(file.path, target)):
            with open(file.path, "rb") as source, replacing(target) as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
    except OSError as error:
        raise SourceError(
            f"{file.path} cannot be copied to {target}: {error.strerror or error}"
        ) from error
    return Archive(target, checksum=sha256_of(target))


def _is_intact(path: Path, checksum: str) -> bool:
    try:
        return path.is_file() and (not checksum or sha256_of(path) == checksum.lower())
    except OSError:
        return False
