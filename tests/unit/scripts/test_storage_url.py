"""What the value of a -url key names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.errors import GuestError
from google_guest.scripts.storage_url import (
    BadScriptUrl,
    StorageObject,
    WebAddress,
    is_universe,
    may_need_universe,
    parse_script_url,
    shown_url,
)

FORMS = [
    "gs://bucket-1/a/b.sh",
    "https://bucket-1.storage.{u}/a/b.sh",
    "http://bucket-1.storage.{u}/a/b.sh",
    "https://storage.cloud.{u}/bucket-1/a/b.sh",
    "https://storage.{u}/bucket-1/a/b.sh",
    "http://storage.{u}/bucket-1/a/b.sh",
    "https://commondatastorage.{u}/bucket-1/a/b.sh",
]


@pytest.mark.parametrize("form", [*FORMS, "https://storage.cloud.google.com/bucket-1/a/b.sh"])
def test_form_names_an_object(form: str) -> None:
    value = form.format(u="googleapis.com")
    assert parse_script_url(value) == StorageObject("bucket-1", b"a/b.sh")


@pytest.mark.parametrize("form", FORMS)
def test_form_names_an_object_of_another_universe(form: str) -> None:
    found = parse_script_url(form.format(u="example.test"), universe="example.test")
    assert found == StorageObject("bucket-1", b"a/b.sh")
    assert found.url("example.test") == "https://storage.example.test/bucket-1/a/b.sh"


@pytest.mark.parametrize(
    "value",
    [
        "https://storage.cloud.google.com/b/o",
        "https://storage.googleapis.com/b/o",
        "https://b.storage.googleapis.com/o",
    ],
)
def test_hosts_of_the_default_universe_are_strangers_in_another(value: str) -> None:
    assert parse_script_url(value, universe="example.test") == WebAddress(value)


@pytest.mark.parametrize(
    "value",
    [
        "https://example.test/b/o",
        "https://storage.googleapis.com.example.test/b/o",
        "https://storageXgoogleapis.com/b/o",
        "https://storage.googleapis.com:444/b/o",
        "https://user@storage.googleapis.com/b/o",
        "https://storage.googleapis.com/b/o?X-Goog-Signature=x",
        "https://storage.googleapis.com/b",
        "https://storage.googleapis.com/b/",
        "https://storage.googleapis.com/B/o",
        "http://10.0.0.5/x.sh",
        "https://example.test",
    ],
)
def test_other_addresses_are_taken_as_they_are(value: str) -> None:
    assert parse_script_url(f" {value}\n") == WebAddress(value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("gs://b/a b.sh", "/b/a%20b.sh"),
        ("gs://b/a%20b.sh", "/b/a%2520b.sh"),
        ("https://storage.googleapis.com/b/a%20b.sh", "/b/a%20b.sh"),
        ("https://storage.googleapis.com/b/a%2Fb.sh", "/b/a/b.sh"),
        ("https://b.storage.googleapis.com/%C3%BC", "/b/%C3%BC"),
        ("gs://b/o?x=1", "/b/o%3Fx%3D1"),
        ("gs://b/o#123", "/b/o?generation=123"),
        ("gs://b/o#12x", "/b/o%2312x"),
        ("gs://b/#1", "/b/%231"),
        ("gs://b/a/../b/./c", "/b/a/%2E%2E/b/%2E/c"),
        ("gs://b//x/", "/b//x/"),
        ("GS://b/o\n", "/b/o"),
    ],
)
def test_object_is_encoded_once(value: str, path: str) -> None:
    found = parse_script_url(value)
    assert isinstance(found, StorageObject)
    assert found.url("googleapis.com") == f"https://storage.googleapis.com{path}"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("ftp://example.test/x", 'unsupported URL scheme "ftp"'),
        ("file:///etc/passwd", 'unsupported URL scheme "file"'),
        ("gs:b/o", "gs://BUCKET/OBJECT"),
        ("gs://b", "gs://BUCKET/OBJECT"),
        ("gs://b/", "gs://BUCKET/OBJECT"),
        ("gs://Bucket/o", "gs://BUCKET/OBJECT"),
        ("https:///x", "no host"),
        ("secret", "no URL"),
        ("https://a/secret\nGET", "no URL"),
        ("", "no URL"),
    ],
)
def test_other_values_are_refused_and_not_shown(value: str, complaint: str) -> None:
    with pytest.raises(BadScriptUrl, match=complaint) as refused:
        parse_script_url(value)
    assert "secret" not in str(refused.value)


@given(st.text())
def test_any_text_is_parsed_or_refused(value: str) -> None:
    for text in (value, f"gs://b/{value}", f"https://{value}", f"https://storage.x/{value}"):
        try:
            found = parse_script_url(text, universe="x")
        except GuestError:
            continue
        if isinstance(found, StorageObject):
            assert found.url("x").isascii()


@given(st.text(min_size=1).map(lambda text: "x" + text + "x"))
def test_gs_object_is_found_again_in_its_https_form(name: str) -> None:
    try:
        literal = parse_script_url(f"gs://bucket/{name}")
    except (BadScriptUrl, UnicodeEncodeError):
        return
    assert isinstance(literal, StorageObject)
    assert parse_script_url(literal.url("googleapis.com")) == literal


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/p?X-Goog-Signature=s", "https://h/p"),
        ("https://user:secret@h/p#f", "https://h/p"),
        ("https://h", "https://h"),
        ("https://h?user@x", "https://h"),
        ("https://h/a@b", "https://h/a@b"),
    ],
)
def test_shown_address_has_no_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    ("value", "needed"),
    [("gs://b/o", True), (" https://storage.x/b", True), ("https://h/storage", False)],
)
def test_universe_is_asked_for_only_when_it_matters(value: str, needed: bool) -> None:
    assert may_need_universe(value) is needed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("googleapis.com", True),
        ("example", True),
        ("", False),
        ("a/b", False),
        ("a:1", False),
        ("-a", False),
        ("a..b", False),
        ("evil@x", False),
    ],
)
def test_universe_must_be_a_domain(text: str, answer: bool) -> None:
    assert is_universe(text) is answer
