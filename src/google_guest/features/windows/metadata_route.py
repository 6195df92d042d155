"""A route to the metadata server.

Reads the IPv4 forward table. Wants a host route to 169.254.169.254 on an interface that has a
default route: by Windows' own rules the address would go to whatever interface assigned itself an
address of that range. The default route with the lowest metric is tried first (of equal ones the
interface with the lowest index), then the others; a route that does not lead to the server is
removed again. Without any default route it looks again, once a second in the first minute and then
every ten seconds, for ever.

Off if ``GCE_METADATA_HOST`` names another server.

Source: guest-agent ``google_guest_agent/addresses.go`` (addMetadataRoute), google-guest-agent
``internal/network/route``.
"""

from __future__ import annotations

import os

from google_guest.changes.windows import METADATA_ADDRESS, AddMetadataRoute
from google_guest.errors import GuestError
from google_guest.features import Decision, Feature, Inputs, Plan, Stage
from google_guest.metadata.endpoint import HOST_VARIABLE
from google_guest.state import read_state, status_path
from google_guest.system.windows.routes import Route

DRIFT_INTERVAL = 60.0
_FIRST_MINUTE = 60.0
_SOON, _LATER = 1.0, 10.0
_ON_LINK = "0.0.0.0"


def enabled(inputs: Inputs) -> Decision:
    """On unless another server is named."""
    if os.environ.get(HOST_VARIABLE):
        return Decision(False, f"{HOST_VARIABLE} names another server", "environment")
    return Decision(True, "on by default")


def plan(inputs: Inputs) -> Plan:
    """Return the route that is missing, if one is."""
    again = inputs.now + _pause(inputs)
    try:
        table = inputs.system.windows.routes.ipv4()
    except GuestError as error:
        return Plan(warnings=(str(error),), recheck_at=again)
    defaults = sorted(
        (route for route in table if route.prefix_length == 0),
        key=lambda route: (route.metric, route.interface),
    )
    if not defaults:
        return Plan(notes=("there is no default route yet",), recheck_at=again)
    interfaces = dict.fromkeys(route.interface for route in defaults)
    if any(is_metadata_route(route) and route.interface in interfaces for route in table):
        return Plan()
    metrics = {route.interface: route.metric for route in reversed(defaults)}
    candidates = tuple(
        Route(METADATA_ADDRESS, 32, _ON_LINK, interface, metrics[interface])
        for interface in interfaces
    )
    return Plan((AddMetadataRoute(candidates),), recheck_at=again)


def is_metadata_route(route: Route) -> bool:
    """Return whether ``route`` is a host route to the metadata server."""
    return route.destination == METADATA_ADDRESS and route.prefix_length == 32


def _pause(inputs: Inputs) -> float:
    """Return how soon to look again: soon while the agent is young."""
    started = (read_state(inputs.system, status_path(inputs.system)) or {}).get("started")
    is_old = isinstance(started, (int, float)) and inputs.now - started >= _FIRST_MINUTE
    return _LATER if is_old else _SOON


FEATURE = Feature(
    name="metadata-route",
    summary="keep a route to the metadata server",
    enabled=enabled,
    plan=plan,
    stage=Stage.EARLY,
    drift_interval=DRIFT_INTERVAL,
    retry_first=_SOON,
    retry_last=_LATER,
    watches_network=True,
    live_only=True,
)
