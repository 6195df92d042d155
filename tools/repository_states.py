"""What apt and yum repositories have in common: packages under names that never change their
content, versions, and the states of an index that are kept.

A repository changes while machines read it. Indexes are therefore also there under names made of
their content (apt's `by-hash`, yum's `CHECKSUM-primary.xml.gz`), and those of the last states stay,
with every package that they name. `states.json` beside the index's root (Release, repomd.xml) says
what belongs to which state: `tools/publish` takes away only what no kept state names, and knows by
it whether a published repository is an earlier state of the one in hand.

`published.sha256` (a list as sha256sum has it) remembers the content of every package name that was
ever there, as it was before it was signed.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import functools
import json
import os
import posixpath
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import builds
import release
import yaml
from signing import Signer, signer

sys.path.insert(0, str(release.TOP / "src"))

from googet.atomic import replace_file, replacing
from google_guest.errors import GuestError

STATES = "states.json"
LEDGER = "published.sha256"
KEEP_VERSIONS = 3
KEEP_STATES = 3
KEY_FILE = "google-guest-environment.asc"
"""The public key, at the top of a repository."""
_OTHERS = Path(__file__).resolve().parent / "other-versions.yaml"
_FORMAT = 1
_SUM = re.compile(r"([0-9a-f]{64})  ([^/\\]+)")
_ROOTS = 16
"""Roots remembered of one state: how often it is dated anew between two publications."""
_TIMEOUT = 300.0


class RepositoryError(GuestError):
    """The repository cannot be made as asked."""


@dataclass(frozen=True)
class Options:
    """How a repository is written."""

    date: int
    """Unix time of the index."""
    signer: Signer | None
    url: str
    """Where machines will find it; no slash at the end."""
    keep_versions: int = KEEP_VERSIONS
    keep_states: int = KEEP_STATES


def command_line(description: str, *, kind: str) -> argparse.ArgumentParser:
    """The parser of what the commands for ``kind`` ("apt", "yum") of repository share."""
    parser = argparse.ArgumentParser(description=description)
    output = release.TOP / "dist" / f"{kind}-repo"
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument(
        "--date", default="", help="of the index: now, @SECONDS, YYYY-MM-DD[THH:MM:SS]"
    )
    parser.add_argument("--keep-versions", type=_at_least_one, default=KEEP_VERSIONS)
    parser.add_argument("--keep-states", type=_at_least_one, default=KEEP_STATES)
    url = f"https://packages.example.com/{kind}"
    parser.add_argument("--url", default=url, help="where machines find it")
    parser.add_argument("--unsigned", action="store_true", help="do without a key")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!a} is no number from 1 on")
    return int(text)


def report(name: str, update: Callable[[], Iterable[str]]) -> int:
    """Print what ``update`` says, or its failure; the exit status of the command ``name``."""
    try:
        for line in update():
            print(line)
    except (GuestError, OSError) as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[Options]:
    """The repository of a command line, for this process alone, and how it is to be written."""
    with signer(unsigned=arguments.unsigned) as key, locked(arguments.output):
        yield Options(
            date=moment(arguments.date),
            signer=key,
            url=arguments.url.rstrip("/"),
            keep_versions=arguments.keep_versions,
            keep_states=arguments.keep_states,
        )


@dataclass(frozen=True)
class State:
    """One content of a repository's index."""

    roots: tuple[str, ...]
    """SHA-256 of its root, newest first: a new date makes a new root, not a new state."""
    files: tuple[str, ...]
    """Content-named indexes and packages, relative to the folder of the root, with ``/``."""


@dataclass(frozen=True)
class History:
    """The kept states of an index, newest first; ``root`` is the name of its root."""

    root: str
    states: tuple[State, ...] = ()

    def with_state(self, root_digest: str, files: Iterable[str], *, keep: int) -> History:
        """The history after a state became the current one, with the ``keep`` newest states."""
        named = tuple(sorted(files))
        before = [state for state in self.states if state.files != named]
        known = [root for state in self.states if state.files == named for root in state.roots]
        roots = (root_digest, *(root for root in known if root != root_digest))
        return replace(self, states=(State(roots[:_ROOTS], named), *before)[:keep])

    def files(self) -> set[str]:
        """Everything that a kept state names."""
        return {name for state in self.states for name in state.files}

    def knows(self, root_digest: str) -> bool:
        return any(root_digest in state.roots for state in self.states)

    def text(self) -> str:
        states = [{"roots": list(s.roots), "files": list(s.files)} for s in self.states]
        document = {"format": _FORMAT, "root": self.root, "states": states}
        return json.dumps(document, indent=1) + "\n"


def parse_history(text: str, *, source: str) -> History:
    """The history in a text of ``states.json``; RepositoryError names ``source`` if it is none."""
    try:
        document = json.loads(text)
        if document["format"] != _FORMAT:
            raise RepositoryError(f"{source}: format {document['format']} is not known here")
        states = [
            State(tuple(map(str, state["roots"])), tuple(map(_safe, state["files"])))
            for state in document["states"]
        ]
        return History(_safe(document["root"]), tuple(states))
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise RepositoryError(f"{source} is no list of states: {wrong!r}") from None


def _safe(name: str) -> str:
    """A path that stays below the repository, whose root's folder is at most two levels deep."""
    normal = posixpath.normpath(name)
    if not name or normal != name or name.startswith(("/", "../../../")):
        raise ValueError(f"{name!r} is no path in a repository")
    return name


def read_history(folder: Path, root: str) -> History:
    """The kept states of the index in a folder."""
    path = folder / STATES
    if not path.exists():
        return History(root)
    return parse_history(path.read_text(), source=str(path))


def remove_unnamed(folder: Path, before: History, now: History) -> list[Path]:
    """Removes what earlier states named and no kept state does; returns the paths."""
    removed = []
    for name in sorted(before.files() - now.files()):
        path = Path(os.path.normpath(folder / name))
        path.unlink(missing_ok=True)
        removed.append(path)
    return removed


class Ledger:
    """The SHA-256 of every package file that was ever in a repository, by its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digests: dict[str, str] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            match = _SUM.fullmatch(line)
            if match is None:
                raise RepositoryError(f"{path}: {line!r} is no line of sha256sum")
            self._digests[match[2]] = match[1]

    def check(self, name: str, digest: str) -> bool:
        """Whether the name is known; RepositoryError if it is, with another content."""
        known = self._digests.get(name)
        if known not in (None, digest):
            raise RepositoryError(
                f"{name} is published with another content (SHA-256 {known[:16]}..., this file's is"
                f" {digest[:16]}...); a published name keeps its content: raise the version"
            )
        return known is not None

    def add(self, name: str, digest: str) -> None:
        self.check(name, digest)
        self._digests[name] = digest

    def save(self) -> None:
        lines = [f"{self._digests[name]}  {name}\n" for name in sorted(self._digests)]
        write_changed(self.path, "".join(lines).encode())


def write_changed(path: Path, data: bytes) -> None:
    """Replaces a file in one step, unless it has that content already."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)


def place(source: Path, target: Path, *, time: int) -> None:
    """Copies a package in one step; RepositoryError if another one has the name."""
    if target.exists():
        if digest_of(target) != digest_of(source):
            raise RepositoryError(f"{target} is there with another content; it was altered")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as copy, source.open("rb") as original:
        while block := original.read(1 << 20):
            copy.write(block)
    os.utime(target, (time, time))


def digest_of(path: Path) -> str:
    """SHA-256, in hexadecimal; RepositoryError for what cannot be read."""
    try:
        return builds.file_digest(path)
    except OSError as failure:
        raise RepositoryError(f"{path} cannot be read: {failure.strerror}") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time changes a repository."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def moment(text: str) -> int:
    """Unix time of a ``--date``: ``now``, ``@SECONDS``, a day, or a day and a time in UTC.

    Empty: SOURCE_DATE_EPOCH, or else the release's date.
    """
    if not text:
        text = "@" + (os.environ.get("SOURCE_DATE_EPOCH") or str(release.epoch()))
    if text == "now":
        return int(datetime.datetime.now(datetime.timezone.utc).timestamp())
    try:
        if text.startswith("@"):
            return int(text[1:])
        day = datetime.datetime.fromisoformat(text[:-1] if text.endswith("Z") else text)
    except ValueError:
        raise RepositoryError(
            f"--date {text}: give now, @SECONDS or YYYY-MM-DD[THH:MM:SS]"
        ) from None
    return int(day.replace(tzinfo=day.tzinfo or datetime.timezone.utc).timestamp())


def run(
    command: Sequence[str], *, folder: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    """What a program says; RepositoryError with its last words when it fails."""
    try:
        done = subprocess.run(
            list(command),
            cwd=folder,
            env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise RepositoryError(f"{command[0]} is missing: run `make setup`") from None
    if done.returncode != 0:
        said = [line.strip() for line in (done.stderr or done.stdout).split("\n") if line.strip()]
        raise RepositoryError(
            f"{command[0]} ended with {done.returncode}: {' | '.join(said[-2:]) or 'no word'}"
        )
    return done.stdout


def is_greater_deb(first: str, second: str) -> bool:
    """Whether a Debian version is greater than another, as dpkg orders them."""
    done = subprocess.run(["dpkg", "--compare-versions", first, "gt", second], check=False)
    return done.returncode == 0


def is_greater_rpm(first: str, second: str) -> bool:
    """Whether an EPOCH:VERSION-RELEASE is greater than another, as rpm orders them."""
    question = f'%{{lua: print(rpm.vercmp("{first}", "{second}"))}}'
    return run(["rpm", "--eval", question]).strip() == "1"


def newest_first(versions: Iterable[str], is_greater: Callable[[str, str], bool]) -> list[str]:
    """Different versions, the greatest first."""

    def order(first: str, second: str) -> int:
        return -1 if is_greater(first, second) else int(is_greater(second, first))

    return sorted(set(versions), key=functools.cmp_to_key(order))


def check_beats_others(
    kind: str, name: str, version: str, *, is_greater: Callable[[str, str], bool], epoch: int
) -> None:
    """RepositoryError when another's package of the name (``other-versions.yaml``) would win."""
    for other in yaml.safe_load(_OTHERS.read_text())[kind].get(name, ()):
        if not is_greater(version, str(other)):
            raise RepositoryError(
                f"{name} {version} is not greater than {other}, which others publish; build"
                f" packages for a repository with GUEST_EPOCH={epoch}"
            )
