"""Child processes that end when this process ends, however it ends.

The kernel's parent-death signal fires when the *thread* that started the child ends, so one
thread that lives as long as the process starts them all.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

from support.commands import command_environment

Child = subprocess.Popen[bytes]

_starter: Optional[ThreadPoolExecutor] = None


def start_child(
    command: Sequence[str], *, log: Path, environment: Optional[Mapping[str, str]] = None
) -> Child:
    """Start `command` with closed input and both outputs appended to `log`."""
    global _starter
    if _starter is None:
        _starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="child-starter")
    return _starter.submit(_start, tuple(command), log, dict(environment or {})).result()


def _start(command: tuple[str, ...], log: Path, environment: dict[str, str]) -> Child:
    with open(log, "ab") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=command_environment(environment),
            start_new_session=True,
        )
