"""Names and contents of scripts' files on Windows."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.scripts.events import WINDOWS
from google_guest.scripts.windows_files import (
    EXTENSIONS,
    extension_of_content,
    extension_of_key,
    extension_of_url,
    prepare_inline,
)

MARK = b"\xef\xbb\xbf"
TEXT = st.text(alphabet=st.one_of(st.sampled_from("\r\n ab:%é€\ufeff"), st.characters()))
LEADING = st.text(alphabet=" \n\v\f\t\r\ufeff", max_size=6)


@pytest.mark.parametrize(
    ("key", "extension"),
    [
        ("windows-startup-script-ps1", ".ps1"),
        ("windows-startup-script-cmd", ".cmd"),
        ("windows-shutdown-script-bat", ".bat"),
        ("sysprep-specialize-script-ps1", ".ps1"),
        ("something-exe", ".exe"),
        ("windows-startup-script-url", None),
        ("windows-startup-script-PS1", None),
        ("ps1", None),
    ],
)
def test_last_word_of_the_key_is_the_extension(key: str, extension: Optional[str]) -> None:
    assert extension_of_key(key) == extension


def test_every_inline_key_has_an_extension() -> None:
    for event in WINDOWS.values():
        assert [extension_of_key(key) for key in event.keys] == [".ps1", ".cmd", ".bat", None]


@pytest.mark.parametrize(
    ("url", "extension"),
    [
        ("https://a.test/x.ps1", ".ps1"),
        ("https://a.test/x.CMD", ".cmd"),
        ("https://a.test/x.exe?sig=a.bat", ".exe"),
        ("https://a.test/x?file=a.bat", None),
        ("https://a.test/x#a.bat", None),
        ("https://a.test/x.bat#part", ".bat"),
        ("http://a.test/x.bat.txt", None),
        ("gs://bucket/folder/x.bat", ".bat"),
        ("gs://bucket/x.bat#1234", ".bat"),
        ("gs://bucket/what?.bat", ".bat"),
        ("gs://bucket/x.bat?y", None),
        (" \n gs://bucket/x.exe \n", ".exe"),
        ("https://a.test", None),
        ("x.ps1", None),
        ("", None),
    ],
)
def test_path_of_the_url_has_the_extension(url: str, extension: Optional[str]) -> None:
    assert extension_of_url(url) == extension


@given(st.sampled_from(EXTENSIONS), st.text(alphabet="abc/.?&=#", max_size=20))
def test_query_never_decides(extension: str, query: str) -> None:
    assert extension_of_url(f"https://a.test/script{extension}?{query}") == extension


@given(st.text(max_size=60))
def test_any_url_has_a_known_extension_or_none(url: str) -> None:
    assert extension_of_url(url) in (*EXTENSIONS, None)


@pytest.mark.parametrize(
    ("head", "extension"), [(b"MZ", ".exe"), (b"MZ\x90\0", ".exe"), (b"M", None), (b"", None)]
)
def test_program_is_known_by_its_first_bytes(head: bytes, extension: Optional[str]) -> None:
    assert extension_of_content(head) == extension


@pytest.mark.parametrize(
    ("value", "extension", "data"),
    [
        ("Write-Host 'a'\n", ".ps1", b"Write-Host 'a'\n"),
        ("Write-Host 'ä'\n", ".ps1", MARK + "Write-Host 'ä'\n".encode()),
        ("\ufeffWrite-Host 'ä'", ".ps1", MARK + "Write-Host 'ä'".encode()),
        ("\ufeffWrite-Host", ".ps1", b"Write-Host"),
        (" \n\t@echo off\r\n", ".cmd", b"@echo off\r\n"),
        ("a\nb\r\nc\n\nd", ".cmd", b"a\r\nb\r\nc\r\n\r\nd"),
        ("a\nä", ".bat", b"a\r\n\xc3\xa4"),
        ("\ufeff@echo ä", ".bat", "@echo ä".encode()),
        ("a\rb\n", ".bat", b"a\rb\r\n"),
        ("a\nb", ".exe", b"a\nb"),
    ],
)
def test_inline_value_becomes_a_file(value: str, extension: str, data: bytes) -> None:
    assert prepare_inline(value, extension) == data


@given(LEADING, TEXT, st.sampled_from([".cmd", ".bat"]))
def test_batch_has_no_lone_lf_and_no_mark(before: str, value: str, extension: str) -> None:
    data = prepare_inline(before + value, extension)
    assert b"\n" not in data.replace(b"\r\n", b"")
    assert not data.startswith(MARK)


@given(LEADING, TEXT, st.sampled_from([".cmd", ".bat", ".ps1"]))
def test_text_itself_never_changes(before: str, value: str, extension: str) -> None:
    data = prepare_inline(before + value, extension)
    wanted = value.lstrip(" \n\v\f\t\r\ufeff").encode("utf-8", "surrogatepass")
    if data.startswith(MARK):
        data = data[len(MARK) :]
    assert data.replace(b"\r\n", b"\n") == wanted.replace(b"\r\n", b"\n")


@given(LEADING, TEXT)
def test_powershell_file_has_a_mark_exactly_if_it_needs_one(before: str, value: str) -> None:
    data = prepare_inline(before + value, ".ps1")
    assert data.startswith(MARK) is not data.isascii()
    assert not data[len(MARK) :].startswith(MARK)


@given(TEXT, st.sampled_from([".cmd", ".bat"]))
def test_batch_that_is_prepared_stays_as_it_is(value: str, extension: str) -> None:
    once = prepare_inline(value, extension)
    assert prepare_inline(once.decode("utf-8", "surrogatepass"), extension) == once
