"""Whether the system is going down.

systemd runs ExecStop of the shutdown unit whenever the unit stops, also for a restart by hand or by
a package's maintainer script (guest-agent issues 119 and 208: production databases were stopped by
an upgrade). The system really goes down when ``shutdown.target`` is active or has a job: this is
what ``systemctl is-system-running`` reports as ``stopping``, and unlike that word it is right on
older systemd, too, which may still say ``starting``.
"""

from __future__ import annotations

from typing import Optional

from google_guest.errors import GuestError
from google_guest.system import System

_QUESTION = ("systemctl", "show", "--property=ActiveState", "--property=Job", "shutdown.target")
_SECONDS = 2.0
_INACTIVE = ("inactive", "failed")


def is_stopping(system: System) -> Optional[bool]:
    """Return whether the system is going down; None if systemd does not say."""
    try:
        answer = system.run(_QUESTION, timeout=_SECONDS, check=False)
    except (GuestError, OSError):
        return None
    lines = (line.partition("=") for line in answer.stdout.splitlines())
    values = {name: value.strip() for name, _, value in lines}
    state = values.get("ActiveState", "")
    if answer.status != 0 or not state:
        return None
    return state not in _INACTIVE or values.get("Job", "0") not in ("", "0")
