"""The library as a wheel, from a clean copy of the tree: what every package format carries."""

from __future__ import annotations

import shutil
from pathlib import Path

import release


def build(work: Path) -> Path:
    """Build the wheel in the folder `work`; the same tree gives the same bytes."""
    release.stage(release.files(for_packages=True), work / "tree")
    log = work / "log"
    log.unlink(missing_ok=True)
    for former in work.glob("*.whl"):
        former.unlink()
    command = ["/usr/bin/python3", "setup.py", "-q", "bdist_wheel", "--dist-dir", str(work)]
    release.run(command, folder=work / "tree", log=log)
    shutil.rmtree(work / "tree")
    (wheel,) = work.glob("*.whl")
    return wheel
