"""Edits of files that hold marks, remains and damage: they end at once and never grow."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.features.linux.oslogin import group_conf, nsswitch, pam, sshd_config
from google_guest.features.linux.oslogin.blocks import END, OLD_MARKER, START, ended
from google_guest.features.linux.oslogin.layout import FREEBSD, LINUX, Layout, Switches

switches = st.sampled_from([Switches(*v) for v in itertools.product((False, True), repeat=4)])
texts = st.lists(
    st.sampled_from(
        [
            *(START, END, OLD_MARKER, "\r", "\x85", "\udcff", "Port 22\r", "Match User bob"),
            *(
                "passwd: files",
                "passwd:",
                "group: oslogin",
                "group: files oslogin sss",
                "passwd: x#",
            ),
            *("initgroups: files cache_oslogin", "AuthorizedKeysCommandUser root", group_conf.LINE),
            *(
                "auth optional pam_group.so",
                "account [success=bad ignore=ignore] pam_oslogin_login.so",
            ),
        ]
    )
    | st.text()
).map("\n".join)


def sshd(text: str, chosen: Switches) -> str:
    return sshd_config.enable(text, chosen, LINUX, includes=True, keys_command=True)


@given(texts, switches, switches)
def test_the_last_switches_decide_sshd_config(text: str, first: Switches, last: Switches) -> None:
    wanted = sshd(text, last)
    assert sshd(wanted, last) == wanted
    assert sshd(sshd(text, first), last) == wanted
    assert sshd_config.disable(wanted) == ended(sshd_config.disable(text))


@given(texts, switches, switches)
def test_the_last_switches_decide_pam(text: str, first: Switches, last: Switches) -> None:
    wanted = pam.enable_sshd(text, last, LINUX)
    assert pam.enable_sshd(wanted, last, LINUX) == wanted
    assert pam.enable_sshd(pam.enable_sshd(text, first, LINUX), last, LINUX) == wanted
    assert pam.disable_sshd(wanted) == ended(pam.disable_sshd(text))


@given(texts)
def test_group_conf_never_grows(text: str) -> None:
    once = group_conf.enable(text)
    assert group_conf.enable(once) == once
    assert group_conf.disable(once) == ended(group_conf.disable(text))


@pytest.mark.parametrize("layout", [LINUX, FREEBSD], ids=["linux", "freebsd"])
@given(text=texts)
def test_services_are_named_once(layout: Layout, text: str) -> None:
    once = nsswitch.enable(text, layout)
    assert nsswitch.enable(once, layout) == once
    without = nsswitch.disable(text, LINUX)
    assert nsswitch.disable(without, LINUX) == without
    assert nsswitch.disable(nsswitch.enable(without, LINUX), LINUX) == without


@given(texts)
def test_su_is_cleaned_at_once(text: str) -> None:
    once = pam.without_deprecated_su(text)
    assert pam.without_deprecated_su(once) == once
