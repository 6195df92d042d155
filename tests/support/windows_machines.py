"""A Windows machine in memory, which counts as the running one: what Windows features plan and
act on, on any platform.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

from google_guest.config import load_config
from google_guest.features import Inputs
from google_guest.metadata.tree import Metadata
from google_guest.system import System
from google_guest.system.windows.memory import MemoryWindows
from support.trees import Channel, Commands

CONFIG = "C/Program Files/Google/Compute Engine/instance_configs.cfg"
NOW = 1_000_000.0


class Machine(System):
    """A Windows whose files are below a folder of the test and whose rest is in memory."""

    def __init__(self, root: Path, *, channel: Optional[Channel] = None) -> None:
        self.memory = MemoryWindows()
        super().__init__(root, Commands(), channel, windows=self.memory)

    @property
    def is_live(self) -> bool:
        return True

    def answers(self, port: str = "COM4") -> list[dict[str, Any]]:
        """What was written to a serial port, a JSON object a line."""
        written = b"".join(data for name, data in self.memory.written if name == port)
        return [json.loads(line) for line in written.splitlines()]


def windows_inputs(
    machine: Machine,
    known: Optional[Metadata] = None,
    *,
    config: str = "",
    now: float = NOW,
) -> Inputs:
    """What a feature sees: `config` is the text of the administrator's file."""
    if config:
        path = machine.root / CONFIG
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config)
    return Inputs(known, load_config(machine.files, environ={}), machine, now)
