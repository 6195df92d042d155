"""Publishing repositories: the order, interruptions at every step, and what readers see meanwhile.

The repositories are real ones of tools/repo-apt and repo-yum with small packages; the places are a
folder and fsspec's memory.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import publication
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from publication import Stage
from publication_store import Store
from support.debs import SOURCE_TREE
from support.published_repositories import (
    NAME,
    VERSIONS,
    apt_states,
    contents,
    contents_of,
    made_states,
    new_url,
    published,
)
from support.signing_keys import new_key_file
from support.small_rpms import small_rpm

from google_guest.errors import GuestError

fsspec = pytest.importorskip("fsspec", reason="publishing needs fsspec in .venv")

SUITE = "dists/google-compute-engine-bookworm-stable"
YUM = "google-compute-engine-el9-x86_64-stable"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_key_file(tmp_path_factory.mktemp("key") / "key.asc", kind="rsa2048")


@pytest.fixture(scope="module")
def apt(tmp_path_factory: pytest.TempPathFactory, key: Path) -> list[Path]:
    return apt_states(tmp_path_factory.mktemp("apt"), key)


@pytest.fixture(scope="module")
def yum(tmp_path_factory: pytest.TempPathFactory, key: Path) -> list[Path]:
    folder = tmp_path_factory.mktemp("yum")
    rpms = [small_rpm(folder, NAME, version) for version in VERSIONS]
    return made_states("repo-yum", "--target=el9", rpms, folder, key)


@pytest.fixture(scope="module")
def repositories(apt: list[Path], yum: list[Path]) -> dict[str, list[Path]]:
    return {"apt": apt, "yum": yum}


class Killed(BaseException):
    """The publisher is gone."""


class Watched(Store):
    """A store that calls back at every change, and whose user dies at a given one."""

    def __init__(self, url: str) -> None:
        super().__init__(url, sleep=lambda seconds: None)
        self.dies_after = -1
        self.before_change: Any = lambda name: None

    def put(self, file: Path, name: str, *, for_ever: bool) -> None:
        self._change(name)
        super().put(file, name, for_ever=for_ever)

    def remove(self, name: str) -> None:
        self._change(name)
        super().remove(name)

    def _change(self, name: str) -> None:
        self.before_change(name)
        if self.dies_after == 0:
            raise Killed
        self.dies_after -= 1


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_apt(store: Store, root: bytes) -> set[str]:
    """Everything that a machine gets that has read this InRelease: the packages' names.

    What is missing or is another content ends the test.
    """
    sums = root.decode().split("\nSHA256:\n")[1].split("\nSHA512:\n")[0]
    packages = set()
    for digest, _, path in (line.split() for line in sums.splitlines()):
        folder = f"{SUITE}/{path.rpartition('/')[0]}"
        index = store.read(f"{folder}/by-hash/SHA256/{digest}")
        assert sha256(index) == digest
        if not path.endswith("Packages"):
            continue
        for text in filter(None, index.decode().split("\n\n")):
            fields = dict(re.findall(r"^(\S+): (.*)$", text, re.MULTILINE))
            assert sha256(store.read(fields["Filename"])) == fields["SHA256"]
            packages.add(fields["Filename"])
    return packages


def read_yum(store: Store, root: bytes) -> set[str]:
    """The same for a repomd.xml."""
    space = {"r": "http://linux.duke.edu/metadata/repo"}
    common = {"c": "http://linux.duke.edu/metadata/common"}
    packages = set()
    for data in ElementTree.fromstring(root).findall("r:data", space):
        location = data.find("r:location", space).attrib["href"]  # type: ignore[union-attr]
        index = store.read(f"{YUM}/{location}")
        assert sha256(index) == data.findtext("r:checksum", None, space)
        if data.attrib["type"] != "primary":
            continue
        for package in ElementTree.fromstring(gzip.decompress(index)).findall("c:package", common):
            href = package.find("c:location", common).attrib["href"]  # type: ignore[union-attr]
            rpm = store.read(f"{YUM}/{href}")
            assert sha256(rpm) == package.findtext("c:checksum", None, common)
            packages.add(href)
    return packages


READERS = {
    "apt": (f"{SUITE}/InRelease", read_apt),
    "yum": (f"{YUM}/repodata/repomd.xml", read_yum),
}


@pytest.fixture(params=["memory", "folder"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return new_url(request.param, tmp_path)


@pytest.mark.parametrize("kind", ["apt", "yum"])
def test_published_repository_is_that_of_the_folder(
    repositories: dict[str, list[Path]], kind: str, url: str
) -> None:
    store = Store(url)
    for folder in repositories[kind]:
        published(folder, store)
        assert contents(store) == contents_of(folder)


def test_nothing_is_written_twice(apt: list[Path], url: str) -> None:
    store = Store(url)
    assert published(apt[0], store)
    assert published(apt[0], store) == []


def test_order_is_that_of_what_names_what(apt: list[Path], url: str) -> None:
    store = Store(url)
    for folder in apt[:3]:
        published(folder, store)
    steps = published(apt[3], store)
    assert [step.stage for step in steps] == sorted(step.stage for step in steps)
    assert [stage.name for stage in sorted({step.stage for step in steps})] == [
        *("PACKAGES", "CONTENT_NAMED", "INDEXES", "ROOTS", "REMOVALS", "RECORDS")
    ]
    roots = [step.name for step in steps if step.stage is Stage.ROOTS]
    assert roots == [f"{SUITE}/{name}" for name in ("Release", "Release.gpg", "InRelease")]


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("pool/bookworm/a_1_all.deb", Stage.PACKAGES),
        ("x/Packages/a-1-1.noarch.rpm", Stage.PACKAGES),
        ("packages/a.x86_64.1.0.0@1.goo", Stage.PACKAGES),
        (f"{SUITE}/main/binary-all/by-hash/SHA256/{'0' * 64}", Stage.CONTENT_NAMED),
        (f"x/repodata/{'0' * 64}-primary.xml.gz", Stage.CONTENT_NAMED),
        (f"{SUITE}/main/binary-all/Packages.xz", Stage.INDEXES),
        ("google-guest-environment.asc", Stage.INDEXES),
        ("published.sha256", Stage.INDEXES),
        (f"{SUITE}/Release", Stage.ROOTS),
        ("x/repodata/repomd.xml.asc", Stage.ROOTS),
        ("repo/index.sig", Stage.ROOTS),
        (f"{SUITE}/states.json", Stage.RECORDS),
    ],
)
def test_stage_of(name: str, stage: Stage) -> None:
    assert publication.stage_of(name) is stage


@pytest.mark.parametrize("kind", ["apt", "yum"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_reader_finds_a_whole_repository_whatever_is_interrupted(
    repositories: dict[str, list[Path]],
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    data: st.DataObject,
) -> None:
    """States are published one after the other, each attempt dies somewhere, the last one ends."""
    place = data.draw(st.sampled_from(["memory", "folder"]))
    store = Watched(new_url(place, tmp_path_factory.getbasetemp()))
    root_name, read = READERS[kind]
    begun: list[bytes] = []

    def look(name: str) -> None:
        """What a machine sees that comes now, and one that came before this state."""
        if root_name in store.listing():
            assert read(store, store.read(root_name))
        for root in begun:
            assert read(store, root)

    store.before_change = look
    for folder in repositories[kind][: data.draw(st.integers(2, len(VERSIONS)))]:
        begun[:] = [store.read(root_name)] if root_name in store.listing() else []
        for _ in range(data.draw(st.integers(0, 2))):
            store.dies_after = data.draw(st.integers(0, 45))
            try:
                published(folder, store)
            except Killed:
                continue
        store.dies_after = -1
        published(folder, store)
        look("")
        assert contents(store) == contents_of(folder)


@pytest.mark.parametrize("kind", ["apt", "yum"])
def test_state_that_was_never_finished_is_passed_over(
    repositories: dict[str, list[Path]], kind: str, url: str
) -> None:
    store = Watched(url)
    published(repositories[kind][0], store)
    files = publication.repository_files(repositories[kind][1])
    for stage, more in ((Stage.ROOTS, 0), (Stage.ROOTS, 1), (Stage.RECORDS, 0)):
        steps = publication.plan(files, store)
        store.dies_after = [step.stage for step in steps].index(stage) + more
        with pytest.raises(Killed):
            published(repositories[kind][1], store)
        store.dies_after = -1
    published(repositories[kind][2], store)
    assert contents(store) == contents_of(repositories[kind][2])


def test_file_in_a_folder_is_the_old_or_the_new_one(
    apt: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher dies with the new content written and not in place."""
    store = Store(str(tmp_path / "place"))
    published(apt[0], store)
    before = contents(store)

    def die(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr("googet.atomic.move", die)
    with pytest.raises(Killed):
        published(apt[1], store)
    assert contents(store) == before


def test_published_package_is_not_overwritten(apt: list[Path], tmp_path: Path, url: str) -> None:
    store = Store(url)
    published(apt[0], store)
    before = contents(store)
    changed = Path(shutil.copytree(apt[1], tmp_path / "changed"))
    deb = changed / "pool/bookworm" / f"{NAME}_1-1_all.deb"
    deb.write_bytes(deb.read_bytes()[:-1] + b"x")
    with pytest.raises(publication.PublicationError, match=f"{NAME}_1-1_all.deb"):
        published(changed, store)
    assert contents(store) == before


def test_state_of_somebody_else_is_not_overwritten(apt: list[Path], url: str) -> None:
    store = Store(url)
    for folder in apt[:4]:
        published(folder, store)
    with pytest.raises(publication.PublicationError, match="--unrelated"):
        published(apt[1], store)


def test_unrelated_repository_removes_nothing(apt: list[Path], url: str) -> None:
    store = Store(url)
    for folder in apt[:4]:
        published(folder, store)
    before = set(store.listing())
    files = publication.repository_files(apt[1])
    list(publication.carry_out(publication.plan(files, store, unrelated=True), files, store))
    assert before | files.keys() == set(store.listing())


def test_files_of_others_stay(apt: list[Path], tmp_path: Path) -> None:
    place = tmp_path / "place"
    store = Store(str(place))
    published(apt[0], store)
    (place / "index.html").write_text("hello")
    (place / "pool/bookworm/other_1_all.deb").write_bytes(b"deb")
    for folder in apt[1:]:
        published(folder, store)
    assert contents(store).keys() - contents_of(apt[-1]).keys() == {
        "index.html",
        "pool/bookworm/other_1_all.deb",
    }


def test_fetched_repository_goes_on(apt: list[Path], tmp_path: Path, key: Path, url: str) -> None:
    store = Store(url)
    published(apt[2], store)
    folder = tmp_path / "fetched"
    list(publication.fetch(store, folder))
    assert contents_of(folder) == contents_of(apt[2])
    assert list(publication.fetch(store, folder)) == []
    tool = SOURCE_TREE / "tools" / "repo-apt"
    subprocess.run(
        ["/usr/bin/python3", tool, "--output", folder, "--suite=bookworm", "--date=now"],
        env={"PATH": os.environ["PATH"], "GUEST_GPG_KEY_FILE": str(key)},
        check=True,
    )
    published(folder, store)
    assert contents(store) == contents_of(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{SUITE}/InRelease", "is not signed"),
        (f"{SUITE}/Release.gpg", "is not signed"),
        (f"pool/bookworm/{NAME}_1-1_all.deb", "is missing"),
    ],
)
def test_repository_without(apt: list[Path], tmp_path: Path, name: str, message: str) -> None:
    broken = Path(shutil.copytree(apt[0], tmp_path / "broken"))
    (broken / name).unlink()
    with pytest.raises(publication.PublicationError, match=message):
        published(broken, Store(str(tmp_path / "place")))
    assert not (tmp_path / "place").exists()


def test_half_made_repository_is_refused(apt: list[Path], tmp_path: Path) -> None:
    broken = Path(shutil.copytree(apt[0], tmp_path / "broken"))
    shutil.copy(apt[1] / SUITE / "Release", broken / SUITE)
    with pytest.raises(publication.PublicationError, match="is not the newest state"):
        published(broken, Store(str(tmp_path / "place")))


def test_expired_repository_is_refused(apt: list[Path]) -> None:
    files = publication.repository_files(apt[0])
    fortnight = 14 * 24 * 3600
    publication.check_repository(files, unsigned=False, now=time.time() + fortnight - 200)
    with pytest.raises(publication.PublicationError, match="--date now"):
        publication.check_repository(files, unsigned=False, now=time.time() + fortnight)


def test_folder_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(publication.PublicationError, match="has no index"):
        publication.repository_files(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"format": 2}', '{"format": 1, "root": "../../../x", "states": []}']
    + [
        json.dumps({"format": 1, "root": "Release", "states": [{"roots": [], "files": [name]}]})
        for name in ("/etc/passwd", "../../../other/file", "a//b", "")
    ],
)
def test_record_that_names_other_places_is_refused(
    apt: list[Path], tmp_path: Path, text: str
) -> None:
    place = tmp_path / "place"
    published(apt[0], Store(str(place)))
    (place / SUITE / "states.json").write_text(text)
    with pytest.raises(GuestError, match=r"states\.json"):
        published(apt[1], Store(str(place)))


def test_googet_repository_is_published(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "goo"
    (folder / "packages").mkdir(parents=True)
    (folder / "packages" / "a.noarch.1.0.0@1.goo").write_bytes(b"goo")
    (folder / "repo").mkdir()
    for name in ("index", "index.gz", "index.sig"):
        (folder / "repo" / name).write_text(name)
    steps = published(folder, Store(url))
    assert [step.name.rpartition("/")[2] for step in steps] == [
        "a.noarch.1.0.0@1.goo",
        *("index", "index.gz", "index.sig"),
    ]


def run_publish(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The tool with the distribution's Python and fsspec."""
    return subprocess.run(
        ["/usr/bin/python3", SOURCE_TREE / "tools" / "publish", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_publishes_and_is_quiet_without_a_terminal(apt: list[Path], tmp_path: Path) -> None:
    place = tmp_path / "place"
    done = run_publish(apt[0], place)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents_of(place) == contents_of(apt[0])
    count = len(contents_of(place))
    assert done.stdout == f"{place}: {count} files written, 0 removed, 0 unchanged\n"


def test_dry_run_lists_the_plan_and_changes_nothing(apt: list[Path], tmp_path: Path) -> None:
    place = tmp_path / "place"
    for folder in apt[:3]:
        run_publish(folder, place)
    before = contents_of(place)
    done = run_publish("--dry-run", apt[3], place)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents_of(place) == before
    lines = done.stdout.splitlines()
    steps = publication.plan(publication.repository_files(apt[3]), Store(str(place)))
    assert lines[:-1] == [str(step) for step in steps]
    assert any(line.startswith("remove pool/bookworm/") for line in lines)


_WITHOUT_GCSFS = pytest.mark.skipif(
    subprocess.run(["/usr/bin/python3", "-c", "import gcsfs"], capture_output=True).returncode == 0,
    reason="the distribution's Python has gcsfs",
)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing://place", "nothing"),
        ("memory://", "names no folder or bucket"),
        pytest.param("gs://bucket/apt", "gcsfs", marks=_WITHOUT_GCSFS),
    ],
)
def test_place_that_cannot_be_used(apt: list[Path], url: str, message: str) -> None:
    done = run_publish(apt[0], url)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
