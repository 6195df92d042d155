"""Root trees with the tools of rpm distributions: rpm, dnf and zypper on Debian's userland.

What is proved in one is the logic of rpm, dnf and zypper, never a system of the distributions that
use them.
"""

from __future__ import annotations

from pathlib import Path

from support import roots

SUITE = "bookworm"
RPM_TOOLS = ("rpm", "dnf", "zypper", "createrepo-c")
"""Host tools inside; rpm's database is where `--define "_dbpath ..."` or /etc/rpm/macros says."""


def rpm_base() -> Path:
    """The base tree with RPM_TOOLS; read-only for its users."""
    return roots.base(SUITE, extra=RPM_TOOLS)


def rpm_root_problems() -> tuple[str, ...]:
    """What this machine lacks for having that tree."""
    from support import tiers

    return tiers.root_problems(SUITE, extra=RPM_TOOLS)
