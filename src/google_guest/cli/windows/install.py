"""The install and uninstall steps of our Windows packages, for their ``.cmd`` files.

Usage: python.exe -I -B -m google_guest.cli.windows.install PACKAGE [remove [--purge]]

--purge, which no package passes, also takes the agent's forwarded addresses from the adapters.

Exit status: 0 when the package works, or was taken back as far as possible; 1 with one line that
says why it would not work; 2 for wrong arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Optional

from google_guest.errors import GuestError
from google_guest.installation import PACKAGES, Tell, agent, steps_of
from google_guest.system import System

_USAGE = f"usage: install PACKAGE [remove [--purge]]; packages: {', '.join(PACKAGES)}"
_VERBS: tuple[list[str], ...] = ([], ["remove"], ["remove", "--purge"])
_AGENT = "google-compute-engine-windows"


def main(argv: Optional[Sequence[str]] = None, system: Optional[System] = None) -> int:
    """Run the steps of one package and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] not in [[name] for name in PACKAGES] or arguments[1:] not in _VERBS:
        print(_USAGE, file=sys.stderr)
        return 2
    package = arguments[0]
    guest = System() if system is None else system

    def tell(line: str) -> None:
        print(f"{package}: {line}", flush=True)

    try:
        _run(package, arguments[1:], guest, tell)
    except (GuestError, OSError) as error:
        print(f"{package}: {error}", file=sys.stderr)
        return 1
    return 0


def _run(package: str, verbs: Sequence[str], system: System, tell: Tell) -> None:
    steps = steps_of(package)
    if not verbs:
        steps.install(system, tell)
        return
    steps.remove(system, tell)
    if "--purge" in verbs and package == _AGENT:
        agent.purge(system, tell)


if __name__ == "__main__":
    sys.exit(main())
