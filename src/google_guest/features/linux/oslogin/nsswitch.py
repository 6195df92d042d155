"""nsswitch.conf: our two services behind the others, before a comment.

Source: guest-agent ``google_guest_agent/oslogin.go``; nsswitch.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from google_guest.features.linux.oslogin.layout import FREEBSD, Layout

_SERVICES = " cache_oslogin oslogin"
_LINE = re.compile(r"\s*(?:passwd|group|initgroups)\s*:[^#]*?(?=\s*(?:#.*)?$)")
_NAMED = re.compile(r"\b(?:cache_)?oslogin\b")
_TOKEN = re.compile(r"[ \t]+(?:cache_)?oslogin\b")


def enable(text: str, layout: Layout) -> str:
    """Return ``text`` with our services for users and groups."""
    return _each_line(text, lambda body: _with_services(body, layout))


def disable(text: str, layout: Layout) -> str:
    """Return ``text`` without our services; those of others behind them stay."""
    return _each_line(text, _without_services)


def _with_services(body: str, layout: Layout) -> str:
    if _NAMED.search(body):
        return body
    if layout is FREEBSD:
        body = re.sub(r"\bcompat\b", "files", body, count=1)
    return body + _SERVICES


def _without_services(body: str) -> str:
    if _SERVICES in body:
        body = body.replace(_SERVICES, "", 1)
    return _TOKEN.sub("", body)


def _each_line(text: str, change: Callable[[str], str]) -> str:
    lines = []
    for line in text.split("\n"):
        match = _LINE.match(line)
        if match is None:
            lines.append(line)
        else:
            lines.append(change(match[0]) + line[match.end() :])
    return "\n".join(lines)
