"""Cached artifacts of the test beds: built once, shared by processes, rebuilt when too old.

Reads and writes: `$GUEST_TEST_CACHE`, by default /var/cache/google-guest-tests for root and
~/.cache/google-guest-tests for everyone else.

    KIND-KEY/facts.json   what the key was made of, for people
    KIND-KEY/tree/        the artifact itself, never changed after it was put in place
    KIND-KEY/use          locked shared by every process that uses the tree
    locks/KIND-KEY        locked exclusively while the artifact is looked up or built

An artifact is built under a temporary name beside its place and renamed, so a killed builder
leaves nothing that looks finished.  A tree that somebody still uses as a file system layer is
moved aside on rebuild and removed by a later look-up, when nobody holds it any more.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.commands import run_command

FORMAT = 1
"""Part of every key: raised when the layout of cached artifacts changes."""

MAX_AGE = 7 * 24 * 3600.0
"""Seconds after which an artifact is built again, so that roots follow their archive."""

_held: list[int] = []
"""Descriptors of shared locks, kept until the process ends."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its tree, its full key, and whether this call built it."""

    tree: Path
    key: str
    built: bool


def cache_directory() -> Path:
    """Where artifacts are kept; see the module's text."""
    configured = os.environ.get("GUEST_TEST_CACHE")
    if configured:
        return Path(configured)
    if os.geteuid() == 0:
        return Path("/var/cache/google-guest-tests")
    return Path.home() / ".cache" / "google-guest-tests"


def artifact_key(facts: Mapping[str, object]) -> str:
    """SHA-256 of the facts and the cache format, in hexadecimal."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def cached(kind: str, facts: Mapping[str, object]) -> bool:
    """Whether the artifact exists, of any age."""
    return (cache_directory() / _entry_name(kind, facts) / "tree").is_dir()


def artifact(
    kind: str,
    facts: Mapping[str, object],
    build: Callable[[Path], None],
    *,
    max_age: float = MAX_AGE,
    forget_after: float = MAX_AGE,
) -> Artifact:
    """The artifact for `facts`, built by `build(empty directory)` when it is missing or too old.

    Others of the kind that nobody has used for `forget_after` seconds are removed.
    When an old one cannot be rebuilt (no network), it is used with a warning; when there is none,
    the builder's error passes through.
    """
    directory = cache_directory()
    entry = directory / _entry_name(kind, facts)
    (directory / "locks").mkdir(parents=True, exist_ok=True)
    with _locked(directory / "locks" / entry.name):
        _remove_unused(entry)
        built = False
        if _age(entry) > max_age:
            try:
                _build(entry, facts, build)
                built = True
            except Exception as failure:
                if not (entry / "tree").is_dir():
                    raise
                warnings.warn(f"{entry.name} is old and was not rebuilt: {failure}", stacklevel=2)
        _hold(entry / "use")
    _remove_forgotten(directory, "*", MAX_AGE, keep=entry)
    if forget_after < MAX_AGE:
        _remove_forgotten(directory, kind, forget_after, keep=entry)
    return Artifact(entry / "tree", artifact_key(facts), built)


def _entry_name(kind: str, facts: Mapping[str, object]) -> str:
    return f"{kind}-{artifact_key(facts)[:24]}"


def _age(entry: Path) -> float:
    """Seconds since the artifact was built; infinite without one."""
    try:
        return time.time() - (entry / "facts.json").stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _build(entry: Path, facts: Mapping[str, object], build: Callable[[Path], None]) -> None:
    fresh = entry.with_name(f"{entry.name}.new-{os.getpid()}")
    (fresh / "tree").mkdir(parents=True)
    try:
        build(fresh / "tree")
        (fresh / "use").touch()
        (fresh / "facts.json").write_text(json.dumps(dict(facts), indent=1, default=str) + "\n")
        if entry.exists():
            entry.rename(entry.with_name(f"{entry.name}.old-{time.time_ns()}"))
        fresh.rename(entry)
    except BaseException:
        remove_tree(fresh)
        raise


def _remove_forgotten(directory: Path, kind: str, after: float, *, keep: Path) -> None:
    """Remove artifacts of a kind that nobody has used for so long: other packages, older hooks."""
    for use in directory.glob(f"{kind}-*/use"):
        name, aside, _ = use.parent.name.partition(".")
        entry = directory / name
        if entry == keep or (not aside and time.time() - use.stat().st_mtime < after):
            continue
        try:
            with _locked(directory / "locks" / name, wait=False):
                if not aside:
                    entry.rename(entry.with_name(f"{name}.old-{time.time_ns()}"))
                _remove_unused(entry)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process is at it


def _remove_unused(entry: Path) -> None:
    """Remove what killed builders left and old trees that nobody holds; the lock is held."""
    for leftover in entry.parent.glob(f"{entry.name}.new-*"):
        remove_tree(leftover)
    for old in entry.parent.glob(f"{entry.name}.old-*"):
        descriptor = os.open(old / "use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
        remove_tree(old)


def remove_tree(path: Path) -> None:
    """Remove a tree without crossing into another file system that may be mounted in it."""
    run_command(
        ["rm", "-rf", "--one-file-system", str(path)], purpose=f"remove {path}", timeout=120
    )


def _hold(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.utime(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    _held.append(descriptor)


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on `path`, waiting for as long as another process builds.

    Raises BlockingIOError at once when it is held and `wait` is false.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
