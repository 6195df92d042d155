"""``GCEMetadataScripts``: the run of an event on Windows.

Exit status as on Linux (see ``cli.scripts``), and 0xC000013A, as after Ctrl-C, when Windows or the
console asked the runner to end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Optional

from google_guest.cli.scripts import perform
from google_guest.config import MetadataScriptsSection
from google_guest.errors import GuestError
from google_guest.scripts.events import Event
from google_guest.scripts.windows import (
    Execute,
    Interpreters,
    Windows,
    interpreters,
    run_on_windows,
)
from google_guest.scripts.windows_console import WindowsConsole, standard_output
from google_guest.system import System
from google_guest.system.children import Stopped
from google_guest.system.windows.processes import STOPPED_STATUS


def run_event(event: Event) -> int:
    """Run the scripts of ``event`` on this machine; return the exit status."""
    console = WindowsConsole(stream=standard_output())
    try:
        if sys.platform == "win32":
            from google_guest.system.windows.processes import stop_requests

            with stop_requests():
                return run(event, System(), console, environment=dict(os.environ))
        raise GuestError("this machine does not run Windows")
    except Stopped:
        return STOPPED_STATUS
    finally:
        console.close()


def run(
    event: Event,
    system: System,
    console: WindowsConsole,
    *,
    environment: Mapping[str, str],
    programs: Optional[Interpreters] = None,
    execute: Execute = run_on_windows,
) -> int:
    """Run the scripts of ``event`` on ``system``; see ``run_event``."""

    def platform(settings: MetadataScriptsSection) -> Windows:
        chosen = programs or interpreters()
        return Windows(system, settings, console, environment, chosen, execute)

    return perform(event, system, console, platform, environment=environment)
