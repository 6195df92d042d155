"""Command line flags as programs written in Go take them.

``-name`` and ``--name`` are the same; a value follows after ``=`` or as the next argument; a
boolean stands alone or has its value after ``=``. Parsing ends at the first argument that is no
flag, or after ``--``. The last of several equal flags stands.

One deviation: a flag after the first positional argument, which Go takes as another positional
(the name of a package, say), is an error that tells where flags belong. ``--`` lets anything that
begins with a dash be an argument.

Facts: the Go standard library, flag and strconv.ParseBool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from google_guest.errors import GuestError
from google_guest.records import field, record

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]{1,16}|0[oO]?[0-7]{1,22}|0|[1-9][0-9]{0,18})")
_HELP = ("h", "help")
_INT64 = 1 << 63


class UsageError(GuestError):
    """The command line cannot be used; the message says what and why. Exit code 2."""


class HelpRequested(Exception):
    """``-h`` or ``-help`` was given: print the usage, do nothing."""


@record
class Flag:
    """A flag that a program knows."""

    name: str
    kind: str
    """``bool``, ``string``, ``int`` or ``duration``; shown in the usage text."""
    description: str
    default: Any
    convert: Callable[[str], Any]
    """Turns the text of a value into the value; raises ValueError with the reason."""


@record
class Arguments:
    """A command line, taken apart."""

    values: Mapping[str, Any] = field(hash=False)
    """Every flag with its value or default; durations in seconds."""
    given: frozenset[str]
    """The flags that were on the command line."""
    positionals: tuple[str, ...]

    def flag(self, name: str) -> bool:
        """Return the value of a boolean flag."""
        return bool(self.values[name])

    def text(self, name: str) -> str:
        """Return the value of a text flag."""
        return str(self.values[name])

    def integer(self, name: str) -> int:
        """Return the value of an integer flag."""
        return int(self.values[name])

    def seconds(self, name: str) -> float:
        """Return the value of a duration flag."""
        return float(self.values[name])


class Flags:
    """The flags of a program or of one of its commands.

    Args:
        usage: the first line of the usage text, without ``Usage:``.
    """

    def __init__(self, usage: str) -> None:
        self._usage = usage
        self._flags: dict[str, Flag] = {}

    def boolean(self, name: str, description: str, *, default: bool = False) -> None:
        """Declare ``-name`` and ``-name=VALUE``."""
        self._declare(Flag(name, "bool", description, default, _boolean))

    def string(self, name: str, description: str, *, default: str = "") -> None:
        """Declare a flag with a text."""
        self._declare(Flag(name, "string", description, default, str))

    def integer(self, name: str, description: str, *, default: int = 0) -> None:
        """Declare a flag with a whole number, decimal, ``0x`` hexadecimal or ``0`` octal."""
        self._declare(Flag(name, "int", description, default, _integer))

    def duration(self, name: str, description: str, *, default: str) -> None:
        """Declare a flag with a duration in Go's syntax, ``1h30m``; its value is in seconds."""
        self._declare(Flag(name, "duration", description, _duration(default), _duration))

    def __contains__(self, name: str) -> bool:
        return name in self._flags

    def __iter__(self) -> Iterable[Flag]:
        return iter(self._flags.values())

    def parse(self, arguments: Sequence[str], *, has_command: bool = False) -> Arguments:
        """Take a command line, without the program's name, apart.

        Args:
            has_command: the first positional argument is a command, and everything after it is
                that command's own, flags included.

        Raises:
            UsageError: a flag is unknown, misplaced, lacks a value or has a wrong one.
            HelpRequested: help was asked for.
        """
        values = {flag.name: flag.default for flag in self._flags.values()}
        given = []
        rest = list(arguments)
        closed = False
        while rest and len(rest[0]) > 1 and rest[0].startswith("-"):
            argument = rest.pop(0)
            if argument == "--":
                closed = True
                break
            flag, value = self._flag(argument, rest)
            given.append(flag.name)
            values[flag.name] = value
        if not closed and not has_command:
            rest = _without_late_flags(rest)
        return Arguments(values, frozenset(given), tuple(rest))

    def usage(self) -> str:
        """Return the usage text, with a final newline."""
        lines = [f"Usage: {self._usage}"]
        for flag in sorted(self._flags.values(), key=lambda flag: flag.name):
            kind = "" if flag.kind == "bool" else f" {flag.kind}"
            lines += [f"  -{flag.name}{kind}", f"    \t{flag.description}{_default(flag)}"]
        return "\n".join(lines) + "\n"

    def _declare(self, flag: Flag) -> None:
        if flag.name in self._flags:
            raise ValueError(f"flag -{flag.name} is declared twice")
        self._flags[flag.name] = flag

    def _flag(self, argument: str, rest: list[str]) -> tuple[Flag, Any]:
        text = argument[2:] if argument.startswith("--") else argument[1:]
        name, has_value, value = text.partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"{argument} is neither a flag nor an argument")
        flag = self._flags.get(name)
        if flag is None:
            if name in _HELP:
                raise HelpRequested
            raise UsageError(f"flag -{name} is not known")
        if not has_value:
            if flag.kind == "bool":
                return flag, True
            if not rest:
                raise UsageError(f"flag -{name} needs a value")
            value = rest.pop(0)
        try:
            return flag, flag.convert(value)
        except ValueError as error:
            raise UsageError(f"flag -{name}: {error}") from error


def _without_late_flags(rest: Sequence[str]) -> list[str]:
    for number, argument in enumerate(rest):
        if argument == "--":
            return [*rest[:number], *rest[number + 1 :]]
        if len(argument) > 1 and argument.startswith("-"):
            raise UsageError(
                f"flag {argument} comes after {rest[number - 1]!r}; put flags before the first"
                " argument, or -- before arguments that begin with a dash"
            )
    return list(rest)


def _default(flag: Flag) -> str:
    if flag.kind == "duration":
        return f" (default {flag.default:g}s)"
    if not flag.default:
        return ""
    shown = f'"{flag.default}"' if flag.kind == "string" else str(flag.default).lower()
    return f" (default {shown})"


def _boolean(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _integer(text: str) -> int:
    if _INTEGER.fullmatch(text):
        octal = re.fullmatch(r"([+-]?)0([0-7]+)", text)
        number = int(octal[1] + octal[2], 8) if octal else int(text, 0)
        if -_INT64 <= number < _INT64:
            return number
    raise ValueError(f"{text!r} is not an integer")


def _duration(text: str) -> float:
    # Most command lines have no duration, and the settings load YAML.
    from googet.settings import parse_go_duration

    seconds = parse_go_duration(text)
    if seconds is None:
        raise ValueError(f"{text!r} is not a duration such as 90s, 5m or 1h30m")
    return seconds
