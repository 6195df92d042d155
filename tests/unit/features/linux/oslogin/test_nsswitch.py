"""nsswitch.conf: our services in their places, and out again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.features.linux.oslogin import nsswitch
from google_guest.features.linux.oslogin.layout import FREEBSD, LINUX


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("passwd: files", "passwd: files cache_oslogin oslogin"),
        ("group:  files sss\n", "group:  files sss cache_oslogin oslogin\n"),
        ("passwd: files # note\n", "passwd: files cache_oslogin oslogin # note\n"),
        ("passwd : files  \n", "passwd : files cache_oslogin oslogin  \n"),
        ("  passwd:\tfiles\n", "  passwd:\tfiles cache_oslogin oslogin\n"),
        ("initgroups: files\n", "initgroups: files cache_oslogin oslogin\n"),
        ("passwd: files oslogin\n", "passwd: files oslogin\n"),
        ("passwd: files # oslogin\n", "passwd: files cache_oslogin oslogin # oslogin\n"),
        ("shadow: files\n", "shadow: files\n"),
        ("#passwd: files\n", "#passwd: files\n"),
        ("passwd_compat: nis\n", "passwd_compat: nis\n"),
        ("", ""),
    ],
)
def test_services_are_put_in(before: str, after: str) -> None:
    assert nsswitch.enable(before, LINUX) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("passwd: files cache_oslogin oslogin\n", "passwd: files\n"),
        ("passwd: files cache_oslogin oslogin sss\n", "passwd: files sss\n"),
        ("passwd: files oslogin # x\n", "passwd: files # x\n"),
        ("group: files\n", "group: files\n"),
        ("hosts: files oslogin\n", "hosts: files oslogin\n"),
    ],
)
def test_services_are_taken_out(before: str, after: str) -> None:
    assert nsswitch.disable(before, LINUX) == after


def test_compat_gives_way_where_the_platform_wants_it() -> None:
    text = nsswitch.enable("passwd: compat\n", FREEBSD)
    assert text == "passwd: files cache_oslogin oslogin\n"


lines = st.lists(
    st.sampled_from(
        ["passwd: files", "group: compat systemd # x", "hosts: dns", "", "initgroups: a"]
    )
    | st.text().filter(lambda text: "oslogin" not in text)
).map("\n".join)


@given(lines)
def test_out_is_the_opposite_of_in(text: str) -> None:
    once = nsswitch.enable(text, LINUX)
    assert nsswitch.enable(once, LINUX) == once
    assert nsswitch.disable(once, LINUX) == text
