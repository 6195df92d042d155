"""The program ``goopack``: builds a package from a goospec.

Exit codes: 0 for a package that was built, without a word; 1 for a failure, with a line on standard
error, and for a wrong number of arguments; 2 for a wrong flag.

Facts: googet: goopack/goopack.go.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from googet.cli.flags import Arguments, Flags, HelpRequested, UsageError
from googet.packing import pack
from google_guest.errors import GuestError

_VARIABLE = "var:"
_USAGE = "Usage: goopack <path/to/goospec>"
_DETAILS = """\
  -output_dir string
    \tfolder for the package (default: the current one)
  -var:KEY string
    \tvalue of {{.KEY}} in the goospec; may be given for any number of keys
"""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the program and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    flags = Flags("goopack <path/to/goospec>")
    flags.string("output_dir", "folder for the package")
    declare_variables(flags, given)
    try:
        parsed = flags.parse(given)
    except HelpRequested:
        print(_USAGE + "\n" + _DETAILS, end="")
        return 0
    except UsageError as error:
        print(f"goopack: {error}\n{_USAGE}\n{_DETAILS}", end="", file=sys.stderr)
        return 2
    if parsed.positionals == ("help",):
        print(_USAGE + "\n" + _DETAILS, end="")
        return 0
    if len(parsed.positionals) != 1:
        print("Too many args." if parsed.positionals else "Not enough args.")
        print(_USAGE)
        return 1
    output = Path(parsed.text("output_dir") or ".")
    try:
        with _warnings_shown():
            pack(Path(parsed.positionals[0]), variables(parsed), output)
    except GuestError as error:
        print(f"goopack: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"goopack: {place}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("goopack: interrupted", file=sys.stderr)
        return 1
    return 0


def declare_variables(flags: Flags, arguments: Sequence[str]) -> None:
    """Declare a flag for every ``-var:KEY`` on a command line that is none yet."""
    for argument in arguments:
        if len(argument) < 2 or not argument.startswith("-"):
            continue
        name = argument[2:] if argument.startswith("--") else argument[1:]
        name = name.partition("=")[0]
        if name.startswith(_VARIABLE) and name not in flags:
            flags.string(name, "value of a variable of the goospec")


def variables(parsed: Arguments) -> dict[str, str]:
    """Return the variables that were given, by their keys."""
    return {
        name[len(_VARIABLE) :]: parsed.text(name)
        for name in parsed.given
        if name.startswith(_VARIABLE)
    }


@contextlib.contextmanager
def _warnings_shown() -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("goopack: warning: %(message)s"))
    logger = logging.getLogger("googet")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
