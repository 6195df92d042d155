"""Who is wanted, with which keys, according to metadata and configuration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Optional

from google_guest.config import Config
from google_guest.metadata.tree import Metadata
from google_guest.records import record
from google_guest.ssh_keys import (
    BadLine,
    KeyLine,
    KeySource,
    Verdict,
    expiry_option,
    judge_keys,
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


@record
class KeyExplanation:
    """One line of metadata and what becomes of it, for people."""

    level: str
    attribute: str
    user: str
    key_type: str
    tail: str
    """The last characters of the key; the whole key is never shown."""
    comment: str
    expires_at: Optional[float]
    accepted: bool
    reason: str
    """Why the line is not used; ``accepted`` if it is."""

    def as_dict(self) -> dict[str, Any]:
        """Return the form that ``--json`` prints."""
        return {
            "user": self.user,
            "level": self.level,
            "attribute": self.attribute,
            "type": self.key_type,
            "key_ends_with": self.tail,
            "comment": self.comment,
            "expires": self.expires_text or None,
            "accepted": self.accepted,
            "reason": self.reason,
        }

    def cells(self) -> tuple[str, ...]:
        """Return user, origin, type, end of key, expiry and verdict."""
        return (
            self.user or "?",
            f"{self.level} {self.attribute}",
            self.key_type or "-",
            f"...{self.tail}" if self.tail else "-",
            self.expires_text or "never",
            self.reason,
        )

    @property
    def expires_text(self) -> str:
        """When the key expires (UTC); empty when it does not."""
        if self.expires_at is None:
            return ""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.expires_at))


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
    rows = []
    for judged in judge_keys(metadata, now):
        line = judged.line
        reason = judged.verdict.value
        if judged.verdict is not Verdict.ACCEPTED:
            reason = f"{reason}: {judged.reason}"
        elif general:
            reason = general
        elif line.user in denied:
            reason = "unused: [Accounts] deny_users names the user"
        rows.append(_explanation(judged.source, line, reason))
    return tuple(rows)


def _explanation(source: KeySource, line: object, reason: str) -> KeyExplanation:
    if isinstance(line, KeyLine):
        user, key_type, tail, comment = line.user, line.key_type, line.tail, line.comment
        expires_at = line.expires_at
    else:
        assert isinstance(line, BadLine)
        user, key_type, tail, comment = line.user, line.key_type, line.tail, line.comment
        expires_at = None
    return KeyExplanation(
        level=source.level,
        attribute=source.attribute,
        user=user,
        key_type=key_type,
        tail=tail,
        comment=comment,
        expires_at=expires_at,
        accepted=reason == Verdict.ACCEPTED.value,
        reason=reason,
    )


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
