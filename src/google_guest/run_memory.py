"""What one run of the agent has done, and what one boot has.

Documents in the ``run`` folder end with the boot. A fact that must not outlive the process that
noted it (retry at the next start, report at each start) carries that process's number and is void
as soon as the process is gone; other programs, such as ``google-guest plan``, see it while the
agent lives.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from google_guest.system import System

_PROCESS = "process"


def noted_by_this_run(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``document`` marked as true for as long as this process lives."""
    return {**document, _PROCESS: os.getpid()}


def run_still_lives(system: System, document: Mapping[str, Any]) -> bool:
    """Return whether the process that noted ``document`` is still there."""
    process = document.get(_PROCESS)
    return isinstance(process, int) and system.is_alive(process)
