"""``google-guest-python-runtime``: the interpreter under all our programs.

Its files were replaced under running services; they go on with the former ones until they are
started again, which happens here. The first installation finds no library to run this with, and its
install script knows that there is nothing to do then.
"""

from __future__ import annotations

from google_guest.installation import Tell, services
from google_guest.system import System


def install(system: System, tell: Tell) -> None:
    """Restart those of our services that run."""
    for name in services.running(system):
        services.restart(system, name)
        tell(f"restarted the service {name}")


def remove(system: System, tell: Tell) -> None:
    """Do nothing: what needs the interpreter was removed before it."""
