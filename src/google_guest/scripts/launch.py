"""Starting a script so that it behaves as if ``default_shell -c FILE`` had run it.

=====================================  =======================================================
The kernel says                        Then
=====================================  =======================================================
(it runs)                              the ``#!`` line, or the format of the program, decides
ENOEXEC: no known format               ``default_shell FILE``; without that shell ``/bin/sh FILE``
EACCES: mounted noexec, or forbidden   the interpreter of the ``#!`` line, else the shell, on FILE
ENOENT: no such interpreter            exit status 127, as a shell reports it, with its name
=====================================  =======================================================

In all cases ``$0`` is the path of the file and there are no arguments. Source: guest-agent
``google_metadata_script_runner/main.go``; bash(1), "COMMAND EXECUTION", for 126 and 127.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence

from google_guest.errors import GuestError
from google_guest.scripts.script_file import parse_shebang
from google_guest.system import System
from google_guest.system.children import Child, spawn
from google_guest.system.commands import SEARCH_PATH

FALLBACK_SHELL = "/bin/sh"
CANNOT_EXECUTE, NOT_FOUND = 126, 127
_HEAD = 4096
_ELF = b"\x7fELF"
_NOT_FOR_SCRIPTS = ("JOURNAL_STREAM", "NOTIFY_SOCKET")


class NotStarted(GuestError):
    """Nothing could run the script; ``exit_status`` is what a shell would have returned."""

    def __init__(self, exit_status: int, message: str) -> None:
        self.exit_status = exit_status
        super().__init__(message)


def start_script(path: str, *, default_shell: str, environment: Mapping[str, str]) -> Child:
    """Start the file at ``path``.

    Raises:
        NotStarted: with the status that a shell reports in such a case.
        OSError: the kernel is out of something.
    """
    try:
        return spawn([path], environment=environment)
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            return _start_by_shell(path, default_shell, environment)
        if error.errno == errno.EACCES:
            return _start_by_interpreter(path, default_shell, environment)
        if error.errno == errno.ENOENT:
            raise NotStarted(NOT_FOUND, _missing(path)) from error
        raise


def script_environment(system: System, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of scripts, given the one that the runner was started with.

    systemd sets no HOME for system services, and tools abort without it.
    """
    result = {name: value for name, value in environment.items() if name not in _NOT_FOR_SCRIPTS}
    name, home, shell = _root_account(system)
    for variable, value in (("HOME", home), ("USER", name), ("LOGNAME", name), ("SHELL", shell)):
        result.setdefault(variable, value)
    result.setdefault("PATH", SEARCH_PATH)
    return result


def _root_account(system: System) -> tuple[str, str, str]:
    """Return name, home and shell of uid 0 from the local file: name services may be down."""
    try:
        lines = (system.files.read_text("/etc/passwd") or "").splitlines()
    except OSError:
        lines = []
    for line in lines:
        fields = line.split(":")
        if len(fields) == 7 and fields[2] == "0":
            return fields[0], fields[5] or "/", fields[6] or FALLBACK_SHELL
    return "root", "/root", FALLBACK_SHELL


def _start_by_shell(path: str, default_shell: str, environment: Mapping[str, str]) -> Child:
    shells = [_in_path(default_shell, environment), FALLBACK_SHELL]
    for shell in dict.fromkeys(shells):
        try:
            return spawn([shell, path], environment=environment)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOEXEC):
                raise
    raise NotStarted(NOT_FOUND, f"{path}: no shell to run it: neither {' nor '.join(shells)} works")


def _start_by_interpreter(path: str, default_shell: str, environment: Mapping[str, str]) -> Child:
    head = _head(path)
    shebang = parse_shebang(head)
    if shebang is None:
        if head.startswith(_ELF):
            raise NotStarted(
                CANNOT_EXECUTE,
                f"{path}: Permission denied: programs cannot run there; set run_dir in"
                " [MetadataScripts] to a directory whose file system is not mounted noexec",
            )
        return _start_by_shell(path, default_shell, environment)
    argv: Sequence[str] = [
        shebang.interpreter,
        *([] if shebang.argument is None else [shebang.argument]),
        path,
    ]
    try:
        return spawn(argv, environment=environment)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NotStarted(NOT_FOUND, _missing(path)) from error
        if error.errno in (errno.EACCES, errno.ENOEXEC):
            text = f"{path}: {shebang.interpreter}: bad interpreter: {error.strerror}"
            raise NotStarted(CANNOT_EXECUTE, text) from error
        raise


def _missing(path: str) -> str:
    try:
        shebang = parse_shebang(_head(path))
    except OSError as error:
        return f"{path}: {error.strerror}"
    if shebang is None:
        return f"{path}: cannot execute: required file not found"
    return f"{path}: {shebang.interpreter}: bad interpreter: No such file or directory"


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def _in_path(program: str, environment: Mapping[str, str]) -> str:
    if "/" in program:
        return program
    for directory in environment.get("PATH", SEARCH_PATH).split(":"):
        candidate = os.path.join(directory or ".", program)
        if os.access(candidate, os.X_OK):
            return candidate
    return program
