"""Switches that several features of Windows share.

A section of the configuration decides if it is there at all; then the instance's attribute, then
the project's.

Source: guest-agent ``google_guest_agent/windows_accounts.go``, ``addresses.go``.
"""

from __future__ import annotations

from typing import Optional

from google_guest.features import Decision, Inputs
from google_guest.metadata.tree import Metadata

ACCOUNTS_SWITCH = "disable-account-manager"


def accounts_decision(inputs: Inputs) -> Decision:
    """Return whether the agent may touch accounts."""
    disabled = inputs.config.account_manager.disable
    if disabled is not None:
        layer = inputs.config.origin("account_manager", "disable")
        word = "true" if disabled else "false"
        return Decision(not disabled, f"[accountManager] disable = {word}", layer)
    switch = None if inputs.metadata is None else inputs.metadata.switch(ACCOUNTS_SWITCH)
    if switch is not None:
        word = "true" if switch[0] else "false"
        return Decision(not switch[0], f"{ACCOUNTS_SWITCH} is {word}", switch[1])
    return Decision(True, "on by default")


def accounts_switch(metadata: Metadata) -> Optional[tuple[bool, str]]:
    """Return what metadata says about accounts, for ``inputs_of``."""
    return metadata.switch(ACCOUNTS_SWITCH)
