"""Changes of a running Windows beside its accounts: serial ports, services, routes."""

from __future__ import annotations

import logging

from google_guest.changes import Change
from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.system import System
from google_guest.system.windows.routes import Route

log = logging.getLogger(__name__)

METADATA_ADDRESS = "169.254.169.254"
_PROBE_TIMEOUT = 2.0


@record
class WriteSerialLine(Change):
    """Write one line to a serial port."""

    port: str
    line: str
    purpose: str

    @property
    def subject(self) -> str:
        """The port."""
        return f"serial port {self.port}"

    def describe(self) -> str:
        """Return port and purpose."""
        return f"write to {self.port} {self.purpose}"

    def diff(self) -> tuple[str, ...]:
        """Return the line."""
        return (f"+{self.line}",)

    def apply(self, system: System) -> None:
        """Write the line.

        Raises:
            OSError: the port did not take it.
        """
        system.windows.write_serial(self.port, f"{self.line}\n".encode())


@record
class StartService(Change):
    """Start a service that does not run; what becomes of it is its own business."""

    service: str

    @property
    def subject(self) -> str:
        """The service."""
        return f"service {self.service}"

    def describe(self) -> str:
        """Return the service's name."""
        return f"start the service {self.service}"

    def apply(self, system: System) -> None:
        """Start it.

        Raises:
            WindowsError: Windows refused.
        """
        system.windows.services.start(self.service)


@record
class AddMetadataRoute(Change):
    """Add a route to the metadata server, on the first interface that leads there."""

    candidates: tuple[Route, ...]
    """The routes to try, the best first."""

    @property
    def subject(self) -> str:
        """The server."""
        return f"route to {METADATA_ADDRESS}"

    def describe(self) -> str:
        """Return the interfaces that are tried."""
        interfaces = ", ".join(str(route.interface) for route in self.candidates)
        noun = "interface" if len(self.candidates) == 1 else "the first good one of interfaces"
        return f"add a route to {METADATA_ADDRESS} on {noun} {interfaces}"

    def apply(self, system: System) -> None:
        """Add one route after the other until the server can be reached; leave only that one.

        Raises:
            GuestError: none of them leads there.
        """
        routes = system.windows.routes
        problems = []
        for route in self.candidates:
            try:
                routes.add(route)
                if routes.reaches(METADATA_ADDRESS, 80, timeout=_PROBE_TIMEOUT):
                    return
                routes.remove(route)
                problems.append(f"interface {route.interface} does not lead there")
            except GuestError as error:
                problems.append(f"interface {route.interface}: {error}")
        raise GuestError("; ".join(problems))
