"""Building Windows packages: the same bytes everywhere, without a network, and honest."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import release
from release import version
from support import tiers
from support.goos import AGENT, CLIENT, LACKS_SOMETHING, LIBRARY, SCRIPTS

UNSHARED = ("unshare", "--net", "--map-root-user", "--user")


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.goo"))
    }


def build(
    tree: Path, *arguments: str, umask: int = 0o022, before: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the build of a tree as the Makefile does, with the caller's cache and these settings."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for name in ("GUEST_BUILD_CACHE", "PIP_INDEX_URL", "PIP_CERT"):
        if name in os.environ:
            environment[name] = os.environ[name]
    return subprocess.run(
        [*before, "/usr/bin/python3", str(tree / "tools" / "build-goo"), *arguments],
        env={**environment, **variables},
        cwd="/",
        umask=umask,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def built(
    frozen_tree: Path, guest_goos: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A copy of the tree in which the packages were built, as most people do.

    It needs `guest_goos`, which has skipped the test where nothing can be built.
    """
    folder = tmp_path_factory.mktemp("goos") / "tree"
    shutil.copytree(frozen_tree, folder, symlinks=True)
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_two_builds_in_different_circumstances_are_equal_to_the_bit(
    frozen_tree: Path, built: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "another tree, with spaces"
    shutil.copytree(frozen_tree, folder, symlinks=True)
    done = build(
        folder,
        umask=0o077,
        TZ="Pacific/Kiritimati",
        LC_ALL="de_DE.UTF-8",
        PYTHONHASHSEED="7",
        SOURCE_DATE_EPOCH="1",
    )
    assert done.returncode == 0, done.stderr
    assert digests(folder / "dist") == digests(built / "dist")
    assert len(digests(built / "dist")) == 5


def test_build_needs_no_network_once_its_cache_is_filled(built: Path, tmp_path: Path) -> None:
    if subprocess.run([*UNSHARED, "true"], capture_output=True, check=False).returncode != 0:
        reason = "a build without network needs a network namespace"
        if tiers.in_ci():
            pytest.fail(reason)
        pytest.skip(reason)
    output = tmp_path / "dist"
    arguments = ("--force", "--output", str(output), "--work", str(tmp_path / "work"))
    done = build(built, *arguments, before=UNSHARED)
    assert done.returncode == 0, done.stderr
    assert digests(output) == digests(built / "dist")


def test_missing_cache_without_network_is_one_line(built: Path, tmp_path: Path) -> None:
    done = build(
        built,
        *("--force", "--output", str(tmp_path / "dist"), "--work", str(tmp_path / "work")),
        GUEST_BUILD_CACHE=str(tmp_path / "cache"),
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_RETRIES="0",
        no_proxy="127.0.0.1",
    )
    assert done.returncode == LACKS_SOMETHING
    assert done.stderr.startswith("build-goo: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("dist/*"))


def test_nothing_is_built_again_when_nothing_has_changed(built: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (built / "dist").iterdir()}
    done = build(built)
    assert "nothing has changed" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (built / "dist").iterdir()} == before


def test_changed_module_changes_what_carries_it_alone(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    shutil.copytree(built, folder, symlinks=True)
    with (folder / "src/google_guest/errors.py").open("a") as module:
        module.write("\n# changed\n")
    before = digests(folder / "dist")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    after = digests(folder / "dist")
    changed = {name.split(".")[0] for name in before if before[name] != after[name]}
    assert changed == {LIBRARY, CLIENT}


def test_build_writes_nothing_outside_build_and_dist(frozen_tree: Path, built: Path) -> None:
    def files(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and path.relative_to(folder).parts[0] not in ("build", "dist")
        }

    assert files(built) == files(frozen_tree)


def test_signed_programs_are_packed_signed(built: Path, tmp_path: Path) -> None:
    """Signing comes before packing, so what clients record and verify is the signed file."""
    from googet.archive import extract

    signer = tmp_path / "sign"
    signer.write_text('#!/bin/sh\nprintf signature >>"$1"\n')
    signer.chmod(0o755)
    output = tmp_path / "dist"
    done = build(
        built,
        *("--output", str(output), "--work", str(tmp_path / "work")),
        GUEST_SIGN_COMMAND=str(signer),
    )
    assert done.returncode == 0, done.stderr
    signed = set()
    for archive in output.glob("*.goo"):
        for name in extract(archive, tmp_path / archive.stem):
            path = tmp_path / archive.stem / name
            if path.read_bytes().endswith(b"signature"):
                signed.add(f"{archive.name.split('.')[0]}: {path.name}")
    assert f"{AGENT}: GCEWindowsAgent.exe" in signed
    assert f"{AGENT}: google_metadata_script_runner_adapt.ps1" in signed
    assert f"{SCRIPTS}: GCEMetadataScripts.exe" in signed
    assert f"{CLIENT}: googet.exe" in signed
    assert not [name for name in signed if "python" in name]


def test_release_date_in_the_future_is_refused(frozen_tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    shutil.copytree(frozen_tree, folder, symlinks=True)
    news = folder / "NEWS"
    day = f"({release.release_date():%Y}-"
    news.write_text(news.read_text().replace(day, "(2999-", 1))
    done = build(folder)
    assert done.returncode != 0
    assert "still to come" in done.stderr
    assert not list((folder / "dist").glob("*.goo"))


def test_versions_of_the_files_are_those_of_the_tree(built: Path) -> None:
    names = {path.name for path in (built / "dist").glob("*.goo")}
    assert f"{LIBRARY}.noarch.{version()}.0@1.goo" in names
    assert f"{AGENT}.x86_64.{version()}.0@1.goo" in names
