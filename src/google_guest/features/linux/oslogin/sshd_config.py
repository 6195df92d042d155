"""sshd_config: a block before everything, because the first value counts, and one behind.

Source: guest-agent ``google_guest_agent/oslogin.go`` for the directives; mindrot bug 3574 for their
order; sshd_config(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from google_guest.features.linux.oslogin.blocks import block, ended, without_blocks
from google_guest.features.linux.oslogin.layout import Layout, Switches

USERS_FILES = "/var/google-users.d/*"

_KEYS_PROGRAMS = ("google_authorized_keys", "google_authorized_keys_sk")
_DIRECTIVE = re.compile(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)")
_DEEPEST = 16
_OURS = re.compile(
    r"TrustedUserCAKeys /etc/ssh/oslogin_trustedca\.pub"
    r"|AuthorizedPrincipalsCommand \S+/google_authorized_principals %u %k"
    r"|AuthorizedKeysCommand \S+/google_authorized_keys(?:_sk)?"
    r"|Authorized(?:Principals|Keys)CommandUser root|AuthorizedKeysCommandRunAs root"
    r"|AuthenticationMethods publickey(?:,keyboard-interactive)?"
    r"|RequiredAuthentications2 publickey,keyboard-interactive"
    r"|ChallengeResponseAuthentication yes|Match all|Match User sa_\*"
    r"|Include /var/google-users\.d/\*"
)


def enable(
    text: str, switches: Switches, layout: Layout, *, includes: bool, keys_command: bool
) -> str:
    """Return ``text`` with our blocks.

    ``includes``: this sshd has Include. ``keys_command``: nobody else's command is asked for keys.
    """
    header = []
    if switches.offers_certificates:
        header += [
            "TrustedUserCAKeys /etc/ssh/oslogin_trustedca.pub",
            f"AuthorizedPrincipalsCommand {layout.helpers}/google_authorized_principals %u %k",
            "AuthorizedPrincipalsCommandUser root",
        ]
    if switches.offers_keys and keys_command:
        program = _KEYS_PROGRAMS[1 if switches.security_keys else 0]
        header += [
            f"AuthorizedKeysCommand {layout.helpers}/{program}",
            "AuthorizedKeysCommandUser root",
        ]
    if switches.two_factor:
        header += [
            "AuthenticationMethods publickey,keyboard-interactive",
            "ChallengeResponseAuthentication yes",
        ]
    footer = [f"Include {USERS_FILES}"] if includes else []
    if switches.two_factor:
        footer += ["Match User sa_*", "       AuthenticationMethods publickey"]
    if footer:
        # An administrator's last Match would swallow what follows it.
        footer.insert(0, "Match all")
    return block(header) + ended(disable(text)) + block(footer)


def disable(text: str) -> str:
    """Return ``text`` without our blocks."""
    return without_blocks(text, lambda line: _OURS.fullmatch(line) is not None)


def foreign_keys_command(text: str, read: Callable[[str], Iterable[str]]) -> str:
    """Return the program that somebody else has sshd ask for keys; empty if there is none.

    ``read`` returns the texts of the files that the pattern of an Include line names. Only the
    global part counts, of every file.
    """
    for program, argument in _keys_commands(disable(text), read, 0):
        name = program.rpartition("/")[2]
        is_systemd = name == "userdbctl" and argument == "ssh-authorized-keys"
        if program.lower() != "none" and name not in _KEYS_PROGRAMS and not is_systemd:
            return program
    return ""


def _keys_commands(
    text: str, read: Callable[[str], Iterable[str]], depth: int
) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        match = _DIRECTIVE.fullmatch(line)
        if match is None:
            continue
        keyword, words = match[1].lower(), match[2].replace('"', " ").split()
        if keyword == "match":
            return
        if keyword == "authorizedkeyscommand" and words:
            yield words[0], words[1] if len(words) > 1 else ""
        elif keyword == "include" and depth < _DEEPEST:
            for pattern in words:
                for included in read(pattern):
                    yield from _keys_commands(included, read, depth + 1)
