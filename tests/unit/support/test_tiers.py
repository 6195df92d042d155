"""Which tier a test belongs to and which tiers a run requires."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

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
