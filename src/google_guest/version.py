"""The version of the guest environment, as its makers wrote it.

Reads ``VERSION`` beside this module (put there when the library is built) or, in a source tree,
the file of that name at its top. The version that Python packaging records is no substitute:
PEP 440 drops the leading zero of ``20261124.00``.
"""

from __future__ import annotations

import functools
import os


@functools.cache
def version() -> str:
    """The version, for example ``20261124.00``; the same text in every package format.

    Read once: a process stays what it is when the package is upgraded or removed under it.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    packaged = os.path.join(here, "VERSION")
    source_tree = os.path.join(here, "..", "..", "VERSION")
    try:
        text = _read(packaged)
    except FileNotFoundError:
        text = _read(source_tree)
    return text.strip()


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
