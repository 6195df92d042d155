"""Programs of the platform, run one way.

Every command of the project goes through :func:`run_command`: an argument list and never a shell
string, a time limit that ends the whole process group, closed standard input unless input is
given, a fixed locale so that messages can be recognised, and no proxy or service-manager variables
handed on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Optional

from google_guest.errors import GuestError
from google_guest.records import record

DEFAULT_TIMEOUT = 60.0
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STDERR_SHOWN = 400


@record
class Completed:
    """A finished command: its arguments, exit status (negative: the signal) and decoded output."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


class CommandError(GuestError):
    """A command ended with another status than 0, or was ended at its time limit (status None)."""

    def __init__(self, argv: Sequence[str], status: Optional[int], stderr: str) -> None:
        self.argv = tuple(argv)
        self.status = status
        self.stderr = stderr
        super().__init__(f"{self.argv[0]} {_ending(status)}{_tail(stderr)}")


class CommandMissing(GuestError):
    """The program is not installed."""

    def __init__(self, program: str) -> None:
        self.program = program
        super().__init__(f"{program} is not installed")


def command_environment(extra: Optional[Mapping[str, str]] = None) -> dict[str, str]:
    """Return the environment that commands receive: a search path, the locale, ``extra``."""
    environment = {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "HOME": "/"}
    environment.update(extra or {})
    return environment


def program_argv(module: str, *arguments: str) -> list[str]:
    """Return the command that runs ``main()`` of the file ``module`` in a process of its own.

    The file imports the standard library only. It is imported and not run as a script, because
    Python keeps no byte code of scripts and would compile it anew each time.
    """
    folder, name = os.path.split(module)
    code = (
        f"import sys; sys.path.append({folder!r});"
        f" import {name.partition('.')[0]} as program; sys.exit(program.main())"
    )
    return [sys.executable or "/usr/bin/python3", "-IS", "-c", code, *arguments]


def run_command(
    argv: Sequence[str],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    input: Optional[str] = None,
    check: bool = True,
    env: Optional[Mapping[str, str]] = None,
) -> Completed:
    """Run ``argv`` and return what it printed.

    ``timeout`` is in seconds. ``input`` is sent to standard input, which is /dev/null otherwise.

    Raises:
        CommandMissing: the program does not exist or is not executable.
        CommandError: the status is not 0 (with ``check``), or the time limit was reached.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=command_environment(env),
            cwd="/",
            close_fds=True,
            start_new_session=True,
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise CommandMissing(argv[0]) from error
    try:
        out, err = process.communicate(None if input is None else input.encode(), timeout)
    except subprocess.TimeoutExpired:
        _end_group(process)
        raise CommandError(argv, None, f"no end within {timeout:g} s") from None
    except BaseException:
        _end_group(process)
        raise
    completed = Completed(tuple(argv), process.returncode, _text(out), _text(err))
    if check and completed.status != 0:
        raise CommandError(argv, completed.status, completed.stderr)
    return completed


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the command and everything that it started (Windows: the command), then collect it."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # A grandchild outside the group may still hold the pipes: close instead of reading to the end.
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _ending(status: Optional[int]) -> str:
    if status is None:
        return "was ended"
    if status < 0:
        return f"was killed by signal {-status}"
    return f"failed with status {status}"


def _tail(stderr: str) -> str:
    text = " ".join(stderr.split())
    return f": {text[:_STDERR_SHOWN]}" if text else ""
