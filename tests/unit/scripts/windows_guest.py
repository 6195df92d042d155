"""A Windows guest in a folder, a metadata server, and the runner between them."""

from __future__ import annotations

import ntpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

from google_guest.cli.scripts import parse_arguments
from google_guest.cli.windows.scripts import run
from google_guest.records import replace
from google_guest.scripts.events import WINDOWS, Patience
from google_guest.scripts.output import Console, ScriptOutput
from google_guest.scripts.windows import Command, Interpreters
from google_guest.system import System
from google_guest.system.children import Ending
from google_guest.system.windows.memory import MemoryWindows
from metadata_server.emulator import Emulator

PROGRAMS = Interpreters(powershell=r"C:\Windows\ps\powershell.exe", cmd=r"C:\Windows\cmd.exe")
CONFIG = "C/Program Files/Google/Compute Engine/instance_configs.cfg"


@dataclass(frozen=True)
class Started:
    """A command that the runner started, and the file that it found there."""

    command: Command
    key: str
    name: str
    data: bytes


class Lines(Console):
    """A console that keeps its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def warning(self, message: str) -> None:
        self.warnings.append(message)
        super().warning(message)

    def write(self, data: bytes) -> None:
        self.lines += data.decode().splitlines()


Behaviour = Callable[[Started, ScriptOutput], int]


@dataclass
class WindowsGuest:
    """A tree that stands for the guest's drive, and what runs scripts there."""

    root: Path
    mds: Emulator
    behaviour: Behaviour = lambda started, output: 0
    started: list[Started] = field(default_factory=list)
    console: Lines = field(default_factory=Lines)

    def __post_init__(self) -> None:
        (self.root / "C/Windows/Temp").mkdir(parents=True)

    def set(self, key: str, value: str, *, level: str = "instance") -> None:
        self.mds.set(f"{level}/attributes/{key}", value)

    def configure(self, *lines: str) -> None:
        path = self.root / CONFIG
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["[MetadataScripts]", *lines, ""]))

    def run(self, event: str = "startup", *, patience: Optional[Patience] = None) -> int:
        chosen = parse_arguments([event], WINDOWS).event
        if patience is not None:
            chosen = replace(chosen, patience=patience)
        return run(
            chosen,
            System(self.root, windows=MemoryWindows()),
            self.console,
            environment={"GCE_METADATA_HOST": self.mds.host},
            programs=PROGRAMS,
            execute=self._execute,
        )

    def _execute(
        self, command: Command, environment: Mapping[str, str], key: str, output: ScriptOutput
    ) -> Ending:
        (path,) = self.scripts_left()
        (script,) = [file for file in path.iterdir() if file.name != ".lock"]
        started = Started(command, key, ntpath.basename(script), script.read_bytes())
        self.started.append(started)
        status = self.behaviour(started, output)
        output.close()
        return Ending(exit_status=status)

    def scripts_left(self) -> list[Path]:
        return list(self.root.rglob("metadata-scripts*"))
