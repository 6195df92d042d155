"""A session of a Wine bed: the keeper (`inside_wine/keeper.py`) and the conversation with it."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PYTHON = r"C:\py\python.exe"

_KEEPER = r"Z:\tree\tests\support\inside_wine\keeper.py"
_MARK = "\x01"
_START_TIMEOUT = 60.0


class SessionEnded(Exception):
    """The session is over: its keeper does not answer any more."""


class Session:
    """The keeper and the conversation with it."""

    def __init__(self, enter: Sequence[str], log: Path) -> None:
        self._log = log
        with open(log, "ab") as errors:
            self._keeper = subprocess.Popen(
                [*enter, "wine", PYTHON, "-I", "-u", _KEEPER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self._answers: dict[int, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._over = False
        self._ids = itertools.count(1)
        threading.Thread(target=self._read, name="wine-session", daemon=True).start()
        self._await(0, _START_TIMEOUT)

    def ask(self, request: Mapping[str, Any], *, timeout: float) -> dict[str, Any]:
        number = next(self._ids)
        assert self._keeper.stdin is not None
        try:
            self._keeper.stdin.write(json.dumps({**request, "id": number}).encode() + b"\n")
            self._keeper.stdin.flush()
        except OSError:
            raise self._ended() from None
        answer = self._await(number, timeout)
        if "failure" in answer:
            raise RuntimeError(f"the keeper cannot {request['do']}: {answer['failure']}")
        return answer

    def end(self) -> None:
        """Let the keeper end by itself."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(20)

    def reap(self) -> None:
        """Take note of the end of a keeper that was killed."""
        self._keeper.wait(20)

    def _read(self) -> None:
        assert self._keeper.stdout is not None
        # Services inherit this pipe and never close it: it is read by lines, never to its end.
        for raw in iter(self._keeper.stdout.readline, b""):
            line = raw.decode("utf-8", "replace")
            if line.startswith(_MARK):
                answer = json.loads(line[1:])
                with self._news:
                    self._answers[answer["id"]] = answer
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    def _await(self, number: int, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        with self._news:
            while number not in self._answers:
                left = deadline - time.monotonic()
                if self._over or self._keeper.poll() is not None:
                    raise self._ended()
                if left <= 0:
                    raise SessionEnded(
                        f"the keeper gave no answer in {timeout:g} s: {self._said()}"
                    )
                self._news.wait(min(left, 0.5))
            return self._answers.pop(number)

    def _ended(self) -> SessionEnded:
        return SessionEnded(f"the keeper ended ({self._keeper.poll()}): {self._said()}")

    def _said(self) -> str:
        return self._log.read_text(errors="replace").strip()[-2000:]
