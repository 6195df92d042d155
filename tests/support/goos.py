"""The project's Windows packages (.goo) as tests read and install them.

Reads: `dist/` of the source tree after `make goo` (which does nothing when nothing has changed), or
the folder that the environment variable GUEST_GOOS names, as it is.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Optional

import release

from support import cache
from support.commands import Completed, run_command
from support.debs import SOURCE_TREE, BuildFailed

RUNTIME = "google-guest-python-runtime"
LIBRARY = "google-guest-library"
AGENT = "google-compute-engine-windows"
SCRIPTS = "google-compute-engine-metadata-scripts"
CLIENT = "googet"
PACKAGES = (RUNTIME, LIBRARY, AGENT, SCRIPTS, CLIENT)

LACKS_SOMETHING = 3
"""Exit status of a build that needs what this machine neither has nor can fetch."""

_BUILD_TIMEOUT = 900.0
_FIELDS = re.compile(r"(?P<date>[0-9]{8})\.(?P<number>[0-9]{2})")


class MissingPart(Exception):
    """The packages cannot be built on this machine; the message says what is missing."""


def built_goos(folder: Optional[Path] = None) -> dict[str, Path]:
    """The packages by name: of `folder`, of GUEST_GOOS, or of `dist/` after building them.

    Raises MissingPart when this machine cannot build them, BuildFailed when they do not build.
    """
    configured = os.environ.get("GUEST_GOOS")
    if folder is None and configured:
        folder = Path(configured)
    if folder is None:
        folder = SOURCE_TREE / "dist"
        _built(SOURCE_TREE, folder)
    return found_goos(folder)


def found_goos(folder: Path) -> dict[str, Path]:
    """The newest file of each package in a folder, by package name."""
    files = sorted(folder.glob("*.goo"), key=lambda file: file.stat().st_mtime)
    return {file.name.split(".", 1)[0]: file.resolve() for file in files}


def next_goos() -> dict[str, Path]:
    """The same packages of the version after this one, as an upgrade needs them.

    The runtime is the same package: it has a version of its own, which does not change.
    """
    facts = {"files": release.fingerprint(release.files(for_packages=True))}
    return found_goos(cache.artifact("goos", facts, _build_next).tree)


def next_version() -> str:
    """The version of `next_goos`."""
    match = _FIELDS.fullmatch(release.version())
    assert match is not None
    return f"{match['date']}.{int(match['number']) + 1:02}"


def build(tree: Path, output: Path, **environment: str) -> Completed:
    """Run the build of a tree; its output says what came of it."""
    return run_command(
        ["/usr/bin/python3", str(tree / "tools" / "build-goo"), "--output", str(output)],
        purpose="build the Windows packages",
        timeout=_BUILD_TIMEOUT,
        check=False,
        environment=environment or None,
    )


def _build_next(folder: Path) -> None:
    tree = folder / "source"
    release.stage(release.files(for_packages=True), tree)
    for name in ("VERSION", "NEWS"):
        text = (tree / name).read_text(encoding="utf-8")
        (tree / name).write_text(text.replace(release.version(), next_version(), 1))
    _built(tree, folder)
    shutil.rmtree(tree)


def _built(tree: Path, output: Path) -> None:
    done = build(tree, output)
    if done.status == LACKS_SOMETHING:
        raise MissingPart(done.stderr.strip())
    if done.status != 0:
        raise BuildFailed(f"the Windows packages do not build: {done.stderr.strip()[-500:]}")
