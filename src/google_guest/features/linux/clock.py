"""Clock: set it after the instance was moved to another host or resumed.

Reads: ``instance/virtual-clock/drift-token``, ``/etc/adjtime`` or timedatectl(1) for what the
hardware clock keeps, ``/dev/rtc0``, chronyd's pid file, the token that was acted upon in this boot
(``/run/google-guest-agent/clock.json``).

Wants one correction for each new token, and one when the agent starts with the machine: by
``chronyc makestep`` where chronyd runs, else from the hardware clock, which the host keeps right,
provided that it keeps UTC. An agent that starts later (the package was just installed) only
remembers the token.

Off by default (``[Daemons] clock_skew_daemon``).

Source: google-guest-agent ``cmd/core_plugin/clock``, guest-agent ``google_guest_agent/clock.go``,
hwclock(8), adjtime_config(5), chronyc(1).
"""

from __future__ import annotations

import re
from typing import Optional

from google_guest.changes.platform import RunCommand
from google_guest.errors import GuestError
from google_guest.features import Decision, Feature, Inputs, Plan
from google_guest.metadata.tree import Metadata
from google_guest.programs import find_program
from google_guest.state import RUN_DIRECTORY, Remember, read_state
from google_guest.system import System

MEMORY = f"{RUN_DIRECTORY}/clock.json"
ADJTIME = "/etc/adjtime"
RTC_DEVICE = "/dev/rtc0"
BOOTING = 300.0
"""Seconds of uptime in which a starting agent starts with the machine."""

_SUBJECT = "clock"
_CHRONYD_PID_FILES = ("/run/chrony/chronyd.pid", "/run/chronyd.pid")
_LOCAL_RTC = re.compile(r"^\s*RTC in local TZ:\s*(\w+)\s*$", re.MULTILINE)


def enabled(inputs: Inputs) -> Decision:
    """On if configured, where there is something to set the clock by."""
    layer = inputs.config.origin("daemons", "clock_skew_daemon")
    if not inputs.config.daemons.clock_skew_daemon:
        return Decision(False, "[Daemons] clock_skew_daemon = false", layer)
    if not chronyd_runs(inputs.system):
        if find_program(inputs.system.files, "hwclock") is None:
            return Decision(False, "hwclock is not installed")
        if not inputs.system.files.exists(RTC_DEVICE):
            return Decision(False, f"there is no {RTC_DEVICE}")
    return Decision(True, "[Daemons] clock_skew_daemon = true", layer)


def inputs_of(metadata: Metadata) -> Optional[str]:
    """Return the drift token."""
    return metadata.instance.drift_token


def plan(inputs: Inputs) -> Plan:
    """Return one correction if the token is new."""
    token = None if inputs.metadata is None else inputs.metadata.instance.drift_token
    if token is None:
        return Plan()
    memory = read_state(inputs.system, MEMORY)
    if memory is not None and memory.get("drift_token") == token:
        return Plan()
    remember = Remember(
        MEMORY,
        {"drift_token": token},
        purpose="for which drift token the clock was set",
        about=_SUBJECT,
    )
    if memory is None and uptime(inputs.system) > BOOTING:
        return Plan((remember,))
    if chronyd_runs(inputs.system) and find_program(inputs.system.files, "chronyc") is not None:
        argv = ("chronyc", "makestep")
        return Plan((RunCommand(argv, "let chronyd step the clock", about=_SUBJECT), remember))
    if not rtc_keeps_utc(inputs.system):
        return Plan(notes=("the clock is left alone: the hardware clock does not keep UTC",))
    hwclock = ("hwclock", "--hctosys", "-u", "--noadjfile")
    purpose = "set the clock from the hardware clock"
    return Plan((RunCommand(hwclock, purpose, about=_SUBJECT), remember))


def chronyd_runs(system: System) -> bool:
    """Return whether the process of chronyd's pid file is chronyd."""
    for path in _CHRONYD_PID_FILES:
        number = (_read(system, path) or "").strip()
        if number.isdigit() and (_read(system, f"/proc/{number}/comm") or "").strip() == "chronyd":
            return True
    return False


def rtc_keeps_utc(system: System) -> bool:
    """Return whether the hardware clock is known to keep UTC."""
    text = _read(system, ADJTIME)
    if text is not None:
        return adjtime_says_utc(text)
    try:
        status = system.run(("timedatectl", "status"), timeout=10.0).stdout
    except GuestError:
        return False
    match = _LOCAL_RTC.search(status)
    return match is not None and match[1].lower() == "no"


def adjtime_says_utc(text: str) -> bool:
    """Return whether the third line of ``/etc/adjtime`` is ``UTC``."""
    lines = text.split("\n")
    return len(lines) >= 3 and lines[2].strip().upper() == "UTC"


def uptime(system: System) -> float:
    """Return the seconds since the machine started (proc(5)); 0 where that is unknown."""
    first = (_read(system, "/proc/uptime") or "").split(" ")[0]
    return float(first) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", first) else 0.0


def _read(system: System, path: str) -> Optional[str]:
    try:
        return system.files.read_text(path, limit=64 << 10)
    except OSError:
        # Whatever cannot be read tells nothing; every caller then takes the cautious way.
        return ""


FEATURE = Feature(
    name="clock",
    summary="set the clock after a live migration or a resume",
    enabled=enabled,
    plan=plan,
    inputs_of=inputs_of,
    live_only=True,
)
