"""What is measured, one function for each figure; every one takes a booted bed and returns samples.

The figures are read from outside the agents: unit timestamps of systemd, /proc of the agent's
process, the emulator's request log, the bed's files. Nothing is asked of the agents themselves, so
both kinds are measured alike.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from support.bed import Bed

AGENT = "google-guest-agent"
STARTUP = "google-startup-scripts"
SSH_KEYS = "instance/attributes/ssh-keys"
SCRIPT_KEY = "instance/attributes/startup-script"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{tag:0>43} bench"
_POLL = 0.002


def unit_times(bed: Bed, unit: str) -> dict[str, float]:
    """Return the unit's four monotonic timestamps in seconds."""
    names = ("InactiveExit", "ActiveEnter", "ActiveExit", "InactiveEnter")
    options = " ".join(f"-p {name}TimestampMonotonic" for name in names)
    lines = bed.run(f"systemctl show {unit} {options}").stdout.split()
    values = dict(line.split("=", 1) for line in lines)
    return {name: int(values[f"{name}TimestampMonotonic"]) / 1e6 for name in names}


def main_pid(bed: Bed) -> int:
    """Return the agent's process as this host numbers it."""
    inside = int(bed.run(f"systemctl show -P MainPID {AGENT}").stdout)
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            status = Path(f"/proc/{entry}/status").read_text()
            same = os.readlink(f"/proc/{entry}/ns/pid") == os.readlink(f"/proc/{bed.pid1}/ns/pid")
        except OSError:
            # The process ended between listing and reading.
            continue
        numbers = next(line for line in status.splitlines() if line.startswith("NSpid")).split()[1:]
        if same and numbers[-1] == str(inside):
            return int(entry)
    raise RuntimeError(f"{AGENT} has no process")


def ready_seconds(bed: Bed) -> float:
    """Restart the agent; return the seconds from its start to READY."""
    bed.run(f"systemctl stop {AGENT}")
    bed.run(f"systemctl reset-failed {AGENT}; systemctl start {AGENT}", timeout=120)
    times = unit_times(bed, AGENT)
    return times["ActiveEnter"] - times["InactiveExit"]


def stop_seconds(bed: Bed) -> float:
    """Stop the agent during its long poll; return the seconds that it took, and start it again."""
    time.sleep(1.0)
    bed.run(f"systemctl stop {AGENT}", timeout=120)
    times = unit_times(bed, AGENT)
    bed.run(f"systemctl reset-failed {AGENT}; systemctl start {AGENT}", timeout=120)
    return times["InactiveEnter"] - times["ActiveExit"]


def memory_mib(bed: Bed) -> tuple[float, float]:
    """Restart the agent and let it settle; return its resident and proportional memory in MiB."""
    bed.run(f"systemctl restart {AGENT}", timeout=120)
    time.sleep(3.0)
    pid = main_pid(bed)
    return _field(pid, "status", "VmRSS"), _field(pid, "smaps_rollup", "Pss")


def key_seconds(bed: Bed, number: int) -> float:
    """Give an existing user another key; return the seconds until it is in the file."""
    tag = f"k{number}"
    path = bed.path("/home/bench/.ssh/authorized_keys")
    began = time.monotonic()
    bed.mds.set(SSH_KEYS, "bench:" + KEY.format(tag=tag))
    _until(lambda: path.exists() and tag in path.read_text(), 60)
    return time.monotonic() - began


def users_seconds(bed: Bed, count: int) -> float:
    """Add ``count`` users at once; return the seconds until the last one has its key."""
    lines = [f"u{number}:" + KEY.format(tag=f"u{number}") for number in range(count)]
    files = [bed.path(f"/home/u{number}/.ssh/authorized_keys") for number in range(count)]
    began = time.monotonic()
    bed.mds.set(SSH_KEYS, "\n".join(lines))
    _until(files[-1].exists, 600)
    _until(lambda: all(path.exists() for path in files), 600)
    return time.monotonic() - began


def script_seconds(bed: Bed, script: str) -> float:
    """Run the startup-script unit; return the seconds from its start to its program's end."""
    # An empty value counts as no script, for both runners.
    bed.mds.set(SCRIPT_KEY, script)
    bed.run(f"systemctl stop {STARTUP}; systemctl reset-failed {STARTUP}", check=False)
    bed.run(f"systemctl start {STARTUP}", timeout=120)
    names = ("ExecMainStart", "ExecMainExit")
    values = [int(bed.unit_property(STARTUP, f"{name}TimestampMonotonic")) for name in names]
    return (values[1] - values[0]) / 1e6


def growth_mib(bed: Bed, changes: int, limit: float) -> tuple[float, int]:
    """Change one attribute over and over; return the growth in MiB and the changes made.

    Each change waits until the agent has come back for the next one, so that none is lost.
    """
    pid = main_pid(bed)
    for number in range(50):
        _change(bed, number)
    before = _field(pid, "status", "VmRSS")
    deadline = time.monotonic() + limit
    made = 0
    while made < changes and time.monotonic() < deadline:
        _change(bed, made)
        made += 1
    time.sleep(2.0)
    return _field(pid, "status", "VmRSS") - before, made


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds of a process so far, its waited-for children included."""
    ticks = os.sysconf("SC_CLK_TCK")
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    children = sum(int(fields[index]) for index in (13, 14)) / ticks
    own = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        own += int((task / "schedstat").read_text().split()[0]) / 1e9
    return own + children


def installed_kib(bed: Bed, names: tuple[str, ...]) -> int:
    """Return what dpkg says that the packages take on disk, in KiB."""
    output = bed.run(["dpkg-query", "-W", "-f", "${Installed-Size}\n", *names]).stdout
    return sum(int(line) for line in output.split())


def _change(bed: Bed, number: int) -> None:
    bed.mds.clear_requests()
    bed.mds.set("instance/attributes/bench-counter", str(number))
    bed.mds.wait_for_request("", 5.0)


def _field(pid: int, file: str, name: str) -> float:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/{file} has no {name}")


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"no result within {seconds:g} s")
        time.sleep(_POLL)
