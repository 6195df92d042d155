"""The agent as the Windows service ``GCEAgent``, and what a console does with that service.

The service manager runs ``python.exe -I -B -m google_guest.cli.windows.service`` (never a launcher:
the process that it starts must be the one that answers it). Started by somebody else, it says so
and runs in the foreground.

Verbs of ``google_guest_agent`` on Windows, beside those of every platform:

run        be the service (also without any verb)
noservice  run in the foreground
install    register the service, or set its properties anew
remove     stop and delete the service
start      start the service
stop       stop the service
help       show how to use the program

Source: guest-agent ``google_guest_agent/main.go`` for the verbs, ``packaging/googet`` for the
service's properties.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Optional

from google_guest.errors import GuestError
from google_guest.system.windows import ServiceDefinition, Services, ServiceState
from google_guest.system.windows.service_process import NotAService, ServiceControls

if sys.platform == "win32":
    from google_guest.system.windows.service_process import run_service

SERVICE = "GCEAgent"
DISPLAY_NAME = "Google Compute Engine Agent"
VERBS = ("install", "remove", "start", "stop")
_START_TIMEOUT, _STOP_TIMEOUT = 30.0, 15.0


def definition(python: str) -> ServiceDefinition:
    """Return what the service manager knows of the service that runs on ``python``."""
    return ServiceDefinition(
        name=SERVICE,
        display_name=DISPLAY_NAME,
        description=DISPLAY_NAME,
        command=f'"{python}" -I -B -m google_guest.cli.windows.service',
        dependencies=("samss",),
        restart_delays=(1.0, 2.0),
        reset_period=60,
        starts_with_network=True,
    )


def do(verb: str, services: Services, *, python: str) -> int:
    """Do what ``verb`` asks of the service and say what came of it; return the exit status."""
    action: Callable[[], str] = {
        "install": lambda: _install(services, python),
        "remove": lambda: "deleted" if services.delete(SERVICE) else "not installed",
        "start": lambda: _start(services),
        "stop": lambda: _stop(services),
    }[verb]
    try:
        print(f"{SERVICE}: {action()}")
    except GuestError as error:
        print(f"{SERVICE}: {error}", file=sys.stderr)
        return 1
    return 0


def _install(services: Services, python: str) -> str:
    for problem in services.install(definition(python)):
        print(problem, file=sys.stderr)
    return "installed"


def _start(services: Services) -> str:
    services.start(SERVICE)
    if not services.wait_for(SERVICE, ServiceState.RUNNING, timeout=_START_TIMEOUT):
        raise GuestError(f"does not run within {_START_TIMEOUT:g} s")
    return "running"


def _stop(services: Services) -> str:
    services.stop(SERVICE)
    if not services.wait_for(SERVICE, ServiceState.STOPPED, timeout=_STOP_TIMEOUT):
        raise GuestError(f"still runs after {_STOP_TIMEOUT:g} s")
    return "stopped"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Be the service, or the foreground program where no service manager asked for one."""
    own = list(sys.argv[1:] if argv is None else argv)
    if sys.platform == "win32":

        def work(controls: ServiceControls, arguments: Sequence[str]) -> int:
            # Only here: the service is RUNNING before all this is imported.
            from google_guest.cli.agent import run_as_service

            return run_as_service([*own, *arguments], controls)

        try:
            return run_service(SERVICE, work)
        except NotAService as error:
            print(f"google_guest_agent: {error}; running in the foreground", file=sys.stderr)
        from google_guest.cli.agent import main as run_in_foreground

        return run_in_foreground(["noservice", *own])
    print("google_guest_agent: this machine does not run Windows", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
