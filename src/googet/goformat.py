"""Values as Go's ``fmt`` prints them, as far as templates can have them.

Strings, booleans, integers, floating point numbers and maps of strings. A format that does not fit
its values, for which Go prints a remark into the result, is an error here.

Facts: the Go standard library, fmt and strconv.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

_LARGEST_WIDTH = 10_000
_DIRECTIVE = re.compile(r"%([-+# 0]*)([0-9]*)(?:\.([0-9]*))?(.?)", re.DOTALL)
_INTEGER_VERBS = {"d": "d", "b": "b", "o": "o", "x": "x", "X": "X"}
_QUOTED = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}


class FormatError(ValueError):
    """A format is wrong or does not fit its values."""


def sprint(values: Sequence[Any]) -> str:
    """Return the values in a row, with a space between two that are both no strings."""
    text = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            text += " "
        text += shown(value)
    return text


def sprintln(values: Sequence[Any]) -> str:
    """Return the values with spaces between them and a newline at the end."""
    return " ".join(shown(value) for value in values) + "\n"


def sprintf(form: str, values: Sequence[Any]) -> str:
    """Return ``form`` with its directives replaced by the values.

    Raises:
        FormatError: a directive is not known or does not fit, or the number of values is wrong.
    """
    pending = list(values)

    def replaced(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not verb:
            raise FormatError(f"format {form!r} ends within a directive")
        if not pending:
            raise FormatError(f"format {form!r} has more directives than values")
        if max(int(width[:9] or 0), int((precision or "0")[:9])) > _LARGEST_WIDTH:
            raise FormatError(f"format {form!r} asks for more than {_LARGEST_WIDTH} characters")
        value = pending.pop(0)
        if (width or precision is not None) and isinstance(value, Mapping):
            raise FormatError(f"{match[0]} does not print a map")
        text = _converted(verb, flags, precision, value)
        return _padded(text, flags, int(width or 0))

    text = _DIRECTIVE.sub(replaced, form)
    if pending:
        raise FormatError(f"format {form!r} has fewer directives than values")
    return text


def shown(value: Any) -> str:
    """Return a value as ``%v`` prints it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _general(value)
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{shown(value[key])}' for key in sorted(value))}]"
    return str(value)


def quoted(text: str) -> str:
    """Return a text as a Go string literal."""
    return '"' + "".join(_quoted(character) for character in text) + '"'


def kind_of(value: Any) -> str:
    """Return what a value is called in messages."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int):
        return "an integer"
    if isinstance(value, float):
        return "a number with a fraction"
    return "a string" if isinstance(value, str) else "a map"


def _converted(verb: str, flags: str, precision: Any, value: Any) -> str:
    if "#" in flags or ("+" in flags and verb in "vsq"):
        raise FormatError(f"%{flags}{verb} is not supported")
    if verb == "v" and type(value) in (int, float):
        verb = "d" if type(value) is int else "g"
    if verb in "vs" and isinstance(value, str):
        return value if precision is None else value[: int(precision or 0)]
    if verb == "v":
        return shown(value)
    if verb == "q" and isinstance(value, str):
        return quoted(value)
    if verb in "xX" and isinstance(value, str):
        digits = value.encode("utf-8", "replace").hex()
        return digits.upper() if verb == "X" else digits
    if verb == "t" and isinstance(value, bool):
        return shown(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if verb in _INTEGER_VERBS:
            digits = format(abs(value), _INTEGER_VERBS[verb])
            return _signed(value < 0, digits.zfill(int(precision or 0)), flags)
        if verb == "c" and 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000:
            return chr(value)
    if isinstance(value, float) and verb in "eEfFgG":
        return _real(value, verb, flags, precision)
    raise FormatError(f"%{verb} does not print {kind_of(value)}")


def _real(value: float, verb: str, flags: str, precision: Any) -> str:
    if verb in "gG" and precision is None:
        text = _general(abs(value))
        text = text.upper() if verb == "G" else text
    else:
        text = format(abs(value), f".{int(precision or 0) if precision is not None else 6}{verb}")
    return _signed(math.copysign(1, value) < 0, text, flags)


def _general(value: float) -> str:
    """Return the shortest text that reads back; an exponent from 1e6 on and below 1e-4."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    mantissa = "".join(map(str, digits))
    magnitude = len(mantissa) - 1 + exponent
    if -5 < magnitude < 6 or value == 0:
        text = f"{abs(value):.{max(-exponent, 0)}f}" if value else "0"
    else:
        fraction = f".{mantissa[1:]}" if len(mantissa) > 1 else ""
        text = f"{mantissa[0]}{fraction}e{magnitude:+03d}"
    return "-" + text if sign else text


def _signed(negative: bool, digits: str, flags: str) -> str:
    if negative:
        return "-" + digits
    if "+" in flags:
        return "+" + digits
    return " " + digits if " " in flags else digits


def _padded(text: str, flags: str, width: int) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags:
        sign = text[:1] if text[:1] in ("-", "+", " ") else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _quoted(character: str) -> str:
    if character in _QUOTED:
        return _QUOTED[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
