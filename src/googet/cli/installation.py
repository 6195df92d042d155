"""The install and uninstall steps of googet's own package, for its ``.cmd`` file.

Usage: python.exe -I -B -m googet.cli.installation [remove]

googet is installed by itself, on an interpreter of its own. Installing makes its folder one that
administrators alone can change, sets the machine's variable ``GooGetRoot`` and appends the folder
to the machine's ``Path``; removing takes both away again. What is in the folder stays: settings,
repositories and the list of installed packages are the administrator's.

Exit status: 0; 1 with one line that says what Windows refused; 2 for wrong arguments.

Facts: googet: install.ps1 (variable, ``Path``, access control list).
"""

from __future__ import annotations

import ntpath
import os
import sys
from collections.abc import Sequence
from typing import Optional

from googet.cli.opening import ROOT_VARIABLE
from google_guest.errors import GuestError
from google_guest.system import System
from google_guest.system.windows.environment import (
    KEY,
    add_to_path,
    remove_from_path,
    remove_variable,
    set_variable,
)
from google_guest.system.windows.files import WindowsFiles

_FOLDER = "GooGet"


def main(argv: Optional[Sequence[str]] = None, system: Optional[System] = None) -> int:
    """Run the steps and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments not in ([], ["remove"]):
        print("usage: googet.cli.installation [remove]", file=sys.stderr)
        return 2
    guest = System() if system is None else system
    try:
        if arguments:
            remove(guest)
        else:
            install(guest)
    except (GuestError, OSError) as error:
        print(f"googet: {error}", file=sys.stderr)
        return 1
    return 0


def root_folder() -> str:
    """Return the folder that the package is placed in."""
    return ntpath.join(os.environ.get("PROGRAMDATA") or r"C:\ProgramData", _FOLDER)


def install(system: System) -> None:
    """Secure the folder and let programs and people find it."""
    root = root_folder()
    files = system.files
    if isinstance(files, WindowsFiles):
        files.secure_directory(root)
    set_variable(system.windows.registry, ROOT_VARIABLE, root)
    add_to_path(system.windows.registry, root)


def remove(system: System) -> None:
    """Take away the variable, unless it names another folder, and the entry of ``Path``."""
    root = root_folder()
    registry = system.windows.registry
    remove_from_path(registry, root)
    if (registry.text(KEY, ROOT_VARIABLE) or "").casefold() == root.casefold():
        remove_variable(registry, ROOT_VARIABLE)


if __name__ == "__main__":
    sys.exit(main())
