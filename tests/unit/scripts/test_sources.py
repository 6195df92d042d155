"""Fetching what a -url key names: requests, credentials, fallbacks, retries, redirects."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from unit.scripts.web import Page, Web

from google_guest.metadata.client import MetadataClient
from google_guest.scripts.connections import DownloadError
from google_guest.scripts.download import Download, DownloadLimits, within
from google_guest.scripts.events import LINUX
from google_guest.scripts.sources import TOKEN_PATH, ScriptFetcher
from google_guest.system.files import Files
from google_guest.system.scratch import Base, ScratchDirectory, make_scratch
from metadata_server.emulator import Emulator

OBJECT = "https://storage.googleapis.com/b/o"
CONTENT = b"#!/bin/sh\necho fetched\n" * 40
LIMITS = DownloadLimits(total=20, name_lookups=3, name_pause=1, connect=3, idle=3)


class Fetching:
    """A fetcher whose pauses take no time, and what it said."""

    def __init__(self, mds: Emulator, scratch: ScratchDirectory, environment: dict[str, str]):
        self.said: list[str] = []
        self.pauses: list[float] = []
        self.names: list[str] = []
        self.scratch = scratch
        self.client = MetadataClient(mds.host)
        self.limits = LIMITS
        self.environment = environment
        self.unresolved = 0

    def resolve(self, host: str) -> None:
        self.names.append(host)
        if self.unresolved:
            self.unresolved -= 1
            raise OSError(-2, "Name or service not known")

    def fetch(self, value: str) -> bytes:
        download = Download(
            self.limits,
            environment=self.environment,
            say=self.said.append,
            resolve=self.resolve,
            sleep=self.pauses.append,
        )
        fetcher = ScriptFetcher(self.client, download, LINUX["startup"].patience, self.said.append)
        path = fetcher.fetch(value, self.scratch, "startup-script-url")
        return Path(path).read_bytes()


@pytest.fixture
def fetching(mds: Emulator, web: Web, tmp_path: Path) -> Iterator[Fetching]:
    mds.set(
        "instance/service-accounts/default",
        {"email": "sa@example.test", "scopes": ["https://www.googleapis.com/auth/cloud-platform"]},
    )
    with make_scratch(Files(), [Base(str(tmp_path))]) as scratch:
        made = Fetching(mds, scratch, web.environment)
        yield made
        made.client.close()


def authorizations(web: Web) -> Sequence[bool]:
    return [visit.authorization is not None for visit in web.visits]


@pytest.mark.parametrize(
    "value",
    [
        "gs://b/o",
        "gs://b/o\n",
        "https://b.storage.googleapis.com/o",
        "http://b.storage.googleapis.com/o",
        "https://storage.cloud.googleapis.com/b/o",
        "https://storage.googleapis.com/b/o",
        "http://storage.googleapis.com/b/o",
        "https://commondatastorage.googleapis.com/b/o",
        "https://storage.cloud.google.com/b/o",
    ],
)
def test_storage_object_is_fetched_over_https_with_the_token(
    fetching: Fetching, web: Web, value: str
) -> None:
    web.page(OBJECT, Page(CONTENT))
    assert fetching.fetch(value) == CONTENT
    assert web.urls() == [OBJECT]
    assert (web.visits[0].authorization or "").startswith("Bearer fake-")


def test_refused_token_leads_to_one_anonymous_request(fetching: Fetching, web: Web) -> None:
    web.page(OBJECT, Page(b"no", 403), Page(CONTENT))
    assert fetching.fetch("gs://b/o") == CONTENT
    assert authorizations(web) == [True, False]
    assert "Trying unauthenticated download" in fetching.said


def test_broken_transfer_leaves_nothing_for_the_next(fetching: Fetching, web: Web) -> None:
    cut = Page(CONTENT, cut_after=len(CONTENT) // 2)
    web.page(OBJECT, cut, cut, cut, Page(CONTENT))
    assert fetching.fetch("gs://b/o") == CONTENT
    assert authorizations(web) == [True, True, True, False]


def test_longer_broken_transfer_does_not_stick_out(fetching: Fetching, web: Web) -> None:
    web.page(OBJECT, Page(CONTENT, cut_after=len(CONTENT) - 1), Page(b"short"))
    assert fetching.fetch("gs://b/o") == b"short"


def test_signed_url_is_fetched_as_it_is_and_its_query_stays_secret(
    fetching: Fetching, web: Web
) -> None:
    url = f"{OBJECT}?X-Goog-Signature=s3cret"
    web.page(url, Page(b"no", 404))
    with pytest.raises(DownloadError) as failed:
        fetching.fetch(url)
    assert web.urls() == [url]
    assert authorizations(web) == [False]
    assert "s3cret" not in f"{failed.value} {fetching.said}"


def test_name_in_a_url_is_encoded_once(fetching: Fetching, web: Web) -> None:
    web.page("https://storage.googleapis.com/b/a%20b.sh", Page(CONTENT))
    assert fetching.fetch("https://storage.googleapis.com/b/a%20b.sh") == CONTENT


def test_generation_is_asked_for(fetching: Fetching, web: Web) -> None:
    web.page(f"{OBJECT}?generation=7", Page(CONTENT))
    assert fetching.fetch("gs://b/o#7") == CONTENT


def test_universe_of_the_instance_is_the_only_host(
    fetching: Fetching, web: Web, mds: Emulator
) -> None:
    mds.set("universe/universe-domain", "example.test")
    url = "https://storage.example.test/b/o"
    web.page(url, Page(b"no", 403), Page(CONTENT))
    assert fetching.fetch("gs://b/o") == CONTENT
    assert web.connects == ["storage.example.test:443"] * 2


def test_nonsense_in_the_universe_key_is_the_default(
    fetching: Fetching, web: Web, mds: Emulator
) -> None:
    mds.set("universe/universe-domain", "evil.test/x?")
    web.page(OBJECT, Page(CONTENT))
    assert fetching.fetch("gs://b/o") == CONTENT


def test_without_a_service_account_the_only_request_is_anonymous(
    fetching: Fetching, web: Web, mds: Emulator
) -> None:
    mds.delete("instance/service-accounts")
    web.page(OBJECT, Page(CONTENT))
    assert fetching.fetch("gs://b/o") == CONTENT
    assert authorizations(web) == [False]
    assert fetching.said == []


def test_unusable_token_is_told_and_the_request_is_anonymous(
    fetching: Fetching, web: Web, mds: Emulator
) -> None:
    mds.fault(TOKEN_PATH, "body", body='{"access_token": "a b"}', content_type="application/json")
    web.page(OBJECT, Page(CONTENT))
    assert fetching.fetch("gs://b/o") == CONTENT
    assert authorizations(web) == [False]


@pytest.mark.parametrize("length", ["²", "-1", "x", ""])
def test_nonsense_in_the_length_of_an_answer_is_no_length(
    fetching: Fetching, web: Web, length: str
) -> None:
    headers = {"Content-Length": length, "Connection": "close"}
    web.page(OBJECT, Page(CONTENT, headers=headers))
    assert fetching.fetch("gs://b/o") == CONTENT


def test_length_of_thousands_of_digits_is_no_length_or_never_reached(
    fetching: Fetching, web: Web
) -> None:
    # Pythons before 3.11 take it for a number, so that the body is too short for it.
    page = Page(CONTENT, headers={"Content-Length": "9" * 5000, "Connection": "close"})
    web.page(OBJECT, page, page, page, page, page, page)
    try:
        content = fetching.fetch("gs://b/o")
    except DownloadError as error:
        content = CONTENT if "the connection broke" in str(error) else b""
    assert content == CONTENT


def test_both_errors_are_told_when_both_ways_fail(fetching: Fetching, web: Web) -> None:
    web.page(OBJECT, Page(status=403), Page(status=404))
    with pytest.raises(DownloadError) as failed:
        fetching.fetch("gs://b/o")
    assert str(failed.value) == (
        f"{OBJECT}: status 404; with the service account: {OBJECT}: status 403"
    )


def test_token_is_never_told(fetching: Fetching, web: Web) -> None:
    web.page(OBJECT, Page(status=403))
    with pytest.raises(DownloadError) as failed:
        fetching.fetch("gs://b/o")
    assert "fake-" not in f"{failed.value} {fetching.said}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_another_host_loses_the_token(
    fetching: Fetching, web: Web, status: int
) -> None:
    elsewhere = "https://other.example.test/x"
    web.page(OBJECT, Page(status=status, headers={"Location": elsewhere}))
    web.page(elsewhere, Page(CONTENT))
    assert fetching.fetch("gs://b/o") == CONTENT
    assert authorizations(web) == [True, False]


def test_redirect_on_the_same_host_keeps_the_token(fetching: Fetching, web: Web) -> None:
    web.page(OBJECT, Page(status=302, headers={"Location": "/b/moved"}))
    web.page("https://storage.googleapis.com/b/moved", Page(CONTENT))
    assert fetching.fetch("gs://b/o") == CONTENT
    assert authorizations(web) == [True, True]


def test_redirect_from_https_to_http_loses_the_token(fetching: Fetching, web: Web) -> None:
    plain = OBJECT.replace("https:", "http:")
    web.page(OBJECT, Page(status=302, headers={"Location": plain}))
    web.page(plain, Page(CONTENT))
    assert fetching.fetch("gs://b/o") == CONTENT
    assert authorizations(web) == [True, False]


@pytest.mark.parametrize("hops", [10, 11])
def test_up_to_ten_redirects_are_followed(fetching: Fetching, web: Web, hops: int) -> None:
    base = "https://scripts.example.test"
    for hop in range(hops):
        web.page(f"{base}/{hop}", Page(status=302, headers={"Location": f"/{hop + 1}"}))
    web.page(f"{base}/{hops}", Page(CONTENT))
    if hops == 10:
        assert fetching.fetch(f"{base}/0") == CONTENT
    else:
        with pytest.raises(DownloadError, match="more than 10 redirects"):
            fetching.fetch(f"{base}/0")


def test_redirect_to_a_file_is_refused(fetching: Fetching, web: Web) -> None:
    url = "https://scripts.example.test/x"
    web.page(url, Page(status=302, headers={"Location": "file:///etc/shadow"}))
    with pytest.raises(DownloadError, match="unsupported URL"):
        fetching.fetch(url)


@pytest.mark.parametrize(
    "location",
    [
        *("http://[::1", "http://h:99999/", "http://a..b/", "//", "http://", "http://127.0.0.1:0/"),
        *("https://%zz/", "http://" + "a" * 70 + ".test/", "http://é.test/", "http://a b/", "?"),
    ],
)
def test_redirect_to_nonsense_is_an_error_of_the_script(
    fetching: Fetching, web: Web, location: str
) -> None:
    fetching.environment = {}
    url = f"http://127.0.0.1:{web.port}/x"
    web.page(url, Page(status=302, headers={"Location": location}))
    with pytest.raises(DownloadError):
        fetching.fetch(url)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_temporary_refusal_is_tried_three_times(fetching: Fetching, web: Web, status: int) -> None:
    url = "https://scripts.example.test/x"
    web.page(url, Page(status=status), Page(status=status), Page(CONTENT))
    assert fetching.fetch(url) == CONTENT
    assert fetching.pauses == [1.0, 2.0]


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410])
def test_final_refusal_is_not_repeated(fetching: Fetching, web: Web, status: int) -> None:
    url = "https://scripts.example.test/x"
    web.page(url, Page(status=status))
    with pytest.raises(DownloadError, match=f"{url}: status {status}"):
        fetching.fetch(url)
    assert len(web.visits) == 1


def test_stranger_gets_no_token(fetching: Fetching, web: Web, mds: Emulator) -> None:
    url = "https://scripts.example.test/b/o"
    web.page(url, Page(CONTENT))
    assert fetching.fetch(url) == CONTENT
    assert authorizations(web) == [False]
    assert mds.requests() == []


def test_user_in_the_url_is_sent_to_its_host_and_not_told(fetching: Fetching, web: Web) -> None:
    web.page("https://scripts.example.test/x", Page(status=404))
    with pytest.raises(DownloadError) as failed:
        fetching.fetch("https://ada:p%40ss@scripts.example.test/x")
    assert web.visits[0].authorization == "Basic YWRhOnBAc3M="
    assert "ss@" not in f"{failed.value} {fetching.said}"


def test_untrusted_certificate_is_refused_at_once(
    fetching: Fetching, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", "/nonexistent")
    with pytest.raises(DownloadError, match=r"TLS: self.signed certificate"):
        fetching.fetch("https://scripts.example.test/x")
    assert (web.visits, len(web.connects)) == ([], 1)


def test_certificate_of_another_host_is_refused(fetching: Fetching, web: Web) -> None:
    with pytest.raises(DownloadError, match=r"TLS: .*wrong\.example\.test"):
        fetching.fetch("https://wrong.example.test/x")
    assert web.visits == []


def test_plain_http_is_fetched_with_one_warning(fetching: Fetching, web: Web) -> None:
    url = "http://scripts.example.test/x"
    web.page(url, Page(status=503), Page(CONTENT))
    assert fetching.fetch(url) == CONTENT
    told = [line for line in fetching.said if "without transport security" in line]
    assert told == [f"{url}: script fetched without transport security"]


def test_literal_address_needs_no_resolver(fetching: Fetching, web: Web) -> None:
    url = f"http://127.0.0.1:{web.port}/x.sh"
    web.page(url, Page(CONTENT))
    assert fetching.fetch(url) == CONTENT
    assert (fetching.names, fetching.pauses) == ([], [])


def test_name_of_the_proxy_is_the_one_that_must_resolve(fetching: Fetching, web: Web) -> None:
    fetching.environment = {"HTTPS_PROXY": f"http://localhost:{web.port}"}
    web.page("https://scripts.example.test/x", Page(CONTENT))
    assert fetching.fetch("https://scripts.example.test/x") == CONTENT
    assert fetching.names == ["localhost"]


def test_name_that_resolves_late_is_waited_for(fetching: Fetching, web: Web) -> None:
    fetching.environment = {}
    fetching.unresolved = 2
    url = f"http://localhost:{web.port}/x"
    web.page(url, Page(CONTENT))
    assert fetching.fetch(url) == CONTENT
    assert fetching.pauses == [1, 1]
    assert "waiting for localhost to resolve" in fetching.said


def test_name_that_never_resolves_is_given_up(fetching: Fetching) -> None:
    fetching.environment = {}
    fetching.unresolved = 99
    with pytest.raises(
        DownloadError, match=r"nowhere\.test cannot be resolved: Name or service not known"
    ):
        fetching.fetch("https://nowhere.test/x")
    assert len(fetching.names) == LIMITS.name_lookups


def test_closed_port_is_named(fetching: Fetching) -> None:
    fetching.environment = {}
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:1/x: Connection refused"):
        fetching.fetch("http://127.0.0.1:1/x")


def test_silent_server_is_left_after_the_idle_time(fetching: Fetching, web: Web) -> None:
    fetching.limits = DownloadLimits(total=20, name_lookups=1, name_pause=0, idle=0.2)
    url = "https://scripts.example.test/x"
    web.page(url, Page(silent=True))
    with pytest.raises(DownloadError, match=r"no data for 0\.2 s"):
        fetching.fetch(url)
    assert len(web.visits) == 3


def test_proxy_that_refuses_is_told(fetching: Fetching, web: Web) -> None:
    fetching.environment = {"HTTPS_PROXY": "http://127.0.0.1:1"}
    with pytest.raises(DownloadError, match="Connection refused"):
        fetching.fetch("https://scripts.example.test/x")


def test_unknown_kind_of_proxy_is_refused(fetching: Fetching) -> None:
    fetching.environment = {"HTTPS_PROXY": "socks5://127.0.0.1:1"}
    with pytest.raises(DownloadError, match='unsupported proxy scheme "socks5"'):
        fetching.fetch("https://scripts.example.test/x")


@pytest.mark.parametrize("value", ["https://[::1/x", "https://h:port/x", "https://h:99999/x"])
def test_malformed_url_is_an_error_of_the_script(fetching: Fetching, value: str) -> None:
    with pytest.raises(DownloadError, match="the URL is malformed"):
        fetching.fetch(value)


def test_file_is_renamed_when_it_is_whole(fetching: Fetching, web: Web) -> None:
    web.page(OBJECT, Page(CONTENT))
    fetching.fetch("gs://b/o")
    names = sorted(os.listdir(fetching.scratch.path))
    assert names == [".pid", "startup-script-url"]
    mode = os.stat(os.path.join(fetching.scratch.path, names[1])).st_mode
    assert mode & 0o777 == 0o700


def test_work_within_its_time_returns_its_value() -> None:
    assert within(5, lambda: 7) == 7


def test_error_of_bounded_work_is_raised() -> None:
    def fail() -> None:
        raise DownloadError("no")

    with pytest.raises(DownloadError, match="no"):
        within(5, fail)
