"""Tiers of tests: which exist, which are asked for, which are required, and what each needs.

A tier is a folder below tests/.  Its conftest.py may define `probe()`, which names what this
machine lacks for the tier, one short phrase each, and returns nothing when it can run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

from support import roots, sweep
from support.commands import CommandFailed, missing_programs, run_command

TIERS: Mapping[str, str] = {
    "unit": "logic alone: no root, no network, seconds",
    "packages": "built artifacts: contents, lint, install and removal",
    "windows": "Windows artifacts on Windows Python under Wine",
    "instance": "real artifacts in a booted instance: systemd in namespaces",
    "vm": "what needs a kernel of its own: QEMU",
}

TESTS = Path(__file__).resolve().parents[1]

_PROGRAMS = (
    *("unshare", "nsenter", "setpriv", "mount", "umount", "pivot_root", "ip", "nft"),
    *("ssh", "ssh-keygen", "dnsmasq"),
)
_TRY_NAMESPACES = """
set -e
mount --make-rprivate /
mount -t tmpfs none /tmp
mkdir /tmp/l /tmp/u /tmp/w /tmp/m
mount -t overlay none /tmp/m -o lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w
"""


def tier_of(path: Path) -> Optional[str]:
    """The tier of a test file; None outside the tiers."""
    try:
        first = path.resolve().relative_to(TESTS).parts[0]
    except (ValueError, IndexError):
        return None
    return first if first in TIERS else None


def required_tiers(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The tiers that GUEST_TEST_REQUIRE names (by commas); ValueError for an unknown one."""
    names = [name.strip() for name in environment.get("GUEST_TEST_REQUIRE", "").split(",")]
    required = tuple(name for name in names if name)
    for name in required:
        if name not in TIERS:
            raise ValueError(f"GUEST_TEST_REQUIRE: no tier {name!r}; there are {', '.join(TIERS)}")
    return required


def in_ci(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a tier that cannot run is a failure because a CI system runs the tests."""
    return environment.get("CI", "").lower() in ("1", "true")


def instance_problems(suite: str = "bookworm") -> tuple[str, ...]:
    """What this machine lacks for booting beds of `suite`."""
    return namespace_problems(_PROGRAMS) or root_problems(suite)


def namespace_problems(programs: Sequence[str]) -> tuple[str, ...]:
    """What this machine lacks for making any bed with these programs of the host."""
    if os.geteuid() != 0:
        return ("root (namespaces, mounts and cgroups of beds are made as root)",)
    problems = [f"program {name}" for name in missing_programs(programs)]
    try:
        sweep.cgroup_root()
    except FileNotFoundError as missing:
        problems.append(str(missing))
    if not problems:
        try:
            run_command(
                [
                    *("unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup"),
                    *("--net", "--kill-child", "sh", "-c", _TRY_NAMESPACES),
                ],
                purpose="make namespaces with an overlay",
            )
        except CommandFailed as failed:
            problems.append(str(failed))
    return tuple(problems)


def root_problems(suite: str, *, extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What this machine lacks for having the root tree of `suite`."""
    if roots.is_base_cached(suite, extra=extra):
        return ()
    if shutil.which("mmdebstrap") is None:
        return ("program mmdebstrap",)
    problem = roots.archive_problem(suite)
    return (problem,) if problem else ()
