"""Opening ROOT for a command: lock, log, settings, database, and what was interrupted.

``changing`` is for commands that may change something: it needs an administrator on Windows, takes
the lock and finishes or undoes an interrupted transaction. ``reading`` is for the others; it takes
no lock and writes nothing.

Facts: googet: googet.go (which commands lock), system/system*.go (lock, rights).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from googet import logbook
from googet.architectures import default_architectures
from googet.cli.flags import UsageError
from googet.cli.subcommands import Reported
from googet.database import Database
from googet.host import Host, current_host
from googet.locking import RootLock
from googet.operations.session import Session
from googet.screen import Screen
from googet.settings import Settings, load_settings
from google_guest.errors import GuestError
from google_guest.records import record

_log = logging.getLogger(__name__)

ROOT_VARIABLE = "GooGetRoot"


@record
class Environment:
    """The top-level flags."""

    root: str = ""
    confirm: bool = True
    verbose: bool = False
    system_log: bool = True

    def root_folder(self) -> Path:
        """Return ROOT: the flag, else the environment's; raises GuestError when there is none."""
        text = self.root or os.environ.get(ROOT_VARIABLE, "")
        if not text:
            raise GuestError(
                f"the root folder is not known: give -root, or set the variable {ROOT_VARIABLE}"
            )
        return Path(text).absolute()


@contextlib.contextmanager
def changing(environment: Environment, *, sources: str = "") -> Iterator[Session]:
    """Open ROOT for a command that changes something; an error in the block is logged, too."""
    root, host = environment.root_folder(), current_host()
    if host.name == "windows" and not host.is_elevated():
        raise GuestError("this needs an administrator: start it from an elevated prompt")
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    settings = _settings(root, host)
    screen = Screen(confirm=environment.confirm)

    def tell(text: str) -> None:
        screen.line(text)
        screen.flush()

    with RootLock(root, host, max_age=settings.lock_file_max_age, tell=tell):
        book = logbook.configure(
            root, host, verbose=environment.verbose, system_log=environment.system_log
        )
        try:
            _warn_of_writers(root, host)
            with Database.open(root) as database:
                _recover(root, host, database)
                yield Session(root, host, settings, database, screen, sources=sources)
        except UsageError:
            raise
        except GuestError as error:
            _log.error("%s", error)
            raise Reported from error
        except KeyboardInterrupt:
            _log.warning("interrupted")
            raise
        finally:
            screen.flush()
            book.close()


@contextlib.contextmanager
def reading(environment: Environment, *, sources: str = "") -> Iterator[Session]:
    """Open ROOT for a command that changes nothing, not even a cache."""
    root, host = environment.root_folder(), current_host()
    settings = _settings(root, host)
    book = logbook.configure(
        None, host, verbose=environment.verbose, system_log=environment.system_log
    )
    database = None
    try:
        database = Database.open_existing(root)
        screen = Screen(confirm=environment.confirm)
        yield Session(root, host, settings, database, screen, sources=sources, read_only=True)
    finally:
        if database is not None:
            database.close()
        book.close()


@contextlib.contextmanager
def looking(environment: Environment, *, sources: str = "") -> Iterator[Session]:
    """Open ROOT as ``changing`` does, to refresh the index cache; without the rights, read only."""
    opened = changing if _may_change(environment.root_folder()) else reading
    with opened(environment, sources=sources) as session:
        yield session


def _may_change(root: Path) -> bool:
    host = current_host()
    if host.name == "windows":
        return host.is_elevated()
    nearest = root
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    return os.access(nearest, os.W_OK)


def _settings(root: Path, host: Host) -> Settings:
    return load_settings(root, default_architectures(host.name, host.native_machine()))


def _warn_of_writers(root: Path, host: Host) -> None:
    """Warn where others decide what runs with our rights; image builds begin in such folders."""
    writers = host.untrusted_writers(root) if host.is_elevated() else ()
    if writers:
        text = f"{root} can be changed by {', '.join(writers)}, and so can what googet runs"
        _log.warning("%s", text)
        print(f"Warning: {text}", file=sys.stderr)


def _recover(root: Path, host: Host, database: Database) -> None:
    from googet.transaction import recover

    done = recover(root, host, database)
    for title in done.completed:
        _log.warning("an interrupted run was completed: %s", title)
    for title in done.undone:
        _log.warning("an interrupted run was undone: %s", title)
    for problem in done.problems:
        _log.error("%s", problem)
