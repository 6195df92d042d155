"""The commands that only look: installed, available, latest.

Programs read what they print: OS Config the lines of ``installed`` (two words, one dot in the first
and the second a version), image tests the version and the source of ``-info``, scripts the JSON.

Facts: googet: cli/installed, cli/available, cli/latest; osconfig: packages/googet.go.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from typing import Any, Optional

from googet.cli.flags import Arguments, UsageError
from googet.cli.info import describe, short_repository
from googet.cli.opening import Environment, changing, looking, reading
from googet.database import DatabaseError, InstalledPackage, encode
from googet.gojson import dumps, load
from googet.operations.session import Session
from googet.pkgspec import PackageSpec, split_name
from googet.repositories import Candidate
from googet.screen import Screen
from googet.selection import Catalogue, SelectionError, choose, key_of, sort_key

_log = logging.getLogger(__name__)

_OK, _FAILED = 0, 1


def run_installed(environment: Environment, arguments: Arguments) -> int:
    """``installed [flags] [NAME]``."""
    as_json = _is_json(arguments)
    pattern = _only_argument(arguments)
    try:
        with reading(environment) as session:
            if session.has_database:
                return _installed(session, arguments, pattern, as_json=as_json)
    except DatabaseError as error:
        # A run that was killed while it wrote left it to be mended by one that may write.
        _log.info("%s", error)
    # Or the database is made, from the state of googet 2.x where there is one.
    with changing(environment) as session:
        return _installed(session, arguments, pattern, as_json=as_json)


def _installed(session: Session, arguments: Arguments, pattern: str, *, as_json: bool) -> int:
    packages = [
        package
        for _, package in sorted(session.installed().items())
        if not pattern or _matches(package.spec, pattern)
    ]
    screen = session.screen
    if as_json:
        records = [load(encode(package)) for package in packages]
        screen.line(dumps(records or {}, indent=2))
        return _OK
    if not packages:
        if not pattern:
            screen.line("No packages installed.")
            return _OK
        _note(screen, f"No package matching {pattern!r} is installed.")
        return _FAILED
    screen.line(f"Installed packages matching {pattern!r}:" if pattern else "Installed packages:")
    for package in packages:
        _print_installed(screen, package, arguments)
    return _OK


def _print_installed(screen: Screen, package: InstalledPackage, arguments: Arguments) -> None:
    if arguments.flag("info"):
        screen.line()
        screen.lines(describe(package.spec, "installed"))
    else:
        screen.line(_listed(package.spec))
    if arguments.flag("files"):
        screen.lines(f"  - {path}" for path in sorted(package.installed_files or {}))


def run_available(environment: Environment, arguments: Arguments) -> int:
    """``available [flags] [TEXT]``."""
    as_json = _is_json(arguments)
    text = _only_argument(arguments).lower()
    with looking(environment, sources=arguments.text("sources")) as session:
        candidates = [
            candidate
            for candidate in session.available.candidates
            if text in candidate.spec.full_name.lower()
        ]
        screen = session.screen
        if as_json:
            screen.line(dumps([_available_record(one) for one in candidates], indent=2))
        elif candidates:
            _print_available(screen, candidates, info=arguments.flag("info"))
        else:
            wanted = f" with {text!r} in its name" if text else ""
            _note(screen, f"No repository has a package{wanted}.")
        return _OK if candidates else _FAILED


def _print_available(screen: Screen, candidates: Sequence[Candidate], *, info: bool) -> None:
    by_repository: dict[str, list[PackageSpec]] = {}
    for candidate in candidates:
        by_repository.setdefault(candidate.repository.display_url, []).append(candidate.spec)
    for url, specs in by_repository.items():
        screen.line(f"{url}:")
        for spec in sorted(specs, key=lambda one: (*key_of(one), sort_key(one.version))):
            if info:
                screen.line()
                screen.lines(describe(spec, short_repository(url)))
            else:
                screen.line(_listed(spec))


def run_latest(environment: Environment, arguments: Arguments) -> int:
    """``latest [flags] NAME``."""
    if len(arguments.positionals) != 1:
        raise UsageError("name one package")
    if arguments.flag("json") and not arguments.flag("compare"):
        raise UsageError("-json goes with -compare only")
    wanted = split_name(arguments.positionals[0])
    with looking(environment, sources=arguments.text("sources")) as session:
        installed = session.installed()
        present = [one for key, one in sorted(installed.items()) if key[0] == wanted.name]
        try:
            offer = choose(
                Catalogue(session.available.candidates),
                wanted,
                architectures=session.settings.architectures,
                installed_arch=present[0].spec.arch if present else "",
                locked=present[0].spec.lock_arch if present else False,
            )
        except SelectionError as error:
            _note(session.screen, f"{error}")
            return _FAILED
        spec = offer.spec
        screen = session.screen
        if not arguments.flag("compare"):
            screen.line(spec.version)
            return _OK
        own = installed.get(key_of(spec)) or (present[0] if present and not wanted.arch else None)
        comparison = _comparison(spec, own)
        if arguments.flag("json"):
            screen.line(dumps(comparison, indent=2))
        else:
            screen.line(_sentence(comparison))
        return _OK


def _comparison(latest: PackageSpec, installed: Optional[InstalledPackage]) -> dict[str, Any]:
    if installed is None:
        return {
            "package_name": latest.name,
            "status": "not_installed",
            "latest_version": latest.version,
        }
    new, old = sort_key(latest.version), sort_key(installed.spec.version)
    return {
        "package_name": latest.name,
        "status": (
            "update_available"
            if old < new
            else "up_to_date"
            if old == new
            else "newer_version_installed"
        ),
        "installed_version": installed.spec.version,
        "latest_version": latest.version,
    }


def _sentence(comparison: dict[str, Any]) -> str:
    name, latest = comparison["package_name"], comparison["latest_version"]
    installed = comparison.get("installed_version", "")
    return {
        "not_installed": f"{name} is not installed; {latest} is available",
        "update_available": f"{name} {installed} is installed; {latest} is available",
        "up_to_date": f"{name} {installed} is installed and up to date",
        "newer_version_installed": (
            f"{name} {installed} is installed, newer than {latest} of the repositories"
        ),
    }[comparison["status"]]


def _listed(spec: PackageSpec) -> str:
    return f"  {spec.name}.{spec.arch} {spec.version}"


def _available_record(candidate: Candidate) -> dict[str, Any]:
    return {
        "package_name": candidate.spec.name,
        "arch": candidate.spec.arch,
        "version": candidate.spec.version,
        "repository": candidate.repository.display_url,
        "priority": candidate.priority,
    }


def _matches(spec: PackageSpec, pattern: str) -> bool:
    """Say whether ``N``, ``N.A`` or ``N.A.V`` with ``*`` and ``%`` for any text means a package."""
    given = pattern.strip()
    parts = min(given.count("."), 2)
    text = (spec.name, f"{spec.name}.{spec.arch}", spec.full_name)[parts]
    expression = "".join(".*" if one in "*%" else re.escape(one) for one in given)
    return re.fullmatch(expression, text, re.IGNORECASE | re.DOTALL) is not None


def _is_json(arguments: Arguments) -> bool:
    name = arguments.text("format")
    if name not in ("simple", "json"):
        raise UsageError(f"-format {name!r} is neither simple nor json")
    return name == "json"


def _only_argument(arguments: Arguments) -> str:
    if len(arguments.positionals) > 1:
        raise UsageError("at most one argument is taken")
    return arguments.positionals[0] if arguments.positionals else ""


def _note(screen: Screen, text: str) -> None:
    screen.flush()
    print(text, file=sys.stderr)
