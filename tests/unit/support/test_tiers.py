"""Which tier a test belongs to and which tiers a run requires."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest
from support.tiers import TESTS, in_ci, required_tiers, tier_of


@pytest.mark.parametrize(
    ("path", "tier"),
    [
        (TESTS / "unit/support/test_tiers.py", "unit"),
        (TESTS / "instance/test_bed.py", "instance"),
        (TESTS / "support/bed.py", None),
        (TESTS, None),
        (Path("/elsewhere/unit/test_x.py"), None),
    ],
)
def test_tier_is_the_first_folder_below_tests(path: Path, tier: Optional[str]) -> None:
    assert tier_of(path) == tier


@pytest.mark.parametrize(
    ("value", "required"),
    [("", ()), ("vm", ("vm",)), ("instance, vm,", ("instance", "vm"))],
)
def test_required_tiers_are_named_by_the_environment(value: str, required: tuple[str]) -> None:
    assert required_tiers({"GUEST_TEST_REQUIRE": value}) == required


def test_unknown_required_tier_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no tier 'hardware'; there are unit,"):
        required_tiers({"GUEST_TEST_REQUIRE": "hardware"})


@pytest.mark.parametrize(
    ("environment", "expected"), [({}, False), ({"CI": "false"}, False), ({"CI": "true"}, True)]
)
def test_ci_is_what_the_environment_says(environment: dict[str, str], expected: bool) -> None:
    assert in_ci(environment) is expected


def run_as_nobody(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest without root's rights."""
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": 65534, "group": 65534, "extra_groups": []}
    known = {name: value for name, value in os.environ.items() if not name.startswith("GUEST_")}
    known.pop("CI", None)
    return subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=TESTS.parent,
        env={**known, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **identity,
    )


INSTANCE_TEST = "tests/instance/test_image_clean.py"
UNIT_TEST = "tests/unit/test_booleans.py"


@pytest.fixture(scope="module")
def nobody_can_read() -> None:
    try:
        readable = run_as_nobody("--version").returncode == 0
    except PermissionError:
        readable = False
    if not readable:
        pytest.skip("another user cannot read this tree or this Python")


@pytest.mark.usefixtures("nobody_can_read")
def test_without_root_the_unit_tests_run_and_the_others_say_why_they_do_not() -> None:
    done = run_as_nobody(UNIT_TEST, INSTANCE_TEST)
    assert done.returncode == 0, done.stdout
    assert "the instance tier needs root" in done.stdout
    lines = [line.split()[:3] for line in done.stdout.splitlines()]
    assert [line[2] for line in lines if line[:2] == ["instance", "0"]] == ["1"]
    assert [line[2] for line in lines if line[:1] == ["unit"] and line[1] != "0"] == ["0"]


@pytest.mark.usefixtures("nobody_can_read")
def test_a_required_tier_that_cannot_run_is_a_failure_that_says_why() -> None:
    done = run_as_nobody(INSTANCE_TEST, GUEST_TEST_REQUIRE="instance")
    assert done.returncode != 0
    assert "the instance tier needs root" in done.stdout
