"""Removing folders of a Windows guest with everything in them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from typing import Any

from google_guest.system.files import Files


def remove_tree(files: Files, path: str) -> bool:
    """Remove a folder with everything in it; return whether there was one.

    Links and junctions inside are removed and never followed; files marked as read-only go, too.

    Raises:
        OSError: something in it could not be removed.
    """
    target = files.host_path(path)
    if not os.path.lexists(target):
        return False
    shutil.rmtree(target, onerror=_unprotect)
    return True


def _unprotect(function: Callable[..., Any], path: str, failure: Any) -> None:
    if not isinstance(failure[1], PermissionError) or os.access(path, os.W_OK):
        raise failure[1]
    os.chmod(path, stat.S_IWRITE)
    function(path)
