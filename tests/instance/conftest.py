"""Fixtures of the instance tier: beds, the built packages, evidence of failures, leak check."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from support import sweep, tiers
from support.bed import Bed
from support.commands import CommandFailed
from support.debs import GuestDebs, built_debs

MAX_CLOCK_DRIFT = 2.0
"""Seconds by which the wall clock may leave the monotonic one while the tests run."""

_BEDS = pytest.StashKey[list[Bed]]()


class BedFactory(Protocol):
    """Boots a bed that ends with the test; parameters are those of Bed."""

    def __call__(self, suite: str = ..., **description: Any) -> Bed: ...


def probe() -> tuple[str, ...]:
    """What this machine lacks for the tier."""
    return tiers.instance_problems()


@pytest.fixture
def bed(request: pytest.FixtureRequest) -> Iterator[BedFactory]:
    """A factory of booted beds; a test that fails leaves their evidence."""
    beds: list[Bed] = []
    request.node.stash[_BEDS] = beds

    def boot(suite: str = "bookworm", **description: Any) -> Bed:
        made = Bed(suite, **description)
        made.start()
        beds.append(made)
        return made

    yield boot
    failures: list[str] = []
    for made in reversed(beds):
        failures += made.emulator_failures()
        made.close()
    assert failures == [], "the metadata server emulator failed"


@pytest.fixture(scope="session")
def guest_debs() -> GuestDebs:
    """The project's packages: built once, or those in the folder that GUEST_DEBS names."""
    return built_debs()


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_on_the_host() -> Iterator[None]:
    """After the last test no bed is left and nobody has set the host's clock."""
    offset = time.time() - time.monotonic()
    yield
    drift = abs(time.time() - time.monotonic() - offset)
    deadline = time.monotonic() + 5
    leaks = _leaks()
    # A parallel worker may just be testing what a killed owner leaves.
    while leaks and time.monotonic() < deadline:
        time.sleep(0.1)
        leaks = _leaks()
    assert leaks == [], "left-overs of beds"
    assert drift < MAX_CLOCK_DRIFT, f"the host's wall clock moved by {drift:.1f} s"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.failed:
        for bed in item.stash.get(_BEDS, []):
            folder = _evidence_folder(item.name, bed.name)
            try:
                bed.evidence(folder)
            except (OSError, RuntimeError, CommandFailed) as failure:
                report.sections.append(("evidence", f"not kept for {bed.name}: {failure}"))
            else:
                report.sections.append(("evidence", f"{bed.name}: {folder}"))
    return report


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
