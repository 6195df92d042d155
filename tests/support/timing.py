"""How long something takes, on a machine that other tests use, too.

A program that is quick once is quick; one that is slow once may have waited for a processor. Where
a bound is about the program, a test measures until one of a few attempts keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

ATTEMPTS = 4


def seconds_of(action: Callable[[], object]) -> float:
    """The seconds that `action` takes."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


def quickest(measure: Callable[[], float], *, bound: float, attempts: int = ATTEMPTS) -> float:
    """The smallest of what `measure` gives, called until it is below `bound`.

    At most `attempts` times.
    """
    best = measure()
    for _ in range(attempts - 1):
        if best < bound:
            break
        best = min(best, measure())
    return best
