"""``googet clean``: what is in the cache and not needed there.

The default keeps the archives of installed packages: their uninstall scripts are in them.

Facts: googet: cli/clean/clean.go.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from googet.operations.install import installed_as
from googet.operations.session import Session
from googet.operations.sources import discard_folder

_log = logging.getLogger(__name__)


def clean(session: Session, *, dry_run: bool = False) -> bool:
    """Delete everything but the archives of installed packages; return whether all could be."""
    kept = {_key(package.local_path) for package in session.installed().values()}
    return _delete(
        session, [path for path in _content(session) if _key(str(path)) not in kept], dry_run
    )


def clean_all(session: Session, *, dry_run: bool = False) -> bool:
    """Delete everything in the cache; return whether it could be."""
    return _delete(session, _content(session), dry_run)


def clean_packages(session: Session, names: Sequence[str], *, dry_run: bool = False) -> bool:
    """Delete the archives of the installed packages named; return whether they could be."""
    wanted = {
        _key(package.local_path)
        for name in names
        for package in installed_as(session, name)
        if package.local_path
    }
    return _delete(
        session, [path for path in _content(session) if _key(str(path)) in wanted], dry_run
    )


def _content(session: Session) -> list[Path]:
    try:
        return sorted(session.cache.iterdir())
    except FileNotFoundError:
        return []


def _delete(session: Session, paths: Iterable[Path], dry_run: bool) -> bool:
    succeeded = True
    for path in paths:
        if dry_run:
            session.screen.line(f"Would delete {path}")
            continue
        try:
            if path.is_dir() and not path.is_symlink():
                discard_folder(path)
            else:
                path.unlink()
        except OSError as error:
            _log.error("%s cannot be deleted: %s", path, error.strerror or error)
        if os.path.lexists(path):
            succeeded = False
        else:
            _log.info("%s is deleted", path)
    return succeeded


def _key(path: str) -> str:
    return os.path.normcase(os.path.abspath(path)) if path else ""
