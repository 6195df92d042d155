"""Which mirror the root trees of the beds come from."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.roots import debian_mirror

DEB822 = """\
Types: deb
# URIs: http://old.example/debian
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates

Types: deb
URIs: http://archive.example/debian-security
Suites: bookworm-security
"""


@pytest.mark.parametrize(
    ("sources", "mirror"),
    [
        ([DEB822], "http://archive.example/debian"),
        (["deb http://archive.example/debian bookworm main\n"], "http://archive.example/debian"),
        (["deb http://archive.example/debian/ bookworm main\n"], "http://archive.example/debian"),
        (
            ["deb [signed-by=/k.gpg arch=amd64] https://a.example/x/debian bookworm main"],
            "https://a.example/x/debian",
        ),
        (["# deb http://archive.example/debian bookworm main\n"], None),
        (["deb http://archive.example/debian-security bookworm-security main\n"], None),
        (["deb-src http://archive.example/debian bookworm main\n"], None),
        (["deb https://tools.example/apt stable main\n", DEB822], "http://archive.example/debian"),
        ([], None),
    ],
)
def test_mirror_is_the_first_archive_of_the_hosts_sources(
    sources: list[str], mirror: Optional[str]
) -> None:
    assert debian_mirror(sources) == mirror


@given(st.lists(st.text()))
def test_any_text_of_sources_gives_a_mirror_or_none(sources: list[str]) -> None:
    found = debian_mirror(sources)
    assert found is None or found.endswith("/debian")
