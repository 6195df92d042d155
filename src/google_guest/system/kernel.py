"""The kernel's own account of itself, and its host name: uname(2), sethostname(2).

Of Windows see ``windows_release``.
"""

from __future__ import annotations

import errno
import os
import socket
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
    """Return the facts of the running kernel, on Linux."""
    facts = os.uname()
    return KernelFacts(facts.sysname.lower(), facts.release, facts.version, facts.machine)


def set_hostname(name: str) -> None:
    """Give the machine this host name until the next boot.

    Raises:
        OSError: the kernel refused.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "Windows sets its name in the registry")
    socket.sethostname(name)
