"""Places that repositories are published to: failures that pass, and an S3 server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import publication_store
import pytest
from publication_store import Store, StoreError
from support.published_repositories import (
    NAME,
    apt_states,
    contents,
    contents_of,
    new_url,
    published,
)
from support.signing_keys import new_key_file

fsspec = pytest.importorskip("fsspec", reason="publishing needs fsspec in .venv")

SUITE = "dists/google-compute-engine-bookworm-stable"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_key_file(tmp_path_factory.mktemp("key") / "key.asc", kind="rsa2048")


@pytest.fixture(scope="module")
def apt(tmp_path_factory: pytest.TempPathFactory, key: Path) -> list[Path]:
    return apt_states(tmp_path_factory.mktemp("apt"), key)


class Failing:
    """A file system that fails some times before it works."""

    def __init__(self, real: Any, failures: list[Exception]) -> None:
        self._real = real
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def put_file(self, *arguments: Any, **options: Any) -> None:
        if self._failures:
            raise self._failures.pop(0)
        self._real.put_file(*arguments, **options)


def with_status(status: int) -> Exception:
    failure = Exception(f"answer {status}")
    failure.code = status  # type: ignore[attr-defined]
    return failure


@pytest.mark.parametrize(
    "failure",
    [ConnectionResetError(), TimeoutError(), OSError(5, "I/O error"), with_status(503)],
    ids=lambda failure: repr(failure),
)
def test_what_fails_for_a_while_is_tried_again(tmp_path: Path, failure: Exception) -> None:
    pauses: list[float] = []
    store = Store(new_url("memory", tmp_path), sleep=pauses.append)
    store._fs = Failing(store._fs, [failure] * 3)
    (tmp_path / "file").write_bytes(b"content")
    store.put(tmp_path / "file", "file", for_ever=False)
    assert store.read("file") == b"content"
    assert len(pauses) == 3
    assert pauses == sorted(pauses)


@pytest.mark.parametrize("failure", [PermissionError(13, "no"), with_status(403)], ids=repr)
def test_what_fails_for_good_is_not_tried_again(tmp_path: Path, failure: Exception) -> None:
    pauses: list[float] = []
    store = Store(new_url("memory", tmp_path), sleep=pauses.append)
    store._fs = Failing(store._fs, [failure])
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot upload file"):
        store.put(tmp_path / "file", "file", for_ever=False)
    assert pauses == []


def test_what_fails_for_long_ends_with_what_to_do(tmp_path: Path) -> None:
    store = Store(new_url("memory", tmp_path), sleep=lambda seconds: None)
    store._fs = Failing(store._fs, [ConnectionResetError()] * 99)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="publish again"):
        store.put(tmp_path / "file", "file", for_ever=False)


def test_our_own_mistakes_are_not_hidden(tmp_path: Path) -> None:
    store = Store(new_url("memory", tmp_path))
    store._fs = Failing(store._fs, [AttributeError("a mistake")])
    (tmp_path / "file").touch()
    with pytest.raises(AttributeError):
        store.put(tmp_path / "file", "file", for_ever=False)


def test_place_that_replaces_nothing_in_one_step_gets_a_rename(
    apt: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on SFTP: no file is ever written under its own name."""
    store = Store(str(tmp_path / "place"))
    store._protocols = {"other"}
    written: list[str] = []
    real = store._fs.put_file

    def put_file(source: str, target: str, **options: Any) -> None:
        written.append(target)
        real(source, target, **options)

    monkeypatch.setattr(store._fs, "put_file", put_file)
    published(apt[0], store)
    assert contents(store) == contents_of(apt[0])
    assert all(name.endswith(publication_store.TEMPORARY) for name in written)


def test_left_over_temporary_file_is_removed(apt: list[Path], tmp_path: Path) -> None:
    store = Store(str(tmp_path / "place"))
    published(apt[0], store)
    left = tmp_path / "place" / f".InRelease{publication_store.TEMPORARY}"
    left.touch()
    published(apt[0], store)
    assert not left.exists()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server on loopback with a bucket `bucket`."""
    reason = "an S3 server needs s3fs and moto in .venv"
    pytest.importorskip("s3fs", reason=reason)
    server = pytest.importorskip("moto.server", reason=reason)
    pytest.importorskip("flask_cors", reason=reason)
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
        "NO_PROXY": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr("fsspec.config.conf", {})
        fsspec.filesystem("s3").mkdir("bucket")
        yield address
    running.stop()


def test_repository_is_published_to_an_object_store(s3: str, apt: list[Path]) -> None:
    store = Store("s3://bucket/apt")
    for folder in apt[:4]:
        published(folder, store)
        assert contents(store) == contents_of(folder)
    assert published(apt[3], store) == []


def test_object_store_tells_caches_what_changes(s3: str, apt: list[Path]) -> None:
    published(apt[0], Store("s3://bucket/cached"))
    client = fsspec.filesystem("s3")
    told = {
        name: client.call_s3("head_object", Bucket="bucket", Key=f"cached/{name}")["CacheControl"]
        for name in (f"{SUITE}/InRelease", f"pool/bookworm/{NAME}_1-1_all.deb")
    }
    assert told[f"{SUITE}/InRelease"] == "no-cache"
    assert "immutable" in told[f"pool/bookworm/{NAME}_1-1_all.deb"]


def test_object_store_compares_by_its_own_sums(s3: str, apt: list[Path]) -> None:
    published(apt[0], Store("s3://bucket/compared"))
    store = Store("s3://bucket/compared")
    read: list[str] = []
    real = store.read
    store.read = lambda name: (read.append(name), real(name))[1]  # type: ignore[method-assign]
    assert published(apt[0], store) == []
    assert {name.rpartition("/")[2] for name in read} <= {"Release", "states.json"}
