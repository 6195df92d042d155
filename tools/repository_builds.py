"""Builds of packages for repositories: with the epoch and revision that distributors' have not.

They are kept apart from those of `make deb` and `make rpm`, below build/repo/TARGET/. A target that
this machine cannot build is left out with the build's own reason.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import artifact_table
import builds
import release
from repository_states import RepositoryError

EPOCHS = {"deb": "1", "rpm": "2"}
"""At least that of every vendor's packages of the same names."""
_TIMEOUT = 3600.0


def built_packages(kind: str) -> tuple[dict[str, list[Path]], list[str]]:
    """The packages of every target of a format, and what to tell of those left out.

    Keys are code names of suites for deb, targets for rpm.
    """
    found: dict[str, list[Path]] = {}
    said = []
    for name, target in artifact_table.targets().items():
        if target.format != kind:
            continue
        files, reason = built(kind, name)
        if reason:
            said.append(f"{name} is left out: {reason}")
        else:
            found[target.suite if kind == "deb" else name] = files
    if not found:
        raise RepositoryError("no package can be built here: " + "; ".join(said))
    return found, said


def revision_of(target: str) -> str:
    """What tells the packages of a release from those of others: +deb12, +ubuntu24.04."""
    facts = artifact_table.target(target)
    return "+" + {"debian": "deb"}.get(facts.distribution, facts.distribution) + facts.release


def built(kind: str, target: str) -> tuple[list[Path], str]:
    """The files of a target, or why it cannot be built here; RepositoryError if it does not."""
    folder = release.TOP / "build" / "repo" / target
    output = folder / "packages"
    tool = release.TOP / "tools" / f"build-{kind}"
    variables = {
        "GUEST_TARGET": target,
        "GUEST_EPOCH": EPOCHS[kind],
        "GUEST_REVISION": revision_of(target) if kind == "deb" else "",
    }
    done = subprocess.run(
        [builds.PYTHON, str(tool), "--work", str(folder / "work"), "--output", str(output)],
        cwd=release.TOP,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TIMEOUT,
        check=False,
    )
    last = ([line for line in done.stderr.splitlines() if line.strip()] or ["no word"])[-1]
    if done.returncode == builds.CANNOT_BUILD_HERE:
        return [], last
    if done.returncode != 0:
        raise RepositoryError(f"the packages for {target} do not build: {last}")
    words = {Path(word.rstrip(",")).name for word in done.stdout.split()}
    files = sorted(output / word for word in words if word.endswith(f".{kind}"))
    return [file for file in files if file.is_file() and ".src." not in file.name], ""
