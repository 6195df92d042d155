"""Replacing a file atomically, on Linux and on Windows.

The new content goes into a temporary file in the same folder, with its final mode from the first
byte; it is synced and then renamed over the old one. A crash leaves the old file or the new one,
and at most a temporary file, ``.NAME.googet-RANDOM``.

On Windows a rename fails for as long as another program, usually a virus scanner, has the old file
open; it is tried for a second.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_FLAGS = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
)
_TRIES = 20
_PAUSE = 0.05


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o644, sync: bool = True) -> Iterator[BinaryIO]:
    """Give a new file to write, which becomes ``path`` when the block ends without an exception.

    A symbolic link at ``path`` is replaced, not followed. Without ``sync`` the file may be lost or
    damaged when the power fails soon: for what is verified before it is used, or of no use then.

    Raises:
        OSError: nothing was changed, and nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.googet-{os.urandom(6).hex()}")
    descriptor = os.open(temporary, _FLAGS, mode & 0o700)
    try:
        with open(descriptor, "wb") as file:
            if sys.platform != "win32":
                os.fchmod(descriptor, mode)
            yield file
            file.flush()
            if sync:
                os.fsync(descriptor)
        move(temporary, path, sync=sync)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def replace_file(path: Path, data: bytes, *, mode: int = 0o644, sync: bool = True) -> None:
    """Make ``path`` a file with exactly this content; raise ``OSError`` and change nothing."""
    with replacing(path, mode=mode, sync=sync) as file:
        file.write(data)


def move(source: Path, target: Path, *, sync: bool = True) -> None:
    """Rename ``source`` over ``target`` in one folder and sync that folder."""
    for left in reversed(range(_TRIES)):
        try:
            os.replace(source, target)
            break
        except PermissionError:
            if sys.platform != "win32" or left == 0 or target.is_dir():
                raise
            time.sleep(_PAUSE)
    if sync and sys.platform != "win32":
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
