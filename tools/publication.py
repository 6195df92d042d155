"""Publishing a repository so that whoever reads it finds a whole one at every moment.

A repository is a folder that tools/repo-apt, repo-yum or repo-goo made; the target is a `Store`.
First a plan is made of what is to be done, then it is done in this order:

    packages, content-named indexes    nobody asks for them yet; their names never change content
    other indexes, keys, snippets      readers of a content-named index do not need them
    roots and their signatures         the moment in which the repository changes
    removals                           of what the published states.json named, but no kept state
    states.json                        tells the next publication what it may remove

An interruption leaves a whole repository, the earlier or the new one; the next run makes a plan of
what is left. A package that is published with another content ends the run before it changes
anything, and so does a target whose state this folder does not descend from: somebody else has
published there.
"""

from __future__ import annotations

import datetime
import email.utils
import enum
import hashlib
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builds
import release
import repository_states as states
from publication_store import TEMPORARY, Store

sys.path.insert(0, str(release.TOP / "src"))

from googet.atomic import replace_file
from google_guest.errors import GuestError

_PACKAGES = (".deb", ".rpm", ".goo")
_CONTENT_NAMED = re.compile(r"(?:^|/)(?:by-hash/[^/]+/[0-9a-f]+|repodata/[0-9a-f]{64}-[^/]+)$")
_ROOTS = (
    # A signature follows what it signs; InRelease, which is both, is what apt reads.
    *("Release", "Release.gpg", "InRelease"),
    *("repomd.xml", "repomd.xml.asc"),
    *("index", "index.gz", "index.sig"),
)
_SIGNED_BY = {"Release": ("InRelease", "Release.gpg"), "repomd.xml": ("repomd.xml.asc",)}


class PublicationError(GuestError):
    """The repository is not published."""


class Stage(enum.IntEnum):
    """When a file is published."""

    PACKAGES = 0
    CONTENT_NAMED = 1
    INDEXES = 2
    ROOTS = 3
    REMOVALS = 4
    RECORDS = 5

    @property
    def keeps_content(self) -> bool:
        """Whether a name of the stage stands for one content for ever."""
        return self <= Stage.CONTENT_NAMED


@dataclass(frozen=True)
class Step:
    """One file to publish, or to remove."""

    stage: Stage
    name: str
    size: int = 0

    def __str__(self) -> str:
        if self.stage is Stage.REMOVALS:
            return f"remove {self.name}"
        return f"write  {self.name} ({self.size} bytes)"


def stage_of(name: str) -> Stage:
    """The stage of a file of a repository."""
    base = posixpath.basename(name)
    if base.endswith(_PACKAGES):
        return Stage.PACKAGES
    if _CONTENT_NAMED.search(name):
        return Stage.CONTENT_NAMED
    if base == states.STATES:
        return Stage.RECORDS
    return Stage.ROOTS if base in _ROOTS else Stage.INDEXES


def order_of(step: Step) -> tuple[Any, ...]:
    """Where a step is in its plan: roots of one index together, signatures last."""
    folder, _, base = step.name.rpartition("/")
    number = _ROOTS.index(base) if step.stage is Stage.ROOTS else 0
    return (step.stage, folder, number, base)


def repository_files(folder: Path) -> dict[str, Path]:
    """The files of a repository by name; PublicationError for what cannot be published."""
    if not folder.is_dir():
        raise PublicationError(f"{folder}: there is no such repository")
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise PublicationError(f"{path} is a link; a repository has files alone")
        if path.is_file() and not path.name.startswith("."):
            found[name] = path
    if not any(stage_of(name) is Stage.ROOTS for name in found):
        raise PublicationError(f"{folder} has no index; make it with tools/repo-apt, -yum or -goo")
    return found


def check_repository(files: Mapping[str, Path], *, unsigned: bool, now: float) -> None:
    """Refuses a repository that is half-made, expired, or without signatures that it needs."""
    for name, path in files.items():
        folder, _, base = name.rpartition("/")
        beside = f"{folder}/" if folder else ""
        missing = [other for other in _SIGNED_BY.get(base, ()) if beside + other not in files]
        if missing and not unsigned:
            raise PublicationError(
                f"{path} is not signed (no {missing[0]}); sign it, or give --unsigned"
            )
        if base == "Release":
            _check_validity(path, now)
    for name, history in histories(files).items():
        _check_whole(name, history, files)


def _check_validity(release_file: Path, now: float) -> None:
    match = re.search(r"^Valid-Until: (.*)$", release_file.read_text(), re.MULTILINE)
    if match is None:
        return
    until = email.utils.parsedate_to_datetime(match[1])
    if until.replace(tzinfo=until.tzinfo or datetime.timezone.utc).timestamp() < now:
        raise PublicationError(
            f"{release_file} was valid until {match[1]}; date it anew (tools/repo-apt --date now)"
        )


def _check_whole(name: str, history: states.History, files: Mapping[str, Path]) -> None:
    root = files.get(_beside(name, history.root))
    if root is None or not history.states:
        raise PublicationError(f"{name} has no state; make the repository again")
    if builds.file_digest(root) not in history.states[0].roots:
        raise PublicationError(f"{root} is not the newest state of {name}; make it again")
    for file in sorted(_named(name, history)):
        if file not in files:
            raise PublicationError(f"{file} is missing, which {name} names; make it again")


def histories(files: Mapping[str, Path]) -> dict[str, states.History]:
    """What the repository's records say, by their names."""
    return {
        name: states.parse_history(path.read_text(), source=str(path))
        for name, path in files.items()
        if stage_of(name) is Stage.RECORDS
    }


def _beside(record: str, name: str) -> str:
    """The name of a file that a record names, below the top of what is published."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(record), name))


def _named(record: str, history: states.History) -> set[str]:
    return {_beside(record, name) for name in history.files()}


def plan(files: Mapping[str, Path], store: Store, *, unrelated: bool = False) -> list[Step]:
    """What publishing does, in order.

    Raises PublicationError when a name would change its content, or when the target is at a state
    that is not one of this repository's (``unrelated``: it is replaced, and nothing removed).
    """
    there = store.listing()
    steps = []
    conflicts = []
    for name, file in files.items():
        stage = stage_of(name)
        if name in there:
            if store.holds(name, there[name], file):
                continue
            if stage.keeps_content:
                conflicts.append(name)
        steps.append(Step(stage, name, file.stat().st_size))
    if conflicts:
        raise PublicationError(
            f"{store.url} has another content under {', '.join(sorted(conflicts))}; a published"
            " name keeps its content: raise the version"
        )
    if not unrelated:
        _check_descent(files, store, there)
        steps += _removals(files, store, there)
    return sorted(steps, key=order_of)


def _check_descent(
    files: Mapping[str, Path], store: Store, there: Mapping[str, Mapping[str, Any]]
) -> None:
    for name, history in histories(files).items():
        root = _beside(name, history.root)
        if root in there and not history.knows(hashlib.sha256(store.read(root)).hexdigest()):
            raise PublicationError(
                f"{store.url}/{root} is of a state that this repository has not, or no longer;"
                " begin with what is there (tools/publish --fetch), or give --unrelated to replace"
                " it without removing anything"
            )


def _removals(
    files: Mapping[str, Path], store: Store, there: Mapping[str, Mapping[str, Any]]
) -> Iterator[Step]:
    """What the last publication's kept states named, and those of this one do not."""
    removable = {name for name in there if posixpath.basename(name).endswith(TEMPORARY)}
    for record in histories(files):
        if record in there:
            text = store.read(record).decode("utf-8", "replace")
            before = states.parse_history(text, source=f"{store.url}/{record}")
            removable |= _named(record, before)
    for name in sorted(removable & there.keys() - files.keys()):
        yield Step(Stage.REMOVALS, name)


def carry_out(steps: Iterable[Step], files: Mapping[str, Path], store: Store) -> Iterator[Step]:
    """Does the steps; gives each of them when it is done."""
    for step in steps:
        if step.stage is Stage.REMOVALS:
            store.remove(step.name)
        else:
            store.put(files[step.name], step.name, for_ever=step.stage.keeps_content)
        yield step


def fetch(store: Store, folder: Path) -> Iterator[str]:
    """Makes a folder hold what is published, to go on from it; gives each name that was fetched.

    What is in the folder beside that stays.
    """
    there = store.listing()
    if not there:
        raise PublicationError(f"{store.url} is empty")
    for name in sorted(there):
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise PublicationError(f"{store.url}: {name} is no path in a repository")
        if name.endswith(TEMPORARY) or (
            target.is_file() and store.holds(name, there[name], target)
        ):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, store.read(name))
        yield name
