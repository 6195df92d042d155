"""The commands about repository files: addrepo, listrepos, rmrepo.

Facts: googet: cli/addrepo, cli/listrepos, cli/rmrepo.
"""

from __future__ import annotations

import sys
from pathlib import Path

from googet.cli.flags import Arguments, UsageError
from googet.cli.opening import Environment, changing
from googet.repofiles import (
    Entry,
    RepositoryFileError,
    add_repository,
    list_repository_files,
    parse_priority,
    remove_repository,
)
from googet.screen import Screen
from googet.urls import OAUTH

_OK = 0
_FOLDER = "repos"


def run_addrepo(environment: Environment, arguments: Arguments) -> int:
    """``addrepo [flags] NAME URL``."""
    if len(arguments.positionals) != 2:
        raise UsageError("give a name and a URL")
    name, url = arguments.positionals
    file = arguments.text("file")
    if file and (not file.endswith(".repo") or Path(file).name != file):
        raise UsageError(f"-file {file!r} is no file name that ends in .repo")
    try:
        priority = parse_priority(arguments.text("priority"))
    except RepositoryFileError as error:
        raise UsageError(str(error)) from error
    with changing(environment) as session:
        change = add_repository(
            session.repository_files,
            name,
            url,
            file=file,
            priority=priority,
            dry_run=arguments.flag("dry_run"),
        )
        screen = session.screen
        verb = "Would write" if arguments.flag("dry_run") else "Wrote"
        screen.line(f"{verb} {change.path}:")
        screen.line(change.text.rstrip("\n"))
    return _OK


def run_rmrepo(environment: Environment, arguments: Arguments) -> int:
    """``rmrepo [-dry_run] NAME``."""
    if len(arguments.positionals) != 1:
        raise UsageError("give one name")
    (name,) = arguments.positionals
    dry_run = arguments.flag("dry_run")
    with changing(environment) as session:
        changed = remove_repository(session.repository_files, name, dry_run=dry_run)
    if not changed:
        print(f"No repository file has an entry {name!r}.", file=sys.stderr)
    for path in changed:
        verb = "would be removed" if dry_run else "removed"
        print(f"Repository {name!r} {verb} from {path}.", file=sys.stderr)
    return _OK


def run_listrepos(environment: Environment, arguments: Arguments) -> int:
    """``listrepos [-format FORMAT]``."""
    name = arguments.text("format")
    if name not in ("simple", "json"):
        raise UsageError(f"-format {name!r} is neither simple nor json")
    if arguments.positionals:
        raise UsageError("no argument is taken")
    files = list_repository_files(environment.root_folder() / _FOLDER)
    screen = Screen()
    if name == "json":
        from googet.gojson import dumps

        records = [
            {
                "file": str(file.path),
                "name": entry.name,
                "url": _url(entry),
                "priority": entry.priority or parse_priority("default"),
            }
            for file in files
            for entry in file.entries
        ]
        screen.line(dumps(records, indent=2))
        return _OK
    for file in files:
        screen.line(f"{file.path}:")
        screen.lines(f"  {entry.name}: {_url(entry)}" for entry in file.entries)
    return _OK


def _url(entry: Entry) -> str:
    return entry.url if entry.url.startswith(OAUTH) or not entry.oauth else OAUTH + entry.url
