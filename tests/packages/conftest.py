"""Fixtures of the packages tier: built packages, copies of the tree, systems to install into."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import release
from support import roots, tiers
from support.chroot import Chroot, is_possible
from support.commands import missing_programs, run_command
from support.debs import GuestDebs, built_debs
from support.goos import MissingPart, built_goos

SUITE = "bookworm"
TARGETS = ("deb", "dsc", "sdist", "wheel", "deb-lib")
NO_NETWORK = ("unshare", "--net") if os.geteuid() == 0 else ()
ChrootFactory = Callable[..., Chroot]
MakeRun = Callable[..., "subprocess.CompletedProcess[str]"]


def probe() -> tuple[str, ...]:
    """What this machine lacks for the tier."""
    programs = missing_programs(("dpkg-buildpackage", "dh", "dh_python3", "lintian", "man"))
    return tuple(f"program {name}" for name in programs)


@pytest.fixture(scope="session")
def guest_debs() -> GuestDebs:
    """The project's packages: built once, or those in the folder that GUEST_DEBS names."""
    return built_debs()


@pytest.fixture(scope="session")
def guest_goos() -> Mapping[str, Path]:
    """The project's Windows packages by name: built once, or those in the folder GUEST_GOOS."""
    try:
        return built_goos()
    except MissingPart as missing:
        if tiers.in_ci():
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def unpacked(guest_debs: GuestDebs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each package's files with its control area in DEBIAN/, by package name."""
    trees = {}
    for name, deb in guest_debs.packages.items():
        trees[name] = tmp_path_factory.mktemp("unpacked") / name
        run_command(["dpkg-deb", "-R", str(deb), str(trees[name])], purpose="unpack a package")
    return trees


@pytest.fixture
def chroot(guest_debs: GuestDebs) -> Iterator[ChrootFactory]:
    """A factory of systems without systemd's process; they end with the test.

    `installed`: the agent is there already, and `packages`; the rest: see Chroot.
    """
    problems = [is_possible()] if is_possible() else list(tiers.root_problems(SUITE))
    if problems:
        reason = "installing packages needs " + "; ".join(map(str, problems))
        if tiers.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    folders: list[Path] = []

    def make(
        *,
        installed: bool = False,
        packages: Sequence[str] = (),
        recorded_systemctl: bool = False,
        recorded: Sequence[str] = (),
    ) -> Chroot:
        debs = guest_debs.with_packages(*packages)
        trees = [roots.layer(SUITE, debs)] if installed or packages else []
        folders.append(Path(tempfile.mkdtemp(prefix="guest-chroot-")))
        return Chroot(
            [*trees, roots.base(SUITE)],
            folders[-1],
            recorded_systemctl=recorded_systemctl,
            recorded=recorded,
        )

    yield make
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def frozen_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree as it is now, for tests that build it more than once."""
    folder = tmp_path_factory.mktemp("frozen") / "tree"
    release.stage(release.files(), folder)
    return folder


@pytest.fixture
def tree(frozen_tree: Path, tmp_path: Path) -> Path:
    """A copy of the tree that a test may change."""
    return Path(shutil.copytree(frozen_tree, tmp_path / "changed-tree", symlinks=True))


@pytest.fixture(scope="session")
def built_tree(frozen_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree in which everything has been built."""
    folder = tmp_path_factory.mktemp("built") / "tree"
    shutil.copytree(frozen_tree, folder, symlinks=True)
    done = run_make(folder, *TARGETS)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="session")
def hostile_build(frozen_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in another folder, by a user with other settings and a python3 that does not work.

    Without a network, where the tests run as root.

    The name `python3` is the first in PATH, as it is where people install their own Python.
    """
    folder = tmp_path_factory.mktemp("hostile") / "another-tree"
    shutil.copytree(frozen_tree, folder, symlinks=True)
    programs = tmp_path_factory.mktemp("programs")
    for name in ("python3", "python3.11", "python"):
        (programs / name).write_text("#!/bin/sh\necho 'the wrong python3' >&2\nexit 70\n")
        (programs / name).chmod(0o755)
    done = run_make(
        folder,
        *TARGETS,
        prefix=NO_NETWORK,
        umask=0o077,
        TZ="Pacific/Kiritimati",
        LC_ALL="de_DE.UTF-8",
        PATH=f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
        PYTHONPATH=str(programs),
    )
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture
def make() -> MakeRun:
    """Runs `make` in a tree; returns its output (both kinds as one) and its status."""
    return run_make


def run_make(
    folder: Path,
    *targets: str,
    umask: int = 0o022,
    prefix: Sequence[str] = (),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, "/usr/bin/make", "-C", str(folder), *targets],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=umask,
        timeout=600,
        check=False,
    )
