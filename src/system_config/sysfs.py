"""The kernel's files below /sys and /proc, of this machine or of a tree that looks like one.

Reads never fail: what is missing, unreadable or no text is None, an empty list or an empty string,
because every attribute may be absent in some kernel and may go away while its folder is read. Only
a write says why it failed. A tree below another root is never left by a write.

Imports next to nothing: udev starts a program that uses it for every network interface.

Source: Linux ``Documentation/filesystems/sysfs.rst`` and ``Documentation/core-api/irq/
irq-affinity.rst``.
"""

from __future__ import annotations

import errno
import os
from typing import Optional

LARGEST = 1 << 16
"""Bytes that are read of an attribute; the kernel's have a page at most."""
LARGEST_NUMBER = 1 << 31
"""No number of an interrupt, a queue, a node or a function reaches it."""


class Tree:
    """Files by their paths on the machine (``/sys/class/net``); ``root`` lies before them."""

    def __init__(self, root: str = "/") -> None:
        real = os.path.realpath(root or "/")
        self.is_live = real == "/"
        self._prefix = "" if self.is_live else real

    def read(self, path: str) -> Optional[str]:
        """The text of an attribute without the blanks around it, or None."""
        try:
            descriptor = os.open(
                self._prefix + path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            )
        except (OSError, ValueError):
            return None
        try:
            data = os.read(descriptor, LARGEST)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return data.decode("ascii", "replace").strip()

    def read_number(self, path: str) -> Optional[int]:
        """The number in an attribute, which may be -1, or None."""
        text = self.read(path) or ""
        return -1 if text == "-1" else parse_number(text)

    def names(self, path: str) -> list[str]:
        """What a folder holds, in the order of its text."""
        try:
            return sorted(os.listdir(self._prefix + path))
        except (OSError, ValueError):
            return []

    def exists(self, path: str) -> bool:
        """Whether a path leads to something."""
        return os.path.exists(self._prefix + path)

    def link_name(self, path: str) -> str:
        """The last part of what a symbolic link points to, or nothing."""
        try:
            return os.path.basename(os.readlink(self._prefix + path))
        except (OSError, ValueError):
            return ""

    def real(self, path: str) -> str:
        """The path with every link followed, or nothing when that leads nowhere in this tree."""
        real = os.path.realpath(self._prefix + path)
        if not os.path.exists(real):
            return ""
        if self.is_live:
            return real
        return real[len(self._prefix) :] if real.startswith(self._prefix + "/") else ""

    def write(self, path: str, value: str) -> None:
        """Write an attribute in one write(2).

        Raises:
            OSError: the kernel refused, or the path leads out of the tree.
        """
        if not self.is_live and not self.real(path):
            raise OSError(errno.EXDEV, "leads out of the tree", path)
        descriptor = os.open(
            self._prefix + path,
            os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY,
        )
        try:
            os.write(descriptor, value.encode("ascii", "replace"))
        finally:
            os.close(descriptor)


def parse_number(text: str) -> Optional[int]:
    """The number that decimal digits say, None for anything else and for what is too large."""
    if not text or len(text) > 10 or not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number < LARGEST_NUMBER else None


def numbered(names: list[str], prefix: str = "") -> list[int]:
    """The numbers of the names that are ``prefix`` and a number, in order."""
    found = {parse_number(name[len(prefix) :]) for name in names if name.startswith(prefix)}
    return sorted(number for number in found if number is not None)
