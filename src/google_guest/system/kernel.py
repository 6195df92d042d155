"""The kernel's own account of itself: uname(2); of Windows see ``windows_release``."""

from __future__ import annotations

import os

from google_guest.records import record


@record
class KernelFacts:
    """Name, release, version and machine; ``6.1.0-18-amd64``, ``#1 SMP ...``, ``x86_64``."""

    system: str
    """``linux`` or ``windows``."""
    release: str
    version: str
    machine: str


def kernel_facts() -> KernelFacts:
    """Return the facts of the running kernel, on Linux."""
    facts = os.uname()
    return KernelFacts(facts.sysname.lower(), facts.release, facts.version, facts.machine)
