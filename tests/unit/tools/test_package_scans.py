"""What no package may have: left-overs, links and programs that are nowhere, epochs."""

from __future__ import annotations

import os
from pathlib import Path

import artifact_table
import package_scans
import pytest
from artifact_table import Package

NOTHING = Package("p", "p", "all", "", "", [], [], {}, {}, [])


def package(*configuration: str) -> Package:
    files = [{"path": path, "config": True} for path in configuration]
    return Package("p", "p", "all", "", "", [], files, {}, {}, [])


def control_area(folder: Path, control: str, conffiles: str = "") -> Path:
    area = folder / "DEBIAN"
    area.mkdir()
    (area / "control").write_text(control)
    (area / "md5sums").write_text("")
    if conffiles:
        (area / "conffiles").write_text(conffiles)
    return folder


@pytest.mark.parametrize("text", ["a %{_unitdir} b", "x @UNITS@ y", "#DEBHELPER#"])
def test_place_holder_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    assert package_scans.has_place_holder(tmp_path / "file")


@pytest.mark.parametrize("text", ["100%", "someone@EXAMPLE.com", "%s {}", "user@host@"])
def test_ordinary_text_is_no_place_holder(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    assert not package_scans.has_place_holder(tmp_path / "file")


@pytest.mark.parametrize(
    ("target", "nowhere"),
    [("there", False), ("/etc/there", False), ("gone", True), ("/gone", True)],
)
def test_link_is_followed_within_the_package(tmp_path: Path, target: str, nowhere: bool) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "there").write_text("")
    os.symlink(target, folder / "link")
    assert package_scans.points_nowhere(folder / "link", tmp_path) == nowhere


@pytest.mark.parametrize("line", ["ExecStart=/usr/bin/gone x", "ExecStop=-/usr/bin/gone"])
def test_unit_that_starts_a_program_of_nobody_is_named(tmp_path: Path, line: str) -> None:
    units = tmp_path / "lib/systemd/system"
    units.mkdir(parents=True)
    (units / "a.service").write_text(f"[Service]\n{line}\n")
    (finding,) = package_scans.unit_findings([("p", tmp_path)])
    assert finding == "p: a.service starts /usr/bin/gone, which is nowhere"


def test_unit_may_start_a_program_of_another_package_of_ours(tmp_path: Path) -> None:
    units, programs = tmp_path / "a/usr/lib/systemd/system", tmp_path / "b/usr/bin"
    units.mkdir(parents=True)
    programs.mkdir(parents=True)
    (programs / "tool").write_text("")
    (units / "a.service").write_text("[Service]\nExecStart=/usr/bin/tool --now\n")
    assert package_scans.unit_findings([("a", tmp_path / "a"), ("b", tmp_path / "b")]) == []


@pytest.mark.parametrize("kind", ["Depends", "Breaks", "Replaces", "Conflicts", "Recommends"])
def test_epoch_in_a_relation_is_found(tmp_path: Path, kind: str) -> None:
    tree = control_area(tmp_path, f"Package: p\nVersion: 1:2-1\n{kind}: a,\n b (>= 1:2003)\n")
    (finding,) = package_scans.control_findings(NOTHING, tree)
    assert "has an epoch" in finding


def test_architecture_qualifier_is_no_epoch(tmp_path: Path) -> None:
    tree = control_area(tmp_path, "Package: p\nVersion: 1:2-1\nDepends: python3:any (>= 3.9~)\n")
    assert package_scans.control_findings(NOTHING, tree) == []


def test_configuration_files_are_those_of_the_table(tmp_path: Path) -> None:
    tree = control_area(tmp_path, "Package: p\n", "/etc/a\n/etc/b\n")
    assert package_scans.control_findings(package("/etc/b", "/etc/c"), tree) == [
        "p: /etc/a is a configuration file, the table says it is none",
        "p: /etc/c is no configuration file, the table says it is one",
    ]


def test_conffile_that_is_to_be_removed_does_not_count(tmp_path: Path) -> None:
    tree = control_area(tmp_path, "Package: p\n", "/etc/a\nremove-on-upgrade /etc/old\n")
    assert package_scans.control_findings(package("/etc/a"), tree) == []


def test_programs_that_units_may_start_are_absolute() -> None:
    assert all(path.startswith("/") for path in artifact_table.foreign_programs())
