"""The kernel's own account of itself: uname(2), or the version that Windows reports."""

from __future__ import annotations

import os
import sys

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
    """Return the facts of the running kernel."""
    if sys.platform == "win32":
        # platform_version comes from a system library's file, so no compatibility mode lies in it.
        number = ".".join(str(part) for part in sys.getwindowsversion().platform_version)
        machine = os.environ.get("PROCESSOR_ARCHITECTURE", "").lower()
        return KernelFacts("windows", number, number, machine)
    facts = os.uname()
    return KernelFacts(facts.sysname.lower(), facts.release, facts.version, facts.machine)
