r"""``google-compute-engine-windows``: the service ``GCEAgent``.

Installing registers the service with all its properties, an automatic start included (the
reference's plugin manager leaves it disabled), takes away that manager's services, writes a
configuration file of comments where there is none, and waits until the service runs. Removing
leaves the configuration, the registry key, users and addresses; purging also takes away the
addresses that the agent gave to adapters, with its lists of them.

Source: guest-agent ``packaging/googet/agent_install.ps1`` and ``agent_uninstall.ps1``.
"""

from __future__ import annotations

import functools

from google_guest.cli.windows.service import SERVICE, definition
from google_guest.installation import Tell, attempt, layout, services
from google_guest.places import WINDOWS
from google_guest.system import System
from google_guest.system.windows import FORWARDED_IPS
from google_guest.system.windows.event_sources import register_event_source
from google_guest.system.windows.trees import remove_tree

EVENT_SOURCE = "GCEGuestAgent"
CORE_PLUGIN_FLAG = WINDOWS.in_state("core-plugin-enabled")
"""Makes the reference's plugin manager leave the agent to its plugin; it must not outlive it."""

_TEMPLATE = """\
# Configuration of the guest agent and the metadata scripts.
# Remove the ; of a section and of a line in it to change a setting.

;[accountManager]
;disable=false

;[addressManager]
;disable=false
"""


def install(system: System, tell: Tell) -> None:
    """Register and restart the service."""
    system.files.remove(CORE_PLUGIN_FLAG)
    for problem in system.windows.services.install(definition(layout.PYTHON)):
        tell(f"note: {problem}")
    for name in services.FORMER_SERVICES:
        services.delete(system, name, tell)
    if not system.files.exists(WINDOWS.config):
        text = _TEMPLATE.replace("\n", "\r\n")
        system.files.write_atomic(WINDOWS.config, text.encode("ascii"))
    register_event_source(system.windows.registry, EVENT_SOURCE)
    services.restart(system, SERVICE)
    tell(f"the service {SERVICE} runs")


def remove(system: System, tell: Tell) -> None:
    """Stop and delete the service, and what it kept."""
    for name in (SERVICE, *services.FORMER_SERVICES):
        deletion = functools.partial(services.delete, system, name, tell)
        attempt(f"delete the service {name}", deletion, tell)
    attempt(f"remove {WINDOWS.state}", lambda: remove_tree(system.files, WINDOWS.state), tell)


def purge(system: System, tell: Tell) -> None:
    """Remove the forwarded addresses that the agent added to adapters."""
    attempt("remove forwarded addresses", lambda: _remove_addresses(system, tell), tell)


def _remove_addresses(system: System, tell: Tell) -> None:
    registry, addresses = system.windows.registry, system.windows.addresses
    for adapter in addresses.adapters():
        for address in registry.strings(FORWARDED_IPS, adapter.mac):
            if address in adapter.addresses:
                addresses.remove(adapter.index, address)
                tell(f"removed {address} from {adapter.name}")
    registry.delete_key(FORWARDED_IPS)
