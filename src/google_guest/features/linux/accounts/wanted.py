"""Who is wanted, with which keys, according to metadata and configuration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Optional

from google_guest.config import Config
from google_guest.features.key_explanations import KeyExplanation, explanations
from google_guest.metadata.tree import Metadata
from google_guest.records import record
from google_guest.ssh_keys import (
    BadLine,
    KeyLine,
    KeySource,
    expiry_option,
    wanted_keys,
)

OSLOGIN_SWITCH = "enable-oslogin"
_MOST_LINES_NOTED = 20
_LAST_YEAR = 9999
"""sshd reads four digits."""


@record
class WantedUsers:
    """The users who shall be able to log in, and the lines for their authorized_keys."""

    users: Mapping[str, tuple[str, ...]]
    next_expiry: Optional[float] = None
    notes: tuple[str, ...] = ()


def is_oslogin_on(metadata: Metadata, config: Config) -> bool:
    """Return whether logins are OS Login's business, so that no key of metadata counts."""
    switch = metadata.switch(OSLOGIN_SWITCH)
    return config.daemons.oslogin_daemon and switch is not None and switch[0]


def denied_names(config: Config) -> frozenset[str]:
    """Return the names that ``[Accounts] deny_users`` keeps from being managed."""
    names = (name.strip() for name in config.accounts.deny_users.split(","))
    return frozenset(name for name in names if name)


def wanted_users(metadata: Metadata, config: Config, now: float) -> WantedUsers:
    """Return who is wanted at ``now`` (Unix seconds); nobody while OS Login is on."""
    if is_oslogin_on(metadata, config):
        return WantedUsers(MappingProxyType({}))
    wanted = wanted_keys(metadata, now)
    notes = list(_notes_about(wanted.bad_lines))
    denied = denied_names(config)
    users = {}
    for user, lines in wanted.users.items():
        if user in denied:
            notes.append(f"user {user} is left alone: [Accounts] deny_users names it")
        else:
            users[user] = tuple(_written(line, config) for line in lines)
    return WantedUsers(MappingProxyType(users), wanted.next_expiry, tuple(notes))


def served_keys(metadata: Metadata, config: Config, user: str, now: float) -> tuple[str, ...]:
    """Return the lines that an AuthorizedKeysCommand prints for ``user``."""
    return wanted_users(metadata, config, now).users.get(user, ())


def explain_keys(metadata: Metadata, config: Config, now: float) -> tuple[KeyExplanation, ...]:
    """Return every key line of metadata in order of precedence, with what becomes of it."""
    denied = denied_names(config)
    general = ""
    if not config.daemons.accounts_daemon:
        general = "unused: [Daemons] accounts_daemon = false"
    elif is_oslogin_on(metadata, config):
        general = "unused: OS Login is on"
    return explanations(metadata, now, unused=general, denied=denied)


def _written(line: KeyLine, config: Config) -> str:
    if not config.accounts.write_expiry_option or line.expires_at is None:
        return line.text
    local = time.localtime(line.expires_at)
    if local.tm_year > _LAST_YEAR:
        return line.text
    return expiry_option(line, time.strftime("%Y%m%d%H%M%S", local))


def _notes_about(bad_lines: tuple[tuple[KeySource, BadLine], ...]) -> tuple[str, ...]:
    """Return a sentence for each line that cannot be used, without repeats and within bounds."""
    texts: dict[str, None] = {}
    for source, line in bad_lines:
        whose = f" for user {line.user}" if line.user else ""
        what = f" ({line.key_type} ...{line.tail})" if line.tail else ""
        texts[
            f"{source.level} attribute {source.attribute}: a line{whose}{what} is not used:"
            f" {line.reason}"
        ] = None
    notes = tuple(texts)
    if len(notes) > _MOST_LINES_NOTED:
        more = len(notes) - _MOST_LINES_NOTED
        return (*notes[:_MOST_LINES_NOTED], f"{more} more key lines of metadata are not used")
    return notes
