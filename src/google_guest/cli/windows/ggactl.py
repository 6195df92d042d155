"""``ggactl_plugin``: the control program of the reference's plugin agent, for scripts that call it.

Usage: ggactl_plugin coreplugin stop|restart
       ggactl_plugin dynamic-cleanup | routes setup | guestagent vmevent ...

There are no plugins here: ``coreplugin`` means the agent's service, and the others have nothing to
do.

Exit status: 0; 1 when the service does not stop or start; 2 for wrong arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Optional

from google_guest.cli.windows.service import SERVICE
from google_guest.errors import GuestError
from google_guest.installation import services
from google_guest.system import System

_USAGE = "usage: ggactl_plugin coreplugin stop|restart"
_NOTHING_TO_DO = (("dynamic-cleanup",), ("routes", "setup"), ("guestagent", "vmevent"))


def main(argv: Optional[Sequence[str]] = None, system: Optional[System] = None) -> int:
    """Do what the arguments ask for and return the exit status."""
    arguments = tuple(sys.argv[1:] if argv is None else argv)
    if any(arguments[: len(verb)] == verb for verb in _NOTHING_TO_DO):
        print(f"{' '.join(arguments)}: the agent has no plugins, there is nothing to do")
        return 0
    if arguments not in (("coreplugin", "stop"), ("coreplugin", "restart")):
        print(_USAGE, file=sys.stderr)
        return 2
    guest = System() if system is None else system
    try:
        if arguments[1] == "stop":
            services.stop(guest, SERVICE)
        else:
            services.restart(guest, SERVICE)
    except (GuestError, OSError) as error:
        print(f"ggactl_plugin: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
