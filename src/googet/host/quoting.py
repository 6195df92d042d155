r"""Command lines of Windows: one text that every program takes apart by itself.

Almost all do it as the C runtime does (Microsoft: "Parsing C command-line arguments"): blanks
separate, double quotes group, a backslash is special only before a double quote. PowerShell source
has rules of its own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

_QUOTES = "'\u2018\u2019\u201a\u201b"


def quote_arguments(arguments: Iterable[str]) -> str:
    """Return the command line that a program takes apart into ``arguments`` again.

    ``PROP=a b`` becomes ``"PROP=a b"`` as a whole, which msiexec, with rules of its own, rejects;
    Go's googet does the same.
    """
    return subprocess.list2cmdline(arguments)


def split_arguments(line: str) -> list[str]:
    """Return the arguments that a program sees in a command line.

    The first one, the program's own name, has no special rules here: ``line`` is what other
    software registered, such as an ``UninstallString``.
    """
    arguments: list[str] = []
    current: list[str] = []
    started = quoted = False
    index = 0
    while index < len(line):
        character = line[index]
        if character == "\\":
            backslashes = len(line) - index - len(line[index:].lstrip("\\"))
            index += backslashes
            started = True
            if line[index : index + 1] != '"':
                current.append("\\" * backslashes)
                continue
            current.append("\\" * (backslashes // 2))
            if backslashes % 2:
                current.append('"')
                index += 1
            continue
        if character == '"':
            started = True
            if quoted and line[index + 1 : index + 2] == '"':
                current.append('"')
                index += 1
            else:
                quoted = not quoted
        elif character in " \t\r\n" and not quoted:
            if started:
                arguments.append("".join(current))
            current, started = [], False
        else:
            started = True
            current.append(character)
        index += 1
    if started:
        arguments.append("".join(current))
    return arguments


def powershell_text(text: str) -> str:
    """Return a literal of PowerShell: single quotes, of which each inside is doubled.

    PowerShell takes typographic single quotes for the same.
    """
    return "'" + re.sub(f"([{_QUOTES}])", r"\1\1", text) + "'"
