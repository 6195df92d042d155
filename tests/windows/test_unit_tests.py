"""The unit tests of what runs on Windows, in Windows Python.

Every folder and file here runs whole: a test that cannot be on Windows says so itself.  Left out
are tests of Linux' own features, and most of those that end googet at one step after the other: a
process takes long to start in Wine, and `test_googet.py` ends some, too.
"""

from __future__ import annotations

import pytest
from support.wine import Wine
from support.wine_pytest import run_pytest

_KILLED = (
    "tests/unit/googet/operations/test_killed.py"
    "::test_command_killed_at_any_step_leaves_whole_packages"
)
UNIT_TESTS = {
    "googet": (
        "tests/unit/googet",
        "--ignore=tests/unit/googet/test_transaction_crashes.py",
        *(f"--deselect={_KILLED}[{scenario}]" for scenario in ("install", "replace_package")),
    ),
    "windows": (
        "tests/unit/cli/windows",
        "tests/unit/features/windows",
        "tests/unit/system/windows",
    ),
    "library": (
        "tests/unit/scripts/test_lookup.py",
        "tests/unit/scripts/test_proxies.py",
        "tests/unit/scripts/test_storage_url.py",
        "tests/unit/test_booleans.py",
        "tests/unit/test_logs.py",
        "tests/unit/test_records.py",
        "tests/unit/test_ssh_keys.py",
        "tests/unit/test_version.py",
    ),
}


@pytest.mark.parametrize("part", UNIT_TESTS)
def test_unit_tests_pass_in_windows_python(wine: Wine, part: str) -> None:
    done = run_pytest(wine, UNIT_TESTS[part], timeout=900)
    # Some of them call what Wine lacks on purpose, or in a program of their own.
    wine.forget_gaps()
    assert (done.status, done.stderr) == (0, ""), done.stdout[-20_000:]
    assert " passed" in done.stdout
