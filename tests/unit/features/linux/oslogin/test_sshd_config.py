"""sshd_config: which directives stand where, for every combination of switches."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.features.linux.oslogin import sshd_config
from google_guest.features.linux.oslogin.blocks import END, START
from google_guest.features.linux.oslogin.layout import FREEBSD, LINUX, Switches

ALL = [Switches(*values) for values in itertools.product((False, True), repeat=4)]
ADMIN = "Port 22\nMatch User bob\n  X11Forwarding no\n"


def enabled(switches: Switches, text: str = ADMIN, **options: bool) -> str:
    chosen = {"includes": True, "keys_command": True, **options}
    return sshd_config.enable(text, switches, LINUX, **chosen)


@pytest.mark.parametrize("switches", ALL, ids=repr)
def test_directives_follow_the_switches(switches: Switches) -> None:
    text = enabled(switches)
    certificates = (switches.certificates or switches.cert_authentication) and (
        not switches.security_keys
    )
    keys = not switches.certificates or switches.security_keys
    helper = "google_authorized_keys_sk" if switches.security_keys else "google_authorized_keys"
    header = [
        *(
            [
                "TrustedUserCAKeys /etc/ssh/oslogin_trustedca.pub",
                "AuthorizedPrincipalsCommand /usr/bin/google_authorized_principals %u %k",
                "AuthorizedPrincipalsCommandUser root",
            ]
            if certificates
            else []
        ),
        *(
            [f"AuthorizedKeysCommand /usr/bin/{helper}", "AuthorizedKeysCommandUser root"]
            if keys
            else []
        ),
        *(
            [
                "AuthenticationMethods publickey,keyboard-interactive",
                "ChallengeResponseAuthentication yes",
            ]
            if switches.two_factor
            else []
        ),
    ]
    footer = ["Match all", "Include /var/google-users.d/*"]
    if switches.two_factor:
        footer += ["Match User sa_*", "       AuthenticationMethods publickey"]
    expected = [START, *header, END, *ADMIN.splitlines(), START, *footer, END]
    assert text.splitlines() == expected


@pytest.mark.parametrize("switches", ALL, ids=repr)
def test_disabling_gives_back_the_text(switches: Switches) -> None:
    assert sshd_config.disable(enabled(switches)) == ADMIN


@given(st.text(), st.sampled_from(ALL), st.sampled_from(ALL))
def test_enabling_twice_is_enabling_once(text: str, first: Switches, second: Switches) -> None:
    once = enabled(second, text)
    assert enabled(second, once) == once
    assert enabled(second, enabled(first, text)) == once


def test_lines_behind_an_unterminated_block_survive() -> None:
    text = f"{START}\nAuthorizedKeysCommandUser root\nPort 2222\nPermitRootLogin no\n"
    assert sshd_config.disable(text) == "Port 2222\nPermitRootLogin no\n"


def test_an_old_sshd_gets_no_include() -> None:
    assert "Include" not in enabled(Switches(), includes=False)


def test_another_folder_of_helpers_is_used() -> None:
    text = sshd_config.enable("", Switches(), FREEBSD, includes=True, keys_command=True)
    assert "AuthorizedKeysCommand /usr/local/bin/google_authorized_keys\n" in text


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("AuthorizedKeysCommand /opt/x %u\n", "/opt/x"),
        ('authorizedkeyscommand = "/opt/x" %u\n', "/opt/x"),
        ("Include a.conf\n", "/opt/included"),
        ("Include deep.conf\n", "/opt/included"),
        ("Include loop.conf\n", ""),
        ("Match all\nAuthorizedKeysCommand /opt/x\n", ""),
        ("#AuthorizedKeysCommand /opt/x\n", ""),
        ("AuthorizedKeysCommand none\n", ""),
        ("AuthorizedKeysCommand /usr/bin/google_authorized_keys\n", ""),
        ("AuthorizedKeysCommand /usr/bin/userdbctl ssh-authorized-keys %u\n", ""),
        ("AuthorizedKeysCommand /usr/bin/userdbctl else\n", "/usr/bin/userdbctl"),
    ],
)
def test_somebody_elses_command_is_found(text: str, program: str) -> None:
    files = {
        "a.conf": "AuthorizedKeysCommand /opt/included\n",
        "deep.conf": "Include a.conf\n",
        "loop.conf": "Include loop.conf\n",
    }
    found = sshd_config.foreign_keys_command(text, lambda pattern: [files.get(pattern, "")])
    assert found == program


def test_our_own_block_is_nobody_elses() -> None:
    text = enabled(Switches(security_keys=True))
    assert sshd_config.foreign_keys_command(text, lambda pattern: []) == ""


@given(st.text())
def test_any_text_is_searched(text: str) -> None:
    sshd_config.foreign_keys_command(text, lambda pattern: [text])
