"""Users for ssh, made from the keys in metadata.

Reads: ``ssh-keys`` (and ``sshKeys``) of the instance and, unless blocked, of the project; which of
their users exist; what is installed as the service ``sshd``.

Wants each user with a valid key to exist, as an administrator with a password that nobody knows.
Users that exist are left as they are, and none is ever deleted or demoted. No file with keys is
written: sshd asks ``GCEAuthorizedKeysCommand`` at each login. Once after it was switched on, sshd
is started if it does not run.

Off unless ``enable-windows-ssh`` is true, and wherever accounts are off. On a domain controller,
where every user is one of the domain, only a configuration that says ``[accountManager] disable =
false`` makes users.

Source: guest-agent ``google_guest_agent/windows_accounts.go``; OpenSSH's release notes for 8.6.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Optional

from google_guest.changes import Change
from google_guest.changes.windows import StartService
from google_guest.changes.windows_accounts import CreateSshUser
from google_guest.errors import GuestError
from google_guest.features import Decision, Feature, Inputs, Plan, Stage
from google_guest.features.key_explanations import KeyExplanation, explanations
from google_guest.features.windows.switches import accounts_decision, accounts_switch
from google_guest.metadata.tree import Metadata
from google_guest.ssh_keys import key_sources, wanted_keys
from google_guest.state import Remember, read_state
from google_guest.system import System
from google_guest.system.windows import ServiceState

SWITCH = "enable-windows-ssh"
SSHD = "sshd"
MEMORY = "sshd.json"
OLDEST_SSHD = (8, 6)
"""The first version of OpenSSH for Windows that knows AuthorizedKeysCommand."""
_SERVICE_KEY = rf"SYSTEM\CurrentControlSet\Services\{SSHD}"
_PROGRAM = re.compile(r'\s*(?:"([^"]+)"|(.+?\.exe)(?=\s|$)|(\S+))', re.IGNORECASE)
_VERSION = re.compile(r"\D*([0-9]{1,4})\.([0-9]{1,4})")


def enabled(inputs: Inputs) -> Decision:
    """Off unless somebody asks for ssh."""
    switch = None if inputs.metadata is None else inputs.metadata.switch(SWITCH)
    if switch is None:
        return Decision(False, f"{SWITCH} is not set")
    if not switch[0]:
        return Decision(False, f"{SWITCH} is false", switch[1])
    accounts = accounts_decision(inputs)
    return Decision(True, f"{SWITCH} is true", switch[1]) if accounts.on else accounts


def inputs_of(metadata: Metadata) -> Hashable:
    """Return keys and switches."""
    sources = tuple((source.text, source.blocked_by) for source in key_sources(metadata))
    return sources, metadata.switch(SWITCH), accounts_switch(metadata)


def plan(inputs: Inputs) -> Plan:
    """Return a change for each user that is missing, and the start of sshd."""
    if inputs.metadata is None:
        return Plan()
    system = inputs.system
    wanted = wanted_keys(inputs.metadata, inputs.now)
    warnings = [
        f"{source.level} attribute {source.attribute}: a line is left out, {line.reason}"
        for source, line in wanted.bad_lines
    ]
    changes: list[Change] = []
    if _may_create(inputs):
        for user in wanted.users:
            try:
                if not system.windows.accounts.exists(user):
                    changes.append(CreateSshUser(user))
            except GuestError as error:
                warnings.append(f"user {user}: {error}")
    elif wanted.users:
        warnings.append(
            "this is a domain controller: users are made only if the configuration says"
            " [accountManager] disable = false"
        )
    if not _was_looked_after(system):
        changes += _look_after_sshd(system, warnings)
    return Plan(tuple(changes), recheck_at=wanted.next_expiry, warnings=tuple(warnings))


def served_keys(inputs: Inputs, user: str) -> tuple[str, ...]:
    """Return the keys with which ``user`` may log in; names of users ignore case on Windows.

    Raises:
        GuestError: keys in metadata do not count here.
    """
    decision = enabled(inputs)
    if not decision.on or inputs.metadata is None:
        raise GuestError(f"keys in metadata do not count: {decision.reason} ({decision.layer})")
    users = wanted_keys(inputs.metadata, inputs.now).users
    lines = (lines for name, lines in users.items() if name.casefold() == user.casefold())
    return tuple(line.text for one in lines for line in one)


def explain_keys(inputs: Inputs) -> tuple[KeyExplanation, ...]:
    """Return every key line of metadata with what becomes of it."""
    if inputs.metadata is None:
        return ()
    decision = enabled(inputs)
    unused = "" if decision.on else f"unused: {decision.reason}"
    return explanations(inputs.metadata, inputs.now, unused=unused)


def plan_off(inputs: Inputs) -> Plan:
    """Forget that sshd was looked after: the next time it is switched on counts anew."""
    system = inputs.system
    if not _was_looked_after(system):
        return Plan()
    path = system.places.in_run(MEMORY)
    return Plan((Remember(path, {}, purpose="that ssh is off", about="sshd"),))


def _was_looked_after(system: System) -> bool:
    memory = read_state(system, system.places.in_run(MEMORY)) or {}
    return bool(memory.get("looked_after"))


def _may_create(inputs: Inputs) -> bool:
    explicit = inputs.config.account_manager.disable is False
    return explicit or not inputs.system.windows.accounts.is_domain_controller()


def _look_after_sshd(system: System, warnings: list[str]) -> Iterator[Change]:
    """Yield the start of sshd, and the note that it was seen to."""
    windows = system.windows
    try:
        state = windows.services.state(SSHD)
        command = windows.registry.text(_SERVICE_KEY, "ImagePath")
    except (GuestError, OSError) as error:
        warnings.append(f"nothing is known of sshd: {error}")
        return
    if state is None:
        warnings.append("sshd is not installed: nobody can log in over ssh")
        return
    warnings += _version_warning(system, command or "")
    if state is ServiceState.STOPPED:
        yield StartService(SSHD)
    path = system.places.in_run(MEMORY)
    yield Remember(path, {"looked_after": True}, purpose="that sshd was seen to", about="sshd")


def _version_warning(system: System, command: str) -> tuple[str, ...]:
    found = system.windows.file_version(program_of(command)) if command else None
    version = None if found is None else parse_version(found.file)
    if version is None:
        return ("the version of sshd is unknown; keys in metadata need 8.6 or newer",)
    if version < OLDEST_SSHD:
        number = ".".join(str(part) for part in version)
        return (f"sshd {number} is too old for keys in metadata, which need 8.6 or newer",)
    return ()


def program_of(command: str) -> str:
    """Return the program of a command line such as a service's, without its arguments."""
    match = _PROGRAM.match(command)
    return "" if match is None else match[1] or match[2] or match[3]


def parse_version(text: str) -> Optional[tuple[int, int]]:
    """Return the first two numbers of a version such as ``8.6.0.1`` or ``OpenSSH_9.5``."""
    match = _VERSION.match(text)
    return None if match is None else (int(match[1]), int(match[2]))


FEATURE = Feature(
    name="ssh-users",
    summary="make a user for each valid SSH key",
    enabled=enabled,
    plan=plan,
    plan_off=plan_off,
    stage=Stage.BOOT,
    inputs_of=inputs_of,
    drift_interval=600.0,
    live_only=True,
)
