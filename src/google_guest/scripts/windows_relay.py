"""The relay: logs what a script's background processes print after the script itself has ended.

It is a process of its own, with the pipe as standard input, and ends with the last process that
holds the other end. It writes to COM1 and to the event log, not to the runner's standard output:
who reads that to its end waits for the runner, not for a daemon.

Usage: ``main([KEY, "continued" or "new"])``, see ``start_relay``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Optional

from google_guest.scripts.output import ScriptOutput
from google_guest.scripts.windows_console import WindowsConsole, decode

CONTINUED, NEW = "continued", "new"


def relay_argv(key: str, *, continued: bool) -> list[str]:
    """Return the command of a relay for the script ``key``; ``continued``: it goes on in a line."""
    library = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        f"import sys; sys.path.insert(0, {library!r});"
        f" from {__name__} import main; sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-I", "-c", code, key, CONTINUED if continued else NEW]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Be the relay of a script."""
    key, state = sys.argv[1:] if argv is None else argv
    console = WindowsConsole()
    output = ScriptOutput(key, console, decode=decode, continued=state == CONTINUED)
    if sys.platform == "win32":
        from google_guest.system.windows.processes import copy_to_end, pipe_of

        copy_to_end(pipe_of(0), output)
    console.close()
    return 0
