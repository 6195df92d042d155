"""A directory of files that is replaced as one, by moving the symbolic link that leads to it.

Readers open ``<link>/<file>`` at any time and find the old set of files or the new one, never a
mixture and never nothing: the new directory is complete before the link moves (rename(2) over the
old link), and the directory that the link left is kept until the next move, for a reader that had
followed the link just before.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Optional

from google_guest.records import record
from google_guest.system.files import Files


@record
class RotatedDirectory:
    """The link and the names beside it: ``<contents_prefix><stamp>``, ``<link_prefix><stamp>``."""

    files: Files
    link: str
    contents_prefix: str
    link_prefix: str

    @property
    def _parent(self) -> str:
        return os.path.dirname(self.link)

    def current(self) -> Optional[str]:
        """Return the directory that the link leads to, or None if it leads to none of ours."""
        try:
            target = os.readlink(self.files.host_path(self.link))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return None
            raise
        path = f"{self._parent}/{os.path.basename(target)}"
        facts = self.files.stat(path) if path.startswith(self.contents_prefix) else None
        return path if facts is not None and stat.S_ISDIR(facts.st_mode) else None

    def create(self, stamp: str, contents: Mapping[str, tuple[bytes, int]]) -> str:
        """Make a new directory with ``contents`` (name to data and mode); return its path.

        Raises:
            OSError: it could not be made and is gone again.
        """
        path = f"{self.contents_prefix}{stamp}"
        self.files.make_directory(self._parent)
        os.mkdir(self.files.host_path(path), 0o700)
        try:
            self.add(path, contents)
            os.chmod(self.files.host_path(path), 0o755)
        except BaseException:
            self.remove(path)
            raise
        return path

    def add(self, path: str, contents: Mapping[str, tuple[bytes, int]]) -> None:
        """Write further files into a directory that ``create`` made."""
        for name, (data, mode) in contents.items():
            self.files.write_atomic(f"{path}/{name}", data, mode=mode)

    def point_at(self, path: str, stamp: str) -> None:
        """Move the link to ``path``.

        Raises:
            OSError: it leads where it led before.
        """
        temporary = f"{self.link_prefix}{stamp}"
        self.files.remove(temporary)
        # Relative: the link stays right where the parent is mounted at another place.
        os.symlink(os.path.basename(path), self.files.host_path(temporary))
        try:
            self.files.rename(temporary, self.link)
        except BaseException:
            self.files.remove(temporary)
            raise

    def remove(self, path: str) -> None:
        """Remove one of our directories and the files in it."""
        for name in self.files.list_directory(path):
            self.files.remove(f"{path}/{name}")
        os.rmdir(self.files.host_path(path))

    def remove_all_but(self, *kept: Optional[str]) -> None:
        """Remove every directory and every temporary link of ours that is not in ``kept``."""
        for path in self._ours():
            if path in kept:
                continue
            if path.startswith(self.contents_prefix):
                self.remove(path)
            else:
                self.files.remove(path)

    def _ours(self) -> Iterator[str]:
        for name in self.files.list_directory(self._parent):
            path = f"{self._parent}/{name}"
            if path.startswith((self.contents_prefix, self.link_prefix)):
                yield path
