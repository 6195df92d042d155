"""Changes to single files: written whole and atomically, or removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Optional

from google_guest.changes import Change
from google_guest.records import record
from google_guest.system import System


@record
class WriteFile(Change):
    """Give ``path`` exactly this content, mode and owner.

    ``previous`` is the content that the plan saw (None: no file) and only serves ``diff``. With
    ``secret`` the content is never shown.
    """

    needs_live_system: ClassVar[bool] = False

    path: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    previous: Optional[bytes] = None
    secret: bool = False
    about: str = ""

    @property
    def subject(self) -> str:
        """The file, or what the feature says that it is about."""
        return self.about or f"file {self.path}"

    def describe(self) -> str:
        """Return the path and whether the file is new."""
        return f"{'create' if self.previous is None else 'change'} {self.path}"

    def diff(self) -> tuple[str, ...]:
        """Return the changed lines with two lines of context, or nothing for a secret."""
        if self.secret:
            return ()
        return line_difference(self.previous or b"", self.content)

    def apply(self, system: System) -> None:
        """Replace the file."""
        system.files.write_atomic(
            self.path, self.content, mode=self.mode, uid=self.uid, gid=self.gid
        )


@record
class RemoveFile(Change):
    """Remove ``path``; one that is gone already is fine."""

    needs_live_system: ClassVar[bool] = False

    path: str
    previous: Optional[bytes] = None
    about: str = ""

    @property
    def subject(self) -> str:
        """The file, or what the feature says that it is about."""
        return self.about or f"file {self.path}"

    def describe(self) -> str:
        """Return the path."""
        return f"remove {self.path}"

    def diff(self) -> tuple[str, ...]:
        """Return the lines that go away, when the plan knew them."""
        return line_difference(self.previous or b"", b"")

    def apply(self, system: System) -> None:
        """Remove the file."""
        system.files.remove(self.path)


def line_difference(old: bytes, new: bytes) -> tuple[str, ...]:
    """Return ``new`` against ``old`` as lines that start with a blank, ``-`` or ``+``."""
    # Only people who look at a plan need it.
    import difflib

    lines = difflib.unified_diff(_lines(old), _lines(new), lineterm="", n=2)
    return tuple(line for line in _without_headers(lines))


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", "backslashreplace").splitlines()


def _without_headers(lines: Iterable[str]) -> Iterable[str]:
    for number, line in enumerate(lines):
        if number >= 2 and not line.startswith("@@"):
            yield line
