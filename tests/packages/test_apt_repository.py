"""The apt repository, by real apt: what a machine takes from it, and what it refuses.

Packages are small ones of the test; the machine is Debian 12 with the repository's own source
snippet and key, and nothing else to install from.
"""

from __future__ import annotations

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
from repository_builds import EPOCHS, built, revision_of
from repository_states import check_beats_others, is_greater_deb
from support import roots, tiers
from support.chroot import Chroot, is_possible
from support.commands import Completed
from support.debs import SOURCE_TREE
from support.repository_server import RepositoryServer
from support.signing_keys import new_key_file
from support.small_debs import small_deb

OTHERS = yaml.safe_load((SOURCE_TREE / "tools/other-versions.yaml").read_text())
SUITE = "google-compute-engine-bookworm-stable"
DISTS = f"dists/{SUITE}"
NAME = "guest-example"
TOOL = SOURCE_TREE / "tools" / "repo-apt"
DAY = 24 * 3600


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_key_file(tmp_path_factory.mktemp("key") / "key.asc")


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The package in versions 1 to 5, by version."""
    folder = tmp_path_factory.mktemp("debs")
    return {version: small_deb(folder, NAME, f"1:{version}-1") for version in "12345"}


class Repository:
    """A repository that a test makes with tools/repo-apt, served on loopback."""

    def __init__(self, top: Path, key: Path, server: RepositoryServer) -> None:
        self.top = top
        self.key = key
        self.server = server

    def update(self, *files: Path, ago: int = 0, suite: str = "bookworm", **more: str) -> None:
        done = self.try_update(*files, ago=ago, suite=suite, **more)
        assert done.returncode == 0, done.stderr

    def try_update(
        self, *files: Path, ago: int = 0, suite: str = "bookworm", **more: str
    ) -> subprocess.CompletedProcess[str]:
        options = [f"--date=@{int(time.time()) - ago}", f"--url={self.server.url}"]
        options += [f"--{name.replace('_', '-')}={value}" for name, value in more.items()]
        return repo_apt(*options, f"--suite={suite}", *files, output=self.top, key=self.key)

    def packages(self, architecture: str = "amd64") -> str:
        return (self.top / DISTS / f"main/binary-{architecture}/Packages").read_text()

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.top, folder))


def repo_apt(
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


class Machine:
    """A machine that has this one source."""

    def __init__(self, chroot: Chroot, repository: Repository) -> None:
        self.chroot = chroot
        key = repository.top / "google-guest-environment.asc"
        snippet = (repository.top / f"{SUITE}.sources").read_text()
        chroot.shell("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*")
        chroot.write("/usr/share/keyrings/google-guest-environment.asc", key.read_text())
        chroot.write(f"/etc/apt/sources.list.d/{SUITE}.sources", snippet)

    def apt(self, *arguments: str, check: bool = True) -> Completed:
        options = ["-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=0"]
        return self.chroot.run(["apt-get", "-qy", *options, *arguments], check=check)

    def version(self) -> str:
        """What the installed package's own file says."""
        return (self.chroot.read(f"/usr/share/{NAME}/version") or "").strip()

    def refused(self, *arguments: str) -> str:
        """What apt says when it ends with an error."""
        done = self.apt(*arguments, check=False)
        assert done.status == 100, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def repository(tmp_path: Path, key: Path) -> Iterator[Repository]:
    top = tmp_path / "apt-repo"
    with RepositoryServer(top).running() as server:
        yield Repository(top, key, server)


@pytest.fixture
def machine(repository: Repository, debs: dict[str, Path], tmp_path: Path) -> Machine:
    """The machine, and versions 1 and 2 in the repository."""
    problems = [is_possible()] if is_possible() else list(tiers.root_problems("bookworm"))
    if problems:
        reason = "using an apt repository needs " + "; ".join(map(str, problems))
        if tiers.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    repository.update(debs["1"], debs["2"], ago=DAY)
    return Machine(Chroot([roots.base("bookworm")], tmp_path / "machine"), repository)


def test_machine_installs_upgrades_and_downgrades(
    machine: Machine, repository: Repository, debs: dict[str, Path]
) -> None:
    machine.apt("update")
    machine.apt("install", NAME)
    assert machine.version() == "1:2-1"
    repository.update(debs["3"])
    machine.apt("update")
    machine.apt("upgrade")
    assert machine.version() == "1:3-1"
    machine.apt("install", "--allow-downgrades", f"{NAME}=1:1-1")
    assert machine.version() == "1:1-1"


def test_machine_installs_from_a_folder(machine: Machine, repository: Repository) -> None:
    sources = f"/etc/apt/sources.list.d/{SUITE}.sources"
    repository.copy(Path(machine.chroot._folder) / "media" / "apt-repo")
    machine.chroot.shell(f"sed -i 's,^URIs: .*,URIs: file:/media/apt-repo,' {sources}")
    machine.apt("update")
    machine.apt("install", NAME)
    assert machine.version() == "1:2-1"


def test_unsigned_repository_is_refused(machine: Machine, repository: Repository) -> None:
    (repository.top / DISTS / "InRelease").unlink()
    (repository.top / DISTS / "Release.gpg").unlink()
    assert "is not signed" in machine.refused("update")


def test_repository_of_another_key_is_refused(
    machine: Machine, repository: Repository, tmp_path: Path
) -> None:
    repository.key = new_key_file(tmp_path / "other.asc", user="Other <o@example.com>")
    repository.update()
    assert "NO_PUBKEY" in machine.refused("update")


@pytest.mark.parametrize("name", ["InRelease", "Release"])
def test_altered_root_is_refused(machine: Machine, repository: Repository, name: str) -> None:
    if name == "Release":
        (repository.top / DISTS / "InRelease").unlink()
    root = repository.top / DISTS / name
    root.write_bytes(root.read_bytes().replace(b"Components: main", b"Components: mine"))
    assert "BADSIG" in machine.refused("update")


def test_root_is_good_in_its_other_form(machine: Machine, repository: Repository) -> None:
    (repository.top / DISTS / "InRelease").unlink()
    machine.apt("update")
    machine.apt("install", NAME)
    assert machine.version() == "1:2-1"


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5"])
def test_number_of_kept_versions_is_at_least_one(tmp_path: Path, number: str) -> None:
    done = repo_apt(f"--keep-versions={number}", "--unsigned", output=tmp_path / "r", key=None)
    assert done.returncode == 2
    assert f"--keep-versions: '{number}' is no number from 1 on" in done.stderr
    assert not (tmp_path / "r").exists()


def test_expired_repository_is_refused(machine: Machine, repository: Repository) -> None:
    shutil.rmtree(repository.top / DISTS)
    repository.update(ago=15 * DAY)
    assert "is expired" in machine.refused("update")


def test_repository_is_good_for_fourteen_days(machine: Machine, repository: Repository) -> None:
    shutil.rmtree(repository.top / DISTS)
    repository.update(ago=14 * DAY - 600)
    machine.apt("update")
    machine.apt("install", NAME)
    assert machine.version() == "1:2-1"


def test_dating_anew_mends_an_expired_repository(
    machine: Machine, repository: Repository, debs: dict[str, Path]
) -> None:
    shutil.rmtree(repository.top / DISTS)
    repository.update(ago=15 * DAY)
    repository.update()
    machine.apt("update")
    machine.apt("install", NAME)
    assert machine.version() == "1:2-1"


def test_altered_index_is_refused(machine: Machine, repository: Repository) -> None:
    for index in (repository.top / DISTS).rglob("*"):
        if index.is_file() and "binary-" in index.as_posix():
            index.write_bytes(b"x" * index.stat().st_size)
    assert "Hash Sum mismatch" in machine.refused("update")


def test_altered_package_is_refused(machine: Machine, repository: Repository) -> None:
    machine.apt("update")
    deb = repository.top / "pool/bookworm" / f"{NAME}_2-1_all.deb"
    data = bytearray(deb.read_bytes())
    data[-1] ^= 1
    deb.write_bytes(bytes(data))
    assert "Hash Sum mismatch" in machine.refused("install", NAME)
    assert machine.version() == ""


def replaced_after_the_root(repository: Repository, debs: dict[str, Path], folder: Path) -> None:
    """The server shows the next state as soon as the root of this one has been fetched."""
    before = repository.copy(folder)
    repository.update(debs["3"])
    server = repository.server
    server.show(before)
    server.after["InRelease"] = lambda: server.show(repository.top)


def test_index_may_be_replaced_between_root_and_index(
    machine: Machine, repository: Repository, debs: dict[str, Path], tmp_path: Path
) -> None:
    replaced_after_the_root(repository, debs, tmp_path / "before")
    machine.apt("update")
    machine.apt("install", NAME)
    assert machine.version() == "1:2-1"
    fetched = [path for path in repository.server.requests if "Packages" in path or "hash" in path]
    assert fetched and all("/by-hash/SHA512/" in path for path in fetched)
    assert repository.server.folder == repository.top


def test_without_names_of_content_that_fails(
    machine: Machine, repository: Repository, debs: dict[str, Path], tmp_path: Path
) -> None:
    replaced_after_the_root(repository, debs, tmp_path / "before")
    said = machine.refused("update", "-o", "Acquire::By-Hash=no")
    assert "unexpected size" in said or "Hash Sum mismatch" in said


def test_package_may_disappear_from_the_index_after_it_was_read(
    machine: Machine, repository: Repository, debs: dict[str, Path]
) -> None:
    machine.apt("update")
    repository.update(debs["3"], ago=60, keep_versions="1")
    repository.update(debs["4"], keep_versions="1")
    assert f"{NAME}_2-1" not in repository.packages()
    machine.apt("install", NAME)
    assert machine.version() == "1:2-1"


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_packages_for_all_architectures_are_visible(machine: Machine, architecture: str) -> None:
    options = [
        "-o",
        f"APT::Architecture={architecture}",
        "-o",
        f"APT::Architectures={architecture}",
    ]
    machine.apt(*options, "update")
    shown = machine.chroot.run(["apt-cache", *options, "policy", NAME]).stdout
    assert "Candidate: 1:2-1" in shown


def test_packages_of_an_architecture_are_in_its_index_alone(
    repository: Repository, tmp_path: Path
) -> None:
    repository.update(
        small_deb(tmp_path, "guest-amd", "1:1-1", arch="amd64"),
        small_deb(tmp_path, "guest-arm", "1:1-1", arch="arm64"),
    )
    assert "guest-amd" in repository.packages("amd64")
    assert "guest-arm" not in repository.packages("amd64")
    assert "guest-arm" in repository.packages("arm64")


def test_package_of_another_architecture_is_refused(repository: Repository, tmp_path: Path) -> None:
    done = repository.try_update(small_deb(tmp_path, NAME, "1:1-1", arch="riscv64"))
    assert (done.returncode, "riscv64" in done.stderr) == (1, True)
    assert not (repository.top / "pool").exists()


def contents(top: Path) -> dict[str, bytes]:
    return {
        path.relative_to(top).as_posix(): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file()
    }


def test_two_repositories_of_the_same_packages_are_equal(
    debs: dict[str, Path], tmp_path: Path
) -> None:
    made = []
    for name, order, umask in (("first", "12", 0o022), ("second", "21", 0o077)):
        output = tmp_path / name / "repo"
        before = os.umask(umask)
        try:
            done = repo_apt(
                *("--unsigned", "--suite=bookworm"),
                *(debs[version] for version in order),
                output=output,
                key=None,
            )
        finally:
            os.umask(before)
        assert done.returncode == 0, done.stderr
        made.append(contents(output))
    assert made[0] == made[1]
    assert f"{DISTS}/Release" in made[0]


def test_same_command_again_changes_nothing_but_signatures(
    repository: Repository, debs: dict[str, Path]
) -> None:
    arguments = ("--suite=bookworm", debs["1"])
    repo_apt(*arguments, output=repository.top, key=repository.key)
    before = contents(repository.top)
    done = repo_apt(*arguments, output=repository.top, key=repository.key)
    assert done.returncode == 0, done.stderr
    after = contents(repository.top)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed <= {f"{DISTS}/InRelease", f"{DISTS}/Release.gpg"}


def test_published_name_is_not_used_for_another_content(
    repository: Repository, debs: dict[str, Path], tmp_path: Path
) -> None:
    repository.update(debs["1"])
    before = contents(repository.top)
    done = repository.try_update(small_deb(tmp_path, NAME, "1:1-1", text=" mended"))
    assert done.returncode == 1
    assert f"{NAME}_1-1_all.deb is published with another content" in done.stderr
    assert contents(repository.top) == before


def test_name_is_not_used_for_another_content_after_the_package_is_gone(
    repository: Repository, debs: dict[str, Path], tmp_path: Path
) -> None:
    for number, version in enumerate("1234"):
        repository.update(debs[version], ago=9 - number, keep_versions="1", keep_states="1")
    assert not (repository.top / "pool/bookworm" / debs["1"].name).exists()
    done = repository.try_update(small_deb(tmp_path, NAME, "1:1-1", text=" mended"))
    assert (done.returncode, "another content" in done.stderr) == (1, True)


def test_two_suites_do_not_share_a_name_for_different_contents(
    repository: Repository, debs: dict[str, Path], tmp_path: Path
) -> None:
    repository.update(debs["1"])
    repository.update(debs["1"], suite="trixie")
    other = small_deb(tmp_path, NAME, "1:2-1", text=" for trixie")
    repository.update(other, suite="trixie")
    done = repository.try_update(debs["2"])
    assert (done.returncode, "another content" in done.stderr) == (1, True)


def test_last_versions_and_states_are_kept(repository: Repository, debs: dict[str, Path]) -> None:
    for number, version in enumerate("12345"):
        repository.update(debs[version], ago=9 - number)
    listed = [line for line in repository.packages().splitlines() if line.startswith("Version:")]
    assert listed == ["Version: 1:3-1", "Version: 1:4-1", "Version: 1:5-1"]
    # The oldest kept state, of versions 1 to 3, is whole.
    files = sorted(path.name for path in (repository.top / "pool/bookworm").iterdir())
    assert files == [f"{NAME}_{version}-1_all.deb" for version in "12345"]
    by_hash = repository.top / DISTS / "main/binary-amd64/by-hash/SHA256"
    assert len(list(by_hash.iterdir())) == 3 * 3


def test_dating_anew_forgets_no_state(repository: Repository, debs: dict[str, Path]) -> None:
    repository.update(debs["1"], ago=50)
    repository.update(debs["2"], ago=40)
    for ago in (30, 20, 10):
        repository.update(ago=ago)
    by_hash = repository.top / DISTS / "main/binary-amd64/by-hash/SHA256"
    assert len(list(by_hash.iterdir())) == 2 * 3


def test_every_suite_is_dated_anew(repository: Repository, debs: dict[str, Path]) -> None:
    for suite in ("bookworm", "trixie"):
        repository.update(debs["1"], ago=DAY, suite=suite)
    releases = sorted(repository.top.glob("dists/*/Release"))
    before = [path.read_text() for path in releases]
    done = repo_apt("--refresh", "--date=now", output=repository.top, key=repository.key)
    assert done.returncode == 0, done.stderr
    after = [path.read_text() for path in releases]
    assert len(after) == 2
    assert all(old != new for old, new in zip(before, after))


def test_earlier_date_is_refused(repository: Repository, debs: dict[str, Path]) -> None:
    repository.update(debs["1"])
    done = repository.try_update(debs["2"], ago=DAY)
    assert (done.returncode, "give --date now" in done.stderr) == (1, True)


def test_no_key_makes_no_repository(debs: dict[str, Path], tmp_path: Path) -> None:
    done = repo_apt("--suite=bookworm", debs["1"], output=tmp_path / "repo", key=None)
    assert done.returncode == 1
    assert "GUEST_GPG_KEY" in done.stderr
    assert not (tmp_path / "repo").exists()


def test_signed_repository_does_not_become_unsigned(
    repository: Repository, debs: dict[str, Path]
) -> None:
    repository.update(debs["1"])
    done = repo_apt("--unsigned", "--suite=bookworm", output=repository.top, key=None)
    assert (done.returncode, "cannot become unsigned" in done.stderr) == (1, True)


def test_packages_that_the_vendors_would_beat_are_refused(
    repository: Repository, tmp_path: Path
) -> None:
    done = repository.try_update(small_deb(tmp_path, "google-guest-agent", "20991231.00-1"))
    assert done.returncode == 1
    assert "GUEST_EPOCH=1" in done.stderr


@pytest.mark.parametrize("name", sorted(OTHERS["deb"]))
def test_our_packages_beat_those_of_others(name: str) -> None:
    version = f"{EPOCHS['deb']}:{release.version()}-1{revision_of('debian12')}"
    check_beats_others("deb", name, version, is_greater=is_greater_deb, epoch=1)


def test_machine_installs_the_guest_environment(machine: Machine, repository: Repository) -> None:
    """What it depends on is in the base."""
    files, reason = built("deb", "debian12")
    assert files, reason
    repository.update(*files)
    machine.apt("update")
    machine.apt("install", "google-compute-engine")
    listed = machine.chroot.shell("dpkg-query --show --showformat '${Package} ${Version}\\n'")
    version = f"1:{release.version()}-1+deb12"
    for name in ("google-compute-engine", "google-guest-agent", "google-compute-engine-oslogin"):
        assert f"{name} {version}" in listed.splitlines()
    assert machine.chroot.is_enabled("google-guest-agent.service") == "enabled"


def test_every_package_is_compared_with_others() -> None:
    ours = {
        package.name
        for target in artifact_table.targets().values()
        if target.format == "deb"
        for package in artifact_table.packages(target)
    }
    assert ours == OTHERS["deb"].keys()


@pytest.mark.parametrize("name", ["Bookworm", "../bookworm", ""])
def test_suite_that_is_no_code_name_is_refused(
    repository: Repository, debs: dict[str, Path], name: str
) -> None:
    assert repository.try_update(debs["1"], suite=name).returncode != 0


def test_what_is_no_package_is_refused(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "broken.deb").write_bytes(b"!<arch>\n")
    done = repository.try_update(tmp_path / "broken.deb")
    assert done.returncode == 1
    assert "repo-apt: dpkg-deb ended with" in done.stderr
