"""The version of the guest environment, as its makers wrote it.

Reads ``VERSION`` beside this module (put there when the library is built) or, in a source tree,
the file of that name at its top. The version that Python packaging records is no substitute:
PEP 440 drops the leading zero of ``20261124.00``.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import ResourceLoader


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
    except OSError:
        text = _read(source_tree)
    return text.strip()


def _read(path: str) -> str:
    # Not open(): googet.exe has its modules, and this text, in a zip.
    loader = cast("ResourceLoader", globals()["__loader__"])
    return loader.get_data(path).decode("ascii")
