"""Fixtures of the vm tier: machines, the built packages, evidence of failures, leak check.

A file of tests has one machine at a time: booting takes fifteen seconds, so its tests share it and
leave it as they found it, or go back to its snapshot.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Optional

import pytest
from support import vm
from support.debs import GuestDebs, built_debs
from support.evidence import HostWatch, keep_evidence
from support.vm import Machine


class Machines:
    """Boots the machine of a file of tests; booting another one ends it."""

    def __init__(self) -> None:
        self.running: list[Machine] = []
        self.failures: list[str] = []

    def __call__(self, **description: Any) -> Machine:
        """Boot a machine; the parameters are those of Machine."""
        self.end()
        machine = Machine(**description)
        machine.start()
        self.running.append(machine)
        return machine

    def end(self) -> None:
        """End the machine, if there is one."""
        while self.running:
            machine = self.running.pop()
            self.failures += machine.emulator_failures()
            machine.close()


_MACHINES = pytest.StashKey[Machines]()


def probe() -> tuple[str, ...]:
    """What this host lacks for the tier."""
    return vm.machine_problems()


@pytest.fixture(scope="module")
def boot(request: pytest.FixtureRequest) -> Iterator[Machines]:
    """The machines of a file of tests."""
    machines = request.node.stash[_MACHINES] = Machines()
    yield machines
    machines.end()
    assert machines.failures == [], "the metadata server emulator failed"


@pytest.fixture(scope="session")
def guest_debs() -> GuestDebs:
    """The project's packages: built once, or those in the folder that GUEST_DEBS names."""
    return built_debs()


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_on_the_host() -> Iterator[None]:
    """After the last test no machine is left and nobody has set the host's clock."""
    watch = HostWatch()
    yield
    watch.check()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    module: Optional[pytest.Module] = item.getparent(pytest.Module)
    if report.when == "call" and report.failed and module is not None:
        machines = module.stash.get(_MACHINES, None)
        report.sections += keep_evidence(item.name, machines.running if machines else [])
    return report
