"""SSH keys in metadata: the syntax of a line, and which lines count.

A line is ``USER:KEY``, KEY is one authorized_keys line (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"):
``[OPTIONS ]TYPE BASE64[ COMMENT]``. A comment that starts with the word ``google-ssh`` carries a
JSON object whose ``expireOn`` ends the key's life. ``parse_key_line`` never raises, whatever the
line; what is wrong with a line is said without repeating the line.

Lines come from up to four attributes. ``judge_keys`` walks them in order of precedence and says of
every line what becomes of it: the accounts feature, the AuthorizedKeysCommand helpers of both
platforms and ``google-guest keys`` all read this one verdict.

Expiry is a property of the moment, never of the line: nothing here remembers that a key was once
found expired, because the clock may have been wrong.

Source: guest-agent ``google_guest_agent/non_windows_accounts.go`` and ``utils/ssh.go``,
google-guest-agent ``internal/utils/ssh/ssh.go``, compute-image-packages ``accounts_daemon.py``;
RFC 4253 section 6.6 for the key blob, RFC 3339 for dates.
"""

from __future__ import annotations

import binascii
import enum
import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Optional, Union

from google_guest.booleans import parse_boolean
from google_guest.metadata.tree import Metadata
from google_guest.records import field, record

MARKER_COMMENT = "google-ssh"
LONGEST_LINE = 16 * 1024
"""Bytes of a line; sshd before 7.7 does not read longer ones (``SSH_MAX_PUBKEY_BYTES``)."""

_PLAIN_TYPES = (
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
KEY_TYPES = frozenset(_PLAIN_TYPES) | {
    f"{name.partition('@')[0]}-cert-v01@openssh.com" for name in _PLAIN_TYPES
}

_MOST_BRACKETS = 16
_WHITE_SPACE = " \t\r\n\v\f"
_BLANK = re.compile(r"[ \t]")
_BLANKS = re.compile(r"[ \t]+")
_UNPRINTABLE = re.compile("[\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_USER = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]{0,31}")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_DATE = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]{1,18})?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))"
)
_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS_TO_1970 = 719162
"""Days from 0001-01-01 to 1970-01-01."""


@record
class KeyLine:
    """A well-formed line."""

    user: str
    text: str = field(repr=False)
    """The authorized_keys line: everything behind the user's colon, outer blanks removed."""
    options: str
    key_type: str
    base64: str = field(repr=False)
    comment: str
    expires_at: Optional[float] = None
    """Unix seconds of ``expireOn``; None: the key never expires."""

    @property
    def tail(self) -> str:
        """The last 12 characters of the key, enough to recognise it in a log."""
        return self.base64[-12:]

    def is_expired(self, now: float) -> bool:
        """Whether the key's life ended before ``now`` (Unix seconds)."""
        return self.expires_at is not None and self.expires_at < now


@record
class BadLine:
    """A line that cannot be used; ``user``, ``key_type`` and ``tail`` as far as they are known."""

    reason: str
    user: str = ""
    key_type: str = ""
    tail: str = ""
    comment: str = ""


def is_user_name(name: str) -> bool:
    """Return whether ``name`` may be given to tools and name services of the platform.

    No leading ``-`` (an option), no path or shell characters, not only digits (``getent passwd 0``
    would find root by its number).
    """
    return _USER.fullmatch(name) is not None and name not in (".", "..") and not name.isdigit()


def parse_key_line(line: str) -> Union[KeyLine, BadLine, None]:
    """Return the line's parts, what is wrong with it, or None for a blank line or a comment."""
    text = line.strip(_WHITE_SPACE)
    if not text or text.startswith("#"):
        return None
    user, colon, key = text.partition(":")
    known_user = user if is_user_name(user) else ""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return BadLine("it is not Unicode text", known_user)
    if size > LONGEST_LINE:
        return BadLine(f"it is longer than {LONGEST_LINE} bytes", known_user)
    if _UNPRINTABLE.search(text):
        return BadLine("it contains a control character", known_user)
    if not colon:
        return BadLine("it has no ':' between user and key")
    if not user:
        return BadLine("it names no user")
    if not known_user:
        return BadLine("its user name is not allowed")
    return _parse_key(user, key.strip(_WHITE_SPACE))


def parse_expiry(text: str) -> Optional[float]:
    """Return the Unix seconds of an ``expireOn`` date, or None if it is none.

    RFC 3339, and ``+HHMM`` without a colon, which is what ``gcloud`` writes.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    days = _days_since_1970(year, month, day)
    # Second 60 is a leap second.
    if days is None or hour > 23 or minute > 59 or second > 60:
        return None
    offset = 0
    if match[8]:
        hours, minutes = int(match[9]), int(match[10])
        if hours > 23 or minutes > 59:
            return None
        offset = (hours * 60 + minutes) * (-60 if match[8] == "-" else 60)
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - offset
    return seconds + float(match[7] or 0)


def _days_since_1970(year: int, month: int, day: int) -> Optional[int]:
    """Return the day's number, or None if there is no such day.

    The standard library's calendars cost the agent more memory than these lines.
    """
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if year < 1 or not 1 <= month <= 12:
        return None
    if not 1 <= day <= _MONTHS[month - 1] + (1 if is_leap and month == 2 else 0):
        return None
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400
    days += sum(_MONTHS[: month - 1]) + (1 if is_leap and month > 2 else 0)
    return days + day - 1 - _DAYS_TO_1970


def expiry_option(line: KeyLine, local_time: str) -> str:
    """Return the line with sshd's own ``expiry-time`` (sshd >= 7.7); ``YYYYMMDDHHMMSS``, local."""
    if "expiry-time=" in line.options.lower():
        return line.text
    option = f'expiry-time="{local_time}"'
    return f"{option},{line.text}" if line.options else f"{option} {line.text}"


class Verdict(enum.Enum):
    """What becomes of a line of metadata."""

    ACCEPTED = "accepted"
    BLOCKED = "blocked"
    """A project's line on an instance that takes its own only."""
    REJECTED = "rejected"
    EXPIRED = "expired"
    DUPLICATE = "duplicate"


@record
class KeySource:
    """One attribute with key lines."""

    level: str
    """``instance`` or ``project``."""
    attribute: str
    text: str = field(repr=False)
    blocked_by: str = ""
    """What keeps the attribute from counting; empty when it counts."""


@record
class JudgedLine:
    """One line, where it stands and what becomes of it."""

    source: KeySource
    line: Union[KeyLine, BadLine]
    verdict: Verdict
    reason: str = ""
    """Why the line is not accepted; empty when it is."""


@record
class WantedKeys:
    """The keys that are valid now."""

    users: Mapping[str, tuple[KeyLine, ...]]
    """User to keys, both in the order of metadata; no user without a key."""
    next_expiry: Optional[float]
    """Unix seconds at which the first of these keys expires."""
    bad_lines: tuple[tuple[KeySource, BadLine], ...]


def key_sources(metadata: Metadata) -> tuple[KeySource, ...]:
    """Return the attributes with key lines, the strongest first."""
    instance, project = metadata.instance.attributes, metadata.project.attributes
    blocked_by = ""
    if parse_boolean(instance.get("block-project-ssh-keys")):
        blocked_by = "instance attribute block-project-ssh-keys is true"
    elif instance.get("sshKeys"):
        blocked_by = "instance attribute sshKeys is set"
    sources = []
    for level, values, blocked in (("instance", instance, ""), ("project", project, blocked_by)):
        for attribute in ("ssh-keys", "sshKeys"):
            text = values.get(attribute)
            if text:
                sources.append(KeySource(level, attribute, text, blocked))
    return tuple(sources)


def judge_keys(metadata: Metadata, now: float) -> Iterator[JudgedLine]:
    """Yield every line that is neither blank nor a comment, with its verdict at ``now``."""
    seen: set[tuple[str, str]] = set()
    for source in key_sources(metadata):
        for raw in source.text.split("\n"):
            line = parse_key_line(raw)
            if line is None:
                continue
            if source.blocked_by:
                yield JudgedLine(source, line, Verdict.BLOCKED, source.blocked_by)
            elif isinstance(line, BadLine):
                yield JudgedLine(source, line, Verdict.REJECTED, line.reason)
            elif line.is_expired(now):
                yield JudgedLine(source, line, Verdict.EXPIRED, "its expireOn has passed")
            elif (line.user, line.text) in seen:
                yield JudgedLine(source, line, Verdict.DUPLICATE, "an equal line stands before it")
            else:
                seen.add((line.user, line.text))
                yield JudgedLine(source, line, Verdict.ACCEPTED)


def wanted_keys(metadata: Metadata, now: float) -> WantedKeys:
    """Return who may log in with which keys at ``now`` (Unix seconds)."""
    users: dict[str, list[KeyLine]] = {}
    expiries = []
    bad_lines = []
    for judged in judge_keys(metadata, now):
        line = judged.line
        if isinstance(line, BadLine):
            if judged.verdict is Verdict.REJECTED:
                bad_lines.append((judged.source, line))
        elif judged.verdict is Verdict.ACCEPTED:
            users.setdefault(line.user, []).append(line)
            if line.expires_at is not None:
                expiries.append(line.expires_at)
    return WantedKeys(
        users=MappingProxyType({user: tuple(lines) for user, lines in users.items()}),
        next_expiry=min(expiries, default=None),
        bad_lines=tuple(bad_lines),
    )


def _parse_key(user: str, key: str) -> Union[KeyLine, BadLine]:
    if not key:
        return BadLine("it has no key", user)
    options, rest = "", key
    if _BLANK.split(key, maxsplit=1)[0] not in KEY_TYPES:
        end = _end_of_options(key)
        if end is None:
            return BadLine("its options have an open quote", user)
        options, rest = key[:end], key[end:].lstrip(" \t")
    fields = _BLANKS.split(rest, maxsplit=2)
    key_type = fields[0]
    base64 = fields[1] if len(fields) > 1 else ""
    comment = fields[2] if len(fields) > 2 else ""
    if key_type not in KEY_TYPES:
        return BadLine("its key type is unknown", user)
    bad = _bad_blob(key_type, base64) or ("" if options.isascii() else "its options are not ASCII")
    if bad:
        tail = base64[-12:] if _BASE64.fullmatch(base64) else ""
        return BadLine(bad, user, key_type, tail, comment)
    expires_at = None
    words = _BLANKS.split(comment, maxsplit=1)
    if words[0] == MARKER_COMMENT:
        expires_at = _expiry_in(words[1] if len(words) > 1 else "")
        if expires_at is None:
            reason = "its google-ssh comment has no readable expireOn"
            return BadLine(reason, user, key_type, base64[-12:], comment)
    return KeyLine(user, key, options, key_type, base64, comment, expires_at)


def _end_of_options(key: str) -> Optional[int]:
    r"""Return where the first unquoted blank is, or None inside quotes; ``\"`` is no quote."""
    quoted = False
    position = 0
    while position < len(key):
        char = key[position]
        if char == "\\" and key[position + 1 : position + 2] == '"':
            position += 1
        elif char == '"':
            quoted = not quoted
        elif not quoted and char in " \t":
            break
        position += 1
    return None if quoted else position


def _bad_blob(key_type: str, base64: str) -> str:
    """Return what is wrong with the key itself; empty if nothing is."""
    if not base64:
        return "it has no key behind the key type"
    if not _BASE64.fullmatch(base64):
        return "its key is not base64"
    blob = binascii.a2b_base64(base64)
    length = int.from_bytes(blob[:4], "big")
    if len(blob) < 4 + length or blob[4 : 4 + length] != key_type.encode():
        return "its key is not of the type that the line names"
    return ""


def _expiry_in(text: str) -> Optional[float]:
    """Return when the JSON behind ``google-ssh`` ends the key; None if it does not say."""
    if text.count("[") + text.count("{") > _MOST_BRACKETS:
        # The decoder recurses, and the agent's threads have small stacks.
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    expiry = None
    for name, value in document.items():
        if name.lower() == "expireon":
            expiry = value
    return parse_expiry(expiry) if isinstance(expiry, str) else None
