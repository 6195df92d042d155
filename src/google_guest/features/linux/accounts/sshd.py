"""Starting sshd when it does not run, once a boot.

A running sshd is seen by its control group, without starting anything; systemctl is asked only when
there is none. An administrator who stops sshd later is not overruled until the next boot.

Source: guest-agent ``google_guest_agent/non_windows_accounts.go`` (it starts ssh and sshd after
every pass); systemctl(1).
"""

from __future__ import annotations

from google_guest.changes import Change
from google_guest.changes.platform import RunCommand
from google_guest.errors import GuestError
from google_guest.state import RUN_DIRECTORY, Remember, read_state
from google_guest.system import System

MEMORY = f"{RUN_DIRECTORY}/sshd.json"

_SERVICES = ("ssh.service", "sshd.service")
_SOCKETS = ("ssh.socket", "sshd.socket")
_HIERARCHIES = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")
_SYSTEMD = "/run/systemd/system"
_TIMEOUT = 10.0


def start_sshd(system: System) -> tuple[Change, ...]:
    """Return the changes that start an inactive sshd; none if it runs, is masked or missing."""
    if not system.is_live or not system.files.exists(_SYSTEMD) or _has_control_group(system):
        return ()
    if read_state(system, MEMORY) is not None:
        return ()
    units = _unit_states(system)
    if any(unit.get("Job", "0") not in ("", "0") for unit in units.values()):
        # It starts anyway: during boot it waits for the agent.
        return ()
    looked_after = Remember(
        MEMORY, {"looked_after": True}, purpose="that sshd was seen to in this boot", about="sshd"
    )
    alive = ("active", "activating", "reloading")
    if any(unit.get("ActiveState") in alive for unit in units.values()):
        return (looked_after,)
    for name in _SERVICES:
        unit = units.get(name, {})
        if unit.get("LoadState") == "loaded":
            # Not waiting: sshd may be ordered after the agent, which is about to say READY.
            argv = ("systemctl", "start", "--no-block", name)
            return (RunCommand(argv, purpose="start sshd", about="sshd"), looked_after)
    return (looked_after,) if units else ()


def _has_control_group(system: System) -> bool:
    return any(
        system.files.exists(f"{hierarchy}/system.slice/{service}")
        for hierarchy in _HIERARCHIES
        for service in _SERVICES
    )


def _unit_states(system: System) -> dict[str, dict[str, str]]:
    """Return properties by the name that was asked for; empty if systemctl cannot say."""
    names = (*_SERVICES, *_SOCKETS)
    argv = ["systemctl", "show", "--property=LoadState,ActiveState,Job", "--", *names]
    try:
        answer = system.run(argv, timeout=_TIMEOUT)
    except GuestError:
        return {}
    blocks = answer.stdout.strip("\n").split("\n\n")
    if len(blocks) != len(names):
        return {}
    states = {}
    for name, block in zip(names, blocks):
        pairs = (line.partition("=") for line in block.splitlines())
        states[name] = {key: value for key, _, value in pairs}
    return states
