"""What becomes of each SSH key line of metadata, in the words of ``google-guest keys``."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Optional

from google_guest.metadata.tree import Metadata
from google_guest.records import record
from google_guest.ssh_keys import BadLine, KeyLine, KeySource, Verdict, judge_keys


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


def explanations(
    metadata: Metadata, now: float, *, unused: str = "", denied: Collection[str] = ()
) -> tuple[KeyExplanation, ...]:
    """Return every key line of metadata in order of precedence, with what becomes of it.

    ``unused`` says why no key counts here, if that is so; ``denied`` are users who get none.
    """
    rows = []
    for judged in judge_keys(metadata, now):
        line = judged.line
        reason = judged.verdict.value
        if judged.verdict is not Verdict.ACCEPTED:
            reason = f"{reason}: {judged.reason}"
        elif unused:
            reason = unused
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
