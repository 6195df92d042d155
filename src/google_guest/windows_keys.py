"""``windows-keys``: requests for new passwords, and the list of those that were processed.

A line of the instance's attribute is a JSON object (``userName``, ``modulus``, ``exponent``,
``expireOn`` and optional fields), whose names ignore case and of whose duplicates the last counts.
A line that is expired, or lacks a value, is none; one with a value of the wrong type is a problem.

The registry's value ``PublicKeys`` lists what was processed, an object a string. Names and order of
its fields are those of the reference agents, so that neither an upgrade to this agent nor one away
from it processes a request twice. Both parsers take any text and raise nothing.

Source: guest-agent ``google_guest_agent/windows_accounts.go``, google-guest-agent
``cmd/core_plugin/winpassreset``; public GCE documentation, "Automate Windows password generation".
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Optional, Union

from google_guest.records import field, record
from google_guest.ssh_keys import parse_expiry

ATTRIBUTE = "windows-keys"
_LARGEST_NUMBER = 2**63 - 1
_FIELDS = {
    "username": "user_name",
    "modulus": "modulus",
    "exponent": "exponent",
    "expireon": "expire_on",
    "email": "email",
    "hashfunction": "hash_function",
    "addtoadministrators": "add_to_administrators",
    "passwordlength": "password_length",
}
"""Names in lower case to the record's fields."""
_IDENTITY = ("user_name", "modulus", "expire_on")

Identity = tuple[str, str, str]


@record
class WindowsKey:
    """A request for a new password."""

    user_name: str
    modulus: str = field(repr=False)
    """Base64 of the public key's modulus, verbatim: it is what the reply is found by."""
    exponent: str
    expire_on: str
    email: str = ""
    hash_function: str = ""
    add_to_administrators: Optional[bool] = None
    password_length: int = 0
    line: int = 0
    """Where it stands in the attribute, counted from 1."""

    @property
    def identity(self) -> Identity:
        """What makes two requests the same one."""
        return self.user_name, self.modulus, self.expire_on


@record
class WindowsKeys:
    """The valid lines in their order, each request once, and what is wrong with other lines."""

    keys: tuple[WindowsKey, ...] = ()
    problems: tuple[str, ...] = ()


@record
class ProcessedKeys:
    """What the registry lists as processed."""

    identities: frozenset[Identity] = frozenset()
    problems: tuple[str, ...] = ()


def parse_windows_keys(text: str, now: float) -> WindowsKeys:
    """Return what the attribute's ``text`` asks for at ``now`` (Unix seconds)."""
    keys: dict[Identity, WindowsKey] = {}
    problems = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        values = _values(line)
        if isinstance(values, str):
            problems.append(f"{ATTRIBUTE} line {number} is left out: {values}")
        elif _is_valid(values, now):
            key = WindowsKey(**values, line=number)
            keys.setdefault(key.identity, key)
    return WindowsKeys(tuple(keys.values()), tuple(problems))


def parse_processed(strings: Iterable[str]) -> ProcessedKeys:
    """Return what the strings of ``PublicKeys`` list."""
    identities = set()
    problems = []
    for number, text in enumerate(strings, start=1):
        values = _values(text)
        if isinstance(values, str):
            problems.append(f"entry {number} of PublicKeys in the registry is ignored: {values}")
        elif all(values.get(name) for name in _IDENTITY):
            identities.add(tuple(values[name] for name in _IDENTITY))
    return ProcessedKeys(frozenset(identities), tuple(problems))


def encode_processed(key: WindowsKey) -> str:
    """Return the string by which ``PublicKeys`` lists ``key``."""
    document = {
        "Email": key.email,
        "ExpireOn": key.expire_on,
        "Exponent": key.exponent,
        "Modulus": key.modulus,
        "UserName": key.user_name,
        "HashFunction": key.hash_function,
        "AddToAdministrators": key.add_to_administrators,
        "PasswordLength": key.password_length,
    }
    text = json.dumps(document, separators=(",", ":"))
    # As the reference's encoder writes them; they occur inside of texts only.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _is_valid(values: dict[str, Any], now: float) -> bool:
    if not all(values.get(name) for name in (*_IDENTITY, "exponent")):
        return False
    expiry = parse_expiry(values["expire_on"])
    return expiry is not None and expiry > now


def _values(text: str) -> Union[dict[str, Any], str]:
    """Return the record's fields that the JSON object in ``text`` has, or what is wrong with it."""
    try:
        pairs = json.loads(text, object_pairs_hook=_Object, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        # The error's own text would show what stands there.
        return "it is not JSON"
    if not isinstance(pairs, _Object):
        return "it is no JSON object"
    values: dict[str, Any] = {}
    for name, value in pairs:
        known = _FIELDS.get(name.lower())
        # As in Go, null leaves a field as it is.
        if known is None or value is None:
            continue
        if not _fits(known, value):
            return f"the type of {name} is wrong"
        values[known] = value
    return values


class _Object(list[tuple[str, Any]]):
    """The members of a JSON object, duplicates included."""


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _fits(name: str, value: object) -> bool:
    if name == "add_to_administrators":
        return isinstance(value, bool)
    if name == "password_length":
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return abs(value) <= _LARGEST_NUMBER
    return isinstance(value, str)
