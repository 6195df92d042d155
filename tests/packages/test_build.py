"""The builds themselves: reproducible, closed, and honest about what they cannot do."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import artifact_table
import pytest
from release import TOP, version

Make = Callable[..., "subprocess.CompletedProcess[str]"]


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file()
    }


def files_of(folder: Path) -> dict[str, str]:
    """Path and content of every file that no build may touch."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in ("build", "dist")
    }


@pytest.mark.xdist_group("build")
def test_two_builds_in_different_circumstances_are_equal_to_the_bit(
    built_tree: Path, hostile_build: Path
) -> None:
    first, second = (
        {**digests(tree / "dist"), **digests(tree / "dist" / "deb-lib")}
        for tree in (built_tree, hostile_build)
    )
    assert first == second
    debs = artifact_table.packages(artifact_table.target())
    # With them the tarball, the wheel, three files of the source package, the library by stdeb.
    assert len(first) == len(debs) + 6


@pytest.mark.xdist_group("build")
def test_builds_write_nothing_outside_build_and_dist(
    frozen_tree: Path, built_tree: Path, hostile_build: Path
) -> None:
    assert files_of(built_tree) == files_of(frozen_tree)
    assert files_of(hostile_build) == files_of(frozen_tree)


@pytest.mark.xdist_group("build")
def test_source_package_builds_the_same_binary_packages(built_tree: Path, tmp_path: Path) -> None:
    (dsc,) = (built_tree / "dist").glob("*.dsc")
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "DEB_BUILD_OPTIONS": "nocheck noautodbgsym",
        "DEB_BUILD_PROFILES": "nocheck",
    }
    for command, folder in (
        (["dpkg-source", "-x", str(dsc), "source"], tmp_path),
        (["dpkg-buildpackage", "-us", "-uc", "-b"], tmp_path / "source"),
    ):
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    built = {name: d for name, d in digests(tmp_path).items() if name.endswith(".deb")}
    ours = {name: d for name, d in digests(built_tree / "dist").items() if name.endswith(".deb")}
    assert built == ours


@pytest.mark.xdist_group("build")
def test_nothing_is_built_again_when_nothing_has_changed(built_tree: Path, make: Make) -> None:
    built = {path: path.stat().st_mtime_ns for path in (built_tree / "dist").iterdir()}
    done = make(built_tree, "deb")
    assert "nothing has changed" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (built_tree / "dist").iterdir()} == built


@pytest.mark.xdist_group("build")
def test_change_of_a_module_makes_a_new_build(tree: Path, built_tree: Path, make: Make) -> None:
    for name in ("build", "dist"):
        shutil.copytree(built_tree / name, tree / name)
    before = digests(tree / "dist")
    with (tree / "src/google_guest/errors.py").open("a") as module:
        module.write("\n# changed\n")
    make(tree, "deb")
    after = digests(tree / "dist")
    changed = [name for name in before if before[name] != after[name]]
    assert changed == [f"python3-google-guest_{version()}-1_all.deb"]


def test_release_date_in_the_future_is_refused(tree: Path, make: Make) -> None:
    news = tree / "NEWS"
    news.write_text(re.sub(r"\(\d{4}-", "(2999-", news.read_text(), count=1))
    done = make(tree, "deb")
    assert done.returncode != 0
    assert "still to come" in done.stdout
    assert not list((tree / "dist").glob("*.deb"))


def test_changelog_is_what_news_gives() -> None:
    command = ["/usr/bin/python3", TOP / "tools" / "changelog", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_changelog_that_differs_from_news_is_found(tree: Path) -> None:
    with (tree / "NEWS").open("a") as news:
        news.write("* One more line.\n")
    command = ["/usr/bin/python3", tree / "tools" / "changelog", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "run tools/changelog" in done.stderr


@pytest.mark.xdist_group("build")
def test_epoch_and_suffix_are_in_a_repositorys_versions_only_when_asked_for(
    tree: Path, make: Make
) -> None:
    done = make(tree, "deb", GUEST_EPOCH="1", GUEST_REVISION="+deb12")
    assert done.returncode == 0, done.stdout
    fields = {}
    for deb in (tree / "dist").glob("*.deb"):
        command = ["dpkg-deb", "-f", deb, "Version", "Depends"]
        fields[deb.name.split("_")[0]] = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout
    assert f"Version: 1:{version()}-1+deb12\n" in fields["python3-google-guest"]
    assert f"python3-google-guest (= 1:{version()}-1+deb12)" in fields["google-guest-agent"]
    changelog = (tree / "debian" / "changelog").read_text()
    assert "1:" not in changelog
    assert "deb12" not in changelog


@pytest.mark.parametrize(
    "vendor", ["1:20251218.00-g1", "1:20191210.00-g1", "20211116.00-6", "20250116.00-0ubuntu1"]
)
def test_repository_version_is_newer_than(vendor: str) -> None:
    ours = f"1:{version()}-1"
    done = subprocess.run(["dpkg", "--compare-versions", ours, "gt", vendor], check=False)
    assert done.returncode == 0


@pytest.mark.xdist_group("build")
def test_release_tarball_is_complete(built_tree: Path, tmp_path: Path) -> None:
    (tarball,) = (built_tree / "dist").glob("google-guest-environment-*.tar.gz")
    subprocess.run(["tar", "-xf", tarball, "-C", tmp_path], check=True)
    (top,) = tmp_path.iterdir()
    assert files_of(top) == files_of(built_tree)
