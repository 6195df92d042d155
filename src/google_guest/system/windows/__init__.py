"""What only Windows has, as the rest of the library sees it.

``System.windows`` is one :class:`Windows`: ``native.NativeWindows`` on the running machine,
``memory.MemoryWindows`` in tests. Every part is small and has no opinion: which value is written
where, and what an error means for a feature, is decided above. The real parts call the Win32 API
through ctypes and winreg, which the interpreter brings along; nothing of another package is needed.

Keys of the registry are paths below ``HKEY_LOCAL_MACHINE``.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional, Protocol

from google_guest.errors import GuestError
from google_guest.records import record

if TYPE_CHECKING:
    from google_guest.system import NetworkMonitor
    from google_guest.system.windows.addresses import Adapter
    from google_guest.system.windows.registry import Registry
    from google_guest.system.windows.routes import Route

COMPUTE_ENGINE_KEY = r"SOFTWARE\Google\ComputeEngine"
"""Where the guest environment keeps what must survive an upgrade to another implementation."""
FORWARDED_IPS = COMPUTE_ENGINE_KEY + r"\ForwardedIps"
"""Where the agent lists the addresses that it added, a value for each adapter."""
ADMINISTRATORS = "S-1-5-32-544"
"""The SID of the administrators' group, whatever its name here."""


class WindowsError(GuestError):
    """A call of the Win32 API failed."""

    def __init__(self, function: str, code: int, text: str) -> None:
        self.function = function
        self.code = code
        super().__init__(f"{function} failed with {code}{f' ({text})' if text else ''}")


class UserExists(GuestError):
    """An account of this name was there already."""


class UserAccounts(Protocol):
    """The local accounts; on a domain controller those of the domain.

    Every method raises ``WindowsError`` when Windows refuses.
    """

    def exists(self, name: str) -> bool:
        """Return whether there is a user ``name``."""

    def create(self, name: str, password: str) -> None:
        """Create an ordinary user whose password does not expire.

        Raises:
            UserExists: there is one already; it was left as it is.
        """

    def set_password(self, name: str, password: str) -> None:
        """Give an existing user this password and change nothing else."""

    def add_to_group(self, name: str, group_sid: str) -> None:
        """Make a user a member of a local group; one who is a member already stays one."""

    def is_domain_controller(self) -> bool:
        """Return whether this machine's accounts are those of a domain."""


class ServiceState(enum.Enum):
    """What the service manager says of a service."""

    STOPPED = 1
    START_PENDING = 2
    STOP_PENDING = 3
    RUNNING = 4
    CONTINUE_PENDING = 5
    PAUSE_PENDING = 6
    PAUSED = 7


@record
class ServiceDefinition:
    """A service in a process of its own, run as LocalSystem."""

    name: str
    display_name: str
    description: str
    command: str
    """The command line as CreateProcess takes it: the program in quotes, then its arguments."""
    dependencies: tuple[str, ...] = ()
    """Services that must run first."""
    delayed: bool = True
    """Whether an automatic start waits until those of other services are done."""
    restart_delays: tuple[float, ...] = (1.0, 2.0)
    """Seconds before each restart of a crashed process; the last one repeats."""
    reset_period: int = 60
    """Seconds without a crash after which the first delay counts again."""
    starts_with_network: bool = False
    """Whether the first IP address of the machine starts the service, too."""


class Services(Protocol):
    """The service manager. Every method raises ``WindowsError`` when Windows refuses."""

    def state(self, name: str) -> Optional[ServiceState]:
        """Return the state of a service, or None if there is none of this name."""

    def install(self, definition: ServiceDefinition) -> tuple[str, ...]:
        """Create the service, or give an existing one these properties and an automatic start.

        Returns what this Windows does not know of it (such as start triggers), a line each.
        """

    def start(self, name: str, *arguments: str) -> None:
        """Have the service started; one that runs already is fine."""

    def stop(self, name: str) -> None:
        """Have the service stopped; one that does not run, or does not exist, is fine."""

    def reload(self, name: str) -> None:
        """Tell the running service that its parameters changed."""

    def delete(self, name: str) -> bool:
        """Delete the service once it has ended; return whether there was one."""

    def wait_for(self, name: str, state: ServiceState, *, timeout: float) -> bool:
        """Return whether the service reaches ``state`` within ``timeout`` seconds.

        A service that does not exist counts as stopped.
        """

    def has_come_up(self, name: str, *, timeout: float) -> bool:
        """Return whether a service that was started runs within ``timeout`` seconds.

        One that has ended by itself without an error since (the agent on a machine that is no
        instance) counts as well.
        """

    def process_of(self, name: str) -> Optional[int]:
        """Return the number of the service's process, or None if it has none."""


class Routes(Protocol):
    """The IPv4 routes. Every method raises ``WindowsError`` when Windows refuses."""

    def ipv4(self) -> Sequence[Route]:
        """Return the IPv4 forward table."""

    def add(self, route: Route) -> None:
        """Add a route until the next boot; one that is there already is fine."""

    def remove(self, route: Route) -> None:
        """Remove a route; one that is gone already is fine."""

    def reaches(self, address: str, port: int, *, timeout: float) -> bool:
        """Return whether a TCP connection comes about within ``timeout`` seconds."""


class Addresses(Protocol):
    """The adapters' addresses. Every method raises ``WindowsError`` when Windows refuses."""

    def adapters(self) -> Sequence[Adapter]:
        """Return the adapters that have a MAC address, with their addresses."""

    def add(self, adapter: int, address: str, prefix_length: int) -> None:
        """Add an address until the next boot, never chosen as a source; a present one is fine."""

    def remove(self, adapter: int, address: str) -> None:
        """Remove an address; one that is gone already is fine."""


@record
class FileVersion:
    """What the version resource of an executable file says: ``10.0.20348.859 (WinBuild...)``."""

    file: str
    product: str


class Windows(Protocol):
    """The running Windows."""

    @property
    def registry(self) -> Registry:
        """The registry of the machine."""

    @property
    def accounts(self) -> UserAccounts:
        """Local users and groups."""

    @property
    def services(self) -> Services:
        """The service manager."""

    @property
    def routes(self) -> Routes:
        """IPv4 routes."""

    @property
    def addresses(self) -> Addresses:
        """The adapters' addresses."""

    def write_serial(self, port: str, data: bytes) -> None:
        """Write ``data`` to a serial port (``COM4``) now, trying again a few times.

        Raises:
            OSError: it was not taken.
        """

    def file_version(self, path: str) -> Optional[FileVersion]:
        """Return the version of an executable file, or None if there is none."""

    def architecture(self) -> str:
        """Return the native architecture: ``x86``, ``x64``, ``arm64``, ``arm``, ``ia-64``."""

    def boot_id(self) -> str:
        """Return an identifier that lives from one boot to the next; empty without the rights."""

    def is_alive(self, process: int) -> bool:
        """Return whether the process with this number runs Python."""

    def wait_for_end(self, process: int, *, timeout: float) -> bool:
        """Return whether the process ends within ``timeout`` seconds; one that is gone has."""

    def is_compute_engine(self) -> bool:
        """Return whether the firmware says that this is a Compute Engine instance."""

    def open_monitor(self) -> NetworkMonitor:
        """Return what becomes readable when routes or addresses change.

        Raises:
            OSError: Windows refused the subscription.
        """
