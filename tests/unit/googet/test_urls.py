"""Joining repositories and sources, recognising Cloud Storage, and what is safe to use."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet.repofiles import Repository
from googet.urls import (
    StorageLocation,
    UrlError,
    check_repository_url,
    child_url,
    is_safe,
    local_path,
    package_url,
    parse_storage,
    repository_key,
    shown,
    split_oauth,
)
from google_guest.errors import GuestError

WINDOWS = sys.platform == "win32"


def joined(repository: str, source: str) -> str:
    url, oauth = split_oauth(repository)
    return package_url(Repository(url, oauth=oauth), source)


@pytest.mark.parametrize(
    ("repository", "source", "url"),
    [
        # The verified table of the reference.
        ("https://h/yuck/repos/stable", "packages/f.goo", "https://h/yuck/repos/packages/f.goo"),
        ("https://h/yuck/repos/stable/", "packages/f.goo", "https://h/yuck/repos/packages/f.goo"),
        ("oauth-https://h/repos/stable", "packages/f.goo", "oauth-https://h/repos/packages/f.goo"),
        ("gs://b", "packages/f.goo", "gs://b/packages/f.goo"),
        ("gs://b/", "packages/f.goo", "gs://b/packages/f.goo"),
        ("http://h:8000/repo", "../../x.goo", "http://h:8000/x.goo"),
        ("http://h:8000", "x.goo", "http://h:8000/x.goo"),
        ("http://h:8000/repo", "a b+c%20d.goo", "http://h:8000/a%20b+c%20d.goo"),
        ("http://h:8000/repo", "packages\\f.goo", "http://h:8000/packages%5Cf.goo"),
        # What leaves the host.
        ("https://h/r", "https://evil/x.goo", "https://h/https:/evil/x.goo"),
        ("https://h/r", "//evil/x.goo", "https://h/evil/x.goo"),
        ("https://h/r", "/x.goo", "https://h/x.goo"),
        ("https://h/a/r", "%2e%2e/%2e%2e/x.goo", "https://h/x.goo"),
        ("https://h/a/r", "p%2Fx.goo", "https://h/a/p/x.goo"),
        ("https://h/a/r", "x.goo?a=b#c", "https://h/a/x.goo%3Fa=b%23c"),
        ("https://h/a/r", "%zz.goo", "https://h/a/%25zz.goo"),
        ("https://h/a/r", "\u00e4.goo", "https://h/a/%C3%A4.goo"),
        ("https://h/a/r", "x@1.goo\n", "https://h/a/x@1.goo%0A"),
        # The rest of the repository's address.
        ("https://h/a%20b/r", "x.goo", "https://h/a%20b/x.goo"),
        ("https://h/a/../b/./r", "x.goo", "https://h/b/x.goo"),
        ("https://h/a/r?sig=1#f", "x.goo", "https://h/a/x.goo?sig=1"),
        ("https://u:p@h:1/a/r", "x.goo", "https://u:p@h:1/a/x.goo"),
        # Cloud Storage: within the bucket, and literally.
        ("gs://b/repo", "packages/f.goo", "gs://b/packages/f.goo"),
        ("gs://b/x/repo/", "packages/f.goo", "gs://b/x/packages/f.goo"),
        ("gs://b/x/repo", "../../../c/f.goo", "gs://b/c/f.goo"),
        ("gs://b/repo", "a b%20c.goo", "gs://b/a b c.goo"),
        ("oauth-gs://b/repo", "f.goo", "oauth-gs://b/f.goo"),
        (
            "https://storage.googleapis.com/b/repo",
            "../../c/f.goo",
            "https://storage.googleapis.com/b/c/f.goo",
        ),
        (
            "https://storage.googleapis.com/b",
            "packages/f.goo",
            "https://storage.googleapis.com/b/packages/f.goo",
        ),
        (
            "https://b.storage.googleapis.com/repo",
            "f.goo",
            "https://b.storage.googleapis.com/f.goo",
        ),
        # Files.
        ("file:///srv/a%20b/repo", "packages/f.goo", "file:///srv/a%20b/packages/f.goo"),
        ("file:///C:/r/repo", "../../../f.goo", "file:///C:/f.goo"),
    ],
)
def test_package_url(repository: str, source: str, url: str) -> None:
    assert joined(repository, source) == url


@pytest.mark.skipif(WINDOWS, reason="paths of Linux")
@pytest.mark.parametrize(
    ("repository", "source", "url"),
    [
        ("/srv/repo", "packages/f.goo", "/srv/packages/f.goo"),
        ("/srv/repo/", "../../../f.goo", "/f.goo"),
        ("/srv/a%20b/repo", "f%20g.goo", "/srv/a%20b/f g.goo"),
        ("/srv/repo", "a\\b.goo", "/srv/a\\b.goo"),
    ],
)
def test_package_of_a_folder(repository: str, source: str, url: str) -> None:
    assert joined(repository, source) == url


@pytest.mark.skipif(not WINDOWS, reason="paths of Windows")
@pytest.mark.parametrize(
    ("repository", "source", "url"),
    [
        ("C:\\srv\\repo", "packages/f.goo", "C:\\srv\\packages\\f.goo"),
        ("C:/srv/repo/", "..\\..\\..\\f.goo", "C:\\f.goo"),
        ("\\\\host\\share\\repo", "../../../f.goo", "\\\\host\\share\\f.goo"),
    ],
)
def test_package_of_a_windows_folder(repository: str, source: str, url: str) -> None:
    assert joined(repository, source) == url


def test_no_file_is_named_by_a_zero_byte() -> None:
    with pytest.raises(UrlError, match="names no file"):
        joined("file:///srv/repo", "a%00b")


@pytest.mark.parametrize(
    ("repository", "url"),
    [
        ("https://h/a/r", "https://h/a/r/index.gz"),
        ("https://h/a/r/", "https://h/a/r/index.gz"),
        ("https://h", "https://h/index.gz"),
        ("https://h/r?x=1", "https://h/r/index.gz?x=1"),
        ("oauth-https://h/r", "oauth-https://h/r/index.gz"),
        ("gs://b", "gs://b/index.gz"),
        ("gs://b/r//", "gs://b/r/index.gz"),
        ("file:///srv/r", "file:///srv/r/index.gz"),
    ],
)
def test_child_url(repository: str, url: str) -> None:
    assert child_url(repository, "index.gz") == url


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("gs://b", StorageLocation("b")),
        ("gs://b/", StorageLocation("b")),
        ("gs://b/o", StorageLocation("b", "o")),
        ("gs://b/o/p//", StorageLocation("b", "o/p")),
        ("gs://b/a b%20c", StorageLocation("b", "a b%20c")),
        ("https://b.storage.googleapis.com", StorageLocation("b")),
        ("https://b.storage.googleapis.com/o", StorageLocation("b", "o")),
        ("http://b.c.storage.googleapis.com/o", StorageLocation("b.c", "o")),
        ("https://b.STORAGE.GoogleAPIs.com/o/", StorageLocation("b", "o")),
        ("https://storage.cloud.google.com/b", StorageLocation("b")),
        ("https://storage.cloud.google.com/b/o", StorageLocation("b", "o")),
        ("https://storage.googleapis.com/b", StorageLocation("b")),
        ("http://storage.googleapis.com/b/o", StorageLocation("b", "o")),
        ("https://commondatastorage.googleapis.com/b/o", StorageLocation("b", "o")),
        ("https://STORAGE.googleapis.com/b/o", StorageLocation("b", "o")),
        # What is not in Cloud Storage.
        ("https://storage.googleapis.com/B/", None),
        ("https://storage.googleapis.com/b/", None),
        ("https://storage.cloud.google.com/b/", None),
        ("https://b.storage.googleapis.com/", None),
        ("https://B.storage.googleapis.com/o", None),
        ("https://storage.googleapis.com/B/o", None),
        ("gs://B/o", None),
        ("gs://-b/o", None),
        ("GS://b/o", None),
        ("HTTPS://storage.googleapis.com/b/o", None),
        ("oauth-gs://b/o", None),
        ("oauth-https://storage.googleapis.com/b/o", None),
        ("https://console.cloud.google.com/storage/browser/b", None),
        ("https://storage.googleapis.com.evil.test/b/o", None),
        ("https://storage-googleapis.com/b/o", None),
        ("https://storage.googleapis.com:443/b/o", None),
        ("gs://", None),
        ("", None),
    ],
)
def test_recognising_cloud_storage(url: str, location: object) -> None:
    assert parse_storage(url) == location


_BUCKETS = st.from_regex(r"[a-z0-9][-_.a-z0-9]{0,20}", fullmatch=True)
_OBJECTS = st.from_regex(r"[A-Za-z0-9\-_.~@%^=+/]{0,30}[A-Za-z0-9\-_.~@%^=+]", fullmatch=True)
_CASES = st.sampled_from([str.lower, str.upper, str.title])


@given(_BUCKETS, _OBJECTS, _CASES, st.sampled_from(["", "/", "//"]))
def test_objects_in_all_forms(bucket: str, name: str, case: object, slashes: str) -> None:
    assert callable(case)
    forms = [f"gs://{bucket}/{name}{slashes}"]
    for scheme in ("http", "https"):
        forms.append(f"{scheme}://{bucket}.{case('storage.googleapis.com')}/{name}{slashes}")
        for host in ("storage.cloud.google.com", "storage.googleapis.com"):
            forms.append(f"{scheme}://{case(host)}/{bucket}/{name}{slashes}")
        host = case("commondatastorage.googleapis.com")
        forms.append(f"{scheme}://{host}/{bucket}/{name}{slashes}")
    assert {parse_storage(form) for form in forms} == {StorageLocation(bucket, name)}


def test_an_object_is_read_under_its_literal_name() -> None:
    location = StorageLocation("b", "a b/c%20d+e@1/../f")
    assert location.url() == "https://storage.googleapis.com/b/a%20b/c%2520d%2Be%401/%2E%2E/f"


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://h/r", True),
        ("HTTPS://h/r", True),
        ("oauth-https://h/r", True),
        ("gs://b", True),
        ("http://storage.googleapis.com/b/o", True),
        ("file:///srv/repo", not WINDOWS),
        ("file:///C:/repo", True),
        ("http://h/r", False),
        ("oauth-http://h/r", False),
        ("ftp://h/r", False),
        ("file://server/share/repo", False),
        ("//server/share/repo", False),
        ("h/r", False),
    ],
)
def test_what_is_safe_without_allowunsafeurl(url: str, safe: bool) -> None:
    assert is_safe(url) is safe


@pytest.mark.parametrize(
    "url",
    ["", "h/r", "ftp://h/r", "https://", "https:///r", "https://h:x/r", "https://h:0/r"]
    + ["https://[::1/r", "https://h/\nr", "gs://", "gs://B", "file://", "relative/folder"],
)
def test_what_is_no_repository(url: str) -> None:
    with pytest.raises(UrlError):
        check_repository_url(url)


@pytest.mark.parametrize(
    "url",
    ["https://h/r", "http://h:8000", "oauth-https://h/r", "gs://b", "https://[::1]:8000/r"],
)
def test_what_is_a_repository(url: str) -> None:
    check_repository_url(url)


def test_one_repository_has_one_key() -> None:
    spellings = ("https://h/r", "https://h/r/", "HTTPS://H/r//", "oauth-https://h/r")
    assert {repository_key(url) for url in spellings} == {"https://h/r"}
    storage = ("gs://b/r", "gs://b/r/", "https://storage.googleapis.com/b/r")
    assert {repository_key(url) for url in storage} == {"gs://b/r"}
    assert repository_key("https://h/R") != repository_key("https://h/r")


def test_shown_addresses_have_no_secrets() -> None:
    assert shown("oauth-https://user:pass@h/r?token=1") == "oauth-https://h/r"


_TEXTS = st.one_of(
    st.text(),
    st.builds(
        "".join,
        st.lists(
            st.sampled_from(
                ["oauth-", "https://", "gs://", "file://", "/", "..", "%2e", "%00", "\\", "h", "b"]
                + ["[", "]", ":", "?", "#", "@", "C:", "\n", "\ud800", "storage.googleapis.com"]
            )
        ),
    ),
)


@given(_TEXTS, _TEXTS)
def test_any_address_and_source_join_or_fail_cleanly(repository: str, source: str) -> None:
    try:
        check_repository_url(repository)
    except GuestError:
        return
    is_safe(repository)
    repository_key(repository)
    child_url(repository, "index")
    local_path(split_oauth(repository)[0])
    try:
        url = joined(repository, source)
    except UrlError:
        return
    # Whatever the source says, host, bucket and drive stay.
    own = child_url(repository, "x")
    if "://" in own and parse_storage(split_oauth(own)[0]) is None:
        assert url.split("/")[:3] == own.split("/")[:3]
        assert ".." not in url.split("?")[0].split("/")[3:]


@given(_BUCKETS, _OBJECTS, _TEXTS)
def test_no_source_leaves_its_bucket(bucket: str, name: str, source: str) -> None:
    for repository in (f"gs://{bucket}/{name}", f"https://storage.googleapis.com/{bucket}/{name}"):
        url = joined(repository, source)
        location = parse_storage(url.replace("\n", "").replace("\r", ""))
        assert location is None or location.bucket == bucket
