"""The same debian/ for other releases: built there, by `make deb`'s own way, and compared.

Debian's releases are built for real. Ubuntu's are where an archive of it is configured, as no
machine of the project is promised one; its packages are made with Debian 13's tools anyhow.
Debian 12 is what every other test of the tier builds.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import artifact_table
import pytest
import release
from release import TOP, version
from support import build_roots, cache, roots, tiers
from support.chroot import Chroot
from support.commands import missing_programs, run_command
from support.debs import AGENT, CONFIGS, LIBRARY, OSLOGIN, GuestDebs, found_debs, next_versions
from support.package_checkers import complaints, run_piuparts

# The target, and the release whose tools build for it.
BUILDS = (
    ("debian11", "bullseye"),
    ("debian13", "trixie"),
    ("ubuntu2404", "trixie"),
    ("ubuntu2204", "jammy"),
    ("ubuntu2404", "noble"),
)
TRIXIE = "gce-configs-trixie"
TRANSITIONAL = "gce-compute-image-packages"
UNITS = {"debian11": "lib/systemd/system", "ubuntu2204": "lib/systemd/system"}
LIBRARIES = {"debian11": "lib", "ubuntu2204": "lib"}
METADATA = {"debian11": "egg-info"}
MERGED = "usr/lib/systemd/system"
KEY_EXCHANGES = "/etc/ssh/sshd_config.d/90_google_keyexchange.conf"
SSHD = "/usr/sbin/sshd"

# They share what is built.
pytestmark = pytest.mark.xdist_group("suites")


@dataclass(frozen=True)
class Built:
    """The packages of a target, by name: files, and unpacked with their control area."""

    target: str
    debs: dict[str, Path]
    trees: dict[str, Path]

    def field(self, package: str, name: str) -> str:
        command = ["dpkg-deb", "-f", str(self.debs[package]), name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def build(target: str, suite: str, tree: Path, folder: Path) -> dict[str, Path]:
    if suite == artifact_table.target(target).suite:
        run_command(
            [
                *("/usr/bin/python3", str(tree / "tools" / "build-deb")),
                *("--work", str(folder / "work"), "--output", str(folder / target)),
            ],
            purpose=f"build for {target}",
            timeout=900,
            environment={"GUEST_TARGET": target},
        )
    else:
        source = folder / f"{release.SOURCE}-{version()}"
        shutil.copytree(tree, source, symlinks=True)
        (folder / target).mkdir()
        environment = release.environment(
            GUEST_TARGET=target,
            DEB_BUILD_OPTIONS="nocheck noautodbgsym",
            DEB_BUILD_PROFILES="nocheck",
        )
        build_roots.build(source, suite, folder / target, folder / "log", environment=environment)
    return found_debs(folder / target)


@pytest.fixture(scope="module")
def build_for(frozen_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """Gives what a release's tools make of the tree for a target, each built once."""
    done: dict[tuple[str, str], Built] = {}

    def build_once(target: str, suite: str) -> Built:
        problem = build_roots.problem(suite, (frozen_tree / "debian/control").read_text())
        if problem:
            reason = f"building for {target} in {suite}: {problem}"
            if tiers.in_ci() and suite in roots.DEBIAN_SUITES:
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
        if (target, suite) not in done:
            folder = tmp_path_factory.mktemp(f"{target}-{suite}")
            (folder / "trees").mkdir()
            debs = build(target, suite, frozen_tree, folder)
            trees = {name: folder / "trees" / name for name in debs}
            for name, deb in debs.items():
                command = ["dpkg-deb", "-R", str(deb), str(trees[name])]
                run_command(command, purpose="unpack a package")
            done[target, suite] = Built(target, debs, trees)
        return done[target, suite]

    return build_once


@pytest.fixture(scope="module", params=BUILDS, ids="-by-".join)
def built(request: pytest.FixtureRequest, build_for: Callable[..., Built]) -> Built:
    return build_for(*request.param)


def test_packages_are_those_of_the_target_and_hold_what_the_table_says(built: Built) -> None:
    command = ["/usr/bin/python3", TOP / "tools/check-artifacts", "--target", built.target]
    done = subprocess.run([*command, *built.debs.values()], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_packages_of_one_release_alone_are_built_for_it_alone(built: Built) -> None:
    assert (TRIXIE in built.debs) == (built.target == "debian13")
    assert (TRANSITIONAL in built.debs) == built.target.startswith("ubuntu")
    assert {LIBRARY, AGENT, OSLOGIN, CONFIGS} <= built.debs.keys()


def test_units_are_where_the_release_has_them(built: Built) -> None:
    root = built.trees[AGENT]
    folders = {str(path.parent.relative_to(root)) for path in root.rglob("*.service")}
    assert folders == {UNITS.get(built.target, MERGED)}


def test_objects_of_os_login_are_where_the_release_has_such(built: Built) -> None:
    root = built.trees[OSLOGIN]
    objects = [str(path.relative_to(root)) for path in root.rglob("*oslogin*.so*")]
    places = {re.sub("/[^/]+-linux-gnu[^/]*/", "/TRIPLET/", path) for path in objects}
    folder = LIBRARIES.get(built.target, "usr/lib")
    assert {path for path in places if "/TRIPLET/" in path} == {
        f"{folder}/TRIPLET/libnss_cache_oslogin.so.2",
        f"{folder}/TRIPLET/libnss_oslogin.so.2",
        f"{folder}/TRIPLET/security/pam_oslogin_admin.so",
        f"{folder}/TRIPLET/security/pam_oslogin_login.so",
    }


def test_library_carries_the_version_and_the_releases_kind_of_metadata(built: Built) -> None:
    modules = built.trees[LIBRARY] / "usr/lib/python3/dist-packages"
    assert (modules / "google_guest" / "VERSION").read_text().strip() == version()
    kinds = {path.name.rsplit(".", 1)[1] for path in modules.iterdir() if "info" in path.name}
    assert kinds == {METADATA.get(built.target, "dist-info")}


def test_programs_are_as_isolated_as_at_home(built: Built) -> None:
    for package, programs, links in ((AGENT, 5, 3), (CONFIGS, 4, 0)):
        found = list((built.trees[package] / "usr/bin").iterdir())
        own = [path for path in found if not path.is_symlink()]
        assert {p.read_text().split("\n", 1)[0] for p in own} == {"#!/usr/bin/python3 -IS"}
        assert (len(own), len(found) - len(own)) == (programs, links)


def test_no_relation_has_an_epoch_or_names_what_is_not_needed(built: Built) -> None:
    names = ("Depends", "Recommends", "Suggests", "Provides", "Conflicts", "Breaks", "Replaces")
    for package in built.debs:
        text = ", ".join(built.field(package, name) for name in names)
        assert not re.search(r"[ (=][0-9]+:", text)
        assert not set(re.findall(r"[a-z][a-z0-9.+-]+", text)) & {
            *("jq", "curl", "networkd-dispatcher", "parted", "gdisk"),
            *("libboost", "libjson-c5", "boost", "json-c"),
        }


def test_ubuntus_packages_want_no_console_in_the_system_log(built: Built) -> None:
    ubuntu = built.target.startswith("ubuntu")
    assert (built.trees[CONFIGS] / "etc/rsyslog.d/90-google.conf").exists() == (not ubuntu)
    assert ("rsyslog" in built.field(CONFIGS, "Recommends")) == (not ubuntu)
    scripts = (built.trees[CONFIGS] / "DEBIAN/postinst").read_text()
    assert ("rm_conffile /etc/rsyslog.d/90-google.conf" in scripts) == ubuntu


def test_transitional_package_brings_the_configuration_and_nothing_else(
    build_for: Callable[..., Built],
) -> None:
    ubuntu = build_for("ubuntu2404", "trixie")
    assert ubuntu.field(TRANSITIONAL, "Depends") == CONFIGS
    root = ubuntu.trees[TRANSITIONAL]
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    of_every_package = ("DEBIAN/", "usr/share/doc/", "usr/share/lintian/")
    assert {path for path in files if not path.startswith(of_every_package)} == set()


def test_only_ubuntus_packages_are_transitional_by_the_table() -> None:
    names = {
        target.name: {package.name for package in artifact_table.packages(target)}
        for target in artifact_table.targets().values()
    }
    assert {name for name, found in names.items() if TRANSITIONAL in found} == {
        "ubuntu2204",
        "ubuntu2404",
    }
    assert {name for name, found in names.items() if TRIXIE in found} == {"debian13"}


def test_build_that_changes_debian_control_is_refused(tmp_path: Path) -> None:
    problem = build_roots.problem("bullseye", (TOP / "debian/control").read_text())
    if problem:
        pytest.skip(f"building for Debian 11: {problem}")
    tree = tmp_path / f"{release.SOURCE}-{version()}"
    shutil.copytree(TOP / "debian", tree / "debian")
    (tree / "debian" / "rules").write_text(
        "#!/usr/bin/make -f\n%:\n\tsed -i /^Suggests:/d debian/control\n"
        "\tmkdir -p debian/t/DEBIAN\n"
        f"\tdpkg-gencontrol -p{LIBRARY} -Pdebian/t && dpkg-deb -b debian/t ..\n"
    )
    environment = release.environment()
    with pytest.raises(build_roots.BuildFailed, match="changed debian/control"):
        build_roots.build(tree, "bullseye", tmp_path, tmp_path / "log", environment=environment)


@pytest.mark.parametrize(
    ("target", "said"),
    [("debian10", "there is no target debian10"), ("el9", "has no Debian packages")],
)
def test_target_that_has_no_debian_packages_is_refused(target: str, said: str) -> None:
    done = build_deb(GUEST_TARGET=target)
    assert done.returncode == 1
    assert said in done.stderr


def test_release_without_an_archive_is_named_with_what_is_missing(tmp_path: Path) -> None:
    done = build_deb(
        *("--work", str(tmp_path / "work")),
        GUEST_TARGET="ubuntu2404",
        GUEST_TEST_CACHE=str(tmp_path),
    )
    assert done.returncode == 3
    assert done.stderr.startswith("ubuntu2404 cannot be built here: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("suffix", ["deb12", "+deb 12", "-2"])
def test_revision_that_would_not_sort_as_meant_is_refused(suffix: str, tmp_path: Path) -> None:
    done = build_deb("--force", "--work", str(tmp_path / "work"), GUEST_REVISION=suffix)
    assert done.returncode != 0
    assert "GUEST_REVISION" in done.stderr


def build_deb(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/python3", TOP / "tools/build-deb", *arguments],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


# gce-configs-trixie in Debian 13.


@pytest.fixture(scope="module")
def trixies(build_for: Callable[..., Built]) -> list[Path]:
    """The packages that a system of Debian 13 gets, in the order of their dependencies."""
    debs = build_for("debian13", "trixie").debs
    return [debs[name] for name in (LIBRARY, AGENT, OSLOGIN, CONFIGS, TRIXIE)]


@pytest.fixture
def system(trixies: list[Path]) -> Iterator[Chroot]:
    """Debian 13 with everything but the package, whose systemd seems to run."""
    problems = tiers.root_problems("trixie")
    if problems:
        reason = "installing on Debian 13 needs " + "; ".join(problems)
        if tiers.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="guest-chroot-"))
    trees = [roots.layer("trixie", trixies[:-1]), roots.base("trixie")]
    yield Chroot(trees, folder, recorded_systemctl=True, recorded=(SSHD,))
    cache.remove_tree(folder)


def test_move_from_lib_to_usr_lib_across_an_upgrade_loses_nothing(
    trixies: list[Path], guest_debs: GuestDebs, tmp_path: Path
) -> None:
    """A machine of Debian 12 that has become one of 13: its packages are still those of 12."""
    former = guest_debs.with_packages(OSLOGIN, CONFIGS)
    folder = Path(tempfile.mkdtemp(prefix="guest-chroot-"))
    try:
        machine = Chroot([roots.layer("trixie", former), roots.base("trixie")], folder)
        of_12 = machine.shell(f"dpkg -L {AGENT} {OSLOGIN}").split()
        assert f"/lib/systemd/system/{AGENT}.service" in of_12
        machine.install(next_versions(trixies[:-1], tmp_path))
        of_13 = machine.shell(f"dpkg -L {AGENT} {OSLOGIN}").split()
        assert f"/usr/lib/systemd/system/{AGENT}.service" in of_13
        machine.shell(f"ls -d {' '.join([*of_12, *of_13])}")
        assert machine.shell(f"dpkg -V {LIBRARY} {AGENT} {OSLOGIN} {CONFIGS}") == ""
    finally:
        cache.remove_tree(folder)


RELOADED = (["sshd -t"], ["reload ssh.service"])


def asked(system: Chroot) -> tuple[list[str], list[str]]:
    ours = [line for line in system.systemctl_calls() if line and "rsyslog" not in line]
    return system.program_calls(), [re.sub(r"--\S+ ", "", line) for line in ours]


def test_every_operation_has_sshd_look_at_its_settings_and_reloads_it(
    system: Chroot, trixies: list[Path]
) -> None:
    system.install(trixies[-1:])
    assert asked(system) == RELOADED
    system.install(trixies[-1:])
    assert asked(system) == RELOADED
    system.dpkg("--remove", TRIXIE)
    assert asked(system) == RELOADED
    system.dpkg("--purge", TRIXIE)
    assert asked(system) == RELOADED


def test_server_that_objects_to_its_settings_is_not_reloaded(
    system: Chroot, trixies: list[Path]
) -> None:
    # In front of the recorder, in the PATH of maintainer scripts.
    system.write("/usr/local/sbin/sshd", "#!/bin/sh\nexit 255\n", mode=0o755)
    system.install(trixies[-1:])
    assert asked(system) == ([], [])


def test_purge_leaves_debian_13_as_it_was(system: Chroot, trixies: list[Path]) -> None:
    before = system.files()
    system.install(trixies[-1:])
    assert system.exists(KEY_EXCHANGES)
    system.dpkg("--purge", TRIXIE)
    left = {path for path in system.files() - before if not path.startswith("/var/lib/dpkg/")}
    assert left - {"/var/log/dpkg.log"} == set()


def test_sshd_of_debian_13_accepts_the_key_exchanges(trixies: list[Path]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="guest-chroot-"))
    try:
        real = Chroot([roots.layer("trixie", trixies), roots.base("trixie")], folder)
        real.shell("mkdir -p /run/sshd; ssh-keygen -A >/dev/null; sshd -t")
        effective = real.shell("mkdir -p /run/sshd; sshd -T | grep -i ^kexalgorithms")
    finally:
        cache.remove_tree(folder)
    assert "diffie-hellman-group14-sha1" in effective


@pytest.mark.parametrize("argument", ["configure", "remove", "purge"])
def test_server_of_the_host_is_left_alone_for_another_root(
    system: Chroot, build_for: Callable[..., Built], argument: str
) -> None:
    script = "postinst" if argument == "configure" else "postrm"
    text = (build_for("debian13", "trixie").trees[TRIXIE] / "DEBIAN" / script).read_text()
    system.shell("mkdir -p /target/etc /target/var/lib; cp -a /var/lib/dpkg /target/var/lib")
    system.write(f"/script.{script}", text, mode=0o755)
    environment = {
        "DPKG_ROOT": "/target",
        "DPKG_MAINTSCRIPT_PACKAGE": TRIXIE,
        "DPKG_MAINTSCRIPT_NAME": script,
    }
    done = system.run([f"/script.{script}", argument], environment=environment, check=False)
    assert (done.status, done.stderr) == (0, "")
    assert asked(system) == ([], [])


def test_piuparts_passes_what_debian_13_alone_has(trixies: list[Path], tmp_path: Path) -> None:
    missing = missing_programs(("piuparts",))
    if missing:
        pytest.skip(f"program {missing[0]}")
    done = run_piuparts(
        roots.base("trixie"),
        trixies[-1:],
        "--no-upgrade-test",
        suite="trixie",
        archive=trixies,
        folder=tmp_path / "room",
    )
    assert (complaints(done), done.status) == ([], 0)


@pytest.mark.parametrize(
    ("target", "package"), [("debian13", TRIXIE), ("ubuntu2404", TRANSITIONAL)]
)
def test_lintian_finds_no_error_and_no_warning_in_what_one_release_alone_has(
    build_for: Callable[..., Built], target: str, package: str
) -> None:
    command = [TOP / "tools" / "check-lintian", build_for(target, "trixie").debs[package]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
