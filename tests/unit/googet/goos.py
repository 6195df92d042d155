"""Small packages and index entries for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from googet.archive import Member, write_archive
from googet.pkgspec import file_name, spec_from_json


def spec(name: str, version: str = "1.0.0@1", arch: str = "noarch", **more: Any) -> dict[str, Any]:
    """The PackageSpec of a package in an index."""
    return {"Name": name, "Version": version, "Arch": arch, **more}


def document(
    name: str, version: str = "1.0.0@1", arch: str = "noarch", **more: Any
) -> dict[str, Any]:
    """An entry of an index."""
    return {
        "Checksum": "a" * 64,
        "Source": f"packages/{name}.{arch}.{version}.goo",
        "PackageSpec": spec(name, version, arch, **more),
    }


def make_goo(
    folder: Path, name: str, version: str = "1.0.0@1", *, content: bytes = b"content"
) -> Path:
    """Write a package with one file into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    what = spec_from_json(spec(name, version, Files={"f.txt": "/opt/f.txt"}))
    path = folder / file_name(what)
    write_archive(path, what, {"f.txt": Member(content)})
    return path
