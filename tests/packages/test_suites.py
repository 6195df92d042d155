"""The same debian/ on other releases of Debian: it builds there, with units where they belong."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import release
from support import cache, roots, tiers
from support.chroot import Chroot, is_possible
from support.commands import run_command

BUILD_PACKAGES = (
    *("debhelper", "dh-python", "dpkg-dev", "python3-all", "python3-setuptools", "python3-wheel"),
    *("gcc", "libc6-dev", "libpam0g-dev"),
)
# Debian 11 has no plug-in for pyproject.toml: the library then carries egg-info.
PLUG_IN = {"bullseye": (), "trixie": ("pybuild-plugin-pyproject",)}
UNITS = {"bullseye": "lib/systemd/system", "trixie": "usr/lib/systemd/system"}
LIBRARIES = {"bullseye": "lib", "trixie": "usr/lib"}
METADATA = {"bullseye": "egg-info", "trixie": "dist-info"}


@pytest.fixture(scope="module", params=sorted(UNITS))
def suite(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    extra = (*BUILD_PACKAGES, *PLUG_IN[name])
    root = is_possible()
    problems = (root,) if root else tiers.root_problems(name, extra=extra)
    if problems:
        reason = f"building on {name} needs " + "; ".join(problems)
        if tiers.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return name


@pytest.fixture(scope="module")
def built_there(
    suite: str, frozen_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """The packages that the suite's own tools make of the tree, unpacked, by name."""
    folder = Path(tempfile.mkdtemp(prefix="guest-build-"))
    try:
        yield build_in(folder, suite, frozen_tree, tmp_path_factory)
    finally:
        cache.remove_tree(folder)


def build_in(
    folder: Path, suite: str, frozen_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    base = roots.base(suite, extra=(*BUILD_PACKAGES, *PLUG_IN[suite]))
    system = Chroot([base], folder)
    tarball = tmp_path_factory.mktemp("tarball") / "release.tar.gz"
    tool = frozen_tree / "tools" / "build-sdist"
    run_command(["/usr/bin/python3", str(tool), str(tarball)], purpose="make the tarball")
    system.put(tarball, "/root/release.tar.gz")
    system.shell(
        "cd /root; tar -xf release.tar.gz; cd google-guest-environment-*;"
        "export DEB_BUILD_OPTIONS='nocheck noautodbgsym' DEB_BUILD_PROFILES=nocheck;"
        # build-essential has a compiler of C++, which is large and not used.
        "dpkg-checkbuilddeps >/root/missing 2>&1 || true;"
        "sed -i '/dependencies: build-essential:native$/d' /root/missing;"
        "cat /root/missing >&2; test ! -s /root/missing;"
        "dpkg-buildpackage -d -us -uc -b >/root/log 2>&1 || { tail -n 40 /root/log >&2; exit 1; };"
        "cp /root/*.deb /media"
    )
    trees = {}
    for deb in (folder / "media").glob("*.deb"):
        name = deb.name.split("_")[0]
        trees[name] = tmp_path_factory.mktemp(suite) / name
        run_command(["dpkg-deb", "-R", str(deb), str(trees[name])], purpose="unpack a package")
    return trees


@pytest.mark.xdist_group("suites")
def test_units_are_where_the_suite_has_them(suite: str, built_there: dict[str, Path]) -> None:
    units = list(built_there["google-guest-agent"].rglob("*.service"))
    folders = {str(path.parent.relative_to(built_there["google-guest-agent"])) for path in units}
    assert folders == {UNITS[suite]}


@pytest.mark.xdist_group("suites")
def test_objects_of_os_login_are_where_the_suite_has_such(
    suite: str, built_there: dict[str, Path]
) -> None:
    root = built_there["google-compute-engine-oslogin"]
    objects = [str(path.relative_to(root)) for path in root.rglob("*oslogin*.so*")]
    places = {re.sub("/[^/]+-linux-gnu[^/]*/", "/TRIPLET/", path) for path in objects}
    assert {path for path in places if "/TRIPLET/" in path} == {
        f"{LIBRARIES[suite]}/TRIPLET/libnss_cache_oslogin.so.2",
        f"{LIBRARIES[suite]}/TRIPLET/libnss_oslogin.so.2",
        f"{LIBRARIES[suite]}/TRIPLET/security/pam_oslogin_admin.so",
        f"{LIBRARIES[suite]}/TRIPLET/security/pam_oslogin_login.so",
    }


@pytest.mark.xdist_group("suites")
def test_library_carries_the_version_and_the_suites_kind_of_metadata(
    suite: str, built_there: dict[str, Path]
) -> None:
    modules = built_there["python3-google-guest"] / "usr/lib/python3/dist-packages"
    assert (modules / "google_guest" / "VERSION").read_text().strip() == release.version()
    kinds = {path.name.rsplit(".", 1)[1] for path in modules.iterdir() if "info" in path.name}
    assert kinds == {METADATA[suite]}


@pytest.mark.xdist_group("suites")
def test_programs_are_as_isolated_as_at_home(built_there: dict[str, Path]) -> None:
    folder = built_there["google-guest-agent"] / "usr/bin"
    programs = [path for path in folder.iterdir() if not path.is_symlink()]
    assert {path.read_text().split("\n", 1)[0] for path in programs} == {"#!/usr/bin/python3 -IS"}
    assert len(programs) == 5
    assert len([path for path in folder.iterdir() if path.is_symlink()]) == 3
