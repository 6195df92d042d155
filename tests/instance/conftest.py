"""Fixtures of the instance tier: beds, the built packages, evidence of failures, leak check."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Protocol

import pytest
from support import tiers
from support.bed import Bed
from support.debs import GuestDebs, built_debs
from support.evidence import HostWatch, keep_evidence

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
    watch = HostWatch()
    yield
    watch.check()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.failed:
        report.sections += keep_evidence(item.name, item.stash.get(_BEDS, []))
    return report
