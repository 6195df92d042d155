"""The control socket of a QEMU process: the QEMU Machine Protocol, one command at a time.

Facts: docs/interop/qmp-spec.txt of QEMU (a greeting, then JSON objects, one a line; an answer has
`return` or `error`, everything else is an event).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional


class QmpError(Exception):
    """A command that QEMU refused, or a monitor that does not answer; the message has its words."""


class Monitor:
    """An open control socket."""

    def __init__(self, path: Path, *, alive: Callable[[], bool], timeout: float = 20.0) -> None:
        """Connect as soon as the socket is there; `alive`: whether QEMU still runs."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError as failure:
                if not alive() or time.monotonic() > deadline:
                    self._socket.close()
                    raise QmpError(f"QEMU's control socket: {failure}") from None
                time.sleep(0.02)
        self._socket.settimeout(60.0)
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self._read()
        self.command("qmp_capabilities")

    def command(self, name: str, arguments: Optional[Mapping[str, object]] = None) -> Any:
        """Run a command and return what its answer holds."""
        request = {"execute": name, "arguments": dict(arguments or {})}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as failure:
            raise QmpError(f"{name}: {failure}") from None
        while True:
            answer = self._read()
            if "error" in answer:
                raise QmpError(f"{name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def human(self, line: str) -> str:
        """Run a command of the human monitor and return what it says, an error too."""
        return str(self.command("human-monitor-command", {"command-line": line})).strip()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except OSError as failure:
            raise QmpError(f"QEMU's control socket: {failure}") from None
        if not line:
            raise QmpError("QEMU closed its control socket")
        answer: dict[str, Any] = json.loads(line)
        return answer
