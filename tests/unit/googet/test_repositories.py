"""What is available: fallbacks, the index cache, parallel loading, failures, pinned keys."""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from unit.googet import keys
from unit.googet.goos import document
from unit.googet.loopback import Origin, Reply, Visit

from googet.repofiles import Repository, repositories_from_sources
from googet.repositories import Available, load_available
from googet.settings import Settings
from googet.transport import Transport
from googet.web import TransportError
from google_guest.errors import GuestError


def index_of(*names: str) -> bytes:
    return json.dumps([document(name) for name in names], indent=2).encode()


class Machine:
    """One ROOT's cache and a transport that does not wait."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder / "cache"
        self.settings = Settings(allow_unsafe_url=True)
        self.now: Optional[float] = None
        self.storage = "http://127.0.0.1:9"

    def load(self, *urls: str, **options: Any) -> Available:
        repositories = repositories_from_sources(",".join(urls), self.settings)
        transport = Transport(
            self.settings,
            environ={"GOOGLE_APPLICATION_CREDENTIALS": str(self.cache / "none.json")},
            sleep=lambda seconds: None,
            storage=self.storage,
        )
        return load_available(
            repositories,
            cache=self.cache,
            settings=self.settings,
            transport=transport,
            clock=lambda: time.time() if self.now is None else self.now,
            **options,
        )

    def names(self, *urls: str, **options: Any) -> list[str]:
        return [one.spec.name for one in self.load(*urls, **options).candidates]

    def cached(self, url: str, suffix: str = ".rs") -> Path:
        return self.cache / f"{hashlib.sha256(url.encode()).hexdigest()}{suffix}"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- where the index comes from ----------------------------------------------------------------


def test_packed_index_is_preferred(origin: Origin, machine: Machine) -> None:
    origin.page("/r/index.gz", Reply(gzip.compress(index_of("a"))))
    assert machine.names(f"{origin.url}/r") == ["a"]
    assert origin.paths() == ["/r/index.gz"]


@pytest.mark.parametrize("status", [403, 404, 204, 500])
def test_any_other_status_leads_to_the_plain_index(
    origin: Origin, machine: Machine, status: int
) -> None:
    origin.page("/r/index.gz", Reply(status=status))
    origin.page("/r/index", Reply(index_of("a")))
    assert machine.names(f"{origin.url}/r/") == ["a"]


def test_content_encoding_of_the_server_does_no_harm(origin: Origin, machine: Machine) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    origin.page("/r/index.gz", Reply(gzip.compress(index_of("a")), headers=headers))
    assert machine.names(f"{origin.url}/r") == ["a"]


def test_plain_index_under_the_packed_name(origin: Origin, machine: Machine) -> None:
    origin.page("/r/index.gz", Reply(index_of("a")))
    assert machine.names(f"{origin.url}/r") == ["a"]


def test_connection_error_fails_the_repository(origin: Origin, machine: Machine) -> None:
    origin.page("/r/index.gz", Reply(index_of("a"), cut_after=10))
    origin.page("/r/index", Reply(index_of("a")))
    available = machine.load(f"{origin.url}/r")
    assert available.candidates == ()
    assert available.all_failed
    assert origin.paths() == ["/r/index.gz"] * 4


def test_any_error_in_cloud_storage_leads_to_the_plain_index(
    origin: Origin, machine: Machine
) -> None:
    machine.storage = origin.url
    origin.page("/b/r/index.gz", Reply(b"x", cut_after=0))
    origin.page("/b/r/index", Reply(index_of("a")))
    assert machine.names("gs://b/r") == ["a"]


def test_folder_as_repository(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "index").write_bytes(index_of("a"))
    assert machine.names(str(tmp_path / "r")) == ["a"]
    assert machine.names((tmp_path / "r").as_uri()) == ["a"]


@pytest.mark.parametrize(
    "body", [b"<html>", gzip.compress(index_of("a"), mtime=0)[:-20], b"\xff\xfe[\0]\0"]
)
def test_unusable_index_fails_the_repository(origin: Origin, machine: Machine, body: bytes) -> None:
    origin.page("/r/index.gz", Reply(body))
    ((repository, message),) = machine.load(f"{origin.url}/r").failures
    assert repository.url == f"{origin.url}/r"
    assert "index" in message
    assert not machine.cached(f"{origin.url}/r").exists()


def test_entry_without_spec_does_not_hide_the_others(origin: Origin, machine: Machine) -> None:
    origin.page("/r/index.gz", Reply(json.dumps([{}, document("a")]).encode()))
    assert machine.names(f"{origin.url}/r") == ["a"]
    assert machine.names(f"{origin.url}/r") == ["a"]


def test_credentials_are_asked_for(origin: Origin, machine: Machine) -> None:
    origin.page("/r/index.gz", Reply(index_of("a")))
    ((_, message),) = machine.load(f"oauth-{origin.url}/r").failures
    assert "none.json cannot be read" in message
    assert origin.visits == []


# --- several repositories ----------------------------------------------------------------------


def test_one_bad_repository_does_not_stop_the_others(
    origin: Origin, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    origin.page("/1/index.gz", Reply(index_of("a", "b")))
    origin.page("/3/index.gz", Reply(index_of("c")))
    available = machine.load(f"{origin.url}/1", f"{origin.url}/2?x=secret", f"{origin.url}/3")
    assert [one.spec.name for one in available.candidates] == ["a", "b", "c"]
    assert [one.repository.url for one in available.candidates] == [
        f"{origin.url}/1",
        f"{origin.url}/1",
        f"{origin.url}/3",
    ]
    ((_, message),) = available.failures
    assert message.endswith("/2/index: status 404")
    assert not available.all_failed
    assert f"repository {origin.url}/2: " in caplog.text
    assert "secret" not in caplog.text


def test_all_repositories_failed(origin: Origin, machine: Machine) -> None:
    assert machine.load(f"{origin.url}/1", f"{origin.url}/2").all_failed


def test_empty_repository_has_not_failed(origin: Origin, machine: Machine) -> None:
    origin.page("/1/index.gz", Reply(b"null"))
    available = machine.load(f"{origin.url}/1", f"{origin.url}/2")
    assert available.candidates == ()
    assert not available.all_failed


def test_no_repositories_have_not_failed(machine: Machine) -> None:
    assert machine.load() == Available(())
    assert not machine.load().all_failed


def test_at_most_four_indexes_are_fetched_at_a_time(tmp_path: Path) -> None:
    running: set[int] = set()
    most = 0
    lock = threading.Lock()
    four = threading.Barrier(4)

    class Slow:
        def fetch(self, url: str, *, limit: int) -> bytes:
            nonlocal most
            with lock:
                running.add(threading.get_ident())
                most = max(most, len(running))
            four.wait(20)
            with lock:
                running.discard(threading.get_ident())
            return index_of("a")

    repositories = [Repository(f"https://h/{number}") for number in range(8)]
    settings = Settings()
    available = load_available(repositories, cache=tmp_path, settings=settings, transport=Slow())
    assert most == 4
    assert [one.repository.url for one in available.candidates] == [one.url for one in repositories]


def test_our_own_mistake_is_not_hidden(tmp_path: Path) -> None:
    class Broken:
        def fetch(self, url: str, *, limit: int) -> bytes:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load_available(
            [Repository("https://h/r")], cache=tmp_path, settings=Settings(), transport=Broken()
        )


def test_garbage_is_collected_again_afterwards(origin: Origin, machine: Machine) -> None:
    machine.load(f"{origin.url}/none")
    assert gc.isenabled()


# --- the cache ---------------------------------------------------------------------------------


def test_young_cache_is_used_without_asking(origin: Origin, machine: Machine) -> None:
    origin.page("/r/index.gz", Reply(index_of("a")))
    machine.load(f"{origin.url}/r")
    origin.pages.clear()
    origin.visits.clear()
    assert machine.names(f"{origin.url}/r") == ["a"]
    assert origin.visits == []


def test_form_of_the_cache(origin: Origin, machine: Machine) -> None:
    origin.page("/r/index.gz", Reply(index_of("a")))
    url = f"{origin.url}/r"
    machine.load(url)
    data = machine.cached(url).read_bytes()
    assert b"\n" not in data
    assert json.loads(data) == [document("a")]
    assert machine.cached(url, ".url").read_text() == url
    assert sorted(path.suffix for path in machine.cache.iterdir()) == [".rs", ".url"]


def test_cache_is_shared_with_the_address_without_oauth(machine: Machine, tmp_path: Path) -> None:
    url = "https://repo.invalid/r"
    machine.cache.mkdir()
    machine.cached(url).write_bytes(index_of("a"))
    assert machine.names(f"oauth-{url}") == ["a"]


def test_old_cache_is_fetched_anew(origin: Origin, machine: Machine) -> None:
    origin.page("/r/index.gz", Reply(index_of("a")), Reply(index_of("b")))
    url = f"{origin.url}/r"
    machine.load(url)
    written = machine.cached(url).stat().st_mtime
    machine.now = written + 179.5
    assert machine.names(url) == ["a"]
    machine.now = written + 180
    assert machine.names(url) == ["b"]


def test_future_cache_is_fetched_anew(origin: Origin, machine: Machine) -> None:
    origin.page("/r/index.gz", Reply(index_of("a")), Reply(index_of("b")))
    url = f"{origin.url}/r"
    machine.load(url)
    later = time.time() + 1000
    os.utime(machine.cached(url), (later, later))
    assert machine.names(url) == ["b"]


@pytest.mark.parametrize("data", [b"", b"[{", b"\x1f\x8b", b"{}", b"\xff\xfe"])
def test_damaged_cache_is_fetched_anew(origin: Origin, machine: Machine, data: bytes) -> None:
    origin.page("/r/index.gz", Reply(index_of("a")))
    url = f"{origin.url}/r"
    machine.load(url)
    machine.cached(url).write_bytes(data)
    assert machine.names(url) == ["a"]
    assert len(origin.visits) == 2
    assert json.loads(machine.cached(url).read_bytes())


def test_cache_that_is_a_folder_is_absent(
    origin: Origin, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    origin.page("/r/index.gz", Reply(index_of("a")))
    machine.cached(f"{origin.url}/r").mkdir(parents=True)
    assert machine.names(f"{origin.url}/r") == ["a"]
    assert "is not cached" in caplog.text


def test_read_only_leaves_the_cache_alone(origin: Origin, machine: Machine) -> None:
    origin.page("/r/index.gz", Reply(index_of("a")))
    assert machine.names(f"{origin.url}/r", read_only=True) == ["a"]
    assert not machine.cache.exists()


def test_no_cache_with_a_life_of_zero(origin: Origin, machine: Machine) -> None:
    origin.page("/r/index.gz", Reply(index_of("a")))
    machine.settings = Settings(allow_unsafe_url=True, cache_life=0.0)
    machine.load(f"{origin.url}/r")
    machine.load(f"{origin.url}/r")
    assert len(origin.visits) == 2


# --- pinned keys -------------------------------------------------------------------------------


class Signed:
    """A pinned repository whose index and signature a test can change."""

    def __init__(self, origin: Origin, machine: Machine) -> None:
        self.machine = machine
        self.url = f"{origin.url}/r"
        self.index = index_of("a")
        self.signature: Callable[[], Optional[bytes]] = lambda: self.statement(5)
        self.origin = origin
        origin.page("/r/index.gz", lambda visit: Reply(gzip.compress(self.index)))
        origin.page("/r/index.sig", self._answer)
        machine.now = 1000.0
        key = machine.cache.parent / "key.pem"
        key.write_bytes(keys.PUBLIC_PEM)
        pins = {f"{self.url}/": str(key)}
        machine.settings = Settings(allow_unsafe_url=True, cache_life=-1.0, signed_repos=pins)

    def statement(self, serial: int, expires: int = 2000) -> bytes:
        return keys.statement(self.index, serial=serial, expires=expires)

    def _answer(self, visit: Visit) -> Reply:
        signature = self.signature()
        return Reply(status=404) if signature is None else Reply(signature)

    def failure(self) -> str:
        ((_, message),) = self.machine.load(self.url).failures
        return message

    def names(self) -> list[str]:
        return self.machine.names(self.url)


@pytest.fixture
def signed(origin: Origin, machine: Machine) -> Signed:
    return Signed(origin, machine)


def test_signed_index_is_accepted(signed: Signed) -> None:
    assert signed.names() == ["a"]


def test_unsigned_index_is_rejected(signed: Signed) -> None:
    signed.signature = lambda: None
    assert "a key is pinned, but the index has no signature" in signed.failure()
    assert not signed.machine.cached(signed.url).exists()


def test_index_of_somebody_else_is_rejected(signed: Signed) -> None:
    signature = signed.statement(5)
    signed.signature = lambda: signature
    signed.index = index_of("evil")
    assert "about another index" in signed.failure()
    # Once more in case that it was published in between.
    assert signed.origin.paths() == ["/r/index.gz", "/r/index.sig"] * 2


def test_index_that_is_published_in_between_is_fetched_again(signed: Signed) -> None:
    old = signed.index

    def late() -> bytes:
        signed.index = index_of("b")
        return signed.statement(6)

    signed.signature = late
    assert old != index_of("b")
    assert signed.names() == ["b"]


def test_expired_signature_is_rejected(signed: Signed) -> None:
    signed.machine.now = 2000.0
    assert "has expired" in signed.failure()


def test_older_index_is_rejected_after_a_newer_one(signed: Signed) -> None:
    assert signed.names() == ["a"]
    signed.signature = lambda: signed.statement(4)
    assert "older (serial 4) than one seen before (serial 5)" in signed.failure()
    signed.signature = lambda: signed.statement(6)
    assert signed.names() == ["a"]


def test_bare_signature_is_accepted_until_a_statement_was_seen(
    signed: Signed, caplog: pytest.LogCaptureFixture
) -> None:
    signed.signature = lambda: keys.sign(signed.index)
    assert signed.names() == ["a"]
    assert "no serial and never expires" in caplog.text
    signed.signature = lambda: signed.statement(5)
    assert signed.names() == ["a"]
    signed.signature = lambda: keys.sign(signed.index)
    assert "no serial any more" in signed.failure()


def test_new_key_starts_anew(signed: Signed) -> None:
    assert signed.names() == ["a"]
    path = signed.machine.cached(signed.url, ".serial")
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "Key": "another", "Serial": 99}))
    assert signed.names() == ["a"]


def test_missing_key_file_fails_the_repository(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "key.pem").unlink()
    assert "key.pem cannot be read" in signed.failure()
    assert signed.origin.visits == []


def with_cache(signed: Signed) -> Path:
    settings = signed.machine.settings
    signed.machine.settings = Settings(
        allow_unsafe_url=True, cache_life=180.0, signed_repos=settings.signed_repos
    )
    signed.names()
    path = signed.machine.cached(signed.url)
    os.utime(path, (1000, 1000))
    signed.origin.visits.clear()
    return path


def test_verified_cache_is_used_without_asking(signed: Signed) -> None:
    with_cache(signed)
    assert signed.names() == ["a"]
    assert signed.origin.visits == []


def test_cache_that_was_not_verified_is_not_used(signed: Signed) -> None:
    path = with_cache(signed)
    path.write_bytes(index_of("evil"))
    os.utime(path, (1000, 1000))
    assert signed.names() == ["a"]
    path = with_cache(signed)
    signed.machine.cached(signed.url, ".serial").unlink()
    signed.names()
    assert signed.origin.paths() == ["/r/index.gz", "/r/index.sig"]


def test_cache_with_an_expired_signature_is_not_used(signed: Signed) -> None:
    path = with_cache(signed)
    os.utime(path, (1999, 1999))
    signed.machine.now = 2000.0
    assert "has expired" in signed.failure()


@pytest.mark.parametrize("data", [b"", b"[]", b'{"Key": 1}', b"\xff", b"[" * 99999])
def test_damaged_memory_of_serials_is_absent(signed: Signed, data: bytes) -> None:
    signed.names()
    signed.machine.cached(signed.url, ".serial").write_bytes(data)
    assert signed.names() == ["a"]


def test_errors_are_of_the_projects_own_kind() -> None:
    assert issubclass(TransportError, GuestError)
