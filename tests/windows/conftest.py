"""Fixtures of the windows tier: Wine beds, evidence of failures, leak check.

`wine` is a bed of its own for a test that changes Windows; `shared_wine` is one for all tests of a
module that only look, or that keep to names of their own; `wine_bed` makes others.  `lacking` skips
a test of something that this Wine has not.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import pytest
from support import wine_root
from support.evidence import HostWatch, keep_evidence
from support.wine import Wine, features

_BEDS = pytest.StashKey[list[Wine]]()


class WineFactory(Protocol):
    """Makes a Wine bed that ends with the test; parameters are those of Wine."""

    def __call__(self, **description: Any) -> Wine: ...


def probe() -> tuple[str, ...]:
    """What this machine lacks for the tier."""
    return wine_root.problems()


@pytest.fixture
def wine_bed(request: pytest.FixtureRequest) -> Iterator[WineFactory]:
    """A factory of Wine beds; a test that fails leaves their evidence."""
    beds: list[Wine] = []
    request.node.stash[_BEDS] = beds

    def make(**description: Any) -> Wine:
        made = Wine(**description)
        made.start()
        beds.append(made)
        return made

    yield make
    wrong = [problem for bed in reversed(beds) for problem in _closed(bed)]
    assert wrong == []


@pytest.fixture
def wine(wine_bed: WineFactory) -> Wine:
    """A fresh prefix in an open session, with the metadata of a Windows instance."""
    return wine_bed()


@pytest.fixture(scope="module")
def _module_wine() -> Iterator[Wine]:
    bed = Wine().start()
    yield bed
    assert _closed(bed) == []


@pytest.fixture
def shared_wine(request: pytest.FixtureRequest, _module_wine: Wine) -> Wine:
    """The bed of this module's tests: what one of them leaves, the others see."""
    request.node.stash[_BEDS] = [_module_wine]
    return _module_wine


@pytest.fixture
def lacking() -> Callable[[str], None]:
    """Skips the test when this Wine lacks a feature (`inside_wine/features.py` has the names)."""

    def skip(feature: str) -> None:
        reason = features()[feature]
        if reason:
            pytest.skip(f"this Wine lacks {feature}: {reason}")

    return skip


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


def _closed(bed: Wine) -> list[str]:
    """Close a bed; what makes its tests worthless although they passed."""
    problems = bed.problems()
    bed.close()
    return problems
