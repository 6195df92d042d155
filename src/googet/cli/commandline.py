"""googet's command line: flags, the command, its exit status, and help.

``subcommands`` lists the commands; what a command needs is imported when it runs, so that ``help``
answers at once.

Facts: googet: googet.go (top-level flags, groups of commands), github.com/google/subcommands (help,
commands, flags).
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Optional, TextIO

from googet.cli.flags import Flags, HelpRequested, UsageError
from googet.cli.googet import print_version
from googet.cli.subcommands import (
    GROUPS,
    SUBCOMMANDS,
    Reported,
    Subcommand,
    find_subcommand,
)
from googet.screen import prepare_streams
from google_guest.errors import GuestError

OK, FAILED, WRONG_USAGE = 0, 1, 2


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit status."""
    prepare_streams()
    try:
        status = _run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except GuestError as error:
        _complain(f"googet: {error}")
    except Reported:
        return FAILED
    except KeyboardInterrupt:
        _complain("googet: interrupted")
    except OSError as error:
        if _is_closed_pipe(error):
            # The reader (head, more) has seen enough; keep the interpreter from complaining.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return OK
        place = f"{error.filename}: " if error.filename else ""
        _complain(f"googet: {place}{error.strerror or error}")
    return FAILED


def top_level_flags() -> Flags:
    """Return the flags that come before the command."""
    flags = Flags("googet [flags] COMMAND [flags] [arguments]")
    flags.string("root", "folder of googet's files (default: the environment's GooGetRoot)")
    flags.boolean("noconfirm", "ask nothing and go on")
    flags.boolean("verbose", "print what is logged")
    flags.boolean("system_log", "log to the system's log, too", default=True)
    flags.boolean("version", "print the version and end")
    return flags


def _run(arguments: Sequence[str]) -> int:
    flags = top_level_flags()
    try:
        parsed = flags.parse(arguments, has_command=True)
    except HelpRequested:
        print(_overview(), end="")
        return OK
    except UsageError as error:
        return _wrong(f"{error}\n{_overview()}")
    if parsed.flag("version"):
        print_version()
        return OK
    if not parsed.positionals:
        return _wrong(_overview())
    name, *rest = parsed.positionals
    command = find_subcommand(name)
    if command is None:
        return _wrong(f"there is no command {name!r}\n{_overview()}")
    own_flags = command.flags()
    try:
        own = own_flags.parse(rest)
    except HelpRequested:
        return _wrong(_help_of(command))
    except UsageError as error:
        return _wrong(f"{command.name}: {error}\n{_help_of(command)}")
    if command.name in _ABOUT_COMMANDS:
        return _ABOUT_COMMANDS[command.name](own.positionals)
    from googet.cli.opening import Environment

    environment = Environment(
        root=parsed.text("root"),
        confirm=not parsed.flag("noconfirm"),
        verbose=parsed.flag("verbose"),
        system_log=parsed.flag("system_log"),
    )
    try:
        return command.runner()(environment, own)
    except UsageError as error:
        return _wrong(f"{command.name}: {error}\n{_help_of(command)}")


def _print_help(names: Sequence[str]) -> int:
    if not names:
        print(_overview(), end="")
        return OK
    command = find_subcommand(names[0])
    if command is None or len(names) > 1:
        return _wrong(f"help: there is no command {' '.join(names)!r}\n{_overview()}")
    print(_help_of(command), end="")
    return OK


def _print_commands(_: Sequence[str]) -> int:
    for command in SUBCOMMANDS:
        print(command.name)
    return OK


def _print_flags(names: Sequence[str]) -> int:
    if not names:
        print(top_level_flags().usage(), end="")
        return OK
    command = find_subcommand(names[0])
    if command is None or len(names) > 1:
        return _wrong(f"flags: there is no command {' '.join(names)!r}\n{_overview()}")
    print(command.flags().usage(), end="")
    return OK


_ABOUT_COMMANDS = {"help": _print_help, "commands": _print_commands, "flags": _print_flags}


def _overview() -> str:
    lines = ["Usage: googet [flags] COMMAND [flags] [arguments]", ""]
    for group in GROUPS:
        lines.append(f"Commands for {group}:" if group else "Commands:")
        lines += [
            f"\t{command.name:<11}  {command.summary}"
            for command in SUBCOMMANDS
            if command.group == group
        ]
        lines.append("")
    lines.append(
        "googet help COMMAND tells more about a command, googet flags the top-level flags."
    )
    return "\n".join(lines) + "\n"


def _help_of(command: Subcommand) -> str:
    return f"{command.flags().usage()}\n{command.description}\n"


def _is_closed_pipe(error: OSError) -> bool:
    # Windows calls it an invalid argument when the reader of a pipe has gone.
    codes = (errno.EPIPE, errno.EINVAL) if sys.platform == "win32" else (errno.EPIPE,)
    return error.errno in codes and error.filename is None


def _wrong(text: str) -> int:
    _complain(text.rstrip("\n"))
    return WRONG_USAGE


def _complain(text: str) -> None:
    stream: Optional[TextIO] = sys.stderr
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            # What was printed before belongs before the complaint where both go to one place.
            if sys.stdout is not None:
                sys.stdout.flush()
            print(text, file=stream)
