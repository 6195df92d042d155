"""The command line that the programs of this folder share: ``[--dry-run] [--root DIRECTORY]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from google_guest.records import record

BAD_USAGE = 2


@record
class Arguments:
    """What the command line says."""

    dry_run: bool = False
    root: str = ""
    """The folder that stands for /; empty: nothing was said."""
    words: tuple[str, ...] = ()
    """What is no option."""
    wants_help: bool = False


def parse_arguments(words: Sequence[str]) -> Optional[Arguments]:
    """What ``words`` say, or None for an option that is not known or has no value."""
    dry_run, wants_help, root = False, False, ""
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            wants_help = True
        elif word == "--dry-run":
            dry_run = True
        elif word == "--root" and rest and rest[0]:
            root = rest.pop(0)
        elif word.startswith("--root=") and word != "--root=":
            root = word[len("--root=") :]
        elif word.startswith("-"):
            return None
        else:
            others.append(word)
    return Arguments(dry_run, root, tuple(others), wants_help)


def usage(name: str, what: str) -> str:
    """The text of ``--help``."""
    return (
        f"usage: {name} [--dry-run] [--root DIRECTORY]\n"
        f"{what}\n"
        "  --dry-run         print what would change and change nothing\n"
        "  --root DIRECTORY  look for /sys and /proc below DIRECTORY\n"
    )
