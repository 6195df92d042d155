"""Which proxy an address is fetched through."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.scripts.proxies import proxy_for

PROXY = {"HTTPS_PROXY": "http://proxy:3128", "HTTP_PROXY": "plain:80"}


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://example.test/x", "http://proxy:3128"),
        ("http://example.test/x", "http://plain:80"),
        ("http://10.0.0.5/x", "http://plain:80"),
        ("http://localhost/x", None),
        ("http://127.0.0.1:8/x", None),
        ("http://[::1]/x", None),
        ("http://169.254.169.254/x", None),
        ("http://metadata.google.internal/x", None),
        ("http://[fd20:ce::254]/x", None),
    ],
)
def test_proxy_of_an_address(url: str, proxy: Optional[str]) -> None:
    assert proxy_for(url, PROXY) == proxy


@pytest.mark.parametrize(
    ("exceptions", "direct"),
    [
        ("*", True),
        ("example.test", True),
        (".example.test", True),
        ("*.example.test", True),
        ("EXAMPLE.test", True),
        ("a.example.test:443", True),
        ("a.example.test:80", False),
        ("other.test, example.test", True),
        ("ample.test", False),
        ("b.example.test", False),
        ("", False),
    ],
)
def test_exception_for_a_name(exceptions: str, direct: bool) -> None:
    found = proxy_for("https://a.example.test/x", {**PROXY, "NO_PROXY": exceptions})
    assert (found is None) is direct


@pytest.mark.parametrize(
    ("exceptions", "direct"),
    [
        ("10.1.2.3", True),
        ("10.1.2.3:443", True),
        ("10.0.0.0/8", True),
        ("10.2.0.0/16", False),
        ("10.0.0.0/99", False),
        ("2.3", False),
    ],
)
def test_exception_for_an_address(exceptions: str, direct: bool) -> None:
    found = proxy_for("https://10.1.2.3/x", {**PROXY, "no_proxy": exceptions})
    assert (found is None) is direct


def test_lower_case_variables_count() -> None:
    assert proxy_for("https://h/", {"https_proxy": "http://p"}) == "http://p"


def test_without_variables_there_is_no_proxy() -> None:
    assert proxy_for("https://h/", {}) is None


def test_header_of_a_cgi_program_is_no_proxy() -> None:
    assert proxy_for("http://h/", {**PROXY, "REQUEST_METHOD": "GET"}) is None


@given(st.text())
def test_any_exception_list_is_read(text: str) -> None:
    chosen = proxy_for("https://example.test/", {**PROXY, "NO_PROXY": text})
    assert chosen in (None, proxy_for("https://example.test/", PROXY))
