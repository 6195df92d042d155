"""Changes of local routes: addresses that the kernel accepts traffic for without owning them.

Each route is a subject of its own, so that one refused address never holds up the others of its
network interface.

Facts: google-guest-agent internal/network/route (the fields of such a route); ip-route(8).
"""

from __future__ import annotations

from google_guest.changes import Change
from google_guest.records import record
from google_guest.system import System
from google_guest.system.netlink import LocalRoute
from google_guest.system.networks import destination_text


@record
class _LocalRouteChange(Change):
    """What both directions share. ``device`` and ``mac`` name the interface for people."""

    route: LocalRoute
    device: str
    mac: str

    @property
    def subject(self) -> str:
        """The interface together with the destination."""
        return f"nic {self.mac} route {self.destination}"

    @property
    def destination(self) -> str:
        """The address or range in its normal form."""
        return destination_text(self.route.destination)


@record
class AddLocalRoute(_LocalRouteChange):
    """Accept traffic for an address or range on a device."""

    def describe(self) -> str:
        """Return destination and device."""
        return f"add local route {self.destination} on {self.device}"

    def apply(self, system: System) -> None:
        """Add the route; an address that is local there already is left as it is.

        Raises:
            NetlinkError, GuestError: the kernel refused.
        """
        system.network.add_local_route(self.route)


@record
class DeleteLocalRoute(_LocalRouteChange):
    """No longer accept traffic for an address or range on a device."""

    def describe(self) -> str:
        """Return destination and device."""
        return f"delete local route {self.destination} on {self.device}"

    def apply(self, system: System) -> None:
        """Delete the route of this protocol; routes of others are never touched.

        Raises:
            NetlinkError, GuestError: the kernel refused.
        """
        system.network.delete_local_route(self.route)
