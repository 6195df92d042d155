"""Settings of the unit tests that run in Windows Python (a pytest plugin).

The conftest.py files of the tree are for Linux: this is what the unit tests need of them.  A test,
or the collection, that takes longer than LIMIT ends the run with the stacks of its threads: a
program in Wine cannot be looked into from outside.
"""

from __future__ import annotations

import faulthandler
import os

import hypothesis

LIMIT = 150.0

# pytest takes the standard error away while a test runs.
_errors = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")

hypothesis.settings.register_profile("windows", deadline=None, max_examples=10, database=None)
hypothesis.settings.load_profile("windows")


def _watch() -> None:
    faulthandler.dump_traceback_later(LIMIT, exit=True, file=_errors)


def pytest_runtest_logstart(nodeid: str, location: object) -> None:
    print(nodeid, file=_errors, flush=True)
    _watch()


def pytest_sessionfinish() -> None:
    faulthandler.cancel_dump_traceback_later()


_watch()
