"""The bed's two terminals, /dev/console and /dev/ttyS0, and the thread that keeps their output.

A regular file would not do: getty programs fail on it now and then.
"""

from __future__ import annotations

import os
import pty
import selectors
import threading
import tty
from pathlib import Path


class Terminals:
    """Raw pseudo-terminals whose output is appended to files."""

    def __init__(self, logs: dict[str, Path]) -> None:
        """`logs`: the file of each terminal, by the terminal's name."""
        self._descriptors: list[int] = []
        self._names: dict[str, str] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        for name, log in logs.items():
            master, slave = pty.openpty()
            tty.setraw(slave)
            # The slave stays open here: without one, reading the master fails between boots.
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self._descriptors += [master, slave, output]
            self._names[name] = os.ttyname(slave)
            self._selector.register(master, selectors.EVENT_READ, output)
        self._thread = threading.Thread(target=self._keep, name="terminals", daemon=True)
        self._thread.start()

    def device(self, name: str) -> str:
        """The host's path of a terminal's slave; empty for a terminal that was not asked for."""
        return self._names.get(name, "")

    def close(self) -> None:
        """Keep what was written until now and end."""
        os.write(self._wake_write, b"x")
        self._thread.join(timeout=5)
        self._selector.close()
        for descriptor in (*self._descriptors, self._wake_read, self._wake_write):
            os.close(descriptor)

    def _keep(self) -> None:
        ending = False
        while True:
            ready = self._selector.select(timeout=0 if ending else None)
            outputs = [(key.fd, key.data) for key, _ in ready if key.data is not None]
            if ending and not outputs:
                return
            for master, output in outputs:
                os.write(output, os.read(master, 65536))
            ending = ending or any(key.data is None for key, _ in ready)
