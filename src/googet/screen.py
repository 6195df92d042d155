"""What a person sees: lines, questions, and the answer of nobody.

Everything is flushed before a question, so that it is seen whatever standard output is. A character
that an old console cannot show becomes a question mark instead of ending the command. Without an
answer (closed or missing standard input) a question is declined.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable
from typing import Optional, TextIO

_YES = {"y", "yes"}


class Screen:
    """Standard output and the answers to questions."""

    def __init__(
        self,
        output: Optional[TextIO] = None,
        answers: Optional[TextIO] = None,
        *,
        confirm: bool = True,
    ) -> None:
        """Take the process's own streams where none are given; ``confirm`` False asks nothing."""
        # A program without a console has no standard output at all.
        self.output: TextIO = output or sys.stdout or io.StringIO()
        self._answers = answers if answers is not None else sys.stdin
        self.asks = confirm

    def line(self, text: str = "") -> None:
        """Print one line."""
        self.output.write(f"{text}\n")

    def lines(self, texts: Iterable[str]) -> None:
        """Print lines."""
        for text in texts:
            self.line(text)

    def flush(self) -> None:
        """Show what was printed so far."""
        with contextlib.suppress(OSError, ValueError):
            self.output.flush()

    def is_confirmed(self, question: str) -> bool:
        """Ask a question and return whether it was answered with yes; nobody's answer is no."""
        if not self.asks:
            return True
        self.output.write(f"{question} (y/N): ")
        self.flush()
        answer = ""
        # Standard input can be absent (None), closed, or no text at all.
        with contextlib.suppress(OSError, ValueError):
            answer = self._answers.readline() if self._answers is not None else ""
        if not answer.endswith("\n"):
            self.line()
        return answer.strip().lower() in _YES


def prepare_streams() -> None:
    """Let standard output and error take any text.

    Programs get UTF-8 and line feeds, as from googet on every system; a console gets its own
    encoding, with question marks for what it lacks.
    """
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if stream.isatty():
            stream.reconfigure(errors="replace")
        else:
            stream.reconfigure(encoding="utf-8", errors="replace", newline="\n")
