#!/usr/bin/env python3
"""Runs unit tests of the tree in the Windows Python of a Wine bed.

    PYTHONPATH=tests:tools:src .venv/bin/python tests/support/wine_pytest.py tests/unit/googet

The conftest.py files, which are for Linux, are left out; `inside_wine/unit_tests.py` stands in.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from support.commands import CommandTimeout, Completed
from support.wine import PYTHON, Wine

_ENVIRONMENT = {
    "PYTHONPATH": r"Z:\tree\src;Z:\tree\tests\support\inside_wine",
    # The tree is read-only, and hypothesis would try for ever to write there.
    "HYPOTHESIS_STORAGE_DIRECTORY": r"C:\hypothesis",
}


def run_pytest(wine: Wine, arguments: Sequence[str], *, timeout: float) -> Completed:
    """Run pytest on files and folders of the tree; its output, and its exit status.

    The standard error is empty, or has the name and the stacks of a test that hangs.
    """
    program = wine.begin(
        [
            *(PYTHON, "-u", "-m", "pytest", "-q", "-rfE", "--tb=short", "--noconftest"),
            *("-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "unit_tests"),
            *("-o", "testpaths=", r"--basetemp=C:\t", *arguments),
        ],
        folder=r"Z:\tree",
        environment=_ENVIRONMENT,
    )
    try:
        done = program.wait(timeout)
    except CommandTimeout as failure:
        program.terminate()
        done = failure.completed
    # Names of tests that ended are of no interest.
    errors = done.stderr if done.status not in (0, 1) or "Timeout (" in done.stderr else ""
    return Completed(done.stdout, errors[-10_000:], done.status)


def main() -> int:
    began = time.monotonic()
    with Wine(metadata=False) as wine:
        done = run_pytest(wine, sys.argv[1:], timeout=1800)
    print(done.stdout, done.stderr, sep="\n")
    print(f"{time.monotonic() - began:.0f} s")
    return done.status


if __name__ == "__main__":
    sys.exit(main())
