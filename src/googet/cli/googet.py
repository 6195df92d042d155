"""``googet``: the package manager.

``googet [flags] COMMAND [flags] [arguments]``; flags are those of Go's flag package. Exit status: 0
done, 1 failed, 2 wrong usage. The rest is in ``commandline``; here is no more than the version
needs, which is asked for often and answered at once.

Facts: googet: googet.go.
"""

from __future__ import annotations

import io
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Optional


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments in (["-version"], ["--version"]):
        print_version()
        return 0
    from googet.cli.commandline import run

    return run(arguments)


def print_version() -> None:
    """Print the version as programs read it."""
    from google_guest.version import version

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A line feed alone, on Windows too: what Go's programs print.
        sys.stdout.reconfigure(newline="\n")
    print(f"GooGet version: {version()}")


if __name__ == "__main__":
    sys.exit(main())
