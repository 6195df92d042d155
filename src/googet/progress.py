"""A progress bar on standard error; silent when that is no terminal.

``NAME  42 %  12.3 of 29.1 MiB``, redrawn at most ten times a second and wiped at the end, so that
what programs read and what stays on the screen is the same with it and without.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Optional, TextIO

_INTERVAL = 0.1
_MEBIBYTE = 1 << 20
_DEFAULT_COLUMNS = 80


class Progress:
    """Shows how far one download is; downloads in other threads meanwhile stay silent."""

    def __init__(
        self,
        stream: Optional[TextIO] = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``stream`` is standard error by default; ``None`` there (a service) means silence."""
        self._stream: Optional[TextIO] = sys.stderr if stream is None else stream
        self._clock = clock
        self._lock = threading.Lock()
        self._owner: Optional[int] = None
        self._visible = self._stream is not None and self._stream.isatty()
        self._label = ""
        self._done = 0
        self._total: Optional[int] = None
        self._drawn_at = 0.0

    def start(self, label: str, *, done: int = 0, total: Optional[int] = None) -> None:
        """Begin with ``done`` of ``total`` bytes; None: the total is not known."""
        with self._lock:
            if not self._visible or self._owner not in (None, threading.get_ident()):
                return
            self._owner = threading.get_ident()
            self._label, self._done, self._total = label, done, total
            self._draw()

    def advance(self, count: int) -> None:
        """Note that ``count`` more bytes have arrived."""
        with self._lock:
            if self._owner != threading.get_ident():
                return
            self._done += count
            if self._clock() - self._drawn_at >= _INTERVAL:
                self._draw()

    def finish(self) -> None:
        """Wipe the bar."""
        with self._lock:
            if self._owner == threading.get_ident():
                self._owner = None
                self._write("")

    def _draw(self) -> None:
        self._drawn_at = self._clock()
        done = self._done / _MEBIBYTE
        if self._total:
            share = min(100, 100 * self._done // self._total)
            text = f"{share:3} %  {done:.1f} of {self._total / _MEBIBYTE:.1f} MiB"
        else:
            text = f"{done:.1f} MiB"
        room = _columns() - len(text) - 3
        self._write(f"{self._label[: max(0, room)]}  {text}")

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        padding = " " * max(0, _columns() - 1 - len(text))
        try:
            self._stream.write(f"\r{text}{padding}\r")
            self._stream.flush()
        except (OSError, ValueError):
            # The terminal is gone, or its encoding lacks a letter; the download goes on.
            self._visible = False


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or _DEFAULT_COLUMNS
    except OSError:
        return _DEFAULT_COLUMNS
