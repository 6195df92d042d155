"""Repositories in the states that they have one after the other, and publishing them in tests."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import publication
from publication_store import Store

from support.debs import SOURCE_TREE
from support.small_debs import small_deb

NAME = "guest-example"
VERSIONS = "123456"
_numbers = itertools.count()


def made_states(
    tool: str, option: str, packages: Sequence[Path], folder: Path, key: Path
) -> list[Path]:
    """Copies of a repository after each package that was added; two versions and states stay."""
    top = folder / "repository"
    made = []
    for number, package in enumerate(packages):
        moment = int(time.time()) - 100 + number
        subprocess.run(
            [
                *("/usr/bin/python3", SOURCE_TREE / "tools" / tool, "--output", top),
                *("--keep-versions=2", "--keep-states=2", f"--date=@{moment}", option, package),
            ],
            env={"PATH": os.environ["PATH"], "GUEST_GPG_KEY_FILE": str(key)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        made.append(Path(shutil.copytree(top, folder / f"state-{number}")))
    return made


def apt_states(folder: Path, key: Path) -> list[Path]:
    """An apt repository after each version of the package was added."""
    debs = [small_deb(folder, NAME, f"1:{version}-1") for version in VERSIONS]
    return made_states("repo-apt", "--suite=bookworm", debs, folder, key)


def published(folder: Path, store: Store) -> list[publication.Step]:
    """Publish a repository as tools/publish does; what was done."""
    files = publication.repository_files(folder)
    publication.check_repository(files, unsigned=False, now=time.time())
    return list(publication.carry_out(publication.plan(files, store), files, store))


def contents(store: Store) -> dict[str, bytes]:
    """Every file of a store."""
    return {name: store.read(name) for name in store.listing()}


def contents_of(folder: Path) -> dict[str, bytes]:
    """Every file of a repository."""
    return {name: path.read_bytes() for name, path in publication.repository_files(folder).items()}


def new_url(kind: str, folder: Path) -> str:
    """A place that is not there yet: in fsspec's `memory`, or a folder."""
    if kind == "memory":
        return f"memory://place-{next(_numbers)}"
    return str(folder / f"place-{next(_numbers)}")
