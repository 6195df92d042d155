"""Where the files of a package go, whose they are, and what becomes obsolete.

``Files`` of a specification maps files and folders of the archive to destinations: an absolute
path, or ``<VARIABLE>rest``. Everything here only reads and returns plans; ``transaction`` carries
them out.

Facts: googet: install/install.go (destinations, records), googet: remove/remove.go (folders).
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Optional

from googet.database import InstalledPackage
from googet.host import Host
from googet.host.paths import PathError
from googet.pkgspec import PackageSpec
from google_guest.errors import GuestError
from google_guest.records import record, replace

_log = logging.getLogger(__name__)


class PlacingError(GuestError):
    """A package whose files cannot be placed as it asks."""


@record
class PlacedFile:
    """One file to place: its host path now, the one to be, and what it is."""

    source: str
    target: str
    sha256: str
    mode: int
    modified_ns: int


@record
class PlacementPlan:
    """The files and folders that a package places, folders before what is in them."""

    files: tuple[PlacedFile, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def recorded(self) -> dict[str, str]:
        """Return what the database records: paths to SHA-256 digests, folders to nothing."""
        recorded = dict.fromkeys(self.folders, "")
        recorded.update((file.target, file.sha256) for file in self.files)
        return dict(sorted(recorded.items()))


@record
class Conflict:
    """A file to place that another package (``N.A.V``) owns."""

    path: str
    owner: str


@record
class Obsolete:
    """Files and folders to delete, folders the deepest first."""

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def expand_destination(text: str, variable: Callable[[str], Optional[str]]) -> str:
    """Return a destination with its ``<VARIABLE>`` replaced; ``/`` is put before other text.

    The name of the variable goes to the last ``>``.

    Raises:
        PlacingError: the variable is not set.
    """
    if not text.startswith("<") or ">" not in text:
        return "/" + text
    name, _, rest = text[1:].rpartition(">")
    value = variable(name)
    if not value:
        raise PlacingError(f"destination {text!r}: the environment variable {name!r} is not set")
    return value + rest


def resolve_destination(text: str, host: Host) -> str:
    """Return the host path of a destination.

    Raises:
        PlacingError: a variable is not set, or the result is no absolute path.
    """
    if not host.paths.is_absolute(text):
        expanded = expand_destination(text, host.variable)
        if host.name == "windows" and not text.startswith("<"):
            # A path without a drive is on the system's.
            expanded = (host.variable("SystemDrive") or "C:") + "/" + expanded.lstrip("/\\")
    else:
        expanded = text
    try:
        return host.paths.cleaned(expanded)
    except PathError as error:
        raise PlacingError(f"destination {text!r}: {error}") from error


def check_destinations(spec: PackageSpec, host: Host) -> None:
    """Raise ``PlacingError`` where a destination of ``spec`` is no absolute path here."""
    for destination in spec.files.values():
        resolve_destination(destination, host)


def plan_files(spec: PackageSpec, unpacked: Path, host: Host) -> PlacementPlan:
    """Return where the extracted files below ``unpacked`` go.

    Raises:
        PlacingError: a destination is no absolute path, a file of the archive is missing or of
            an unknown kind, or two of them would become one.
    """
    builder = _Planner(host)
    for key, destination in sorted(spec.files.items()):
        target = resolve_destination(destination, host)
        parts = [part for part in key.split("/") if part not in ("", ".")]
        source = host.paths.cleaned(host.paths.join(host.host_path(unpacked), *parts))
        try:
            builder.add(source, target)
        except OSError as error:
            raise PlacingError(
                f"{spec.full_name}: {key!r} of its files cannot be read: {error.strerror}"
            ) from error
    return builder.plan()


class _Planner:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._files: dict[str, PlacedFile] = {}
        self._folders: dict[str, str] = {}

    def add(self, source: str, target: str) -> None:
        if self._host.kind_of(source) == "folder":
            self._add_tree(source, target)
        else:
            self._add_file(source, target)

    def _add_tree(self, source: str, target: str) -> None:
        paths = self._host.paths
        self._folders.setdefault(paths.key(target), target)
        for name in self._host.list_folder(source):
            self.add(paths.join(source, name), paths.cleaned(paths.join(target, name)))

    def _add_file(self, source: str, target: str) -> None:
        paths = self._host.paths
        facts = self._host.facts(source)
        if not stat.S_ISREG(facts.st_mode):
            raise PlacingError(f"{source} is neither a file nor a folder")
        if paths.is_root(target):
            raise PlacingError(f"{target} cannot be a file")
        key = paths.key(target)
        if key in self._files:
            raise PlacingError(f"two files of the package go to {target}")
        self._files[key] = PlacedFile(
            source,
            target,
            self._host.sha256(source),
            stat.S_IMODE(facts.st_mode),
            facts.st_mtime_ns,
        )

    def plan(self) -> PlacementPlan:
        for key, file in self._files.items():
            above = map(self._host.paths.key, self._host.paths.ancestors(file.target))
            if key in self._folders or any(each in self._files for each in above):
                raise PlacingError(f"{file.target} would be a file and a folder")
        folders = sorted(self._folders.values(), key=lambda path: (_depth(path), path))
        return PlacementPlan(tuple(self._files.values()), tuple(folders))


def conflicts(
    plan: PlacementPlan, others: Iterable[InstalledPackage], host: Host
) -> tuple[Conflict, ...]:
    """Return the files of ``plan`` that other packages own; shared folders are no conflict.

    ``others`` are the installed packages that the step neither replaces nor removes.
    """
    owners = _owners(others, host)
    return tuple(
        Conflict(file.target, owner.full_name)
        for file in plan.files
        for owner in owners.get(host.paths.key(file.target), ())
    )


def check_conflicts(found: Iterable[Conflict], *, strict: bool, force: bool) -> None:
    """Log the conflicts, or refuse them: ``strictconflicts`` of the settings, unless forced.

    Raises:
        PlacingError: ``strict`` without ``force``, and there is one.
    """
    for conflict in found:
        if strict and not force:
            raise PlacingError(
                f"{conflict.path} belongs to {conflict.owner}; -force would overwrite it"
            )
        _log.warning("%s of %s is overwritten", conflict.path, conflict.owner)


def transfers(
    plan: PlacementPlan, others: Iterable[InstalledPackage], host: Host
) -> tuple[InstalledPackage, ...]:
    """Return the records of other packages without the files that ``plan`` takes from them.

    A file that has the very content that its owner recorded stays owned by both: whichever of the
    two is removed or updated first leaves it to the other.
    """
    taken = {host.paths.key(file.target): file.sha256 for file in plan.files}
    changed = []
    for package in others:
        files = package.installed_files or {}
        kept = {
            path: digest
            for path, digest in files.items()
            if not _is_lost(path, digest, taken, host)
        }
        if len(kept) != len(files):
            changed.append(replace(package, installed_files=kept))
    return tuple(changed)


def _is_lost(path: str, digest: str, taken: Mapping[str, str], host: Host) -> bool:
    return digest != "" and taken.get(host.paths.key(path), digest) != digest


def obsolete(
    old: Iterable[InstalledPackage],
    plan: Optional[PlacementPlan],
    others: Iterable[InstalledPackage],
    host: Host,
    *,
    root: Path,
) -> Obsolete:
    """Return what the records of ``old`` own and neither ``plan`` nor another package keeps.

    Without ``plan`` (a removal) everything of ``old`` is obsolete that nobody else owns. Folders
    are listed although they may hold other files: only empty ones are deleted. Protected folders,
    ROOT and paths that are none are left out.
    """
    plan = plan or PlacementPlan()
    key_of = host.paths.key
    owned = {key_of(path) for package in others for path in package.installed_files or {}}
    # A file that becomes a folder, or the reverse, is obsolete as what it was.
    kept_files = owned | {key_of(file.target) for file in plan.files}
    kept_folders = owned | {key_of(folder) for folder in plan.folders}
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path, digest in _recorded(old, host):
        key = key_of(path)
        # Other versions of googet record files without a digest where they place none themselves.
        if digest or host.kind_of(path) == "file":
            if key not in kept_files:
                files[key] = path
        elif key not in kept_folders and not host.is_protected(path, host.host_path(root)):
            folders[key] = path
    deepest_first = sorted(folders.values(), key=lambda path: (-_depth(path), path))
    return Obsolete(tuple(sorted(files.values())), tuple(deepest_first))


def _recorded(packages: Iterable[InstalledPackage], host: Host) -> Iterator[tuple[str, str]]:
    for package in packages:
        for text, digest in (package.installed_files or {}).items():
            try:
                path = host.paths.cleaned(text)
            except PathError as error:
                _log.warning("a recorded file of %s is left alone: %s", package.full_name, error)
                continue
            yield path, digest


def _owners(
    packages: Iterable[InstalledPackage], host: Host
) -> dict[str, tuple[InstalledPackage, ...]]:
    owners: dict[str, tuple[InstalledPackage, ...]] = {}
    for package in packages:
        for path in package.files:
            key = host.paths.key(path)
            owners[key] = (*owners.get(key, ()), package)
    return owners


def damaged_files(package: InstalledPackage, host: Host) -> tuple[str, ...]:
    """Return one ``PATH: what is wrong`` for each recorded path that is missing or differs."""
    found = []
    for path, digest in (package.installed_files or {}).items():
        problem = _damage(path, digest, host)
        if problem:
            found.append(f"{path}: {problem}")
    return tuple(found)


def _damage(path: str, digest: str, host: Host) -> str:
    try:
        kind = host.kind_of(path)
        if not kind:
            return "missing"
        if not digest:
            return ""
        if kind != "file":
            return f"a {kind} is in its place"
        if host.sha256(path) != digest.lower():
            return "its content differs"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _depth(path: str) -> int:
    return path.count("\\") + path.count("/")
