"""What the runner leaves to the operating system: ``linux`` and ``windows`` have it.

What is looked up, in which order, how it is downloaded, and what is told about it is the same
everywhere; where a script's file lives, what it is called, what is written into it and how it
starts is not.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from google_guest.scripts.lookup import Script
from google_guest.system.children import Ending


class Scratch(Protocol):
    """A private directory for one script's files."""

    @property
    def path(self) -> str:
        """Where it is on this host."""

    def create(self, name: str) -> int:
        """Create a file that can be executed and return a descriptor to write to."""

    def write(self, name: str, data: bytes) -> str:
        """Create a file with this content and return its path on this host."""

    def rename(self, source: str, target: str) -> str:
        """Give a file another name and return its path on this host."""


class Platform(Protocol):
    """One operating system's part of running a script."""

    def make_scratch(self) -> AbstractContextManager[Scratch]:
        """Make a private directory that exists as long as the ``with`` block.

        Raises:
            GuestError: there is no place for it.
        """

    def remove_leftovers(self) -> None:
        """Remove private directories whose makers are gone."""

    def write_inline(self, script: Script, scratch: Scratch) -> str:
        """Write the text of an inline script into a file and return its path."""

    def accept_download(self, script: Script, scratch: Scratch, path: str) -> str:
        """Return the path of what was fetched to ``path``, which may get another name.

        Raises:
            GuestError: nothing can run it.
        """

    def execute(self, key: str, path: str) -> Ending:
        """Run the file to its end, its output going to the log.

        Raises:
            NotStarted, GuestError, OSError: nothing could run it.
        """
