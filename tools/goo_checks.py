"""Checks of finished Windows packages beyond the table of their files.

What a client of googet trips over, and what only a look at all packages together shows: names with
dots, versions without three fields, paths with two owners, dependencies that no package of the set
satisfies, install scripts that are missing or not as cmd.exe reads them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import release

sys.path.insert(0, str(release.TOP / "src"))

from googet.archive import extract, read_archive_spec
from googet.pkgspec import PackageSpec, file_name
from googet.versions import VersionError, compare_versions

ARCHITECTURES = ("noarch", "x86_64")
_VARIABLE = re.compile(r"<(\w+)>/(.*)")
_THREE_FIELDS = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+@[0-9]+")
_SCRIPTS = (".cmd", ".ps1", ".psm1")
PACKAGE_FOLDER = "scripts"
"""Where an unpacked tree has what a package carries for its installation alone."""


def unpack(archive: Path, root: Path) -> tuple[PackageSpec, dict[str, str]]:
    """Unpack a package into the new `root` as it would be placed.

    `<ProgramFiles>/a` becomes `ProgramFiles/a`, what is placed nowhere `scripts/a`. Returns the
    spec, and the destination of each placed file.
    """
    spec = read_archive_spec(archive)
    work = root.with_name(f"{root.name}.archive")
    placed = {}
    for name in extract(archive, work):
        if name == f"{spec.name}.pkgspec":
            continue
        target = _destination(name, spec.files)
        if target is None:
            path = f"{PACKAGE_FOLDER}/{name}"
        else:
            placed[name] = target
            match = _VARIABLE.fullmatch(target)
            path = f"{match[1]}/{match[2]}" if match else target.lstrip("/")
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (work / name).rename(root / path)
        # Windows knows no modes.
        (root / path).chmod(0o644)
    return spec, placed


def set_findings(
    specs: Mapping[Path, PackageSpec], placed: Mapping[Path, Mapping[str, str]]
) -> Iterator[str]:
    """What is wrong with the packages together, a line each."""
    by_name = {spec.name: spec for spec in specs.values()}
    owners: dict[str, str] = {}
    for archive, spec in specs.items():
        yield from _spec_findings(archive, spec)
        yield from _dependency_findings(spec, by_name)
        for target in placed[archive].values():
            # Windows takes names that differ in case alone for the same.
            owner = owners.setdefault(target.casefold(), spec.name)
            if owner != spec.name:
                yield f"{spec.name}: {target} belongs to {owner}, too"


def table_findings(spec: PackageSpec, entry: Mapping[str, Any]) -> Iterator[str]:
    """Where a spec differs from the table in its architecture or in what it depends on."""
    if spec.arch != entry.get("arch"):
        yield f"{spec.name}: its arch is {spec.arch}, the table says {entry.get('arch')}"
    wanted = set(entry.get("depends", ()))
    for name in sorted(wanted - set(spec.dependencies)):
        yield f"{spec.name}: does not depend on {name}, the table says so"
    for name in sorted(set(spec.dependencies) - wanted):
        yield f"{spec.name}: depends on {name}, the table does not say so"


def script_findings(root: Path, name: str) -> Iterator[str]:
    """Scripts that Windows' interpreters would not read as they are meant."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix in _SCRIPTS and "site-packages" not in path.parts:
            for problem in script_problems(path.read_bytes()):
                yield f"{name}: /{path.relative_to(root)} {problem}"


def script_problems(content: bytes) -> Sequence[str]:
    """What is wrong with the form of a .cmd or .ps1 file."""
    problems = []
    if not content.isascii():
        problems.append("is not ASCII: what Windows makes of it depends on its language")
    lines = content.split(b"\n")
    if lines[-1] or not all(line.endswith(b"\r") for line in lines[:-1]):
        problems.append("has lines that do not end with CR LF")
    return problems


def _spec_findings(archive: Path, spec: PackageSpec) -> Iterator[str]:
    if "." in spec.name:
        yield f"{spec.name}: a name with a dot is taken apart at it"
    if not _THREE_FIELDS.fullmatch(spec.version):
        yield f"{spec.name}: version {spec.version} is not of the form 1.2.3@1"
    if spec.arch not in ARCHITECTURES:
        yield f"{spec.name}: arch {spec.arch} is none of {', '.join(ARCHITECTURES)}"
    if archive.name != file_name(spec):
        yield f"{spec.name}: its file is named {archive.name}, not {file_name(spec)}"
    if not spec.release_notes:
        yield f"{spec.name}: has no release notes"


def _dependency_findings(spec: PackageSpec, by_name: Mapping[str, PackageSpec]) -> Iterator[str]:
    for name, minimum in sorted(spec.dependencies.items()):
        found = by_name.get(name)
        if found is None:
            yield f"{spec.name}: depends on {name}, which is no package of the set"
            continue
        try:
            is_old = compare_versions(found.version, minimum) < 0
        except VersionError as error:
            yield f"{spec.name}: depends on {name} {minimum!r}: {error}"
            continue
        if is_old:
            yield f"{spec.name}: depends on {name} {minimum}, there is {found.version}"


def _destination(name: str, files: Mapping[str, str]) -> Optional[str]:
    """Where a file of the archive is placed; None: nowhere."""
    for source, target in files.items():
        if name == source:
            return target
        if source == "." or name.startswith(f"{source}/"):
            rest = name if source == "." else name[len(source) + 1 :]
            return f"{target.rstrip('/')}/{rest}"
    return None
