"""pam.d/sshd, pam.d/su and group.conf: our lines, their order, and what older programs left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.features.linux.oslogin import group_conf, pam
from google_guest.features.linux.oslogin.blocks import END, OLD_MARKER, START
from google_guest.features.linux.oslogin.layout import FREEBSD, LINUX, Switches

LOGIN = "@include common-auth\n"


def test_groups_come_before_a_second_factor_that_ends_the_stack() -> None:
    assert pam.enable_sshd(LOGIN, Switches(two_factor=True), LINUX).splitlines() == [
        START,
        "auth [default=ignore] pam_group.so",
        "auth [success=done perm_denied=die default=ignore] pam_oslogin_login.so",
        END,
        "@include common-auth",
        START,
        "session [success=ok default=ignore] pam_mkhomedir.so",
        END,
    ]


def test_without_a_second_factor_its_module_is_not_named() -> None:
    assert "pam_oslogin_login" not in pam.enable_sshd(LOGIN, Switches(), LINUX)


def test_the_other_pam_knows_one_word() -> None:
    assert "auth optional pam_oslogin_login.so" in pam.enable_sshd(
        LOGIN, Switches(two_factor=True), FREEBSD
    )


@given(st.text(), st.booleans())
def test_out_is_the_opposite_of_in(text: str, two_factor: bool) -> None:
    text = f"{text}\n"
    once = pam.enable_sshd(text, Switches(two_factor=two_factor), LINUX)
    assert pam.enable_sshd(once, Switches(two_factor=two_factor), LINUX) == once
    assert pam.disable_sshd(once) == text


def test_account_lines_behind_the_old_marker_go() -> None:
    old = (
        f"{OLD_MARKER}\naccount [success=ok ignore=ignore default=die] pam_oslogin_login.so\n"
        f"{OLD_MARKER}\naccount [success=ok default=ignore] pam_oslogin_admin.so\n"
    )
    assert pam.disable_sshd(LOGIN + old) == LOGIN


def test_an_administrators_account_line_stays() -> None:
    line = "account [success=1 default=ignore] pam_oslogin_login.so\n"
    assert pam.disable_sshd(LOGIN + line) == LOGIN + line


@pytest.mark.parametrize("gap", [" ", "    ", "\t"])
def test_the_line_that_broke_su_goes(gap: str) -> None:
    line = f"account{gap}[success=bad ignore=ignore] pam_oslogin_login.so\n"
    assert pam.without_deprecated_su(f"auth a\n{line}session b\n") == "auth a\nsession b\n"


def test_only_that_line_of_su_goes() -> None:
    text = "account [success=1 default=ignore] pam_oslogin_login.so\n"
    assert pam.without_deprecated_su(text) == text


def test_video_is_the_only_group() -> None:
    added = group_conf.enable("# x\n").removeprefix("# x\n").splitlines()
    assert added == [START, "sshd;*;*;Al0000-2400;video", END]


def test_an_older_group_line_is_replaced() -> None:
    old = f"# x\n{OLD_MARKER}\nsshd;*;*;Al0000-2400;adm,docker,video\n"
    assert group_conf.disable(old) == "# x\n"
    assert "docker" not in group_conf.enable(old)
