"""Changes of the addresses that adapters have beside their own, and the record of them.

Each address is a subject of its own. What the agent added is listed in the registry, a value for
each adapter named after its MAC address, so that nothing that somebody else configured is ever
removed. The list is made from what the adapter really has after the changes.

Source: guest-agent ``google_guest_agent/addresses.go``, ``addresses_windows.go``.
"""

from __future__ import annotations

from typing import ClassVar

from google_guest.changes import Change
from google_guest.records import record
from google_guest.system import System
from google_guest.system.windows import FORWARDED_IPS


@record
class _AddressChange(Change):
    """What both directions share. ``device`` and ``mac`` name the adapter for people."""

    adapter: int
    address: str
    device: str
    mac: str

    @property
    def subject(self) -> str:
        """The adapter together with the address."""
        return f"nic {self.mac} address {self.address}"


@record
class AddAddress(_AddressChange):
    """Give an adapter an address that is never chosen as a source."""

    prefix_length: int = 32

    def describe(self) -> str:
        """Return address and adapter."""
        return f"add address {self.address}/{self.prefix_length} on {self.device}"

    def apply(self, system: System) -> None:
        """Add it.

        Raises:
            WindowsError: Windows refused.
        """
        system.windows.addresses.add(self.adapter, self.address, self.prefix_length)


@record
class RemoveAddress(_AddressChange):
    """Take from an adapter an address that the agent gave it."""

    def describe(self) -> str:
        """Return address and adapter."""
        return f"remove address {self.address} from {self.device}"

    def apply(self, system: System) -> None:
        """Remove it.

        Raises:
            WindowsError: Windows refused.
        """
        system.windows.addresses.remove(self.adapter, self.address)


@record
class NoteOwnAddresses(Change):
    """List those of ``candidates`` that the adapter has now as the agent's own."""

    notes_outcome: ClassVar[bool] = True

    adapter: int
    mac: str
    candidates: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The list."""
        return f"list of own addresses of nic {self.mac}"

    def describe(self) -> str:
        """Return the adapter's MAC address."""
        return f"list the agent's own addresses of nic {self.mac} in the registry"

    def apply(self, system: System) -> None:
        """Rewrite the list; one under the name that former agents used goes away.

        Raises:
            WindowsError, OSError: it could not be made.
        """
        adapters = system.windows.addresses.adapters()
        present = {text for row in adapters if row.index == self.adapter for text in row.addresses}
        owned = [address for address in self.candidates if address in present]
        registry = system.windows.registry
        if registry.strings(FORWARDED_IPS, self.mac) != tuple(owned):
            registry.set_strings(FORWARDED_IPS, self.mac, owned)
        registry.delete_value(FORWARDED_IPS, former_name(self.mac))


def former_name(mac: str) -> str:
    """Return the name that the list of an adapter had in the oldest agents."""
    return mac.replace(":", "")
