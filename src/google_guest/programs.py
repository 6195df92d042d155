"""Which programs of the platform are installed.

A feature asks before it plans a command: a program that is absent by choice of the distribution is
a fact to act upon, not a failure. The places are those that commands are searched in.
"""

from __future__ import annotations

from typing import Optional

from google_guest.system.commands import SEARCH_PATH
from google_guest.system.files import Files


def find_program(files: Files, name: str) -> Optional[str]:
    """Return the guest path of the program ``name``, or None if it is not installed."""
    for directory in SEARCH_PATH.split(":"):
        path = f"{directory}/{name}"
        if files.is_executable(path):
            return path
    return None
