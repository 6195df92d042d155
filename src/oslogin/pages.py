"""Pages of lists, read one entry at a time.

A page of 2,048 login profiles with their keys is megabytes of JSON. Decoding it whole would make
tens of megabytes of objects of which a refresh wants four fields each; here every entry is decoded,
handed to the caller and forgotten. The decoder of values is the standard library's.

Source: RFC 8259 (JSON); guest-oslogin ``src/oslogin_utils.cc`` (fields of a page).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Generic, Optional, TypeVar

from google_guest.errors import GuestError

_T = TypeVar("_T")
_BLANKS = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


class BadPage(GuestError):
    """The answer is no page of a list."""


def read_page(
    body: bytes, key: str, take: Callable[[object], Optional[_T]]
) -> tuple[list[_T], Optional[int], object]:
    """Return what ``take`` makes of the entries of the list ``key``, their count, and the token.

    Entries for which ``take`` returns None are left out and counted. The count is None if the page
    has no such list, the token whatever ``nextPageToken`` holds. Raises ``BadPage``.
    """
    try:
        return _Page(body.decode(), key, take).read()
    except (ValueError, RecursionError):
        # The text of the error would show the page.
        raise BadPage("the page is not JSON, or none of a list") from None


class _Page(Generic[_T]):
    def __init__(self, text: str, key: str, take: Callable[[object], Optional[_T]]) -> None:
        self._text = text
        self._key = key
        self._take = take
        self._at = 0

    def read(self) -> tuple[list[_T], Optional[int], object]:
        entries: list[_T] = []
        count: Optional[int] = None
        token: object = None
        self._expect("{")
        more = self._next() != "}"
        if not more:
            self._at += 1
        while more:
            name = self._value()
            self._expect(":")
            if name == self._key:
                if count is not None or self._next() != "[":
                    raise ValueError("no list, or two")
                count = self._list(entries)
            else:
                value = self._value()
                if name == "nextPageToken":
                    token = value
            if not isinstance(name, str):
                raise ValueError("a name is no string")
            more = self._goes_on("}")
        if self._next():
            raise ValueError("something follows the object")
        return entries, count, token

    def _list(self, entries: list[_T]) -> int:
        self._expect("[")
        if self._next() == "]":
            self._at += 1
            return 0
        count, more = 0, True
        while more:
            entry = self._take(self._value())
            if entry is not None:
                entries.append(entry)
            count += 1
            more = self._goes_on("]")
        return count

    def _next(self) -> str:
        """Return the next character that is no blank, empty at the end; it stays."""
        blanks = _BLANKS.match(self._text, self._at)
        assert blanks is not None
        self._at = blanks.end()
        return self._text[self._at : self._at + 1]

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise ValueError("another character was expected")
        self._at += 1

    def _value(self) -> object:
        self._next()
        value, self._at = _decode(self._text, self._at)
        return value

    def _goes_on(self, end: str) -> bool:
        """Take the comma, or the ``end``; return whether it was the comma."""
        character = self._next()
        if character not in (",", end) or not character:
            raise ValueError("a comma was expected")
        self._at += 1
        return character == ","
