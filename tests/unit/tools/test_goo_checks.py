"""What is found in Windows packages that do not fit together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import goo_checks
import pytest

from googet.archive import Member, write_archive
from googet.pkgspec import spec_from_json

VERSION = "20261124.00.0@1"
PLACE = "<ProgramFiles>/Google"


class Packages:
    """A folder of packages, and what the checks say of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archives: list[Path] = []

    def add(
        self,
        name: str,
        *,
        version: str = VERSION,
        arch: str = "noarch",
        needs: Optional[Mapping[str, str]] = None,
        files: Optional[Mapping[str, str]] = None,
        members: Optional[Mapping[str, bytes]] = None,
        file: str = "",
        notes: bool = True,
    ) -> None:
        spec: dict[str, Any] = {"Name": name, "Version": version, "Arch": arch}
        spec["PkgDependencies"] = dict(needs or {})
        spec["Files"] = dict(files or {"a": f"{PLACE}/{name}"})
        spec["ReleaseNotes"] = ["first"] if notes else []
        archive = self._folder / (file or f"{name}.{arch}.{version}.goo")
        content = members or {"a/file.txt": b"x"}
        write_archive(
            archive, spec_from_json(spec), {key: Member(data) for key, data in content.items()}
        )
        self._archives.append(archive)

    def findings(self) -> list[str]:
        specs, placed, found = {}, {}, []
        for number, archive in enumerate(self._archives):
            root = self._folder / f"root{number}"
            specs[archive], placed[archive] = goo_checks.unpack(archive, root)
            found += goo_checks.script_findings(root, specs[archive].name)
        return [*found, *goo_checks.set_findings(specs, placed)]


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path)


def test_packages_that_fit_together_pass(packages: Packages) -> None:
    packages.add("runtime", arch="x86_64")
    packages.add("library", needs={"runtime": VERSION})
    assert packages.findings() == []


@pytest.mark.parametrize("version", ["20261124.00@1", "20261124@1", "20261124.00.0", "1.2.3-rc@1"])
def test_version_without_three_fields_and_a_release_is_named(
    packages: Packages, version: str
) -> None:
    packages.add("library", version=version)
    assert packages.findings() == [f"library: version {version} is not of the form 1.2.3@1"]


def test_path_with_two_owners_is_named(packages: Packages) -> None:
    packages.add("certgen", files={"a": f"{PLACE}/tools"}, members={"a/LICENSE.txt": b"x"})
    packages.add("updater", files={"a": f"{PLACE}/Tools"}, members={"a/license.txt": b"x"})
    assert packages.findings() == [f"updater: {PLACE}/Tools/license.txt belongs to certgen, too"]


def test_dependency_outside_the_set_is_named(packages: Packages) -> None:
    packages.add("library", needs={"runtime": VERSION})
    assert packages.findings() == ["library: depends on runtime, which is no package of the set"]


def test_dependency_on_a_newer_version_than_there_is_is_named(packages: Packages) -> None:
    packages.add("runtime")
    packages.add("library", needs={"runtime": "20261125.00.0@1"})
    assert packages.findings() == [
        f"library: depends on runtime 20261125.00.0@1, there is {VERSION}"
    ]


def test_foreign_architecture_is_named(packages: Packages) -> None:
    packages.add("library", arch="arm")
    assert packages.findings() == ["library: arch arm is none of noarch, x86_64"]


def test_file_under_another_name_is_named(packages: Packages) -> None:
    packages.add("library", file="library.goo")
    assert packages.findings() == [
        f"library: its file is named library.goo, not library.noarch.{VERSION}.goo"
    ]


def test_package_without_release_notes_is_named(packages: Packages) -> None:
    packages.add("library", notes=False)
    assert packages.findings() == ["library: has no release notes"]


def test_dependency_that_the_table_does_not_have_is_named(packages: Packages) -> None:
    spec = spec_from_json(
        {"Name": "a", "Version": VERSION, "Arch": "noarch", "PkgDependencies": {"b": VERSION}}
    )
    assert list(goo_checks.table_findings(spec, {"arch": "x86_64", "depends": ["c"]})) == [
        "a: its arch is noarch, the table says x86_64",
        "a: does not depend on c, the table says so",
        "a: depends on b, the table does not say so",
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"@echo off\n", "has lines that do not end with CR LF"),
        (b"@echo off\r\nexit /b 0", "has lines that do not end with CR LF"),
        ("rem Über\r\n".encode(), "is not ASCII: what Windows makes of it depends on its language"),
    ],
)
def test_script_that_windows_reads_differently_is_named(
    packages: Packages, content: bytes, problem: str
) -> None:
    packages.add("scripts", members={"a/run.cmd": content})
    assert packages.findings() == [f"scripts: /ProgramFiles/Google/scripts/run.cmd {problem}"]


def test_what_is_placed_nowhere_is_with_the_scripts(tmp_path: Path) -> None:
    archive = tmp_path / f"a.noarch.{VERSION}.goo"
    spec = spec_from_json(
        {
            "Name": "a",
            "Version": VERSION,
            "Arch": "noarch",
            "Files": {"lib": "<ProgramData>/A/lib", "one.txt": "C:/one.txt"},
        }
    )
    names = ("install.cmd", "lib/deep/x.py", "one.txt")
    write_archive(archive, spec, {name: Member(b"\r\n") for name in names})
    _, placed = goo_checks.unpack(archive, tmp_path / "root")
    assert placed == {"lib/deep/x.py": "<ProgramData>/A/lib/deep/x.py", "one.txt": "C:/one.txt"}
    root = tmp_path / "root"
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == [
        "C:/one.txt",
        "ProgramData/A/lib/deep/x.py",
        "scripts/install.cmd",
    ]
