"""Booleans as people write them, in metadata and in configuration files alike."""

from __future__ import annotations

from typing import Optional

_TRUE = frozenset({"true", "t", "1", "yes", "y", "on"})
_FALSE = frozenset({"false", "f", "0", "no", "n", "off"})


def parse_boolean(value: object) -> Optional[bool]:
    """Return what ``value`` says, or None if it is no boolean.

    Text is trimmed and its case ignored. JSON booleans and the numbers 0 and 1 are accepted.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return {0: False, 1: True}.get(value)
    if not isinstance(value, str):
        return None
    word = value.strip().lower()
    if word in _TRUE:
        return True
    return False if word in _FALSE else None
