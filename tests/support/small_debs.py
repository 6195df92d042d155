"""Packages with next to nothing in them, for tests of what handles packages."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.commands import run_command

_MADE_AT = "1700000000"


def small_deb(folder: Path, name: str, version: str, *, arch: str = "all", text: str = "") -> Path:
    """Make a package whose one file, /usr/share/NAME/version, holds its version and `text`."""
    tree = folder / f"{name}.tree"
    (tree / "usr/share" / name).mkdir(parents=True)
    (tree / "usr/share" / name / "version").write_text(f"{version}{text}\n")
    fields = {
        "Package": name,
        "Version": version,
        "Architecture": arch,
        "Maintainer": "Test <t@example.com>",
        "Description": "a package for tests",
    }
    (tree / "DEBIAN").mkdir()
    lines = [f"{field}: {value}\n" for field, value in fields.items()]
    (tree / "DEBIAN/control").write_text("".join(lines))
    run_command(
        ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(folder)],
        purpose="pack a package",
        environment={"SOURCE_DATE_EPOCH": _MADE_AT},
    )
    shutil.rmtree(tree)
    return folder / f"{name}_{version.rpartition(':')[2]}_{arch}.deb"
