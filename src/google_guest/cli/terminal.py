"""Text for people and for pipes.

On a terminal tables have aligned columns and states have colours; anywhere else columns are
separated by tabs and there are no escape sequences, so that ``cut`` and ``grep`` work.
``NO_COLOR`` (no-color.org) turns colours off.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import Optional, TextIO

BOLD, RED, GREEN, YELLOW, DIM = "1", "31", "32", "33", "2"
_COLUMN_GAP = "  "


class Terminal:
    """Writes to ``stream``; ``is_terminal`` may be forced for tests."""

    def __init__(self, stream: TextIO, *, is_terminal: Optional[bool] = None) -> None:
        self._stream = stream
        self.is_terminal = stream.isatty() if is_terminal is None else is_terminal
        self._colours = self.is_terminal and not os.environ.get("NO_COLOR")

    def line(self, text: str = "") -> None:
        """Write one line."""
        self._stream.write(printable(text) if not self._colours else text)
        self._stream.write("\n")

    def paint(self, text: str, style: str) -> str:
        """Return ``text`` in a style such as ``BOLD``, where there are colours."""
        return f"\x1b[{style}m{printable(text)}\x1b[0m" if self._colours else text

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table: aligned with a bold head on a terminal, tab-separated otherwise."""
        body = [tuple(printable(cell) for cell in row) for row in rows]
        if not self.is_terminal:
            for row in body:
                self.line("\t".join(row))
            return
        widths = [max(map(len, column)) for column in zip(head, *body)]
        self.line(self.paint(_aligned(head, widths), BOLD))
        for row in body:
            self.line(_aligned(row, widths))

    def difference(self, line: str) -> None:
        """Write one line of a difference: green for ``+``, red for ``-``."""
        style = {"+": GREEN, "-": RED, "@": DIM}.get(line[:1])
        self.line("    " + (self.paint(line, style) if style else line))


def printable(text: str) -> str:
    """Return ``text`` without control characters: a file's content must not drive a terminal."""
    return "".join(char if char.isprintable() or char == "\t" else "�" for char in text)


def ago(moment: Optional[float], *, now: Optional[float] = None) -> str:
    """Return how long ago the Unix time ``moment`` was, such as ``4 min ago``."""
    if not moment:
        return "never"
    seconds = max(0.0, (time.time() if now is None else now) - moment)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return _COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
