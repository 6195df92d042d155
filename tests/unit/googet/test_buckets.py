"""A repository in Cloud Storage: the mirror of its packages, and its index back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from unit.googet.goos import make_goo
from unit.googet.loopback import Origin, Reply, Visit

from googet.buckets import BucketRepository
from googet.credentials import Credentials
from googet.publishing import Layout, PublishingError, Scanner, repository_files
from googet.settings import Settings
from googet.transport import Transport
from googet.urls import StorageLocation


class Bucket:
    """Cloud Storage with one bucket, ``b``; it lists one object a page."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.objects: dict[str, bytes] = {}
        self.sizes: dict[str, str] = {}
        self.generation = 1
        self.reads: list[str] = []
        origin.page("/storage/v1/b/b/o", self._list)
        origin.page("/upload/storage/v1/b/b/o", self._upload)

    def put(self, name: str, data: bytes) -> None:
        self.objects[name] = data
        self.generation += 1

        def read(visit: Visit) -> Reply:
            self.reads.append(name)
            return Reply(self.objects[name])

        self.origin.page("/b/" + name.replace("@", "%40"), read)

    def _list(self, visit: Visit) -> Reply:
        query = {key: values[0] for key, values in parse_qs(urlsplit(visit.target).query).items()}
        prefix = query.get("prefix", "")
        assert query["delimiter"] == "/"
        names = [name for name in sorted(self.objects) if name.startswith(prefix)]
        names = [name for name in names if "/" not in name[len(prefix) :]]
        start = int(query.get("pageToken", 0))
        page: dict[str, object] = {
            "items": [
                {
                    "name": name,
                    "size": self.sizes.get(name, str(len(self.objects[name]))),
                    "generation": self.generation,
                }
                for name in names[start : start + 1]
            ]
        }
        if start + 1 < len(names):
            page["nextPageToken"] = str(start + 1)
        return Reply(json.dumps(page).encode())

    def _upload(self, visit: Visit) -> Reply:
        query = parse_qs(urlsplit(visit.target).query)
        assert query["uploadType"] == ["media"]
        self.objects[query["name"][0]] = visit.body
        return Reply(b"{}")


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with Origin() as origin:
        yield Bucket(origin)


def repository(bucket: Bucket, folder: Path, prefix: str, layout: Layout) -> BucketRepository:
    def no_token(*_: object, **__: object) -> bytes:
        raise AssertionError("nothing is sent to a token endpoint")

    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(folder / "none.json")}
    transport = Transport(
        Settings(),
        environ={},
        credentials=Credentials(no_token, environ=environ),
        storage=bucket.origin.url,
        sleep=lambda seconds: None,
    )
    return BucketRepository(StorageLocation("b", prefix), layout, transport, folder)


@pytest.fixture
def goo(tmp_path: Path) -> bytes:
    return make_goo(tmp_path / "made", "foo").read_bytes()


@pytest.mark.parametrize(
    ("prefix", "package_path", "folder"),
    [("", "packages", "packages/"), ("x/y", "packages", "x/y/packages/"), ("", "", "")],
)
def test_packages_are_mirrored_and_indexed(
    bucket: Bucket, tmp_path: Path, goo: bytes, prefix: str, package_path: str, folder: str
) -> None:
    bucket.put(f"{folder}foo.noarch.1.0.0@1.goo", goo)
    bucket.put(f"{folder}zzz.goo", goo)
    bucket.put(f"{folder}empty.goo", b"")
    bucket.put(f"{folder}notes.txt", b"x")
    bucket.put(f"{folder}deeper/foo.goo", goo)
    layout = Layout(package_path)
    repository(bucket, tmp_path / "m", prefix, layout).refresh()
    entries = Scanner(tmp_path / "m", layout).scan()
    lead = f"{package_path}/" if package_path else ""
    assert [entry.source for entry in entries] == [
        f"{lead}foo.noarch.1.0.0@1.goo",
        f"{lead}zzz.goo",
    ]


def test_only_what_changed_is_downloaded(bucket: Bucket, tmp_path: Path, goo: bytes) -> None:
    bucket.put("packages/a.goo", goo)
    mirror = repository(bucket, tmp_path / "m", "", Layout())
    mirror.refresh()
    mirror.refresh()
    assert bucket.reads == ["packages/a.goo"]
    bucket.put("packages/b.goo", goo)
    bucket.generation = 2
    del bucket.objects["packages/a.goo"]
    mirror.refresh()
    assert bucket.reads == ["packages/a.goo", "packages/b.goo"]
    assert [path.name for path in (tmp_path / "m" / "packages").iterdir()] == ["b.goo"]


def test_name_that_no_file_can_have_is_left_out(
    bucket: Bucket, tmp_path: Path, goo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.put("packages/..\\..\\a.goo", goo)
    repository(bucket, tmp_path / "m", "", Layout()).refresh()
    assert list((tmp_path / "m" / "packages").iterdir()) == []
    assert "no file can have this name" in caplog.text


@pytest.mark.parametrize("size", ["0", "", "-1", "\N{SUPERSCRIPT TWO}", "9" * 5000, "1.5", "None"])
def test_object_whose_size_is_none_is_left_out(
    bucket: Bucket, tmp_path: Path, goo: bytes, size: str
) -> None:
    bucket.put("packages/a.goo", goo)
    bucket.put("packages/b.goo", goo)
    bucket.sizes["packages/a.goo"] = size
    repository(bucket, tmp_path / "m", "", Layout()).refresh()
    assert [path.name for path in (tmp_path / "m" / "packages").iterdir()] == ["b.goo"]


@pytest.mark.parametrize("prefix", ["", "x"])
def test_index_is_written_into_the_bucket(
    bucket: Bucket, tmp_path: Path, goo: bytes, prefix: str
) -> None:
    files = repository_files((), now=0)
    where = repository(bucket, tmp_path / "m", prefix, Layout()).save(files)
    lead = f"{prefix}/" if prefix else ""
    assert where == f"gs://b/{lead}repo"
    assert bucket.objects == {f"{lead}repo/{name}": data for name, data in files.items()}
    types = [visit.headers["content-type"] for visit in bucket.origin.visits]
    assert types == ["application/json", "application/gzip"]


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"'])
def test_listing_that_is_none(bucket: Bucket, tmp_path: Path, body: bytes) -> None:
    bucket.origin.page("/storage/v1/b/b/o", Reply(body))
    with pytest.raises(PublishingError, match="list of objects"):
        repository(bucket, tmp_path / "m", "", Layout()).refresh()


def test_bucket_that_cannot_be_listed_or_written(bucket: Bucket, tmp_path: Path) -> None:
    bucket.origin.pages.clear()
    mirror = repository(bucket, tmp_path / "m", "", Layout())
    with pytest.raises(PublishingError, match="gs://b: .*status 404"):
        mirror.refresh()
    with pytest.raises(PublishingError, match="gs://b/repo/index: .*status 404"):
        mirror.save({"index": b"[]"})
