"""The single steps on files that a transaction is made of, and how they are undone or finished.

:func:`undo` and :func:`finish` look at the disk to see which steps of a journal were done; both can
be cut short and begun again any number of times.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from typing import Optional

from googet.host import FileInUse, Host
from googet.journal import FileStep, Journal, Scratch, Stage
from googet.placing import PlacedFile
from google_guest.errors import GuestError
from google_guest.records import record

_log = logging.getLogger(__name__)

Fault = Callable[[str, str], None]
"""Called before every step with its name and path, so that tests can end the process there."""

_BLOCK = 1 << 20
_LONGEST_NAME = 200


class PlacedDiffers(GuestError):
    """A file was read differently the second time."""


@record
class Finished:
    """What :func:`finish` could not delete: files left, files that go when the system restarts."""

    left: tuple[str, ...] = ()
    at_restart: tuple[str, ...] = ()


class FileSteps:
    """The steps: each calls ``at`` first, which may end it all."""

    def __init__(self, host: Host, at: Fault) -> None:
        self.host = host
        self._at = at
        self.at_restart: list[str] = []

    def write(self, file: PlacedFile, temporary: str) -> None:
        """Write the new file under its temporary name, to the disk."""
        self._at("write", temporary)
        digest = hashlib.sha256()
        with (
            self.host.open_read(file.source) as source,
            self.host.open_new(temporary, file.mode) as target,
        ):
            for block in iter(lambda: source.read(_BLOCK), b""):
                digest.update(block)
                target.write(block)
                self._at("written", temporary)
            target.flush()
            os.fsync(target.fileno())
        self.host.set_times(temporary, file.modified_ns)
        if digest.hexdigest() != file.sha256:
            raise PlacedDiffers(f"{file.source} changed while it was copied")

    def rename(self, source: str, target: str) -> None:
        """Rename a file."""
        self._at("rename", source)
        self.host.rename(source, target)

    def make_folder(self, path: str, mode: int = 0o755) -> None:
        """Make a folder, if it is not there."""
        self._at("make folder", path)
        self.host.make_folder(path, mode)

    def remove_folder(self, path: str) -> bool:
        """Remove a folder if it is empty; return whether it is gone."""
        self._at("remove folder", path)
        return self.host.remove_empty_folder(path)

    def sync(self, paths: Iterable[str]) -> None:
        """Write the folders of ``paths`` to the disk."""
        for folder in sorted({self.host.paths.parent(path) for path in paths}):
            self._at("sync", folder)
            self.host.sync_folder(folder)

    def remove(self, path: str, *, name: str = "") -> None:
        """Remove a file; where a program uses it, move it aside and have it removed later.

        ``name`` is what it is called then, its own name without one.

        Raises:
            FileInUse: it can be neither removed nor renamed.
        """
        self._at("remove", path)
        try:
            self.host.remove_file(path)
        except FileInUse:
            self._set_aside(path, name or self.host.paths.name(path))

    def _set_aside(self, path: str, name: str) -> None:
        paths = self.host.paths
        aside_name = f"{name[:_LONGEST_NAME]}.old{os.urandom(4).hex()}"
        beside = paths.parent(path)
        temporary = self.host.temporary_folder()
        folder = beside
        if temporary is not None and self.host.is_same_volume(beside, temporary):
            folder = temporary
        self._at("set aside", path)
        try:
            self.host.rename(path, paths.join(folder, aside_name))
        except OSError:
            if folder == beside:
                raise
            folder = beside
            self.host.rename(path, paths.join(folder, aside_name))
        aside = paths.join(folder, aside_name)
        self._at("remove at restart", aside)
        if self.host.remove_at_restart(aside):
            self.at_restart.append(aside)
        else:
            _log.warning("%s is in use; it can be deleted once it is not", aside)

    def remove_tree(self, path: str) -> None:
        """Remove a folder and all that is in it; what is in use stays, with a line in the log."""
        for name in self.host.list_folder(path):
            below = self.host.paths.join(path, name)
            if self.host.kind_of(below) == "folder":
                self.remove_tree(below)
                continue
            try:
                self.remove(below)
            except OSError as error:
                _log.warning("%s is left behind: %s", below, error.strerror)
            except FileInUse as error:
                _log.warning("%s is left behind: %s", below, error)
        self.remove_folder(path)


def undo(journal: Journal, steps: FileSteps) -> None:
    """Bring all files back to what they were before the transaction.

    Raises:
        OSError, GuestError: a file could not be brought back; the rest can be done again later.
    """
    for stage in reversed(journal.stages):
        _undo_stage(stage, steps)


def _undo_stage(stage: Stage, steps: FileSteps) -> None:
    host = steps.host
    for file in reversed(stage.files):
        _undo_file(file, stage.switching, steps)
    for file in stage.files:
        if host.kind_of(file.temporary):
            steps.remove(file.temporary)
    for folder in reversed(stage.folders):
        if host.kind_of(folder) == "folder":
            steps.remove_folder(folder)
    for cleared in stage.cleared:
        steps.make_folder(cleared.path, cleared.mode)
    for moved in stage.moved:
        if host.kind_of(moved.backup):
            steps.rename(moved.backup, moved.path)
    steps.sync([*(file.path for file in stage.files), *(moved.path for moved in stage.moved)])


def _undo_file(file: FileStep, switching: bool, steps: FileSteps) -> None:
    host = steps.host
    kind = host.kind_of(file.path)
    if host.kind_of(file.backup):
        # A command of the package may have put a folder there; it stays, and the backup with it.
        if kind in ("file", "link"):
            steps.remove(file.path)
        steps.rename(file.backup, file.path)
    elif not file.existed and switching and not host.kind_of(file.temporary):
        if kind in ("file", "link"):
            steps.remove(file.path)


def finish(journal: Journal, steps: FileSteps) -> Finished:
    """Delete what a committed transaction left to delete; what cannot be deleted is told."""
    left: list[str] = []
    host = steps.host

    def remove(path: str, name: Optional[str] = None) -> None:
        if host.kind_of(path) not in ("file", "link"):
            return
        try:
            steps.remove(path, name=name or "")
        except FileInUse:
            left.append(path)
            _log.warning("%s is in use by another program and is left behind", path)
        except OSError as error:
            left.append(path)
            _log.warning("%s cannot be deleted and is left behind: %s", path, error.strerror)

    for stage in journal.stages:
        for moved in stage.moved:
            remove(moved.backup, host.paths.name(moved.path))
        for file in stage.files:
            remove(file.backup, host.paths.name(file.path))
            remove(file.temporary)
    for path in journal.files:
        remove(path)
    for folder in journal.folders:
        # A link in the place of a recorded folder is somebody else's.
        if host.kind_of(folder) == "folder":
            steps.remove_folder(folder)
    for scratch in journal.scratch:
        steps.remove_tree(scratch.folder)
    return Finished(tuple(left), tuple(steps.at_restart))


def keep_logs(scratch: Scratch, failed: str, steps: FileSteps) -> None:
    """Copy the logs below an extracted package to the folder ``failed``, in place of older ones."""
    host = steps.host
    logs = list(_logs(host, scratch.folder))
    if logs:
        steps.make_folder(failed, 0o700)
        for name in host.list_folder(failed):
            steps.remove(host.paths.join(failed, name))
    for log in logs:
        target = host.paths.join(failed, host.paths.name(log))
        if not host.kind_of(target):
            with host.open_read(log) as source, host.open_new(target, 0o600) as copy:
                for block in iter(lambda: source.read(_BLOCK), b""):
                    copy.write(block)


def _logs(host: Host, folder: str) -> Iterable[str]:
    for name in host.list_folder(folder):
        path = host.paths.join(folder, name)
        kind = host.kind_of(path)
        if kind == "folder":
            yield from _logs(host, path)
        elif kind == "file" and name.lower().endswith(".log"):
            yield path
