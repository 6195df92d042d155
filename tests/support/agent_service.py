"""The agent of a booted bed as its service manager, its log and its status file show it.

Reads: the unit's properties, the journal, /run/google-guest-agent/status.json, /proc of the guest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from support.documents import INSTANCE_ID
from support.guest import Guest

AGENT = "google-guest-agent.service"
CONFIG = "/etc/default/instance_configs.cfg"
STATUS = "/run/google-guest-agent/status.json"
INSTANCE_MARKER = "/etc/google_instance_id"

WARNING, INFO = 4, 6
"""Syslog priorities (RFC 5424); a smaller number is more urgent."""


SETTLED: Mapping[str, str] = {INSTANCE_MARKER: f"{INSTANCE_ID}\n"}
"""Files of an instance that had its first boot, for `Bed(files=...)`."""


@dataclass(frozen=True)
class LogLine:
    """One line of the journal."""

    priority: int
    text: str


@dataclass(frozen=True)
class Resources:
    """What a process holds."""

    resident: int  # KiB
    descriptors: int
    threads: int
    ticks: int  # hundredths of a second of processor time


def log_lines(guest: Guest, *, after: int = 0) -> list[LogLine]:
    """What the agent wrote in this boot, without its first `after` lines.

    Only the program's own lines: what the service manager says about the unit is not among them.
    """
    # Not by cursor: journalctl with a match leaves out the first line after a cursor that it does
    # not match.
    argv = ["journalctl", "--no-pager", "--quiet", "--boot=0", "--output=json"]
    shown = guest.run([*argv, f"_SYSTEMD_UNIT={AGENT}"], check=False).stdout
    lines = [json.loads(line) for line in shown.splitlines()]
    return [LogLine(int(line.get("PRIORITY", INFO)), str(line.get("MESSAGE"))) for line in lines][
        after:
    ]


def above_info(lines: list[LogLine]) -> list[str]:
    """The texts of the lines that somebody should look at."""
    return [line.text for line in lines if line.priority < INFO]


def traces(guest: Guest) -> list[str]:
    """Beginnings of Python's traces in the journal of this boot, whoever wrote them."""
    return [line for line in guest.journal().splitlines() if "Traceback (most recent" in line]


def status(guest: Guest) -> dict[str, Any]:
    """The agent's status document."""
    document = json.loads(guest.path(STATUS).read_text())
    assert isinstance(document, dict)
    return document


def main_pid(guest: Guest) -> int:
    """The agent's process id inside the guest; 0 when it does not run."""
    return int(guest.unit_property(AGENT, "MainPID"))


def is_active(guest: Guest) -> bool:
    """Whether the service manager counts the agent as started."""
    return guest.unit_property(AGENT, "ActiveState") == "active"


def await_first_passes(guest: Guest, timeout: float = 15.0) -> None:
    """Wait until every feature of the catalog has run at least once."""

    def done() -> bool:
        try:
            rows = status(guest)["features"].values()
        except (FileNotFoundError, ValueError):
            return False
        return all("last_pass" in row for row in rows)

    guest.wait_until(done, timeout, "every feature has run")


def resources(guest: Guest, pid: int) -> Resources:
    """What the guest's process `pid` holds now."""
    process = guest.path(f"/proc/{pid}")
    facts = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
    )
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return Resources(
        resident=int(facts["VmRSS"].split()[0]),
        descriptors=len(list((process / "fd").iterdir())),
        threads=int(facts["Threads"]),
        ticks=int(fields[11]) + int(fields[12]),
    )
