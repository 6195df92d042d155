"""What installing and removing our Windows packages changes beyond the files that they place.

googet places a package's files first and then runs its install script, ``install.cmd``, which is a
few lines around ``python.exe -I -B -m google_guest.cli.windows.install PACKAGE``; before a removal
``uninstall.cmd`` runs the same with ``remove`` behind it. One module here is one package: its
``install`` can be repeated, and raises when the package would not work (googet then puts the former
files back); its ``remove`` goes on after a failure, says so, and takes away exactly what
``install`` brought.

Nothing of this exists on Linux, where maintainer scripts do as little.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from google_guest.errors import GuestError

if TYPE_CHECKING:
    from google_guest.system import System

Tell = Callable[[str], None]
"""Takes one line for whoever installs."""

_MODULES = {
    "google-guest-python-runtime": "runtime",
    "google-guest-library": "library",
    "google-compute-engine-windows": "agent",
    "google-compute-engine-metadata-scripts": "scripts",
}
PACKAGES = tuple(_MODULES)
"""The packages that have install steps here."""


class Steps(Protocol):
    """The steps of one package: a module of this room."""

    @staticmethod
    def install(system: System, tell: Tell) -> None:
        """Make the placed package work; raises GuestError or OSError when it would not."""

    @staticmethod
    def remove(system: System, tell: Tell) -> None:
        """Take away what ``install`` brought; tells what could not be taken away."""


def steps_of(package: str) -> Steps:
    """Return the steps of a package.

    Raises:
        GuestError: there is no such package.
    """
    if package not in _MODULES:
        raise GuestError(f"{package} is none of {', '.join(PACKAGES)}")
    module = importlib.import_module(f"google_guest.installation.{_MODULES[package]}")
    return cast(Steps, module)


def attempt(what: str, action: Callable[[], object], tell: Tell) -> None:
    """Do a step of a removal; a failure is told and the removal goes on."""
    try:
        action()
    except (GuestError, OSError) as error:
        tell(f"warning: cannot {what}: {error}")
