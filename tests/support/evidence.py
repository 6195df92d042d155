"""What a failed test leaves for a person, and what a run of tests must not leave on the host."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from support import sweep
from support.commands import CommandFailed

MAX_CLOCK_DRIFT = 2.0
"""Seconds by which the wall clock may leave the monotonic one while the tests run."""

_LEAK_TIMEOUT = 5.0


class Evident(Protocol):
    """A bed of any kind."""

    @property
    def name(self) -> str: ...

    def evidence(self, directory: Path) -> None: ...


def keep_evidence(test: str, beds: Iterable[Evident]) -> list[tuple[str, str]]:
    """Let beds write what explains the failure of a test; report sections that say where.

    Below GUEST_TEST_EVIDENCE when that is set, else in a temporary folder.
    """
    sections = []
    for bed in beds:
        folder = _evidence_folder(test, bed.name)
        try:
            bed.evidence(folder)
        except (OSError, RuntimeError, CommandFailed) as failure:
            sections.append(("evidence", f"not kept for {bed.name}: {failure}"))
        else:
            sections.append(("evidence", f"{bed.name}: {folder}"))
    return sections


class HostWatch:
    """The host before the first test, to be compared with the host after the last."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def check(self) -> None:
        """AssertionError for beds that are left and for a clock that somebody set."""
        drift = abs(time.time() - time.monotonic() - self._offset)
        deadline = time.monotonic() + _LEAK_TIMEOUT
        leaks = _leaks()
        # A parallel worker may just be testing what a killed owner leaves.
        while leaks and time.monotonic() < deadline:
            time.sleep(0.1)
            leaks = _leaks()
        assert leaks == [], "left-overs of beds"
        assert drift < MAX_CLOCK_DRIFT, f"the host's wall clock moved by {drift:.1f} s"


def _leaks() -> list[str]:
    with sweep.registry_lock():
        own = [state.name for state in sweep.known_beds() if state.owner == os.getpid()]
        return [*(f"bed {name} of this run" for name in own), *sweep.leaks()]


def _evidence_folder(test: str, bed: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{test}-{bed}")
    kept = os.environ.get("GUEST_TEST_EVIDENCE")
    if kept:
        return Path(kept) / name
    return Path(tempfile.mkdtemp(prefix="guest-test-evidence-")) / name
