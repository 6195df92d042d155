"""Running a program that writes to a log file, shown on the console as it comes.

The program gets the log file itself and no pipe: what it starts and leaves running (a service that
inherits its output) then neither keeps googet waiting nor fails when it writes later.
"""

from __future__ import annotations

import codecs
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, TextIO, Union

from googet.host import HostError

_PAUSES = (0.005, 0.01, 0.02, 0.05)
_CHUNK = 1 << 16


def run(
    command: Union[str, Sequence[str]],
    *,
    name: str,
    log: Path,
    output: Any,
    console: Optional[TextIO],
    timeout: Optional[float],
    end: Callable[[subprocess.Popen[bytes]], None],
    started: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
    options: Optional[Mapping[str, Any]] = None,
) -> Optional[int]:
    """Run ``command`` to its end; return its exit status, None if it reached the time limit.

    ``output`` is the open log, ``options`` are more arguments of ``subprocess.Popen``; ``end`` ends
    the program and all that it started.

    Raises:
        HostError: it cannot be started.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            close_fds=True,
            **(options or {}),
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise HostError(f"{name} cannot be started: {reason}") from error
    try:
        started(process)
        with _Tail(log, console) as tail:
            return _wait(process, tail, timeout, end)
    except BaseException:
        end(process)
        process.wait()
        raise


def _wait(
    process: subprocess.Popen[bytes],
    tail: _Tail,
    timeout: Optional[float],
    end: Callable[[subprocess.Popen[bytes]], None],
) -> Optional[int]:
    limit = None if timeout is None else time.monotonic() + timeout
    turn = 0
    while True:
        try:
            status = process.wait(_PAUSES[min(turn, len(_PAUSES) - 1)])
            tail.show()
            return status
        except subprocess.TimeoutExpired:
            turn += 1
        tail.show()
        if limit is not None and time.monotonic() > limit:
            end(process)
            process.wait()
            tail.show()
            return None


class _Tail:
    """Shows what is appended to the log."""

    def __init__(self, log: Path, console: Optional[TextIO]) -> None:
        self._console = console
        self._file = log.open("rb", buffering=0) if console is not None else None
        self._position = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __enter__(self) -> _Tail:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def show(self) -> None:
        if self._file is None or self._console is None:
            return
        try:
            # Some C runtimes remember that they met the end of a file until it is sought in.
            self._file.seek(self._position)
            while data := self._file.read(_CHUNK):
                self._position += len(data)
                text = self._decoder.decode(data)
                encoding = getattr(self._console, "encoding", None) or "utf-8"
                self._console.write(text.encode(encoding, "replace").decode(encoding, "replace"))
            self._console.flush()
        except (OSError, ValueError):
            # A console that went away is no reason to leave an installation half done.
            self._console = None
