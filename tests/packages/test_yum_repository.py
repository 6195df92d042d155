"""The yum repository, by real dnf and zypper: what a machine takes from it, and what it refuses.

dnf, zypper and rpm are Debian's, on Debian's userland: this is their logic, on no system of their
distributions. Packages are small ones of the test.
"""

from __future__ import annotations

import abc
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import artifact_table
import pytest
import release
import yaml
from repository_builds import EPOCHS, built
from repository_states import check_beats_others, is_greater_rpm
from support import rpm_roots, tiers
from support.chroot import Chroot, is_possible
from support.commands import Completed
from support.debs import SOURCE_TREE
from support.repository_server import RepositoryServer
from support.rpm_machine import stubs_for
from support.signing_keys import new_key_file
from support.small_rpms import small_rpm

EL, SUSE = "el9", "sles15"
OTHERS = yaml.safe_load((SOURCE_TREE / "tools/other-versions.yaml").read_text())
NAME = "guest-example"
TOOL = SOURCE_TREE / "tools" / "repo-yum"
DAY = 24 * 3600
KEY = "google-guest-environment.asc"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_key_file(tmp_path_factory.mktemp("key") / "key.asc", kind="rsa2048")


@pytest.fixture(scope="module")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The package in versions 1 to 5, by version, and `other`."""
    folder = tmp_path_factory.mktemp("rpms")
    made = {version: small_rpm(folder, NAME, version) for version in "12345"}
    return {**made, "other": small_rpm(folder, "guest-other", "1")}


class Repository:
    """A repository that a test makes with tools/repo-yum, served on loopback."""

    target = EL

    def __init__(self, top: Path, key: Path, server: RepositoryServer) -> None:
        self.top = top
        self.key = key
        self.server = server

    @property
    def folder(self) -> Path:
        return self.top / f"google-compute-engine-{self.target}-x86_64-stable"

    def update(self, *files: Path, ago: int = 0, **more: str) -> None:
        done = self.try_update(*files, ago=ago, **more)
        assert done.returncode == 0, done.stderr

    def try_update(
        self, *files: Path, ago: int = 0, **more: str
    ) -> subprocess.CompletedProcess[str]:
        options = [f"--date=@{int(time.time()) - ago}", f"--url={self.server.url}"]
        options += [f"--{name.replace('_', '-')}={value}" for name, value in more.items()]
        return repo_yum(*options, f"--target={self.target}", *files, output=self.top, key=self.key)

    def rpm(self, version: str) -> Path:
        return self.folder / "Packages" / f"{NAME}-{version}-1.noarch.rpm"

    def root(self) -> Path:
        return self.folder / "repodata" / "repomd.xml"


def repo_yum(
    *arguments: object, output: Path, key: Path | None
) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    if key is not None:
        environment["GUEST_GPG_KEY_FILE"] = str(key)
    return subprocess.run(
        ["/usr/bin/python3", TOOL, "--output", output, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


class Machine(abc.ABC):
    """A machine that has the repository's own .repo file, and one of the two package managers."""

    TARGET: str
    REPOS: str
    UPDATE: tuple[str, ...]
    DOWNGRADE: tuple[str, ...]

    def __init__(self, chroot: Chroot, repository: Repository) -> None:
        self.chroot = chroot
        chroot.shell(f"rm -rf {self.REPOS}")
        name = f"{repository.folder.name}.repo"
        chroot.write(f"{self.REPOS}/{name}", (repository.folder / name).read_text())
        chroot.write("/etc/rpm/macros", "%_dbpath /var/lib/rpm\n")

    @abc.abstractmethod
    def ask(self, *arguments: str) -> Completed:
        """Run the package manager, which answers every question with yes."""

    def command(self, *arguments: str) -> str:
        done = self.ask(*arguments)
        assert done.status == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        """What it says when it ends with an error."""
        done = self.ask(*arguments)
        assert done.status != 0, done.stdout + done.stderr
        assert self.version() == ""
        return done.stdout + done.stderr

    def version(self) -> str:
        """What the installed package's own file says."""
        return (self.chroot.read(f"/usr/share/{NAME}/version") or "").strip()


class DnfMachine(Machine):
    TARGET = EL
    REPOS = "/etc/yum.repos.d"
    UPDATE = ("upgrade", "--refresh")
    DOWNGRADE = ("downgrade", f"{NAME}-1-1")

    def ask(self, *arguments: str) -> Completed:
        options = ("--assumeyes", "--setopt=retries=1", "--setopt=timeout=5")
        return self.chroot.run(["dnf", *options, *arguments], check=False)


class ZypperMachine(Machine):
    TARGET = SUSE
    REPOS = "/etc/zypp/repos.d"
    UPDATE = ("update",)
    DOWNGRADE = ("install", "--oldpackage", f"{NAME}=2:1-1")

    def ask(self, *arguments: str) -> Completed:
        options = ("--non-interactive", "--gpg-auto-import-keys")
        refreshed = self.chroot.run(["zypper", *options, "refresh", "--force"], check=False)
        if refreshed.status != 0:
            return refreshed
        return self.chroot.run(["zypper", *options, "--no-refresh", *arguments], check=False)


@pytest.fixture
def repository(tmp_path: Path, key: Path, rpms: dict[str, Path]) -> Iterator[Repository]:
    """Versions 1 and 2 of the package are in that of EL."""
    top = tmp_path / "yum-repo"
    with RepositoryServer(top).running() as server:
        made = Repository(top, key, server)
        made.update(rpms["1"], rpms["2"], ago=DAY)
        yield made


@pytest.fixture(params=[DnfMachine, ZypperMachine], ids=["dnf", "zypper"])
def machine(
    request: pytest.FixtureRequest,
    repository: Repository,
    rpms: dict[str, Path],
    tmp_path: Path,
) -> Machine:
    """Its target's repository has versions 1 and 2 of the package, and another package."""
    problems = [is_possible()] if is_possible() else list(rpm_roots.rpm_root_problems())
    if problems:
        reason = "using a yum repository needs " + "; ".join(map(str, problems))
        if tiers.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    repository.target = request.param.TARGET
    repository.update(rpms["1"], rpms["2"], rpms["other"], ago=DAY)
    made: Machine = request.param(Chroot([rpm_roots.rpm_base()], tmp_path / "machine"), repository)
    return made


def test_machine_installs_upgrades_downgrades_and_removes(
    machine: Machine, repository: Repository, rpms: dict[str, Path]
) -> None:
    # Debian's zypper ends with an error when the last package goes.
    machine.command("install", NAME, "guest-other")
    assert machine.version() == "2"
    repository.update(rpms["3"])
    machine.command(*machine.UPDATE)
    assert machine.version() == "3"
    machine.command(*machine.DOWNGRADE)
    assert machine.version() == "1"
    machine.command("remove", NAME)
    assert machine.version() == ""


def test_altered_root_is_refused(machine: Machine, repository: Repository) -> None:
    root = repository.root()
    root.write_text(root.read_text().replace("<revision>", "<revision>1"))
    said = machine.refused("install", NAME)
    assert "signature" in said.lower()


def test_missing_signature_of_the_root_is_refused(machine: Machine, repository: Repository) -> None:
    repository.root().with_name("repomd.xml.asc").unlink()
    assert "signature" in machine.refused("install", NAME).lower()


def test_root_of_another_key_is_refused(
    machine: Machine, repository: Repository, tmp_path: Path
) -> None:
    trusted = (repository.folder / KEY).read_bytes()
    repository.key = new_key_file(tmp_path / "other.asc", user="Other <o@example.com>")
    repository.update()
    (repository.folder / KEY).write_bytes(trusted)
    assert "signature" in machine.refused("install", NAME).lower()


def test_unsigned_package_is_refused(
    machine: Machine, repository: Repository, rpms: dict[str, Path]
) -> None:
    for version in "12":
        shutil.copy(rpms[version], repository.rpm(version))
    repository.update()
    said = machine.refused("install", NAME)
    assert "not signed" in said or "is unsigned" in said


def test_altered_package_is_refused(machine: Machine, repository: Repository) -> None:
    for version in "12":
        data = bytearray(repository.rpm(version).read_bytes())
        data[-1] ^= 1
        repository.rpm(version).write_bytes(bytes(data))
    said = machine.refused("install", NAME)
    assert "checksum doesn't match" in said or "Signature verification failed" in said


def test_altered_index_is_refused(machine: Machine, repository: Repository) -> None:
    for index in repository.root().parent.glob("*-primary.xml.gz"):
        index.write_bytes(b"x" * index.stat().st_size)
    assert "checksum" in machine.refused("install", NAME)


def test_index_may_be_replaced_between_root_and_index(
    machine: Machine, repository: Repository, rpms: dict[str, Path]
) -> None:
    """Indexes stay under their names; zypper reads the signature before the root."""
    last = "repomd.xml.asc" if isinstance(machine, DnfMachine) else "repomd.xml"
    machine.ask("install", "guest-other")
    repository.update(rpms["3"])
    repository.server.after[last] = lambda: repository.update(rpms["4"])
    machine.command("install", *(["--refresh"] if isinstance(machine, DnfMachine) else []), NAME)
    assert machine.version() == "3"


def test_key_that_follows_another_is_added(
    machine: Machine, repository: Repository, rpms: dict[str, Path], tmp_path: Path
) -> None:
    repository.key = new_key_file(
        tmp_path / "next.asc", kind="rsa2048", user="Next <n@example.com>"
    )
    repository.update(rpms["3"])
    machine.command("install", f"{NAME}-3-1" if isinstance(machine, DnfMachine) else NAME)
    assert machine.version() == "3"
    machine.command(*machine.DOWNGRADE)
    assert machine.version() == "1"


def test_machine_installs_the_guest_environment(
    machine: Machine, repository: Repository, tmp_path: Path
) -> None:
    """With small packages in place of the distribution's."""
    files, reason = built("rpm", repository.target)
    assert files, reason
    target = artifact_table.target(repository.target)
    stubs = stubs_for(files, tmp_path / "stubs", python=f"{target.python}.1")
    repository.update(*files, *stubs)
    names = {package.key: package.name for package in artifact_table.packages(target)}
    machine.command("install", names["google-compute-engine"])
    command = ["rpm", "-q", "--qf", "%{EPOCH}:%{VERSION}\\n", *names.values()]
    listed = machine.chroot.run(command, check=False).stdout.splitlines()
    installed = [line for line in listed if "not installed" not in line]
    assert len(installed) >= 4
    assert set(installed) == {f"2:{release.version()}"}


def test_packages_carry_the_keys_signature(repository: Repository, tmp_path: Path) -> None:
    rpmkeys = ["rpmkeys", "--define", f"_dbpath {tmp_path / 'rpmdb'}"]
    subprocess.run([*rpmkeys, "--import", repository.folder / KEY], check=True)
    command = [*rpmkeys, "--checksig", repository.rpm("1")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "digests signatures OK" in done.stdout) == (0, True), done


def test_sums_of_the_packages_before_they_were_signed_are_kept(
    repository: Repository, rpms: dict[str, Path]
) -> None:
    command = ["sha256sum", "--check", "--quiet", repository.folder / "published.sha256"]
    done = subprocess.run(command, cwd=rpms["1"].parent, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert repository.rpm("1").read_bytes() != rpms["1"].read_bytes()


def contents(top: Path) -> dict[str, bytes]:
    return {
        path.relative_to(top).as_posix(): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file()
    }


def test_two_repositories_of_the_same_packages_are_equal(
    rpms: dict[str, Path], tmp_path: Path
) -> None:
    made = []
    for name, order, umask in (("first", "12", 0o022), ("second", "21", 0o077)):
        output = tmp_path / name / "repo"
        copies = []
        for version in order:
            copies.append(tmp_path / name / rpms[version].name)
            copies[-1].parent.mkdir(exist_ok=True)
            shutil.copyfile(rpms[version], copies[-1])
        before = os.umask(umask)
        try:
            done = repo_yum("--unsigned", "--target=el9", *copies, output=output, key=None)
        finally:
            os.umask(before)
        assert done.returncode == 0, done.stderr
        made.append(contents(output))
    assert made[0] == made[1]
    assert "google-compute-engine-el9-x86_64-stable/repodata/repomd.xml" in made[0]


def test_published_package_is_not_signed_again(
    repository: Repository, rpms: dict[str, Path]
) -> None:
    before = repository.rpm("1").read_bytes()
    repository.update(rpms["1"], rpms["2"])
    assert repository.rpm("1").read_bytes() == before


def test_published_name_is_not_used_for_another_content(
    repository: Repository, tmp_path: Path
) -> None:
    before = contents(repository.top)
    done = repository.try_update(small_rpm(tmp_path / "other", NAME, "1", text=" mended"))
    assert done.returncode == 1
    assert f"{NAME}-1-1.noarch.rpm is published with another content" in done.stderr
    assert contents(repository.top) == before


def test_last_versions_and_states_are_kept(repository: Repository, rpms: dict[str, Path]) -> None:
    for number, version in enumerate("345"):
        repository.update(rpms[version], ago=9 - number)
    metadata = repository.root().parent
    assert len(list(metadata.glob("*-primary.xml.gz"))) == 3
    # The oldest kept state has versions 1 to 3, the newest 3 to 5.
    files = sorted(path.name for path in (repository.folder / "Packages").iterdir())
    assert files == [f"{NAME}-{version}-1.noarch.rpm" for version in "12345"]
    repository.update(rpms["5"], keep_versions="1", keep_states="1")
    assert [path.name for path in (repository.folder / "Packages").iterdir()] == [
        f"{NAME}-5-1.noarch.rpm"
    ]


@pytest.mark.parametrize("name", sorted(OTHERS["rpm"]))
def test_our_packages_beat_those_of_others(name: str) -> None:
    version = f"{EPOCHS['rpm']}:{release.version()}-1"
    check_beats_others("rpm", name, version, is_greater=is_greater_rpm, epoch=2)


def test_every_package_is_compared_with_others() -> None:
    ours = {
        package.name
        for target in artifact_table.targets().values()
        if target.format == "rpm"
        for package in artifact_table.packages(target)
    }
    assert ours == OTHERS["rpm"].keys()


@pytest.mark.parametrize("name", ["google-guest-agent", "google-guest-configs"])
def test_packages_that_others_would_beat_are_refused(
    repository: Repository, tmp_path: Path, name: str
) -> None:
    done = repository.try_update(small_rpm(tmp_path / "none", name, "20200101.00", epoch=0))
    assert (done.returncode, "GUEST_EPOCH=2" in done.stderr) == (1, True)


def test_earlier_date_is_refused(repository: Repository, rpms: dict[str, Path]) -> None:
    done = repository.try_update(rpms["3"], ago=2 * DAY)
    assert (done.returncode, "give --date now" in done.stderr) == (1, True)


def test_signed_repository_does_not_become_unsigned(repository: Repository) -> None:
    done = repo_yum("--unsigned", "--target=el9", "--date=now", output=repository.top, key=None)
    assert (done.returncode, "is signed and stays so" in done.stderr) == (1, True)


def test_no_key_makes_no_repository(rpms: dict[str, Path], tmp_path: Path) -> None:
    done = repo_yum("--target=el9", rpms["1"], output=tmp_path / "repo", key=None)
    assert (done.returncode, "GUEST_GPG_KEY" in done.stderr) == (1, True)
    assert not (tmp_path / "repo").exists()
