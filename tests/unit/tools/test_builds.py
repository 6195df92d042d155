"""The list of builds, what becomes of one, and the table of all of them."""

from __future__ import annotations

from pathlib import Path

import artifact_table
import builds
import pytest
from builds import Build, Result


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    (tmp_path / "VERSION").write_text("20261124.00\n")
    return tmp_path


def build_of(tree: Path, program: str, target: str = "any", folder: str = "") -> Build:
    (tree / "tools" / "build-x").write_text(program)
    return Build("x", ("tools/build-x",), target, folder, suffixes=(".x",))


@pytest.mark.parametrize("host", ["debian12", "ubuntu2404", "el9"])
def test_every_target_is_built_in_its_format(host: str) -> None:
    built = {
        (build.target, suffix) for build in builds.all_builds(host) for suffix in build.suffixes
    }
    for name, target in artifact_table.targets().items():
        assert (name, f".{target.format}") in built


def test_no_two_builds_have_the_same_name_or_place() -> None:
    known = builds.all_builds("debian12")
    assert len({build.name for build in known}) == len(known)
    places = [(build.folder, suffix) for build in known for suffix in build.suffixes]
    assert len(set(places)) == len(places)


def test_build_of_another_target_is_told_which(monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    program = "import os, sys; sys.exit('for ' + os.environ.get('GUEST_TARGET', 'this machine'))"
    build = build_of(tree, program, "el9", "el9")
    assert builds.run(build, tree).reason == "for el9"
    # What the caller has set is not for the other builds.
    monkeypatch.setenv("GUEST_TARGET", "el9")
    assert builds.run(build_of(tree, program), tree).reason == "for this machine"


def test_files_that_a_build_names_are_its_result(tree: Path) -> None:
    (tree / "dist").mkdir()
    for name in ("one.x", "two.x", "not-named.x", "two.y"):
        (tree / "dist" / name).write_text(name)
    build = build_of(tree, "print('dist/two.x'); print('nothing has changed since one.x, two.y')")
    result = builds.run(build, tree)
    assert [path.name for path in result.files] == ["one.x", "two.x"]
    assert not result.has_failed


@pytest.mark.parametrize(
    ("program", "reason", "has_failed"),
    [
        ("import sys; print('no archive', file=sys.stderr); sys.exit(3)", "no archive", False),
        ("import sys; sys.exit('broken')", "broken", True),
        ("import sys; sys.exit(1)", "no word", True),
        ("print('dist/absent.x')", "the build names no file that is there", True),
    ],
)
def test_build_without_files_has_a_reason(
    tree: Path, program: str, reason: str, has_failed: bool
) -> None:
    result = builds.run(build_of(tree, program), tree)
    assert (result.files, result.reason, result.has_failed) == ((), reason, has_failed)


def test_build_whose_tool_is_not_there_has_failed(tree: Path) -> None:
    result = builds.run(Build("x", ("tools/build-x",), "any"), tree)
    assert (result.reason, result.has_failed) == ("there is no tools/build-x", True)


def test_table_has_a_line_for_each_file_and_each_build_without_files(tree: Path) -> None:
    file = tree / "el9" / "a.rpm"
    file.parent.mkdir()
    file.write_bytes(b"x" * 12345)
    made = Build("rpm el9", (), "el9", place="this machine's rpm")
    failed, missing = Build("deb", (), "debian12"), Build("goo", (), "windows")
    results = [
        Result(made, (file,)),
        Result(failed, reason="broken", has_failed=True),
        Result(missing, reason="no network"),
    ]
    digest = builds.file_digest(file)[:16]
    assert builds.table(results, tree) == (
        "artifact     size  digest            target  built in\n"
        f"el9/a.rpm  12 345  {digest}  el9     this machine's rpm\n"
        "failed: deb: broken\n"
        "not built: goo: no network\n"
    )


@pytest.mark.parametrize(
    ("name", "is_listed"),
    [
        ("a_20261124.00-1_all.deb", True),
        ("a_20261124.00-1+deb12_all.deb", True),
        ("a_20261123.00-1_all.deb", False),
        ("a_20261124.00-1_all.deb.part", False),
        ("a-20261124.00.tar.gz", False),
    ],
)
def test_files_of_an_earlier_build_are_found_by_version_and_kind(
    tree: Path, name: str, is_listed: bool
) -> None:
    (tree / "dist").mkdir()
    (tree / "dist" / name).write_text("")
    result = builds.found(Build("deb", (), "debian12", suffixes=(".deb",)), tree)
    assert [path.name for path in result.files] == [name] * is_listed
    assert result.reason == ("" if is_listed else "not built yet")
