"""Our services: stopping, starting and waiting until they really did."""

from __future__ import annotations

import time

from google_guest.cli.windows.service import SERVICE
from google_guest.errors import GuestError
from google_guest.installation import Tell
from google_guest.system import System
from google_guest.system.windows import ServiceState, WindowsError

OWN_SERVICES = (SERVICE,)
FORMER_SERVICES = ("GCEWindowsCompatManager", "GCEAgentManager")
"""Of the reference's plugin manager: two agents must never run side by side."""

_START = 30.0
_END = 30.0
_POLL = 0.1
_ACTIVE = (ServiceState.RUNNING, ServiceState.START_PENDING)


def running(system: System) -> tuple[str, ...]:
    """Return which of our services run, or are about to."""
    services = system.windows.services
    return tuple(name for name in OWN_SERVICES if services.state(name) in _ACTIVE)


def restart(system: System, name: str) -> None:
    """Stop a service, wait for its process to end, start it and wait until it runs.

    Raises:
        GuestError: it cannot be started, or does not run within 30 seconds.
    """
    stop(system, name)
    services = system.windows.services
    try:
        services.start(name)
    except WindowsError as error:
        raise GuestError(f"the service {name} does not start: {error}") from error
    if not services.has_come_up(name, timeout=_START):
        raise GuestError(f"the service {name} does not run within {_START:g} seconds of its start")


def stop(system: System, name: str) -> None:
    """Stop a service and wait until its process has ended and lets go of its files.

    Raises:
        GuestError: it does not end.
    """
    services = system.windows.services
    process = services.process_of(name)
    services.stop(name)
    if not services.wait_for(name, ServiceState.STOPPED, timeout=_END):
        raise GuestError(f"the service {name} does not stop within {_END:g} seconds")
    if process is not None:
        _wait_for_end(system, process, name)


def delete(system: System, name: str, tell: Tell) -> None:
    """Stop and delete a service; without one nothing happens.

    Raises:
        GuestError: it does not end, or Windows refuses.
    """
    services = system.windows.services
    if services.state(name) is None:
        return
    stop(system, name)
    if services.delete(name):
        tell(f"deleted the service {name}")


def _wait_for_end(system: System, process: int, name: str) -> None:
    """Wait for a process that the service manager no longer counts as the service."""
    deadline = time.monotonic() + _END
    while system.windows.is_alive(process):
        if time.monotonic() > deadline:
            raise GuestError(f"process {process} of the service {name} does not end")
        time.sleep(_POLL)
