"""Making a repository: scanning, what is left out, the written files, reproducibility."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import pytest
from unit.googet.goos import make_goo

from googet import publishing
from googet.index import IndexEntry, read_index
from googet.publishing import (
    Layout,
    PublishingError,
    Scanner,
    Signer,
    layout,
    publish,
    repository_files,
    save,
)
from googet.signing import SigningError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for version in ("1.0.0@1", "1.10.0@1", "1.9.0@1"):
        make_goo(tmp_path / "packages", "foo", version)
    make_goo(tmp_path / "packages", "bar")
    return tmp_path


def sources(entries: tuple[IndexEntry, ...]) -> list[str]:
    return [entry.source for entry in entries]


def test_sources_are_relative_to_the_folder_of_the_repository(root: Path) -> None:
    assert sources(Scanner(root, Layout()).scan()) == [
        "packages/bar.noarch.1.0.0@1.goo",
        "packages/foo.noarch.1.0.0@1.goo",
        "packages/foo.noarch.1.10.0@1.goo",
        "packages/foo.noarch.1.9.0@1.goo",
    ]


@pytest.mark.parametrize(
    ("package_path", "repo_name", "source"),
    [
        ("packages", "repo", "packages/f"),
        ("/a//b/", "/repo/", "a/b/f"),
        ("a\\b", "repo", "a/b/f"),
        ("", "repo", "f"),
        (".", "repo", "f"),
        ("packages", "repos/stable", "../packages/f"),
        ("100%", "repo", "100%25/f"),
    ],
)
def test_layouts(package_path: str, repo_name: str, source: str) -> None:
    assert layout(package_path, repo_name).source("f") == source


@pytest.mark.parametrize(
    ("package_path", "repo_name"),
    [("../x", "repo"), ("a/../b", "repo"), ("packages", ".."), ("packages", ""), ("a\0", "r")]
    + [("packages", "/"), ("C:\\x", "repo")],
)
def test_layouts_that_leave_the_root(package_path: str, repo_name: str) -> None:
    with pytest.raises(PublishingError):
        layout(package_path, repo_name)


def test_missing_folder_is_made(tmp_path: Path) -> None:
    assert Scanner(tmp_path, Layout("a/b")).scan() == ()
    assert (tmp_path / "a" / "b").is_dir()


def test_unreadable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "packages").write_text("no folder")
    with pytest.raises(PublishingError, match="packages cannot be read"):
        Scanner(tmp_path, Layout()).scan()


def test_unreadable_packages_and_other_files_are_left_out(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = root / "packages"
    (folder / "broken.goo").write_bytes(b"no archive")
    (folder / "empty.goo").touch()
    (folder / "folder.goo").mkdir()
    (folder / "notes.txt").write_text("x")
    (folder / "deeper").mkdir()
    make_goo(folder / "deeper", "deep")
    assert len(Scanner(root, Layout()).scan()) == 4
    for name in ("broken", "empty", "folder"):
        assert f"{name}.goo is left out" in caplog.text
    assert "notes" not in caplog.text


def test_two_files_of_one_package_are_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_goo(root / "packages", "bar")
    path.with_name("zzz.goo").write_bytes(path.read_bytes())
    assert len(Scanner(root, Layout()).scan()) == 5
    assert "are both bar.noarch.1.0.0@1" in caplog.text
    assert "zzz.goo: the package inside is bar.noarch.1.0.0@1.goo" in caplog.text


def test_unchanged_packages_are_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = Scanner(root, Layout())
    before = scanner.scan()
    read: list[str] = []
    entry_of = publishing.entry_of

    def noted(path: Path, source: str) -> IndexEntry:
        read.append(path.name)
        return entry_of(path, source)

    monkeypatch.setattr(publishing, "entry_of", noted)
    assert scanner.scan() == before
    assert read == []
    changed = make_goo(root / "packages", "bar", content=b"other")
    os.utime(changed, (1, 1))
    make_goo(root / "packages", "new")
    (root / "packages" / "foo.noarch.1.0.0@1.goo").unlink()
    after = scanner.scan()
    assert read == ["bar.noarch.1.0.0@1.goo", "new.noarch.1.0.0@1.goo"]
    assert len(after) == 4
    assert after[0].checksum != before[0].checksum


def test_package_that_is_being_written_is_left_out_for_now(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entry_of = publishing.entry_of

    def growing(path: Path, source: str) -> IndexEntry:
        entry = entry_of(path, source)
        if path.name.startswith("bar"):
            with path.open("ab") as file:
                file.write(b"more")
        return entry

    monkeypatch.setattr(publishing, "entry_of", growing)
    assert len(Scanner(root, Layout()).scan()) == 3
    assert "is being written and is left out for now" in caplog.text


def test_published_files(root: Path) -> None:
    entries = publish(root)
    data = (root / "repo" / "index").read_bytes()
    assert gzip.decompress((root / "repo" / "index.gz").read_bytes()) == data
    assert not data.startswith(b"\xef\xbb\xbf")
    assert set(read_index(data)) == set(entries)
    versions = [one["PackageSpec"]["Version"] for one in json.loads(data)]
    assert versions == ["1.0.0@1", "1.0.0@1", "1.9.0@1", "1.10.0@1"]
    assert sorted(path.name for path in (root / "repo").iterdir()) == ["index", "index.gz"]


def test_publishing_twice_gives_the_same_bytes(root: Path) -> None:
    publish(root)
    first = {path.name: path.read_bytes() for path in (root / "repo").iterdir()}
    for path in (root / "packages").iterdir():
        os.utime(path, (1, 1))
    publish(root)
    assert {path.name: path.read_bytes() for path in (root / "repo").iterdir()} == first


def test_stale_signature_is_removed(root: Path) -> None:
    (root / "repo").mkdir()
    (root / "repo" / "index.sig").write_text("old")
    publish(root)
    assert not (root / "repo" / "index.sig").exists()


def test_empty_repository(tmp_path: Path) -> None:
    assert publish(tmp_path) == ()
    assert read_index((tmp_path / "repo" / "index").read_bytes()) == ()


def test_without_a_usable_key_nothing_is_written(root: Path) -> None:
    with pytest.raises(SigningError):
        publish(root, signer=Signer(root / "none.pem"))
    assert not (root / "repo").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="modes of Linux")
def test_published_files_are_for_everybody(root: Path) -> None:
    publish(root)
    assert (root / "repo" / "index").stat().st_mode & 0o777 == 0o644


def test_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "repo").write_text("no folder")
    with pytest.raises(PublishingError, match="repo cannot be written"):
        save(tmp_path, Layout(), repository_files((), now=0))
