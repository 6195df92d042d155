"""The registry, as far as the guest environment uses it: values below ``HKEY_LOCAL_MACHINE``.

A subclass stores values as they are (:meth:`Registry.get`, :meth:`Registry.set`); the typed methods
here are the same for all. The numbers of the kinds are those of winnt.h.
"""

from __future__ import annotations

import ntpath
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Optional

from google_guest.records import record

SZ, EXPAND_SZ, BINARY, DWORD, MULTI_SZ, QWORD = 1, 2, 3, 4, 7, 11


@record
class Value:
    """A value with its kind: text, bytes, a number, or a list of texts for ``MULTI_SZ``."""

    data: Any
    kind: int


class Registry(ABC):
    """Keys and their values. Every method raises ``OSError`` when Windows refuses."""

    @abstractmethod
    def get(self, key: str, name: str) -> Optional[Value]:
        """Return the value ``name`` of ``key``, or None if there is no such key or value."""

    @abstractmethod
    def set(self, key: str, name: str, value: Value) -> None:
        """Set a value; missing keys are created."""

    @abstractmethod
    def create_key(self, key: str) -> None:
        """Create a key and those above it; one that exists is left as it is."""

    @abstractmethod
    def delete_value(self, key: str, name: str) -> bool:
        """Delete a value; return whether there was one."""

    @abstractmethod
    def delete_key(self, key: str) -> bool:
        """Delete a key with everything below it; return whether there was one."""

    @abstractmethod
    def names(self, key: str) -> tuple[str, ...]:
        """Return the names of the values of ``key``; empty if there is no such key."""

    @abstractmethod
    def subkeys(self, key: str) -> tuple[str, ...]:
        """Return the names of the keys right below ``key``; empty if there is no such key."""

    def strings(self, key: str, name: str) -> tuple[str, ...]:
        """Return a list of texts; a missing value is an empty list.

        Raises:
            OSError: the value is of another kind, or cannot be read.
        """
        value = self.get(key, name)
        if value is None:
            return ()
        if value.kind != MULTI_SZ:
            raise OSError(f"{key}\\{name} in the registry is no list of texts")
        return tuple(value.data or ())

    def set_strings(self, key: str, name: str, texts: Iterable[str]) -> None:
        """Set a list of texts."""
        self.set(key, name, Value(list(texts), MULTI_SZ))

    def text(self, key: str, name: str) -> Optional[str]:
        """Return a text with its environment variables filled in, or None if there is no text."""
        value = self.get(key, name)
        if value is None or value.kind not in (SZ, EXPAND_SZ):
            return None
        text = str(value.data)
        return ntpath.expandvars(text) if value.kind == EXPAND_SZ else text

    def set_text(self, key: str, name: str, text: str, *, expandable: bool = False) -> None:
        """Set a text, ``expandable`` if it contains ``%VARIABLE%``."""
        self.set(key, name, Value(text, EXPAND_SZ if expandable else SZ))

    def number(self, key: str, name: str) -> Optional[int]:
        """Return a number, or None if there is no number."""
        value = self.get(key, name)
        return int(value.data) if value is not None and value.kind in (DWORD, QWORD) else None

    def set_number(self, key: str, name: str, number: int) -> None:
        """Set a 32-bit number."""
        self.set(key, name, Value(number, DWORD))
