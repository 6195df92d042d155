"""Scenarios: what the platform does to an instance, as it looks through the metadata server.

``live-migration``
    announces ``MIGRATE_ON_HOST_MAINTENANCE``, answers 503 for ``seconds=`` (1.0), then shows a new
    drift token and no event
``preemption``
    ``instance/preempted`` becomes ``TRUE``
``nic-added``
    one more network interface, with ``mac=`` and ``ip=`` if given
``nic-removed``
    the last network interface goes
``key-rotation``
    every SSH and Windows key at the instance is replaced by a new one of the same user

Facts: public documentation of live migration, preemption and network interfaces.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from metadata_server.emulator import Emulator

_numbers = itertools.count(1)
_SCHEDULED = "instance/maintenance-event"
_DRIFT = "instance/virtual-clock/drift-token"


def play(emulator: Emulator, name: str, **options: object) -> None:
    """Play one scenario; raises ValueError for an unknown name or option."""
    scenario, known = PRESETS.get(name.replace("_", "-"), (None, frozenset()))
    if scenario is None:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    unknown = set(options) - known
    if unknown:
        raise ValueError(f"preset {name} has no option {', '.join(sorted(unknown))}")
    scenario(emulator, options)


def _live_migration(emulator: Emulator, options: Mapping[str, object]) -> None:
    seconds = options.get("seconds", 1.0)
    pause = float(seconds) if isinstance(seconds, (int, float)) else 1.0
    emulator.set(_SCHEDULED, "MIGRATE_ON_HOST_MAINTENANCE")
    emulator.fault("", "status", status=503, lifetime=pause)

    def arrive() -> None:
        old = emulator.get(_DRIFT, "0")
        token = int(old) + 1 if isinstance(old, (int, str)) and str(old).isdecimal() else 1
        with emulator.batch():
            emulator.set(_SCHEDULED, "NONE")
            emulator.set(_DRIFT, str(token))

    emulator.later(pause, arrive)


def _preemption(emulator: Emulator, options: Mapping[str, object]) -> None:
    emulator.set("instance/preempted", "TRUE")


def _nic_added(emulator: Emulator, options: Mapping[str, object]) -> None:
    with emulator.batch():
        nics = emulator.get("instance/network-interfaces", [])
        index = len(nics) if isinstance(nics, list) else 0
        network = emulator.get("instance/network-interfaces/0/network")
        octet = 60 + index
        nic: dict[str, object] = {
            "accessConfigs": [],
            "dnsServers": ["169.254.169.254"],
            "forwardedIps": [],
            "gateway": f"10.{octet}.0.1",
            "ip": options.get("ip", f"10.{octet}.0.5"),
            "ipAliases": [],
            "mac": options.get("mac", f"42:01:0a:{octet:02x}:00:05"),
            "mtu": 1460,
            "network": network or "projects/424242000001/networks/extra",
            "subnetmask": "255.255.240.0",
            "targetInstanceIps": [],
        }
        if not isinstance(nics, list):
            emulator.set("instance/network-interfaces", [])
        emulator.set(f"instance/network-interfaces/{index}", nic)


def _nic_removed(emulator: Emulator, options: Mapping[str, object]) -> None:
    with emulator.batch():
        nics = emulator.get("instance/network-interfaces", [])
        if not isinstance(nics, list) or not nics:
            raise ValueError("there is no network interface to remove")
        emulator.delete(f"instance/network-interfaces/{len(nics) - 1}")


def _key_rotation(emulator: Emulator, options: Mapping[str, object]) -> None:
    with emulator.batch():
        for path, rotated in (
            ("instance/attributes/ssh-keys", _new_ssh_keys),
            ("instance/attributes/windows-keys", _new_windows_keys),
        ):
            keys = emulator.get(path)
            if isinstance(keys, str):
                emulator.set(path, rotated(keys))


def _new_ssh_keys(keys: str) -> str:
    return re.sub(
        r"^([^:\n]+):(\S+) (\S+)",
        lambda match: f"{match.group(1)}:ssh-ed25519 {_new_ed25519()}",
        keys,
        flags=re.MULTILINE,
    )


def _new_ed25519() -> str:
    """A well-formed Ed25519 public key that nobody can have the private half of."""
    blob = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + next(_numbers).to_bytes(32, "big")
    return base64.b64encode(blob).decode("ascii")


def _new_windows_keys(keys: str) -> str:
    lines = []
    for line in keys.split("\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            modulus = b"\xc0" + next(_numbers).to_bytes(255, "big")
            entry["modulus"] = base64.b64encode(modulus).decode("ascii")
            line = json.dumps(entry, separators=(",", ":"))
        lines.append(line)
    return "\n".join(lines)


_Scenario = Callable[["Emulator", Mapping[str, object]], None]
PRESETS: dict[str, tuple[_Scenario, frozenset[str]]] = {
    "live-migration": (_live_migration, frozenset({"seconds"})),
    "preemption": (_preemption, frozenset()),
    "nic-added": (_nic_added, frozenset({"mac", "ip"})),
    "nic-removed": (_nic_removed, frozenset()),
    "key-rotation": (_key_rotation, frozenset()),
}
