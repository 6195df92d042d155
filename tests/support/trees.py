"""A guest as a file tree: what unit tests plan and apply on, without privileges.

The tree is a folder of the test; programs that features look for are empty executables in it;
commands are recorded and answered by the test, never run unless it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from google_guest.config import load_config
from google_guest.features import Inputs
from google_guest.metadata.tree import Metadata, parse_metadata
from google_guest.system import System
from google_guest.system.commands import Completed

Answer = Callable[[Sequence[str]], Completed]


def succeed(argv: Sequence[str]) -> Completed:
    """The answer of a program that has nothing to say."""
    return Completed(tuple(argv), 0, "", "")


class Commands:
    """A command runner that records and asks `answer`."""

    def __init__(self, answer: Answer = succeed) -> None:
        self.answer = answer
        self.argvs: list[tuple[str, ...]] = []

    def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        input: Optional[str] = None,
        check: bool = True,
        env: Optional[Mapping[str, str]] = None,
    ) -> Completed:
        self.argvs.append(tuple(argv))
        return self.answer(argv)

    def programs(self) -> list[str]:
        """The names of the programs that were run."""
        return [argv[0] for argv in self.argvs]


class Channel:
    """A metadata server that takes everything, or raises `refusal`."""

    def __init__(self, refusal: Optional[Exception] = None) -> None:
        self.refusal = refusal
        self.written: list[tuple[str, str]] = []
        self.reports: list[Mapping[str, str]] = []

    def write_guest_attribute(self, namespace: str, key: str, value: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.written.append((f"{namespace}/{key}", value))

    put_guest_attribute = write_guest_attribute

    def report(self, headers: Mapping[str, str]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.reports.append(headers)


def tree(
    root: Path,
    files: Optional[Mapping[str, str]] = None,
    *,
    programs: Sequence[str] = (),
    runner: Optional[Commands] = None,
    channel: Optional[Channel] = None,
) -> System:
    """A guest below `root` with these texts by guest path and these programs in /usr/bin."""
    for path, text in (files or {}).items():
        place(root, path, text)
    for name in programs:
        place(root, f"/usr/bin/{name}", "", mode=0o755)
    return System(root=root, runner=runner or Commands(), channel=channel)


def place(root: Path, path: str, text: str, *, mode: int = 0o644) -> Path:
    """Put one file into a tree."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)
    return target


def metadata(
    instance: Optional[Mapping[str, Any]] = None,
    *,
    project: Optional[Mapping[str, Any]] = None,
) -> Metadata:
    """The metadata of an instance with id 7 of project `sample-proj`; None removes a key."""
    values = {"id": 7, **(instance or {})}
    return parse_metadata(
        {
            "instance": {key: value for key, value in values.items() if value is not None},
            "project": {"projectId": "sample-proj", **(project or {})},
        }
    )


def inputs(
    system: System,
    known: Optional[Metadata] = None,
    *,
    config: str = "",
    now: float = 1_000_000.0,
) -> Inputs:
    """What a feature sees: `config` is the text of the administrator's file."""
    if config:
        place(system.root, "/etc/default/instance_configs.cfg", config)
    return Inputs(known, load_config(system.files, environ={}), system, now)
