"""Commands on the host that runs the tests: one way to start them, one error that explains them.

Every command is an argument list with a time limit, `LC_ALL=C.UTF-8` and a closed standard input
unless text is given.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Completed:
    """What a finished command left: its output as text and its exit status (negative: signal)."""

    stdout: str
    stderr: str
    status: int


class CommandFailed(Exception):
    """A command ended with a status that its caller did not expect, or did not end in time."""

    def __init__(self, argv: Sequence[str], completed: Completed, *, purpose: str) -> None:
        self.argv = tuple(argv)
        self.completed = completed
        said = (completed.stderr.strip() or completed.stdout.strip())[-2000:]
        super().__init__(
            f"cannot {purpose}: `{shlex.join(argv)}` ended with {completed.status}"
            + (f": {said}" if said else "")
        )


class CommandTimeout(CommandFailed):
    """A command that was ended because its time was up."""


def command_environment(extra: Optional[Mapping[str, str]] = None) -> dict[str, str]:
    """The environment of host commands: the caller's, with a fixed locale and the sbin folders."""
    environment = dict(os.environ)
    environment["LC_ALL"] = "C.UTF-8"
    folders = environment.get("PATH", "").split(":")
    for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        if folder not in folders:
            folders.append(folder)
    environment["PATH"] = ":".join(folder for folder in folders if folder)
    environment.update(extra or {})
    return environment


def run_command(
    argv: Sequence[str],
    *,
    purpose: str,
    timeout: float = 60.0,
    input: Optional[str] = None,
    check: bool = True,
    environment: Optional[Mapping[str, str]] = None,
) -> Completed:
    """Run `argv` to its end; `purpose` completes the sentence "cannot ..." of the error.

    Raises CommandTimeout after `timeout` seconds, CommandFailed on a status other than 0 when
    `check` is set, and FileNotFoundError when the program is missing.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=None if input is None else input.encode(),
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout,
            env=command_environment(environment),
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        partial = Completed(_text(expired.stdout), _text(expired.stderr), -9)
        raise CommandTimeout(argv, partial, purpose=f"{purpose} in {timeout:g} s") from None
    completed = Completed(_text(done.stdout), _text(done.stderr), done.returncode)
    if check and completed.status != 0:
        raise CommandFailed(argv, completed, purpose=purpose)
    return completed


def missing_programs(names: Sequence[str]) -> tuple[str, ...]:
    """Those of `names` that are no program in PATH or the sbin folders."""
    path = command_environment()["PATH"]
    return tuple(name for name in names if shutil.which(name, path=path) is None)


def _text(raw: object) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else ""
