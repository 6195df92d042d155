"""What beds leave on the host: finding it, and removing what belongs to nobody any more.

Beds own folders below `BEDS`, network namespaces and cgroups, all named with the prefix `ggbed-`.
A bed whose owner (process id and start time in its state) is gone is swept by the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.commands import run_command
from support.guest import BedState, kill_cgroup, read_state
from support.network import namespaces, remove_namespace

PREFIX = "ggbed-"
BEDS = Path("/run/google-guest-beds")
_CGROUP_TIMEOUT = 5.0


def cgroup_root() -> Path:
    """Where the unified cgroup hierarchy is mounted; FileNotFoundError without one."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1])
    raise FileNotFoundError("no cgroup2 hierarchy is mounted")


def process_start(pid: int) -> str:
    """When a process started, in the kernel's ticks: with its id it names a process for good.

    Empty without such a process, and for one that has ended and was not waited for (proc(5),
    fields 3 and 22 of stat).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def known_beds() -> tuple[BedState, ...]:
    """The beds whose owner lives."""
    if not BEDS.is_dir():
        return ()
    states = (read_state(folder) for folder in sorted(BEDS.iterdir()))
    return tuple(state for state in states if state is not None and _owned(state))


@contextmanager
def registry_lock() -> Iterator[None]:
    """Held while a bed registers itself and while left-overs are swept."""
    BEDS.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(BEDS / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep() -> tuple[str, ...]:
    """Remove the beds of dead owners; their names.  Call with `registry_lock` held."""
    swept = []
    owned = {state.name for state in known_beds()}
    for name in sorted(_bed_names() - owned):
        remove_remains(name)
        swept.append(name)
    return tuple(swept)


def remove_remains(name: str) -> None:
    """End and remove everything of one bed, whatever of it exists."""
    cgroup = cgroup_root() / name
    if cgroup.is_dir():
        kill_cgroup(cgroup)
        remove_cgroup(cgroup)
    for namespace in (f"{name}-in", f"{name}-out"):
        remove_namespace(namespace)
    remove_directory(BEDS / name)


def remove_cgroup(path: Path) -> None:
    """Remove a cgroup without processes, its children first."""
    for folder, _, _ in os.walk(path, topdown=False):
        deadline = time.monotonic() + _CGROUP_TIMEOUT
        while True:
            try:
                os.rmdir(folder)
                break
            except OSError as error:
                # The kernel counts processes that have just ended for a moment longer.
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def remove_directory(directory: Path) -> None:
    """Unmount what is mounted below a bed's folder, the newest first, and remove the folder."""
    for target in reversed(mounts_below(directory)):
        run_command(["umount", "-l", target], purpose=f"unmount {target}", check=False)
    if directory.is_dir():
        if mounts_below(directory):
            raise OSError(f"{directory} still has mounts")
        shutil.rmtree(directory)


def mounts_below(directory: Path) -> list[str]:
    """Mount points at and below a folder, in the order in which they were mounted."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = line.split()[4]
        if target == str(directory) or target.startswith(f"{directory}/"):
            found.append(target)
    return found


def leaks() -> tuple[str, ...]:
    """Everything of beds on this host that belongs to no living owner, for a person to read."""
    owned = {state.name for state in known_beds()}
    return tuple(
        f"bed {name}: {what}" for name in sorted(_bed_names() - owned) for what in _remains(name)
    )


def _remains(name: str) -> Iterator[str]:
    cgroup = cgroup_root() / name
    if cgroup.is_dir():
        yield f"cgroup {cgroup}"
    for namespace in (f"{name}-in", f"{name}-out"):
        if namespaces(namespace):
            yield f"network namespace {namespace}"
    for target in mounts_below(BEDS / name):
        yield f"mount {target}"
    if (BEDS / name).is_dir():
        yield f"folder {BEDS / name}"


def _bed_names() -> set[str]:
    names = {
        namespace.rpartition("-")[0]
        for namespace in namespaces(PREFIX)
        if namespace.endswith(("-in", "-out"))
    }
    for folder in (BEDS, cgroup_root()):
        if folder.is_dir():
            names |= {entry for entry in os.listdir(folder) if entry.startswith(PREFIX)}
    return names


def _owned(state: BedState) -> bool:
    return process_start(state.owner) == state.owner_started
