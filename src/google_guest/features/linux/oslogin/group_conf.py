"""/etc/security/group.conf: the video group by day and night, for logins through sshd.

This list must never grow: groups are privileges, and longer lists once made root of everybody who
could log in (CVE-2020-8903, CVE-2020-8907, CVE-2020-8933).

Source: guest-agent ``google_guest_agent/oslogin.go``; group.conf(5).
"""

from __future__ import annotations

from google_guest.features.linux.oslogin.blocks import block, ended, without_blocks

LINE = "sshd;*;*;Al0000-2400;video"


def enable(text: str) -> str:
    """Return ``text`` with our block."""
    return ended(disable(text)) + block([LINE])


def disable(text: str) -> str:
    """Return ``text`` without our block."""
    return without_blocks(text, lambda line: line == LINE)
