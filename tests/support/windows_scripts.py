"""The metadata script runner in a Wine bed: its keys, its lines, programs that stand in.

Wine has no PowerShell: a program of ours stands in its place which prints its arguments and, in
turn, what the `.ps1` file says (`print WORDS`, `exit N`).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import goo_launchers

from support.commands import Completed
from support.wine import PYTHON, SOURCES, Program, Wine

FIRMWARE = r"HKLM\SYSTEM\HardwareConfig\Current"
RESULTS = r"C:\ProgramData\Google\Compute Engine\google-guest-agent\run\scripts"
CONFIG = r"C:\Program Files\Google\Compute Engine\instance_configs.cfg"
TEMPORARY = r"C:\windows\Temp"
POWERSHELL = r"C:\windows\system32\WindowsPowerShell\v1.0\powershell.exe"
RUNNER = r"C:\runner\GCEMetadataScripts.exe"
LINE = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d GCEMetadataScripts: ")
ORDER = ("ps1", "cmd", "bat", "url")
STEMS = ("windows-startup-script", "windows-shutdown-script", "sysprep-specialize-script")

_PORT = 8001
_ENVIRONMENT = {"TEMP": TEMPORARY}
_STAND_IN = rb"""
import json, sys
data = open(sys.argv[-1], "rb").read()
sys.stdout.reconfigure(encoding="utf-8")
print("arguments", json.dumps(sys.argv[1:-1]))
print("bytes", data[:3].hex())
for line in data.decode("utf-8-sig").splitlines():
    word, _, rest = line.partition(" ")
    if word == "print":
        print(rest)
    elif word == "exit":
        sys.exit(int(rest))
"""
_MAIN = f"""
import sys
sys.path.insert(0, {SOURCES!r})
from google_guest.cli.scripts import main
main()
"""
PLAIN = (PYTHON, "-c", _MAIN)
"""The runner as a program of Python's; `RUNNER` is one with its launcher."""


def console_program(code: bytes, folder: str) -> bytes:
    """A program (.exe) that lies in `folder` and runs Python code."""
    up = "\\".join([".."] * (folder.count("\\")))
    return goo_launchers.program(rf"{up}\py\python.exe", {"__main__.py": code})


class ScriptMachine:
    """A Wine bed whose instance has metadata scripts."""

    def __init__(self, wine: Wine) -> None:
        self.wine = wine
        wine.registry.set(FIRMWARE, "SystemProductName", "Google Compute Engine")
        folder = POWERSHELL.rpartition("\\")[0]
        wine.write(POWERSHELL, console_program(_STAND_IN, folder))
        wine.write(RUNNER, console_program(_MAIN.encode(), RUNNER.rpartition("\\")[0]))
        self._served = wine.directory / "served"
        self._com1 = 0

    def start_anew(self) -> None:
        """Forget scripts, settings and lines of an earlier test."""
        for stem in STEMS:
            for kind in ORDER:
                path = f"instance/attributes/{stem}-{kind}"
                if self.wine.mds.get(path) is not None:
                    self.wine.mds.delete(path)
        self.wine.path(CONFIG).unlink(missing_ok=True)
        self._com1 = len(self.wine.com("COM1"))

    def set(self, kind: str, value: str, *, stem: str = STEMS[0]) -> None:
        """Give the instance a script."""
        self.wine.mds.set(f"instance/attributes/{stem}-{kind}", value)

    def configure(self, *lines: str) -> None:
        """Write the section of the runner into the configuration."""
        self.wine.write(CONFIG, "\r\n".join(["[MetadataScripts]", *lines, ""]))

    def serve(self, files: Mapping[str, bytes]) -> str:
        """Offer files on a web server in the network around; return its address."""
        if not self._served.exists():
            self._served.mkdir()
            self.wine.serve(
                [
                    *(sys.executable, "-m", "http.server", str(_PORT)),
                    *("--directory", str(self._served), "--bind", self.wine.gateway),
                ]
            )
            program = (
                "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])))"
            )
            self.wine.wait_until(
                lambda: (
                    self.wine.py(program, self.wine.gateway, str(_PORT), check=False).status == 0
                ),
                what="the web server answers",
            )
        for name, content in files.items():
            (self._served / name).write_bytes(content)
        return f"http://{self.wine.gateway}:{_PORT}"

    def perform(self, *words: str, timeout: float = 60.0, **environment: str) -> Completed:
        """Run the runner to its end."""
        return self.wine.run(
            [*PLAIN, *(words or ("startup",))],
            check=False,
            timeout=timeout,
            environment={**_ENVIRONMENT, **environment},
        )

    def begin(self, program: Sequence[str] = PLAIN) -> Program:
        """Start the runner and go on."""
        return self.wine.begin([*program, "startup"], environment=_ENVIRONMENT)

    def com1(self) -> list[str]:
        """What COM1 got since the test began, a line each."""
        return self.wine.com("COM1")[self._com1 :].splitlines()

    def messages(self) -> list[str]:
        """The same without the time and the program's name, which every line must have."""
        lines = self.com1()
        assert [line for line in lines if not LINE.match(line)] == []
        return [LINE.sub("", line) for line in lines]

    def wait_for(self, message: str, timeout: float = 10.0) -> None:
        """Wait until COM1 has a message."""
        self.wine.wait_until(
            lambda: message in self.messages(), timeout, f"COM1 has the line {message!r}"
        )

    def result(self, event: str = "startup") -> dict[str, Any]:
        """The result file of an event."""
        path = self.wine.path(rf"{RESULTS}\{event}.json")
        document: dict[str, Any] = json.loads(path.read_bytes())
        return document

    def directories(self) -> list[Path]:
        """The private directories that there are."""
        return list(self.wine.path(TEMPORARY).glob("metadata-scripts*"))

    def python(self, code: str, *, name: str = "program", key: str = "bat") -> None:
        """Have a script of this kind run Python code."""
        path = rf"C:\programs\{name}.py"
        self.wine.write(path, code)
        self.set(key, f"@{PYTHON} {path}\r\n")


def said(done: Completed, key: Optional[str] = None) -> list[str]:
    """The lines on standard output, or those of one script without its key."""
    lines = done.stdout.splitlines()
    if key is None:
        return lines
    return [line[len(key) + 2 :] for line in lines if line.startswith(f"{key}: ")]
