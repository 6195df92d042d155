"""The repository server: index, packages, ranges, conditions, rescans, TLS, and a real client."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import http.client
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.googet.goos import make_goo

from googet.publishing import Layout, PublishingError, Scanner, Signer
from googet.repofiles import Repository
from googet.repositories import load_available
from googet.server import (
    Index,
    RepositoryServer,
    Resource,
    ServerError,
    Span,
    is_unchanged,
    range_applies,
    requested_span,
    tls_context,
)
from googet.settings import Settings
from googet.signing import PublicKey, check_signature, parse_public_key
from googet.transport import Transport
from googet.urls import package_url
from googet.web import TransportError


class Served:
    """A running server over a folder."""

    def __init__(self, root: Path, layout: Layout, **options: Any) -> None:
        self.root = root
        self.scanner = Scanner(root, layout)
        self.index = Index(self.scanner)
        self.index.refresh()
        options = {"address": "127.0.0.1", "port": 0, **options}
        self.server = RepositoryServer(self.index, self.scanner.folder, layout, **options)
        self.url = self.server.url
        self._thread = threading.Thread(target=self.server.serve)

    def __enter__(self) -> Served:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()
        self._thread.join()

    def ask(
        self, path: str, method: str = "GET", headers: Optional[Mapping[str, str]] = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        try:
            connection.putrequest(method, path)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return response.status, fields, response.read()
        finally:
            connection.close()

    def get(self, path: str, headers: Optional[Mapping[str, str]] = None) -> bytes:
        status, _, body = self.ask(path, headers=headers)
        assert status in (200, 206)
        return body

    def status(self, path: str, method: str = "GET") -> int:
        return self.ask(path, method)[0]


NAME = "foo.noarch.1.0.0@1.goo"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    make_goo(root / "packages", "foo")
    make_goo(root / "packages", "bar", "2.0.0@1")
    return root


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    with Served(root, Layout()) as server:
        yield server


def load(url: str, tmp_path: Path, transport: Transport, settings: Settings) -> list[str]:
    available = load_available(
        [Repository(url)], cache=tmp_path / "cache", settings=settings, transport=transport
    )
    assert available.failures == ()
    return [one.spec.full_name for one in available.candidates]


@pytest.mark.parametrize(
    ("package_path", "repo_name"), [("packages", "repo"), ("", "repo"), ("packages", "a/b")]
)
def test_client_finds_and_downloads_packages(
    tmp_path: Path, package_path: str, repo_name: str
) -> None:
    root = tmp_path / "root"
    path = make_goo(root / package_path, "foo")
    settings = Settings(allow_unsafe_url=True)
    transport = Transport(settings, environ={})
    with Served(root, Layout(package_path, repo_name)) as served:
        repository = Repository(served.url)
        available = load_available(
            [repository], cache=tmp_path / "cache", settings=settings, transport=transport
        )
        (candidate,) = available.candidates
        target = tmp_path / "target.goo"
        url = package_url(repository, candidate.entry.source)
        transport.download(url, target, sha256=candidate.entry.checksum)
    assert target.read_bytes() == path.read_bytes()


def test_packed_index_is_that_of_the_plain_one(served: Served) -> None:
    assert gzip.decompress(served.get("/repo/index.gz")) == served.get("/repo/index")


def test_headers_of_the_index(served: Served) -> None:
    status, headers, body = served.ask("/repo/index")
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert "content-encoding" not in headers
    assert int(headers["content-length"]) == len(body)
    assert served.ask("/repo/index.gz")[1]["content-type"] == "application/gzip"


@pytest.mark.parametrize("path", ["/repo/index", "/repo/index.gz", f"/packages/{NAME}"])
def test_head_is_get_without_the_body(served: Served, path: str) -> None:
    status, headers, body = served.ask(path, "HEAD")
    got_status, got_headers, got_body = served.ask(path)
    assert (status, body) == (got_status, b"") == (200, b"")
    same = {**headers, "date": ""}
    assert same == {**got_headers, "date": ""}
    assert int(headers["content-length"]) == len(got_body)


def test_unchanged_index_is_not_sent_again(served: Served) -> None:
    etag = served.ask("/repo/index")[1]["etag"]
    status, headers, body = served.ask("/repo/index", headers={"if-none-match": etag})
    assert (status, body) == (304, b"")
    assert headers["etag"] == etag
    assert served.ask("/repo/index", headers={"If-None-Match": '"x"'})[0] == 200


def test_package_is_served_whole_and_in_parts(served: Served, root: Path) -> None:
    data = (root / "packages" / NAME).read_bytes()
    path = f"/packages/{quote(NAME)}"
    assert served.get(path) == data
    assert served.ask(path)[1]["accept-ranges"] == "bytes"
    status, headers, body = served.ask(path, headers={"Range": "bytes=10-"})
    assert (status, body) == (206, data[10:])
    assert headers["content-range"] == f"bytes 10-{len(data) - 1}/{len(data)}"
    assert served.get(path, {"Range": "bytes=-7"}) == data[-7:]
    status, headers, _ = served.ask(path, headers={"Range": f"bytes={len(data)}-"})
    assert (status, headers["content-range"]) == (416, f"bytes */{len(data)}")


def test_client_continues_a_download_here(served: Served, root: Path, tmp_path: Path) -> None:
    data = (root / "packages" / NAME).read_bytes()
    (tmp_path / "t.goo.part").write_bytes(data[:100])
    settings = Settings(allow_unsafe_url=True)
    url = package_url(Repository(served.url), f"packages/{NAME}")
    Transport(settings, environ={}).download(
        url, tmp_path / "t.goo", sha256=hashlib.sha256(data).hexdigest()
    )
    assert (tmp_path / "t.goo").read_bytes() == data


def test_listing(served: Served, root: Path) -> None:
    (root / "packages" / "<b>&.txt").write_text("x") if sys.platform != "win32" else None
    (root / "packages" / "sub").mkdir()
    page = served.get("/packages/").decode()
    assert f'<a href="{quote(NAME)}">{NAME}</a>' in page
    assert '<a href="sub/">sub/</a>' in page
    if sys.platform != "win32":
        assert "&lt;b&gt;&amp;.txt" in page
        assert "<b>" not in page


def test_folder_without_a_slash_is_redirected(served: Served) -> None:
    status, headers, _ = served.ask("/packages")
    assert (status, headers["location"]) == (301, "/packages/")
    status, headers, _ = served.ask("//packages")
    assert (status, headers["location"]) == (301, "/packages/")


@pytest.mark.parametrize(
    "path",
    ["/", "/repo", "/repo/", "/repo/other", "/index", "/packages/none.goo", "/packages/%00"]
    + [f"/packages/{NAME}/", "/packages/../root", "/packages/%2e%2e/secret", "/secret"]
    + ["/packages/..%2fsecret", "/packages/%2e%2e%5csecret", "/packages/%ff", "*", "/" + "a" * 300]
    + ["/packages//etc/passwd", "/packages/%2fetc%2fpasswd"],
)
def test_nothing_else_is_served(served: Served, root: Path, path: str) -> None:
    (root / "secret").write_text("secret")
    assert served.status(path) == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(served: Served, method: str) -> None:
    status, headers, _ = served.ask("/repo/index", method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")
def test_pipe_in_the_folder_does_not_hang(served: Served, root: Path) -> None:
    os.mkfifo(root / "packages" / "pipe")
    assert served.status("/packages/pipe") == 404


def test_several_requests_on_one_connection(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=20)
    for path in ("/repo/index", "/repo/none", f"/packages/{NAME}", "/repo/index.gz"):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        if response.will_close:
            connection.close()
    connection.close()


# --- the index over time -----------------------------------------------------------------------


def test_rescan_shows_new_packages(root: Path) -> None:
    with Served(root, Layout(), interval=0.05) as served:
        before = served.index.files
        make_goo(root / "packages", "new")
        for _ in range(200):
            if b"new.noarch" in served.get("/repo/index"):
                break
            threading.Event().wait(0.05)
        assert b"new.noarch" in served.get("/repo/index")
        assert served.index.files is not before


def test_no_package_vanishes_during_a_rescan(root: Path) -> None:
    """A reader that asks all the time sees complete indexes only."""
    with Served(root, Layout()) as served:
        stop = threading.Event()
        short: list[int] = []

        def read() -> None:
            while not stop.is_set():
                found = served.get("/repo/index").count(b'"Checksum"')
                if found < 2:
                    short.append(found)

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(10):
            path = make_goo(root / "packages", "bar", "2.0.0@1", content=b"%d" % number)
            os.utime(path, (number, number))
            served.index.refresh()
        stop.set()
        reader.join()
    assert short == []


def test_index_is_the_same_object_when_nothing_has_changed(root: Path) -> None:
    index = Index(Scanner(root, Layout()))
    index.refresh()
    files = index.files
    index.refresh()
    assert index.files is files


def test_failed_rescan_keeps_the_index(root: Path) -> None:
    index = Index(Scanner(root, Layout()))
    index.refresh()
    files = index.files
    shutil.rmtree(root / "packages")
    (root / "packages").write_text("no folder")
    with pytest.raises(PublishingError):
        index.refresh()
    assert index.files is files


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_signature_is_renewed_at_half_its_time(root: Path, tmp_path: Path) -> None:
    path, public = tmp_path / "key.pem", key_pair(tmp_path)
    now = 1000.0
    signer = Signer(path, lifetime=100)
    index = Index(Scanner(root, Layout()), signer=signer, clock=lambda: now)
    index.refresh()
    assert serial(index, public) == 1000
    now = 1049.0
    index.refresh()
    assert serial(index, public) == 1000
    now = 1050.0
    index.refresh()
    assert serial(index, public) == 1050
    make_goo(root / "packages", "new")
    now = 500.0
    index.refresh()
    assert serial(index, public) == 1051


def key_pair(folder: Path) -> PublicKey:
    path = folder / "key.pem"
    subprocess.run(
        ["openssl", "genrsa", "-out", str(path), "2048"], check=True, capture_output=True
    )
    argv = ["openssl", "pkey", "-in", str(path), "-pubout"]
    return parse_public_key(subprocess.run(argv, check=True, capture_output=True).stdout)


def serial(index: Index, key: PublicKey) -> int:
    statement = check_signature(key, index.files["index"], index.files["index.sig"])
    assert statement is not None
    return statement.serial


# --- starting ----------------------------------------------------------------------------------


def test_port_in_use_is_one_error(served: Served, root: Path) -> None:
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:\d+ cannot be used: "):
        Served(root, Layout(), port=served.server.port)


def test_all_addresses_by_default(root: Path) -> None:
    with Served(root, Layout(), address="") as served:
        assert served.status("/repo/index") == 200


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_https(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    argv = [*command.split(), "-subj", "/CN=t", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv += ["-keyout", str(key), "-out", str(chain)]
    subprocess.run(argv, check=True, capture_output=True)
    settings = Settings()
    with Served(root, Layout(), tls=tls_context(chain, key)) as served:
        assert served.url.startswith("https://127.0.0.1:")
        transport = Transport(settings, environ={}, sleep=lambda seconds: None)
        available = load_available(
            [Repository(served.url)], cache=tmp_path / "c", settings=settings, transport=transport
        )
        ((_, message),) = available.failures
        assert "TLS: " in message
        trusted = ssl.create_default_context(cafile=str(chain))
        transport = Transport(settings, environ={}, system_verifier=lambda: trusted)
        assert len(load(served.url, tmp_path, transport, settings)) == 2
        with pytest.raises(TransportError, match="TLS: |hostname"):
            elsewhere = served.url.replace("127.0.0.1", "localhost")
            transport.fetch(f"{elsewhere}/index", limit=1 << 20)
        # Plain http on that port is answered by nothing, and the server goes on.
        connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=20)
        with pytest.raises((OSError, http.client.HTTPException)):
            connection.request("GET", "/repo/index")
            connection.getresponse()
        connection.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(chain))
        transport = Transport(settings, environ={})
        shutil.rmtree(tmp_path / "cache")
        assert len(load(served.url, tmp_path, transport, settings)) == 2


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_unusable_certificate_is_one_error(tmp_path: Path, content: Optional[str]) -> None:
    path = tmp_path / "x.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ServerError, match="cannot be used for TLS"):
        tls_context(path, path)


# --- ranges and conditions ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        ("", HTTPStatus.OK),
        ("bytes=0-", Span(0, 10)),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=3-5", Span(3, 3)),
        ("bytes=3-99", Span(3, 7)),
        ("bytes = 3 - 5", Span(3, 3)),
        ("bytes=-3", Span(7, 3)),
        ("bytes=-99", Span(0, 10)),
        ("bytes=9-", Span(9, 1)),
        ("bytes=10-", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
        ("bytes=-0", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
        ("bytes=5-3", HTTPStatus.OK),
        ("bytes=-", HTTPStatus.OK),
        ("bytes=0-1,3-4", HTTPStatus.OK),
        ("lines=0-1", HTTPStatus.OK),
        ("bytes=a-b", HTTPStatus.OK),
        (f"bytes={'9' * 5000}-", HTTPStatus.OK),
    ],
)
def test_requested_span(header: str, answer: object) -> None:
    assert requested_span(header, 10) == answer


@given(data=st.binary(max_size=30), first=st.integers(0, 40), last=st.integers(0, 40) | st.none())
def test_spans_follow_the_model(data: bytes, first: int, last: Optional[int]) -> None:
    """A slice of Python is the model of a range."""
    span = requested_span(f"bytes={first}-{'' if last is None else last}", len(data))
    if last is not None and last < first:
        assert span == HTTPStatus.OK
    elif isinstance(span, Span):
        end = len(data) if last is None else last + 1
        assert data[span.start : span.start + span.length] == data[first:end] != b""
    else:
        assert span == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        assert first >= len(data)


@given(data=st.binary(max_size=30), length=st.integers(0, 40))
def test_suffixes_follow_the_model(data: bytes, length: int) -> None:
    span = requested_span(f"bytes=-{length}", len(data))
    if isinstance(span, Span):
        assert data[span.start : span.start + span.length] == data[-length:]
    else:
        assert span == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        assert not length or not data


@given(st.text(), st.integers(0, 100))
def test_any_range_header_has_an_answer(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        span = requested_span(text, size)
        assert not isinstance(span, Span) or 0 <= span.start < span.start + span.length <= size


RESOURCE = Resource("text/plain", 3, '"e1"', 1_000_000.75, lambda: BytesIO(b"abc"))
AT = email.utils.formatdate(1_000_000, usegmt=True)
BEFORE = email.utils.formatdate(999_999, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "unchanged"),
    [
        ({}, False),
        ({"If-None-Match": '"e1"'}, True),
        ({"If-None-Match": '"e0", W/"e1"'}, True),
        ({"If-None-Match": "*"}, True),
        ({"If-None-Match": '"e0"'}, False),
        ({"If-None-Match": '"e0"', "If-Modified-Since": AT}, False),
        ({"If-Modified-Since": AT}, True),
        ({"If-Modified-Since": BEFORE}, False),
        ({"If-Modified-Since": "yesterday"}, False),
        ({"If-Modified-Since": "Mon, 99 Zzz 99999999999 99:99:99 GMT"}, False),
    ],
)
def test_conditions(headers: Mapping[str, str], unchanged: bool) -> None:
    assert is_unchanged(RESOURCE, headers) is unchanged


@pytest.mark.parametrize(
    ("condition", "applies"),
    [(None, True), ('"e1"', True), ('"e0"', False), ('W/"e1"', False), (AT, True)]
    + [(BEFORE, False), ("x", False)],
)
def test_condition_of_a_range(condition: Optional[str], applies: bool) -> None:
    headers = {} if condition is None else {"If-Range": condition}
    assert range_applies(RESOURCE, headers) is applies


@given(st.text())
def test_any_condition_has_an_answer(text: str) -> None:
    is_unchanged(RESOURCE, {"If-None-Match": text})
    is_unchanged(RESOURCE, {"If-Modified-Since": text})
    range_applies(RESOURCE, {"If-Range": text})
