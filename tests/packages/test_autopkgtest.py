"""The DEP-8 tests of debian/tests, run as Debian runs them, in a chroot.

There no test may start a service; the tests of the instance tier are for that.
"""

from __future__ import annotations

import re

import pytest
import release
from support import roots, tiers
from support.chroot import is_possible
from support.commands import Completed, missing_programs
from support.debs import GuestDebs
from support.package_checkers import run_autopkgtest

SUITE = "bookworm"
EXTRA = ("apt-utils", "dpkg-dev")
"""What autopkgtest needs inside, and does not bring."""

TESTS = ("import", "programs", "os-login", "system-configuration", "units")


@pytest.fixture(scope="module")
def results(guest_debs: GuestDebs, tmp_path_factory: pytest.TempPathFactory) -> Completed:
    problems = [is_possible()] if is_possible() else list(tiers.root_problems(SUITE, extra=EXTRA))
    problems += [f"program {name}" for name in missing_programs(("autopkgtest",))]
    if problems:
        reason = "autopkgtest needs " + "; ".join(map(str, problems))
        if tiers.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("autopkgtest")
    source = folder / f"{release.SOURCE}-{release.version()}"
    release.stage(release.files(), source)
    debs = list(guest_debs.packages.values())
    base = roots.base(SUITE, extra=EXTRA)
    return run_autopkgtest(base, debs, source, archive=debs, folder=folder / "room")


@pytest.mark.parametrize("name", TESTS)
def test_test_passes(results: Completed, name: str) -> None:
    said = (results.stdout + results.stderr).rpartition(" summary\n")[2]
    verdicts = re.findall(rf"^{name} +([A-Z]+)", said, re.M)
    assert verdicts == ["PASS"], results.stderr[-3000:]


def test_every_test_of_the_source_is_run_and_is_more_than_superficial(results: Completed) -> None:
    control = (release.TOP / "debian/tests/control").read_text()
    names = re.findall(r"^Tests: (\S+)|test-name=(\S+)", control, re.M)
    assert {first or second for first, second in names} == set(TESTS)
    # 8 would mean that nothing but superficial tests has run.
    assert results.status == 0
