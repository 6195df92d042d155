"""A Windows in memory: what tests plan and act on, on any platform.

``MemoryAccounts`` also serves the agent under Wine, which imitates much of Windows and has no
accounts to speak of; the agent takes it nowhere else (see ``cli.agent``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from google_guest.records import replace
from google_guest.system import NetworkMonitor
from google_guest.system.windows import (
    FileVersion,
    ServiceDefinition,
    ServiceState,
    UserExists,
    WindowsError,
)
from google_guest.system.windows.addresses import Adapter
from google_guest.system.windows.registry import MULTI_SZ, Registry, Value
from google_guest.system.windows.routes import Route


class MemoryRegistry(Registry):
    """Keys and values in a dictionary; names ignore case, as on Windows."""

    def __init__(self) -> None:
        self._keys: dict[str, dict[str, tuple[str, Value]]] = {}
        self._spelling: dict[str, str] = {}
        self.refusal: Optional[OSError] = None
        """What reading and writing raise, when set."""

    def get(self, key: str, name: str) -> Optional[Value]:
        """Return the value."""
        self._check()
        found = self._keys.get(key.lower(), {}).get(name.lower())
        return None if found is None else found[1]

    def set(self, key: str, name: str, value: Value) -> None:
        """Set the value."""
        self._check()
        self.create_key(key)
        data = list(value.data) if value.kind == MULTI_SZ else value.data
        self._keys[key.lower()][name.lower()] = (name, Value(data, value.kind))

    def create_key(self, key: str) -> None:
        """Create the key and those above it."""
        self._check()
        parts = key.split("\\")
        for end in range(1, len(parts) + 1):
            one = "\\".join(parts[:end])
            self._keys.setdefault(one.lower(), {})
            self._spelling.setdefault(one.lower(), one)

    def delete_value(self, key: str, name: str) -> bool:
        """Delete the value."""
        self._check()
        return self._keys.get(key.lower(), {}).pop(name.lower(), None) is not None

    def delete_key(self, key: str) -> bool:
        """Delete the key and what is below it."""
        self._check()
        start = f"{key.lower()}\\"
        doomed = [one for one in self._keys if one == key.lower() or one.startswith(start)]
        for one in doomed:
            del self._keys[one]
        return bool(doomed)

    def names(self, key: str) -> tuple[str, ...]:
        """Return the values' names."""
        self._check()
        return tuple(name for name, _ in self._keys.get(key.lower(), {}).values())

    def subkeys(self, key: str) -> tuple[str, ...]:
        """Return the keys' names."""
        self._check()
        start = f"{key.lower()}\\"
        return tuple(
            self._spelling[one].rpartition("\\")[2]
            for one in self._keys
            if one.startswith(start) and "\\" not in one[len(start) :]
        )

    def _check(self) -> None:
        if self.refusal is not None:
            raise self.refusal


class MemoryAccounts:
    """Users with their passwords, groups with their members; every call is noted."""

    def __init__(self) -> None:
        self.passwords: dict[str, str] = {}
        self.members: dict[str, set[str]] = {}
        """The members of each group, by its SID."""
        self.calls: list[tuple[str, ...]] = []
        """Function and user, never a password."""
        self.refusals: dict[str, WindowsError] = {}
        """What a function (``create``) raises, when set."""
        self.domain_controller = False
        self.appears_late = False
        """Whether ``exists`` does not see a user that ``create`` then meets."""

    def exists(self, name: str) -> bool:
        """Return whether there is such a user."""
        self._note("exists", name)
        return name.lower() in self.passwords and not self.appears_late

    def create(self, name: str, password: str) -> None:
        """Create the user."""
        self._note("create", name)
        if name.lower() in self.passwords:
            raise UserExists(f"user {name} exists already")
        self.passwords[name.lower()] = password

    def set_password(self, name: str, password: str) -> None:
        """Set the password."""
        self._note("set_password", name)
        if name.lower() not in self.passwords:
            raise WindowsError("NetUserSetInfo", 2221, "The user name could not be found.")
        self.passwords[name.lower()] = password

    def add_to_group(self, name: str, group_sid: str) -> None:
        """Make the user a member."""
        self._note("add_to_group", name)
        self.members.setdefault(group_sid, set()).add(name.lower())

    def is_domain_controller(self) -> bool:
        """Return what the test says."""
        return self.domain_controller

    def _note(self, function: str, name: str) -> None:
        self.calls.append((function, name))
        if function in self.refusals:
            raise self.refusals[function]


class MemoryServices:
    """Services that start and stop at once."""

    def __init__(self) -> None:
        self.definitions: dict[str, ServiceDefinition] = {}
        self.states: dict[str, ServiceState] = {}
        self.disabled: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        """Services that stop as soon as they were started."""
        self.short: set[str] = set()
        """Services that end well as soon as they were started."""

    def add(self, name: str, state: ServiceState = ServiceState.RUNNING) -> None:
        """Put a foreign service there."""
        self.states[name] = state

    def state(self, name: str) -> Optional[ServiceState]:
        """Return the state."""
        return self.states.get(name)

    def install(self, definition: ServiceDefinition) -> tuple[str, ...]:
        """Note the definition."""
        self.calls.append(("install", definition.name))
        self.definitions[definition.name] = definition
        self.states.setdefault(definition.name, ServiceState.STOPPED)
        self.disabled.discard(definition.name)
        return ()

    def start(self, name: str, *arguments: str) -> None:
        """Start the service."""
        self.calls.append(("start", name))
        if name not in self.states:
            raise WindowsError("OpenService", 1060, f"there is no service {name}")
        if name in self.disabled:
            raise WindowsError("StartService", 1058, "the service is disabled")
        if name not in self.broken | self.short:
            self.states[name] = ServiceState.RUNNING

    def stop(self, name: str) -> None:
        """Stop the service."""
        self.calls.append(("stop", name))
        if name in self.states:
            self.states[name] = ServiceState.STOPPED

    def reload(self, name: str) -> None:
        """Note the call."""
        self.calls.append(("reload", name))

    def delete(self, name: str) -> bool:
        """Delete the service."""
        self.calls.append(("delete", name))
        self.definitions.pop(name, None)
        return self.states.pop(name, None) is not None

    def wait_for(self, name: str, state: ServiceState, *, timeout: float) -> bool:
        """Compare at once."""
        return self.states.get(name, ServiceState.STOPPED) is state

    def has_come_up(self, name: str, *, timeout: float) -> bool:
        """Look at once."""
        return self.states.get(name) is ServiceState.RUNNING or name in self.short

    def process_of(self, name: str) -> Optional[int]:
        """Return a number for one that runs."""
        return 4711 if self.states.get(name) is ServiceState.RUNNING else None


class MemoryRoutes:
    """A forward table, and which interfaces lead to the metadata server."""

    def __init__(self) -> None:
        self.table: list[Route] = []
        self.leads_there: set[int] = set()
        """Interfaces whose routes reach what they lead to."""
        self.calls: list[tuple[str, Route]] = []

    def ipv4(self) -> Sequence[Route]:
        """Return the table."""
        return tuple(self.table)

    def add(self, route: Route) -> None:
        """Add the route."""
        self.calls.append(("add", route))
        self.table.append(route)

    def remove(self, route: Route) -> None:
        """Remove the route."""
        self.calls.append(("remove", route))
        self.table.remove(route)

    def reaches(self, address: str, port: int, *, timeout: float) -> bool:
        """Return whether the newest route to ``address`` leads there."""
        found = [route for route in self.table if route.destination == address]
        return bool(found) and found[-1].interface in self.leads_there


class MemoryAddresses:
    """Adapters whose addresses change as they are told to."""

    def __init__(self) -> None:
        self.table: dict[int, Adapter] = {}
        self.prefix_lengths: dict[tuple[int, str], int] = {}
        """Of what was added, by adapter and address."""
        self.calls: list[tuple[str, int, str]] = []
        self.refused: set[str] = set()
        """Addresses that can neither be added nor removed."""

    def put(self, index: int, mac: str, *addresses: str) -> None:
        """Put an adapter there."""
        self.table[index] = Adapter(index, mac, f"Ethernet {index}", frozenset(addresses))

    def adapters(self) -> Sequence[Adapter]:
        """Return the adapters."""
        return tuple(self.table.values())

    def add(self, adapter: int, address: str, prefix_length: int) -> None:
        """Add the address."""
        self._note("add", adapter, address)
        self.prefix_lengths[adapter, address] = prefix_length
        self._set(adapter, self.table[adapter].addresses | {address})

    def remove(self, adapter: int, address: str) -> None:
        """Remove the address."""
        self._note("remove", adapter, address)
        self._set(adapter, self.table[adapter].addresses - {address})

    def _note(self, call: str, adapter: int, address: str) -> None:
        self.calls.append((call, adapter, address))
        if address in self.refused:
            raise WindowsError("IpAddressEntry", 5, "refused")

    def _set(self, adapter: int, addresses: frozenset[str]) -> None:
        self.table[adapter] = replace(self.table[adapter], addresses=addresses)


class MemoryWindows:
    """See ``google_guest.system.windows.Windows``."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry()
        self.accounts = MemoryAccounts()
        self.services = MemoryServices()
        self.routes = MemoryRoutes()
        self.addresses = MemoryAddresses()
        self.written: list[tuple[str, bytes]] = []
        """What went to serial ports."""
        self.serial_failures = 0
        """How many further writes to serial ports fail."""
        self.versions: dict[str, FileVersion] = {}
        self.processes: set[int] = set()
        self.boot = "boot-1"
        self.compute_engine = True

    def write_serial(self, port: str, data: bytes) -> None:
        """Note the data, or fail."""
        if self.serial_failures:
            self.serial_failures -= 1
            raise OSError(f"{port} cannot be opened")
        self.written.append((port, data))

    def file_version(self, path: str) -> Optional[FileVersion]:
        """Return the version that the test put there."""
        return self.versions.get(path)

    def architecture(self) -> str:
        """Return ``x64``."""
        return "x64"

    def boot_id(self) -> str:
        """Return the identifier that the test put there."""
        return self.boot

    def is_alive(self, process: int) -> bool:
        """Return whether the test says so."""
        return process in self.processes

    def wait_for_end(self, process: int, *, timeout: float) -> bool:
        """Answer at once."""
        return process not in self.processes

    def is_compute_engine(self) -> bool:
        """Return what the test says."""
        return self.compute_engine

    def open_monitor(self) -> NetworkMonitor:
        """Refuse: nothing changes by itself here."""
        raise OSError("no news in memory")
