"""Building rpms: equal bytes wherever, nothing done twice, and what must end a build."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import release
from support import rpms

TARGET = "el9"
SPEC = "rpm/google-guest-environment.spec"
NO_NETWORK = ("unshare", "--net") if os.geteuid() == 0 else ()

pytestmark = pytest.mark.xdist_group("rpm-builds")


@pytest.fixture(autouse=True)
def _possible() -> None:
    if rpms.missing():
        pytest.skip("; ".join(rpms.missing()))


def build(
    folder: Path, *options: str, target: str = TARGET, umask: int = 0o022, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NO_NETWORK, "/usr/bin/python3", str(folder / "tools" / "build-rpm"), *options],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "GUEST_TARGET": target, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=umask,
        timeout=300,
        check=False,
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "dist" / TARGET).glob("*.rpm")
    }


@pytest.fixture(scope="module")
def built(frozen_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree whose rpms have been built."""
    folder = tmp_path_factory.mktemp("one") / "tree"
    shutil.copytree(frozen_tree, folder, symlinks=True)
    done = build(folder)
    assert done.returncode == 0, done.stdout
    return folder


def test_two_builds_are_equal_in_different_folders_time_zones_and_locales(
    built: Path, frozen_tree: Path, tmp_path: Path
) -> None:
    another = tmp_path / "a longer name" / "of-the-tree"
    another.parent.mkdir()
    shutil.copytree(frozen_tree, another, symlinks=True)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("python3", "gcc", "rpm"):
        (programs / name).write_text("#!/bin/sh\nexit 70\n")
        (programs / name).chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".rpmmacros").write_text("%_topdir /nowhere\n%dist .mine\n%packager Somebody\n")
    done = build(
        another,
        umask=0o077,
        TZ="Pacific/Kiritimati",
        LC_ALL="de_DE.UTF-8",
        HOME=str(home),
        PATH=f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
    )
    assert done.returncode == 0, done.stdout
    assert len(digests(built)) == 6
    assert digests(another) == digests(built)


def test_headers_name_no_host_and_no_folder_of_the_build(built: Path) -> None:
    for rpm in (built / "dist" / TARGET).glob("*.rpm"):
        assert rpms.query(rpm, "%{BUILDHOST} %{BUILDTIME}") == f"build.invalid {release.epoch()}"
        times = rpms.query(rpm, "[%{FILEMTIMES}\n]").split()
        assert max(map(int, times)) <= release.epoch()
        assert (
            str(built)
            not in subprocess.run(
                ["rpm", "-qp", "--nosignature", "--xml", rpm], capture_output=True, text=True
            ).stdout
        )


def test_binary_packages_are_of_the_source_package(built: Path) -> None:
    folder = built / "dist" / TARGET
    (source,) = folder.glob("*.src.rpm")
    for rpm in set(folder.glob("*.rpm")) - {source}:
        assert rpms.query(rpm, "%{SOURCERPM}") == source.name


def test_nothing_is_done_when_nothing_has_changed(built: Path) -> None:
    times = {path.name: path.stat().st_mtime_ns for path in (built / "dist").rglob("*.rpm")}
    done = build(built)
    assert "nothing has changed since" in done.stdout
    assert times == {path.name: path.stat().st_mtime_ns for path in (built / "dist").rglob("*.rpm")}


def test_build_with_an_epoch_is_another_build(built: Path) -> None:
    done = build(built, "--output", str(built / "epoch"), GUEST_EPOCH="2")
    assert done.returncode == 0, done.stdout
    found = {rpms.query(rpm, "%{EPOCH}") for rpm in (built / "epoch").glob("*.rpm")}
    assert found == {"2"}


def test_source_package_is_built_again_by_rpmbuild_alone(built: Path, tmp_path: Path) -> None:
    """As a distributor does: without our tools around it."""
    (source,) = (built / "dist" / TARGET).glob("*.src.rpm")
    command = ["rpmbuild", "--rebuild", "--nodeps", "--define", f"_topdir {tmp_path}"]
    options = [*rpms.spec_definitions(TARGET), "--without", "selinux", "--without", "bytecode"]
    done = subprocess.run(
        [*command, *options, "--define", "dist .el9_mine", str(source)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names = {path.name.rsplit("-", 2)[0] for path in (tmp_path / "RPMS").rglob("*.rpm")}
    assert "google-guest-agent" in names
    assert "google-compute-engine-oslogin-selinux" not in names


def test_file_that_is_in_no_package_ends_the_build_with_its_name(tree: Path) -> None:
    extra = tree / "config" / "common" / "etc" / "one-too-many.conf"
    extra.write_text("text\n")
    done = build(tree)
    assert done.returncode != 0
    assert "config/common/etc/one-too-many.conf is in the tree but in no package" in done.stdout


def test_file_that_rpm_finds_in_no_list_ends_the_build_with_its_name(tree: Path) -> None:
    spec = (tree / SPEC).read_text()
    step = "%install\n"
    made = f"{step}install -D -m 0644 LICENSE %{{buildroot}}/usr/share/one-too-many\n"
    (tree / SPEC).write_text(spec.replace(step, made, 1))
    done = build(tree)
    assert done.returncode != 0
    assert re.search(r"unpackaged.*\n\s*/usr/share/one-too-many", done.stdout)


def test_file_that_is_missing_ends_the_build_with_its_name(tree: Path) -> None:
    (tree / "config/common/usr/lib/systemd/networkd.conf.d/20-google-guest-agent.conf").unlink()
    done = build(tree)
    assert done.returncode != 0
    assert "/usr/lib/systemd/networkd.conf.d/20-google-guest-agent.conf" in done.stdout


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("%post -n google-guest-agent\n", "%{never_defined} google-guest-agent.service\n"),
        ("%post -n google-guest-agent\n", "%never_defined google-guest-agent.service\n"),
        ("Requires:       systemd\n", "Requires:       %{never_defined}\n"),
    ],
)
def test_macro_that_is_left_over_ends_the_build_with_its_name(
    tree: Path, place: str, text: str
) -> None:
    spec = (tree / SPEC).read_text()
    assert place in spec
    (tree / SPEC).write_text(spec.replace(place, place + text, 1))
    done = build(tree)
    assert done.returncode != 0
    assert "never_defined" in done.stdout


def test_date_that_is_still_to_come_is_refused(tree: Path) -> None:
    news = (tree / "NEWS").read_text()
    (tree / "NEWS").write_text(re.sub(r"\(\d{4}-", "(2999-", news, count=1))
    done = build(tree)
    assert done.returncode != 0
    assert "still to come" in done.stdout


def test_target_of_another_format_is_refused_by_name(tree: Path) -> None:
    done = build(tree, target="debian12")
    assert done.returncode == 1
    assert "debian12" in done.stdout
    assert not (tree / "dist").exists()


def test_object_that_needs_a_newer_c_library_cannot_be_built_here(tree: Path) -> None:
    tool = tree / "tools" / "build-rpm"
    tool.write_text(tool.read_text().replace('"el9": (2, 34)', '"el9": (2, 3)'))
    done = build(tree)
    assert done.returncode == 3
    assert "el9 cannot be built here" in done.stdout.splitlines()[-1]


def test_every_exception_of_rpmlint_has_its_reason() -> None:
    lines = (release.TOP / "rpm" / "rpmlint.toml").read_text().splitlines()
    reasoned = False
    for line in lines[lines.index("Filters = [") + 1 : -1]:
        assert line.strip().startswith(("#", '"'))
        reasoned = reasoned or line.strip().startswith("#")
        assert reasoned
    assert sum(line.strip().startswith("#") for line in lines) > 15


@pytest.mark.parametrize("target", rpms.TARGETS)
def test_rpmlint_finds_no_error_and_no_warning(target: str, tmp_path: Path) -> None:
    if shutil.which("rpmlint") is None:
        pytest.skip("program rpmlint")
    folder = tmp_path / "dist" / target
    folder.parent.mkdir()
    built = next(iter(rpms.built_rpms(target).values())).parent
    shutil.copytree(built, folder)
    shutil.copytree(release.TOP / "rpm", tmp_path / "rpm")
    (tmp_path / "tools").mkdir()
    shutil.copy2(release.TOP / "tools" / "check-rpmlint", tmp_path / "tools")
    shutil.copy(release.TOP / "VERSION", tmp_path)
    command = [str(tmp_path / "tools" / "check-rpmlint"), target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
