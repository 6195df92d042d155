"""Fetching and downloading: retries, redirects, credentials, proxies, ranges, full disks."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.googet.loopback import Origin, Reply, Visit

from googet import transport as transport_module
from googet.credentials import CredentialsError
from googet.progress import Progress
from googet.settings import Settings
from googet.transport import Step, Transport, next_step
from googet.web import Timeouts, TransportError
from google_guest.logs import redact
from google_guest.records import replace

LIMIT = 1 << 20
DATA = random.Random(7).randbytes(300_000)
SHA = hashlib.sha256(DATA).hexdigest()
WINDOWS = sys.platform == "win32"


class Tokens:
    """Credentials that count out tokens."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.forgotten: list[str] = []

    def token(self) -> str:
        if not self.tokens:
            raise CredentialsError("no credentials")
        return self.tokens[0]

    def optional_token(self) -> Optional[str]:
        return self.tokens[0] if self.tokens else None

    def forget(self, token: str) -> None:
        self.forgotten.append(token)
        if len(self.tokens) > 1:
            self.tokens.remove(token)


class Client:
    """A transport without waiting, and the pauses that it would have made."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.tokens = Tokens()

    def make(
        self,
        settings: Settings = Settings(),  # noqa: B008
        *,
        timeouts: Timeouts = Timeouts(5, 5),  # noqa: B008
        **options: Any,
    ) -> Transport:
        options = {"environ": {}, "credentials": self.tokens, **options}
        return Transport(
            settings,
            timeouts=timeouts,
            sleep=self.pauses.append,
            jitter=lambda: 0.5,
            **options,
        )


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def other() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def client() -> Client:
    return Client()


def redirect(where: str, status: int = 302) -> Reply:
    return Reply(status=status, headers={"Location": where})


# --- fetch -------------------------------------------------------------------------------------


def test_fetch_returns_the_body(origin: Origin, client: Client) -> None:
    url = origin.page("/r/index", Reply(b"body"))
    assert client.make().fetch(url, limit=LIMIT) == b"body"
    assert client.pauses == []


def test_body_is_not_unpacked(origin: Origin, client: Client) -> None:
    url = origin.page("/x", Reply(b"\x1f\x8b...", headers={"Content-Encoding": "gzip"}))
    assert client.make().fetch(url, limit=LIMIT) == b"\x1f\x8b..."
    assert origin.visits[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_final_status_is_told_once(origin: Origin, client: Client, status: int) -> None:
    url = origin.page("/x", Reply(status=status))
    with pytest.raises(TransportError, match=f"/x: status {status}") as caught:
        client.make().fetch(f"{url}?secret=1", limit=LIMIT)
    assert caught.value.status == status
    assert "secret" not in str(caught.value)
    assert len(origin.visits) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 599])
def test_temporary_status_is_tried_four_times(origin: Origin, client: Client, status: int) -> None:
    url = origin.page("/x", Reply(status=status))
    with pytest.raises(TransportError, match=f"status {status}"):
        client.make().fetch(url, limit=LIMIT)
    assert len(origin.visits) == 4
    assert client.pauses == [1.5, 3.0, 6.0]


def test_success_after_a_temporary_status(origin: Origin, client: Client) -> None:
    url = origin.page("/x", Reply(status=503), Reply(status=500), Reply(b"body"))
    assert client.make().fetch(url, limit=LIMIT) == b"body"


def test_server_says_how_long_to_wait(origin: Origin, client: Client) -> None:
    later = Reply(status=429, headers={"Retry-After": "20"})
    much_later = Reply(status=503, headers={"Retry-After": "9000"})
    url = origin.page("/x", later, much_later, Reply(b""))
    client.make().fetch(url, limit=LIMIT)
    assert client.pauses == [20.0, 30.0]


def test_pauses_stay_between_one_and_thirty_seconds(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "TRIES", 9)
    with pytest.raises(TransportError):
        client.make().fetch("http://127.0.0.1:9/x", limit=LIMIT)
    assert client.pauses == [1.5, 3.0, 6.0, 12.0, 24.0, 30.0, 30.0, 30.0]


def test_refused_connection_is_tried_again(client: Client) -> None:
    with pytest.raises(TransportError) as caught:
        client.make().fetch("http://127.0.0.1:9/x?secret=1", limit=LIMIT)
    assert caught.value.status is None
    assert caught.value.temporary
    assert len(client.pauses) == 3
    assert str(caught.value).startswith("http://127.0.0.1:9/x: ")
    assert "secret" not in str(caught.value)


def test_silent_server_is_a_temporary_error(origin: Origin, client: Client) -> None:
    url = origin.page("/x", Reply(silent=True))
    with pytest.raises(TransportError, match="no data for 0.1 s"):
        client.make(timeouts=Timeouts(5, 0.1)).fetch(url, limit=LIMIT)
    assert len(origin.visits) == 4


def test_answer_that_breaks_off_is_tried_again(origin: Origin, client: Client) -> None:
    url = origin.page("/x", Reply(b"body", cut_after=2), Reply(b"body"))
    assert client.make().fetch(url, limit=LIMIT) == b"body"


def test_answer_over_the_limit_is_an_error(origin: Origin, client: Client) -> None:
    url = origin.page("/x", Reply(b"12345"))
    assert client.make().fetch(url, limit=5) == b"12345"
    with pytest.raises(TransportError, match="larger than 4 bytes"):
        client.make().fetch(url, limit=4)
    assert client.pauses == []


@pytest.mark.parametrize(
    "url",
    ["", "ftp://h/x", "relative/x", "oauth-ftp://h", "http://", "http://[::1/x", "http://h:x/"],
)
def test_addresses_that_cannot_be_fetched(client: Client, url: str) -> None:
    with pytest.raises(TransportError):
        client.make().fetch(url, limit=LIMIT)


# --- redirects and credentials -----------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(origin: Origin, client: Client, status: int) -> None:
    url = origin.page("/x", redirect("y", status))
    origin.page("/y", Reply(b"body"))
    assert client.make().fetch(url, limit=LIMIT) == b"body"


def test_ten_redirects_are_followed_and_no_more(origin: Origin, client: Client) -> None:
    for number in range(11):
        origin.page(f"/{number}", redirect(f"/{number + 1}"))
    origin.page("/10", Reply(b"body"))
    assert client.make().fetch(f"{origin.url}/0", limit=LIMIT) == b"body"
    origin.page("/10", redirect("/11"))
    origin.page("/11", Reply(b"body"))
    with pytest.raises(TransportError, match="more than 10 redirects"):
        client.make().fetch(f"{origin.url}/0", limit=LIMIT)


@pytest.mark.parametrize("where", ["ftp://h/x", "file:///etc/passwd", "mailto:x", "http://[::1"])
def test_redirect_to_nowhere(origin: Origin, client: Client, where: str) -> None:
    url = origin.page("/x", redirect(where))
    with pytest.raises(TransportError, match="redirects to"):
        client.make().fetch(url, limit=LIMIT)


def test_oauth_address_sends_a_bearer_token(origin: Origin, client: Client) -> None:
    client.tokens.tokens = ["t1"]
    origin.page("/r/index", Reply(b"body"))
    assert client.make().fetch(f"oauth-{origin.url}/r/index", limit=LIMIT) == b"body"
    assert origin.visits[0].authorization == "Bearer t1"
    assert origin.visits[0].target == "/r/index"


def test_address_without_oauth_sends_none(origin: Origin, client: Client) -> None:
    client.tokens.tokens = ["t1"]
    client.make().fetch(origin.page("/x", Reply(b"")), limit=LIMIT)
    assert origin.visits[0].authorization is None


def test_oauth_without_credentials_is_an_error(origin: Origin, client: Client) -> None:
    with pytest.raises(CredentialsError, match="no credentials"):
        client.make().fetch(f"oauth-{origin.url}/x", limit=LIMIT)
    assert origin.visits == []


def test_token_stays_on_its_host(origin: Origin, other: Origin, client: Client) -> None:
    client.tokens.tokens = ["t1"]
    origin.page("/x", redirect("/y"))
    origin.page("/y", redirect(other.page("/z", redirect(f"{origin.url}/end"))))
    origin.page("/end", Reply(b"body"))
    assert client.make().fetch(f"oauth-{origin.url}/x", limit=LIMIT) == b"body"
    seen = [(visit.path, visit.authorization) for visit in origin.visits]
    assert seen == [("/x", "Bearer t1"), ("/y", "Bearer t1"), ("/end", None)]
    assert [visit.authorization for visit in other.visits] == [None]


def test_password_in_the_address_stays_on_its_host(
    origin: Origin, other: Origin, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    origin.page("/x", redirect(other.page("/z", Reply(status=503))))
    with pytest.raises(TransportError) as caught:
        client.make().fetch(f"http://user:pa%20ss@{origin.host}/x", limit=LIMIT)
    assert origin.visits[0].authorization == "Basic dXNlcjpwYSBzcw=="
    assert other.visits[0].authorization is None
    for text in (str(caught.value), caplog.text):
        assert "pa%20ss" not in text
        assert "dXNlc" not in text


def test_withdrawn_token_is_replaced_once(origin: Origin, client: Client) -> None:
    client.tokens.tokens = ["old", "new"]
    origin.page("/x", Reply(status=401), Reply(b"body"))
    assert client.make().fetch(f"oauth-{origin.url}/x", limit=LIMIT) == b"body"
    assert [visit.authorization for visit in origin.visits] == ["Bearer old", "Bearer new"]


def test_token_that_is_refused_twice_is_an_error(origin: Origin, client: Client) -> None:
    client.tokens.tokens = ["t1"]
    origin.page("/x", Reply(status=401))
    with pytest.raises(TransportError, match="status 401"):
        client.make().fetch(f"oauth-{origin.url}/x", limit=LIMIT)
    assert len(origin.visits) == 2


def test_token_is_not_sent_without_encryption(client: Client) -> None:
    client.tokens.tokens = ["t1"]
    with pytest.raises(TransportError, match="credentials are sent over https only"):
        client.make().fetch("oauth-http://repo.example.test/x", limit=LIMIT)


# --- Cloud Storage -----------------------------------------------------------------------------


def test_object_is_read_with_a_token(origin: Origin, client: Client) -> None:
    client.tokens.tokens = ["t1"]
    origin.page("/b/packages/a%20b%2B1.goo", Reply(b"body"))
    transport = client.make(storage=origin.url)
    assert transport.fetch("gs://b/packages/a b+1.goo", limit=LIMIT) == b"body"
    assert origin.visits[0].authorization == "Bearer t1"


@pytest.mark.parametrize(
    "url",
    [
        "gs://b/o",
        "http://b.storage.googleapis.com/o",
        "https://storage.cloud.google.com/b/o",
        "https://commondatastorage.googleapis.com/b/o",
    ],
)
def test_public_object_is_read_without_credentials(
    origin: Origin, client: Client, url: str
) -> None:
    origin.page("/b/o", Reply(b"body"))
    assert client.make(storage=origin.url).fetch(url, limit=LIMIT) == b"body"
    assert origin.visits[0].authorization is None


@pytest.mark.parametrize("status", [401, 403])
def test_object_is_asked_for_without_a_refused_token(
    origin: Origin, client: Client, status: int
) -> None:
    client.tokens.tokens = ["t1"]

    def answer(visit: Visit) -> Reply:
        return Reply(status=status) if visit.authorization else Reply(b"public")

    origin.page("/b/o", answer)
    assert client.make(storage=origin.url).fetch("gs://b/o", limit=LIMIT) == b"public"


def test_objects_stored_as_gzip_are_not_unpacked_on_the_way(origin: Origin, client: Client) -> None:
    origin.page("/b/o", Reply(b"x"))
    client.make(storage=origin.url).fetch("gs://b/o", limit=LIMIT)
    assert origin.visits[0].headers["accept-encoding"] == "gzip"


# --- proxies -----------------------------------------------------------------------------------


def test_proxyserver_is_used_for_everything(origin: Origin, client: Client) -> None:
    origin.page("/r/index", Reply(b"body"))
    settings = Settings(proxy_server=origin.url)
    environ = {"NO_PROXY": "*", "HTTP_PROXY": "http://127.0.0.1:9"}
    transport = client.make(settings, environ=environ)
    assert transport.fetch("http://repo.example.test/r/index", limit=LIMIT) == b"body"
    assert origin.visits[0].target == "http://repo.example.test/r/index"


def test_proxyserver_is_used_for_cloud_storage(origin: Origin, client: Client) -> None:
    origin.page("/b/o", Reply(b"body"))
    settings = Settings(proxy_server=origin.host)
    transport = client.make(settings, storage="http://storage.example.test")
    assert transport.fetch("gs://b/o", limit=LIMIT) == b"body"
    assert origin.visits[0].target == "http://storage.example.test/b/o"


def test_proxy_of_the_environment(origin: Origin, client: Client) -> None:
    origin.page("/x", Reply(b"body"))
    transport = client.make(environ={"http_proxy": f"http://u:p@{origin.host}"})
    assert transport.fetch("http://repo.example.test/x", limit=LIMIT) == b"body"
    assert origin.visits[0].headers["proxy-authorization"] == "Basic dTpw"


def test_no_proxy_exempts_a_host(origin: Origin, client: Client) -> None:
    environ = {"HTTP_PROXY": origin.url, "NO_PROXY": "repo.invalid"}
    with pytest.raises(TransportError):
        client.make(environ=environ).fetch("http://repo.invalid/x", limit=LIMIT)
    assert origin.visits == []


def test_unusable_proxy_is_one_error(client: Client) -> None:
    settings = Settings(proxy_server="socks5://user:secret@h:1")
    with pytest.raises(TransportError, match='unsupported proxy scheme "socks5"') as caught:
        client.make(settings).fetch("http://repo.example.test/x", limit=LIMIT)
    assert "secret" not in str(caught.value)


# --- files and folders -------------------------------------------------------------------------


def test_file_addresses_and_paths(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a b.txt"
    path.write_bytes(b"body")
    assert client.make().fetch(str(path), limit=LIMIT) == b"body"
    assert client.make().fetch(path.as_uri(), limit=LIMIT) == b"body"
    with pytest.raises(TransportError, match="larger than 3 bytes"):
        client.make().fetch(str(path), limit=3)


def test_missing_file_is_like_status_404(client: Client, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="cannot be read") as caught:
        client.make().fetch(str(tmp_path / "none"), limit=LIMIT)
    assert caught.value.status == 404


def test_path_with_a_zero_byte_names_no_file(client: Client, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="names no file"):
        client.make().fetch(f"{tmp_path}/a\0b", limit=LIMIT)


def test_download_from_a_folder(client: Client, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    target = tmp_path / "target"
    client.make().download(str(tmp_path / "source"), target, sha256=SHA)
    assert target.read_bytes() == DATA
    with pytest.raises(TransportError, match="cannot be read") as caught:
        client.make().download(str(tmp_path / "none"), tmp_path / "new", sha256=SHA)
    assert caught.value.status == 404


# --- download ----------------------------------------------------------------------------------


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "a.goo"


def part_of(target: Path) -> Path:
    return target.with_name("a.goo.part")


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_download_of_the_right_file(origin: Origin, client: Client, target: Path) -> None:
    client.make().download(origin.file("/a", DATA), target, sha256=SHA.upper())
    assert target.read_bytes() == DATA
    assert left(target) == ["a.goo"]
    assert origin.visits[0].range is None


@pytest.mark.skipif(WINDOWS, reason="modes of Linux")
def test_mode_of_a_downloaded_file(origin: Origin, client: Client, target: Path) -> None:
    client.make().download(origin.file("/a", DATA), target, sha256=SHA)
    assert target.stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_right_file_is_not_downloaded_again(origin: Origin, client: Client, target: Path) -> None:
    target.write_bytes(DATA)
    part_of(target).write_bytes(b"left over")
    client.make().download(origin.file("/a", DATA), target, sha256=SHA)
    assert origin.visits == []
    assert left(target) == ["a.goo"]


def test_wrong_checksum_leaves_no_file(origin: Origin, client: Client, target: Path) -> None:
    url = origin.file("/a", b"other")
    with pytest.raises(TransportError, match="checksum mismatch: the index says") as caught:
        client.make().download(f"{url}?secret=1", target, sha256=SHA)
    assert hashlib.sha256(b"other").hexdigest()[:16] in redact(str(caught.value))
    assert "secret" not in str(caught.value)
    assert left(target) == []
    assert len(origin.visits) == 1


def test_wrong_checksum_leaves_no_older_file_either(
    origin: Origin, client: Client, target: Path
) -> None:
    target.write_bytes(b"older")
    with pytest.raises(TransportError, match="checksum mismatch"):
        client.make().download(origin.file("/a", b"other"), target, sha256=SHA)
    assert left(target) == []


def test_cut_download_continues_within_the_same_run(
    origin: Origin, client: Client, target: Path
) -> None:
    url = origin.file("/a", DATA)
    origin.pages["/a"].insert(0, Reply(DATA, cut_after=150_000))
    client.make().download(url, target, sha256=SHA)
    assert target.read_bytes() == DATA
    assert len(origin.visits) == 2
    start = int((origin.visits[1].range or "")[len("bytes=") : -1])
    assert 0 < start <= 150_000


def test_cut_download_continues_in_the_next_run(
    origin: Origin, client: Client, target: Path
) -> None:
    url = origin.page("/a", Reply(DATA, cut_after=150_000), Reply(status=404))
    with pytest.raises(TransportError, match="status 404"):
        client.make().download(url, target, sha256=SHA)
    have = part_of(target).stat().st_size
    assert have > 0
    assert not target.exists()
    origin.file("/a", DATA)
    client.make().download(url, target, sha256=SHA)
    assert origin.visits[-1].range == f"bytes={have}-"
    assert target.read_bytes() == DATA
    assert left(target) == ["a.goo"]


def test_half_file_under_the_final_name_is_continued(
    origin: Origin, client: Client, target: Path
) -> None:
    target.write_bytes(DATA[:1000])
    client.make().download(origin.file("/a", DATA), target, sha256=SHA)
    assert [visit.range for visit in origin.visits] == ["bytes=1000-"]
    assert target.read_bytes() == DATA


def test_server_without_ranges_starts_from_zero(
    origin: Origin, client: Client, target: Path
) -> None:
    part_of(target).write_bytes(DATA[:1000])
    client.make().download(origin.file("/a", DATA, ranges=False), target, sha256=SHA)
    assert [visit.range for visit in origin.visits] == ["bytes=1000-"]
    assert target.read_bytes() == DATA


def test_complete_part_is_taken_without_downloading_it(
    origin: Origin, client: Client, target: Path
) -> None:
    part_of(target).write_bytes(DATA)
    client.make().download(origin.file("/a", DATA), target, sha256=SHA)
    assert [visit.range for visit in origin.visits] == [f"bytes={len(DATA)}-"]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * (len(DATA) + 1), b"x" * len(DATA)])
def test_stale_part_is_fetched_anew(
    origin: Origin, client: Client, target: Path, stale: bytes
) -> None:
    part_of(target).write_bytes(stale)
    client.make().download(origin.file("/a", DATA), target, sha256=SHA)
    assert target.read_bytes() == DATA
    assert [visit.range for visit in origin.visits] == [f"bytes={len(stale)}-", None]


def test_wrong_range_is_not_appended(origin: Origin, client: Client, target: Path) -> None:
    part_of(target).write_bytes(DATA[:1000])
    shifted = Reply(DATA[999:], 206, {"Content-Range": f"bytes 999-{len(DATA) - 1}/{len(DATA)}"})
    client.make().download(origin.page("/a", shifted, Reply(DATA)), target, sha256=SHA)
    assert target.read_bytes() == DATA


def test_partial_answer_that_was_not_asked_for_is_an_error(
    origin: Origin, client: Client, target: Path
) -> None:
    url = origin.page("/a", Reply(DATA, 206, {"Content-Range": f"bytes 0-9/{len(DATA)}"}))
    with pytest.raises(TransportError, match="status 206"):
        client.make().download(url, target, sha256=SHA)


def test_download_without_checksum_takes_what_comes(
    origin: Origin, client: Client, target: Path
) -> None:
    target.write_bytes(b"older")
    part_of(target).write_bytes(b"stale")
    client.make().download(origin.file("/a", DATA), target, sha256="")
    assert target.read_bytes() == DATA
    assert [visit.range for visit in origin.visits] == [None]


def test_full_disk_is_one_error_and_frees_the_space(
    origin: Origin, client: Client, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    written = 0

    def limited(descriptor: int, data: bytes) -> int:
        nonlocal written
        if os.fstat(descriptor).st_size + len(data) > 100_000 and part_of(target).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += len(data)
        return write(descriptor, data)

    monkeypatch.setattr("googet.transport.os.write", limited)
    with pytest.raises(TransportError, match=r"no space left for .*a\.goo"):
        client.make().download(origin.file("/a", DATA), target, sha256=SHA)
    assert left(target) == []
    assert len(origin.visits) == 1


def test_missing_folder_is_one_error(origin: Origin, client: Client, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="cannot be written"):
        client.make().download(origin.file("/a", DATA), tmp_path / "no" / "a.goo", sha256=SHA)


@pytest.mark.skipif(WINDOWS, reason="links need a right on Windows")
def test_link_in_place_of_the_part_is_not_followed(
    origin: Origin, client: Client, target: Path
) -> None:
    victim = target.parent / "victim"
    part_of(target).symlink_to(victim)
    with pytest.raises(TransportError, match="cannot be written"):
        client.make().download(origin.file("/a", DATA), target, sha256=SHA)
    assert not victim.exists()


def test_download_with_a_token_through_a_redirect(
    origin: Origin, other: Origin, client: Client, target: Path
) -> None:
    client.tokens.tokens = ["t1"]
    origin.page("/a", redirect(other.file("/b", DATA)))
    client.make().download(f"oauth-{origin.url}/a", target, sha256=SHA)
    assert target.read_bytes() == DATA
    assert other.visits[0].authorization is None


def test_progress_is_shown_and_wiped(
    origin: Origin, client: Client, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    class Recorder(Progress):
        def start(self, label: str, *, done: int = 0, total: Optional[int] = None) -> None:
            shown.append(f"start {label} {done} {total}")

        def advance(self, count: int) -> None:
            shown.append("advance")

        def finish(self) -> None:
            shown.append("finish")

    client.make(progress=Recorder()).download(origin.file("/a", DATA), target, sha256=SHA)
    assert shown[0] == f"start a.goo 0 {len(DATA)}"
    assert "advance" in shown
    assert shown[-1] == "finish"


def test_all_blocks_arrive_however_the_connection_breaks(client: Client, tmp_path: Path) -> None:
    for number in range(20):
        rng = random.Random(number)
        data = rng.randbytes(rng.randrange(1, 3000))
        cuts = [rng.randrange(0, len(data)) for _ in range(rng.randrange(0, 4))]
        target = tmp_path / f"{number}.goo"
        with Origin() as origin:
            url = origin.file("/a", data, ranges=rng.random() < 0.7)
            whole = origin.pages["/a"][0]
            assert callable(whole)

            def cut_answer(visit: Visit, cut: int, whole: Any = whole) -> Reply:
                reply = whole(visit)
                return Reply(reply.body, reply.status, reply.headers, min(cut, len(reply.body)))

            for cut in cuts:
                origin.pages["/a"].insert(0, lambda visit, cut=cut: cut_answer(visit, cut))
            client.make().download(url, target, sha256=hashlib.sha256(data).hexdigest())
        assert target.read_bytes() == data


# --- what to do with an answer -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "status", "content_range", "step"),
    [
        (0, 200, "", Step.REPLACE),
        (5, 200, "", Step.REPLACE),
        (5, 206, "bytes 5-9/10", Step.APPEND),
        (5, 206, "bytes 5-9/*", Step.APPEND),
        (5, 206, "bytes 4-9/10", Step.ASK_AGAIN),
        (5, 206, "bytes 5-4/10", Step.ASK_AGAIN),
        (5, 206, "", Step.ASK_AGAIN),
        (5, 206, "bytes */10", Step.ASK_AGAIN),
        (5, 206, f"bytes 5-{'9' * 5000}/10", Step.ASK_AGAIN),
        (0, 206, "bytes 0-9/10", Step.FAIL),
        (5, 416, "bytes */5", Step.DONE),
        (5, 416, "bytes */4", Step.ASK_AGAIN),
        (5, 416, "", Step.ASK_AGAIN),
        (0, 416, "bytes */0", Step.FAIL),
        (5, 404, "", Step.FAIL),
        (0, 204, "", Step.FAIL),
    ],
)
def test_next_step(have: int, status: int, content_range: str, step: Step) -> None:
    assert next_step(have, status, content_range) is step


@given(st.integers(0, 20), st.sampled_from([200, 206, 416, 304]), st.text() | st.none())
def test_any_content_range_has_a_next_step(
    have: int, status: int, content_range: Optional[str]
) -> None:
    step = next_step(have, status, content_range or "")
    assert step is not Step.APPEND or have


@given(
    data=st.binary(max_size=40),
    have=st.integers(0, 50),
    first=st.integers(0, 50),
    last=st.integers(0, 50),
)
def test_only_a_body_that_continues_the_file_is_appended(
    data: bytes, have: int, first: int, last: int
) -> None:
    """A model: whatever range a server sends, appending it never shifts a byte."""
    step = next_step(have, 206, f"bytes {first}-{last}/{len(data)}")
    if step is Step.APPEND:
        assert (data[:have] + data[first : last + 1]) == data[: max(have, last + 1)]


# --- other requests ----------------------------------------------------------------------------


def test_send_returns_the_body_of_any_success(origin: Origin, client: Client) -> None:
    url = origin.page("/token", Reply(status=500), Reply(b"answer", 201))
    body = client.make().send(url, headers={"X": "y"}, body=b"question")
    assert body == b"answer"
    assert [visit.method for visit in origin.visits] == ["POST", "POST"]
    assert (origin.visits[1].body, origin.visits[1].headers["x"]) == (b"question", "y")


def test_send_follows_no_redirect(origin: Origin, client: Client) -> None:
    url = origin.page("/token", redirect("/other"))
    with pytest.raises(TransportError, match="status 302"):
        client.make().send(url, headers={}, body=b"secret")


def test_request_shows_no_secrets() -> None:
    from googet.web import Request

    request = Request("https://h/x", secrets={"Authorization": "Bearer t1"}, body=b"t2")
    assert "t1" not in repr(replace(request, url="https://h/y"))
    assert "t2" not in repr(request)
