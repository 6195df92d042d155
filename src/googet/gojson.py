"""JSON as Go programs read and write it, so that both sides agree on every file.

Reading is strict: no byte order mark, no comments, no trailing commas, no ``NaN``. Keys of objects
that become structures are taken in any case and the last duplicate wins. Characters that are no
Unicode (broken UTF-8, half of a surrogate pair) become U+FFFD, as in Go.

Facts: the Go standard library, encoding/json.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional, Union

from google_guest.errors import GuestError

_MOST_DIGITS = 400
_SURROGATES = re.compile("[\ud800-\udfff]")
# One escape: a whole pair of surrogates, half of one, or anything else.
_ESCAPED = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "UTF-8 with a byte order mark; save it without one"),
    (b"\xff\xfe", "UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16; save it as UTF-8"),
)
# Only strings can hold these, so they can be replaced in the finished text.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


class JsonError(GuestError):
    """A text is no JSON; the message says why and, where that is known, in which line."""

    def __init__(self, reason: str, *, line: int = 0, column: int = 0) -> None:
        super().__init__(f"invalid JSON{f' in line {line}' if line else ''}: {reason}")
        self.reason = reason
        self.line = line
        """Counted from 1; 0 if unknown."""
        self.column = column
        """In characters, counted from 1; 0 if unknown."""


def load(data: Union[bytes, str]) -> Any:
    """Return the value of a JSON text.

    Raises:
        JsonError: it is not valid JSON.
    """
    text = _decoded(data) if isinstance(data, bytes) else data
    if text.startswith("\ufeff"):
        raise JsonError("the text begins with a byte order mark", line=1, column=1)
    try:
        return _DECODER.decode(_with_whole_characters(text))
    except json.JSONDecodeError as error:
        reason = error.msg[:1].lower() + error.msg[1:]
        raise JsonError(reason, line=error.lineno, column=error.colno) from error
    except RecursionError as error:
        raise JsonError("it is nested too deeply") from error


def fold_keys(value: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Return an object with the known keys in their known spelling.

    Keys are compared without regard to case; the last of several that mean the same stands.
    Unknown keys stay as they are.
    """
    spelling = {_folded(name): name for name in known}
    folded: dict[str, Any] = {}
    for key, item in value.items():
        folded[spelling.get(_folded(key), key)] = item
    return folded


def dumps(value: Any, *, indent: Optional[int] = None) -> str:
    """Return the JSON text of a value, compact or indented, without a final newline.

    Keys stay in the order of the mappings. ``<``, ``>``, ``&`` and the two Unicode line separators
    are escaped; all other characters beyond ASCII are written as they are.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    return _SURROGATES.sub("\ufffd", text).translate(_ESCAPES)


def _decoded(data: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            raise JsonError(f"the text is {encoding}", line=1, column=1)
    if data[:64].count(b"\0") > 1:
        raise JsonError("the text is UTF-16 or binary; save it as UTF-8", line=1, column=1)
    return data.decode("utf-8", "replace")


def _with_whole_characters(text: str) -> str:
    """Replace halves of surrogate pairs, written as they are or escaped; nothing else moves."""

    def whole(match: re.Match[str]) -> str:
        return "\\ufffd" if match[1] else match[0]

    return _ESCAPED.sub(whole, _SURROGATES.sub("\ufffd", text)) if _may_hold_halves(text) else text


def _may_hold_halves(text: str) -> bool:
    return "\\ud" in text or "\\uD" in text or not text.isascii()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        # A later duplicate also moves to its later place: see fold_keys.
        found.pop(key, None)
        found[key] = value
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise JsonError(f"a number has {len(digits)} digits")
    return int(digits)


def _real(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise JsonError(f"the number {text[:40]} is too large")
    return number


def _constant(name: str) -> Any:
    raise JsonError(f"{name} is no JSON value")


def _folded(key: str) -> str:
    # Go also takes the long s for an s; the Kelvin sign is lowered to k by itself.
    return key.lower().replace("ſ", "s")  # noqa: RUF001


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant
)
