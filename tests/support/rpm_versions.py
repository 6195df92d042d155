"""The project's rpms of a target in two versions: of the tree, and of a release after it.

Both are built by tools/build-rpm in copies of the tree and cached by the tree's content, so that
every worker and every run of the same tree shares them. The later ones have the epoch of a
repository build, which the vendor's packages make necessary.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import artifact_table
import release

from support import cache
from support.commands import run_command
from support.debs import BuildFailed

LIBRARY = "python3-google-guest"
AGENT = "google-guest-agent"
OSLOGIN = "google-compute-engine-oslogin"
SELINUX = "google-compute-engine-oslogin-selinux"
CONFIGS = "google-compute-engine"
EPOCH = "2"

_BUILD_TIMEOUT = 900.0
_NO_NETWORK = ("unshare", "--net") if os.geteuid() == 0 else ()


def rpms(target: str) -> dict[str, Path]:
    """The packages of a target by their key in tools/artifacts.yaml, as a distributor builds them.

    Raises BuildFailed with the build's last words.
    """
    return _by_key(target, cache.artifact("rpms", _facts(target), _Build(target)).tree)


def later_rpms(target: str) -> dict[str, Path]:
    """The same of the next release, as a repository has them: with EPOCH."""
    facts = {**_facts(target), "later": EPOCH}
    return _by_key(target, cache.artifact("rpms", facts, _Build(target, is_later=True)).tree)


def later_version() -> str:
    """The version of `later_rpms`: of today, after the tree's."""
    day, number = release.version().split(".")
    return f"{day}.{int(number) + 1:02}"


def names(target: str) -> dict[str, str]:
    """The name that each key has on a target."""
    table = artifact_table.packages(artifact_table.target(target))
    return {package.key: package.name for package in table}


def _facts(target: str) -> dict[str, object]:
    return {"files": release.fingerprint(release.files(for_packages=True)), "target": target}


def _by_key(target: str, folder: Path) -> dict[str, Path]:
    files = {
        path.name.rsplit("-", 2)[0]: path
        for path in folder.glob("*.rpm")
        if not path.name.endswith(".src.rpm")
    }
    return {key: files[name] for key, name in names(target).items() if name in files}


class _Build:
    """Fills a directory with the rpms of a target."""

    def __init__(self, target: str, *, is_later: bool = False) -> None:
        self._target = target
        self._is_later = is_later

    def __call__(self, folder: Path) -> None:
        tree = folder / "source"
        release.stage(release.files(for_packages=True), tree)
        environment: Mapping[str, str] = {}
        if self._is_later:
            _write_later_version(tree)
            environment = {"GUEST_EPOCH": EPOCH}
        # A build asks no network for anything.
        command = [*_NO_NETWORK, "/usr/bin/python3", str(tree / "tools" / "build-rpm")]
        done = run_command(
            command,
            purpose="build the rpms",
            timeout=_BUILD_TIMEOUT,
            check=False,
            environment={**environment, "GUEST_TARGET": self._target},
        )
        if done.status != 0:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise BuildFailed(f"the rpms of {self._target} do not build: " + " | ".join(said[-5:]))
        for path in (tree / "dist" / self._target).glob("*.rpm"):
            shutil.move(str(path), folder / path.name)
        shutil.rmtree(tree)


def _write_later_version(tree: Path) -> None:
    news = (tree / "NEWS").read_text(encoding="utf-8")
    today = datetime.datetime.now(datetime.timezone.utc)
    entry = f"{later_version()} ({today:%Y-%m-%d})\n\n* Later.\n\n"
    (tree / "NEWS").write_text(entry + news, encoding="utf-8")
    (tree / "VERSION").write_text(f"{later_version()}\n")
    run_command([str(tree / "tools" / "changelog")], purpose="write the changelogs")
