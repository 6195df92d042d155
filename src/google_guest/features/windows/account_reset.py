"""New passwords for people with access to the instance's metadata.

Reads: the instance's attribute ``windows-keys``, the registry's list of processed requests
(``PublicKeys`` below ``HKLM\\SOFTWARE\\Google\\ComputeEngine``) and whether an account exists.

Wants every valid request processed once: the account exists, has a new random password, which
``COM4`` reports encrypted; a new account, and one whose request says so, is an administrator. The
registry lists what was processed as long as metadata has it. Nothing else of an account changes.

Off if ``[accountManager] disable`` or ``disable-account-manager`` says so.

Source: guest-agent ``google_guest_agent/windows_accounts.go``; public GCE documentation, "Automate
Windows password generation".
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Optional

from google_guest.changes import Change
from google_guest.changes.windows_accounts import (
    PUBLIC_KEYS,
    ResetPassword,
    TidyProcessedKeys,
    tidied,
)
from google_guest.errors import GuestError
from google_guest.features import Feature, Inputs, Plan, Stage
from google_guest.features.windows.switches import accounts_decision, accounts_switch
from google_guest.metadata.tree import Metadata
from google_guest.system import System
from google_guest.system.windows import COMPUTE_ENGINE_KEY
from google_guest.windows_keys import (
    ATTRIBUTE,
    WindowsKey,
    encode_processed,
    parse_processed,
    parse_windows_keys,
)

_REGISTRY_RETRY = 60.0


def inputs_of(metadata: Metadata) -> Hashable:
    """Return the requests and the switch."""
    return metadata.instance.attributes.get(ATTRIBUTE), accounts_switch(metadata)


def plan(inputs: Inputs) -> Plan:
    """Return a change for each request that was not processed, and one that tidies the list."""
    if inputs.metadata is None:
        return Plan()
    wanted = parse_windows_keys(inputs.metadata.instance.attributes.get(ATTRIBUTE, ""), inputs.now)
    try:
        known = inputs.system.windows.registry.strings(COMPUTE_ENGINE_KEY, PUBLIC_KEYS)
    except OSError as error:
        # Without the list every request would count as new.
        problem = f"no request is processed, the list of processed ones is unreadable: {error}"
        return Plan(warnings=(problem,), recheck_at=inputs.now + _REGISTRY_RETRY)
    processed = parse_processed(known)
    new = [key for key in wanted.keys if key.identity not in processed.identities]
    changes: list[Change] = [
        ResetPassword(key, _exists(inputs.system, key.user_name)) for key in new
    ]
    after = (*known, *(encode_processed(key) for key in new))
    if tidied(after, wanted.keys) != after:
        changes.append(TidyProcessedKeys(wanted.keys))
    warnings = (*wanted.problems, *processed.problems, *_domain_warning(inputs.system, new))
    return Plan(tuple(changes), warnings=warnings)


def _exists(system: System, name: str) -> Optional[bool]:
    try:
        return system.windows.accounts.exists(name)
    except GuestError:
        # The change meets the same error and answers with it.
        return None


def _domain_warning(system: System, new: list[WindowsKey]) -> tuple[str, ...]:
    if not new or not system.windows.accounts.is_domain_controller():
        return ()
    names = ", ".join(dict.fromkeys(key.user_name for key in new))
    return (f"this is a domain controller: the new passwords of {names} are the domain's",)


FEATURE = Feature(
    name="account-reset",
    summary="set new passwords on request and report them on COM4",
    enabled=accounts_decision,
    plan=plan,
    stage=Stage.BOOT,
    inputs_of=inputs_of,
    drift_interval=600.0,
    retry_first=5.0,
    retry_last=60.0,
    live_only=True,
)
