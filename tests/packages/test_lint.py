"""lintian over the packages, and the reasons of what it is told to overlook."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from release import TOP

OVERRIDES = sorted(TOP.glob("debian/**/*lintian-overrides"))


@pytest.mark.xdist_group("build")
def test_lintian_finds_no_error_and_no_warning(built_tree: Path) -> None:
    command = [built_tree / "tools" / "check-lintian"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", OVERRIDES, ids=lambda path: path.name)
def test_every_override_has_a_reason(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert lines
    unexplained = [
        line
        for before, line in zip(["", *lines], lines)
        if not line.startswith("#") and not before.startswith("#")
    ]
    assert unexplained == []
