"""Changes of one package, made as a whole: all of its files and rows, or none.

How it stays whole wherever the process ends (killed, power lost, disk full, file in use):

1. The journal names every file that will be written, with a temporary name and a backup name
   beside it, before anything is touched.
2. New files are written under their temporary names.
3. The journal says ``switching``; each old file is renamed to its backup, each new one to its
   place.
4. The package's own commands run.
5. The rows are written in one transaction of the database: **this is the commit**. Until then
   everything is undone from the backups, from then on everything is finished.
6. Backups, obsolete files, emptied folders, the extracted package and the journal go.

:func:`recover` does the same from the journal and a look at the disk, at the next start. Nothing is
undone by running a program: no package's uninstall command is ever used for it.

A file that a program uses can often be renamed though not deleted (a running ``.exe``): then it
moves aside, to the folder for temporary files or beside itself as ``NAME.oldRANDOM``, and Windows
deletes it when it starts again. Facts: googet: install/install.go, oswrap/oswrap_windows.go.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Optional, Union

from googet import journal as journals
from googet.database import Database, InstalledPackage, dated, encode
from googet.filesteps import Fault, FileSteps, Finished, finish, keep_logs, undo
from googet.host import Host
from googet.journal import Journal, JournalError, RowStep, Scratch, Stage
from googet.placing import Obsolete, PlacementPlan
from googet.staging import StagePlanner
from google_guest.errors import GuestError
from google_guest.records import record, replace

_log = logging.getLogger(__name__)

_FAILED = "failed"


class TransactionError(GuestError):
    """A change that could not be made; the message says whether it was undone."""


@record
class Committed:
    """A change that was made.

    ``left`` are obsolete files that could not be deleted and are tried again at the next start of
    googet, ``at_restart`` old files that are in use and go when the system restarts.
    """

    left: tuple[str, ...] = ()
    at_restart: tuple[str, ...] = ()


@record
class Recovery:
    """What :func:`recover` did: titles of finished and undone transactions, and problems."""

    completed: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@record
class _Row:
    """One change of the database: a package to write, or the name of one to delete."""

    step: RowStep
    package: Optional[InstalledPackage]


class Transaction:
    """One change, as a context manager: without :meth:`commit` it is undone at the end.

    SIGINT (Ctrl-C) is put off to the next step while it lasts.
    """

    def __init__(
        self,
        root: Path,
        host: Host,
        database: Database,
        *,
        title: str,
        fault: Optional[Fault] = None,
    ) -> None:
        self._cache = root / "cache"
        self._host = host
        self._database = database
        self._fault = fault
        self._path = journals.new_path(self._cache)
        self._journal = Journal(title)
        self._rows: dict[tuple[str, str], _Row] = {}
        self._is_written = False
        self._is_committed = False
        self._steps = FileSteps(host, self._at)
        self._interrupts = _Interrupts()

    def __enter__(self) -> Transaction:
        self._interrupts.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        try:
            if not self._is_committed:
                self.rollback()
        finally:
            self._interrupts.stop()

    def scratch(self, folder: Path, package: str) -> None:
        """Name an extracted package: removed in the end, its logs kept if the change fails.

        Raises:
            TransactionError: the journal cannot be written; leave the transaction.
        """
        scratch = Scratch(self._host.host_path(folder), package)
        self._journal = replace(self._journal, scratch=(*self._journal.scratch, scratch))
        self._write_journal(sync=False)

    def discard(self, obsolete: Obsolete) -> None:
        """Have files, and folders that become empty, deleted once the change is committed."""
        self._journal = replace(
            self._journal,
            files=(*self._journal.files, *obsolete.files),
            folders=(*self._journal.folders, *obsolete.folders),
        )

    def discard_cached(self, archive: Path) -> None:
        """Have a cached package deleted once the change is committed."""
        path = self._host.host_path(archive)
        self._journal = replace(self._journal, files=(*self._journal.files, path))

    def place(self, plan: PlacementPlan) -> None:
        """Put all files of ``plan`` into place.

        Raises:
            TransactionError: a file cannot be written or replaced; leave the transaction.
            GuestError: a file is in use, or a folder is where a file has to be.
        """
        try:
            self._place(plan)
        except OSError as error:
            raise TransactionError(f"{self._journal.title}: {_reason(error)}") from error

    def put(self, package: InstalledPackage) -> None:
        """Have the record of a package written by :meth:`commit`."""
        package = dated(package)
        spec = package.spec
        before = self._database.stored(spec.name, spec.arch)
        step = RowStep(spec.name, spec.arch, _digest(before), _digest(encode(package)))
        self._rows[spec.name, spec.arch] = _Row(step, package)

    def remove(self, name: str, arch: str) -> None:
        """Have the record of a package deleted by :meth:`commit`."""
        before = self._database.stored(name, arch)
        self._rows[name, arch] = _Row(RowStep(name, arch, _digest(before), ""), None)

    def commit(self) -> Committed:
        """Write the rows, then delete what is no longer needed.

        Raises:
            GuestError: the rows cannot be written; leave the transaction.
        """
        steps = tuple(row.step for row in self._rows.values())
        is_change = any(step.before != step.after for step in steps)
        self._journal = replace(
            self._journal, rows=steps, files=self._obsolete_files(), committed=not is_change
        )
        self._write_journal()
        # Without a change of the rows the journal alone tells that this is done.
        self._is_committed = not is_change
        self._at("write rows", str(self._database.path))
        self._write_rows()
        self._is_committed = True
        return self._finish()

    def rollback(self) -> None:
        """Undo everything.

        Raises:
            TransactionError: something cannot be undone now; :func:`recover` tries again.
        """
        if not self._is_written:
            return
        self._interrupts.ignore()
        try:
            _undo(self._path, self._journal, self._cache, self._steps)
        except (OSError, GuestError) as error:
            raise TransactionError(
                f"{self._journal.title} failed and could not be undone completely:"
                f" {_reason(error)}; run googet again once that is mended"
            ) from error
        self._is_written = False

    def _place(self, plan: PlacementPlan) -> None:
        number = len(self._journal.stages)
        stage = StagePlanner(
            self._host,
            self._path.stem,
            number,
            files=self._journal.files,
            folders=self._journal.folders,
        ).stage(plan)
        # New files and folders under names of their own are only litter if the power fails; what
        # was moved already, here or by an earlier package, has to be found again.
        self._set_stage(number, stage, sync=bool(number or stage.moved or stage.cleared))
        for moved in stage.moved:
            self._steps.rename(moved.path, moved.backup)
        for cleared in reversed(stage.cleared):
            if not self._steps.remove_folder(cleared.path):
                raise TransactionError(f"{cleared.path} cannot be removed")
        for folder in stage.folders:
            self._steps.make_folder(folder)
        for file, step in zip(plan.files, stage.files):
            self._steps.write(file, step.temporary)
        self._set_stage(number, replace(stage, switching=True))
        for step in stage.files:
            if step.existed:
                self._steps.rename(step.path, step.backup)
            self._steps.rename(step.temporary, step.path)
        self._steps.sync(step.path for step in stage.files)

    def _set_stage(self, number: int, stage: Stage, *, sync: bool = True) -> None:
        stages = (*self._journal.stages[:number], stage)
        self._journal = replace(self._journal, stages=stages)
        self._write_journal(sync=sync)

    def _obsolete_files(self) -> tuple[str, ...]:
        """Return the files to delete without those that were placed or moved away meanwhile."""
        key = self._host.paths.key
        kept = {key(file.path) for stage in self._journal.stages for file in stage.files}
        kept.update(key(moved.path) for stage in self._journal.stages for moved in stage.moved)
        return tuple(path for path in self._journal.files if key(path) not in kept)

    def _write_rows(self) -> None:
        with self._database.transaction():
            for row in self._rows.values():
                if row.package is not None:
                    self._database.put(row.package)
                else:
                    self._database.remove(row.step.name, row.step.arch)
            self._at("commit rows", str(self._database.path))

    def _finish(self) -> Committed:
        try:
            self._at("committed", str(self._path))
            finished = _finish(self._path, self._journal, self._steps)
        except (OSError, GuestError) as error:
            _log.warning(
                "%s is done; what it leaves to delete is deleted at the next start: %s",
                self._journal.title,
                _reason(error),
            )
            return Committed(at_restart=tuple(self._steps.at_restart))
        return Committed(finished.left, finished.at_restart)

    def _write_journal(self, *, sync: bool = True) -> None:
        """Write the journal; ``sync`` where a later step cannot be undone without it."""
        self._at("write journal", str(self._path))
        try:
            self._cache.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._is_written = True
            journals.write(self._path, self._journal, sync=sync)
        except OSError as error:
            raise TransactionError(f"{self._journal.title}: {_reason(error)}") from error

    def _at(self, step: str, path: str) -> None:
        if self._fault is not None:
            self._fault(step, path)
        self._interrupts.check()


class _Interrupts:
    """Puts SIGINT off: :meth:`check` raises it between two steps."""

    def __init__(self) -> None:
        self._previous: Any = None
        self._is_active = False
        self._came = False
        self._is_ignored = False

    def start(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._note)
            self._is_active = True

    def ignore(self) -> None:
        """Let nothing interrupt what follows."""
        self._is_ignored = True

    def check(self) -> None:
        if self._came and not self._is_ignored:
            self._came = False
            raise KeyboardInterrupt

    def stop(self) -> None:
        if not self._is_active:
            return
        self._is_active = False
        signal.signal(signal.SIGINT, self._previous)
        self._is_ignored = False
        self.check()

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        self._came = True


def recover(
    root: Path, host: Host, database: Database, *, fault: Optional[Fault] = None
) -> Recovery:
    """Finish or undo what interrupted runs began; call it with the lock held.

    A journal that cannot be read is kept under another name. What cannot be finished or undone now
    is told as a problem and tried again at the next start.
    """
    completed: list[str] = []
    undone: list[str] = []
    problems: list[str] = []
    cache = root / "cache"
    _remove_leftovers(cache)
    for path in journals.find(cache):
        steps = FileSteps(host, fault or _nothing)
        try:
            journal = journals.read(path, host)
        except JournalError as error:
            problems.append(_keep_aside(path, str(error)))
            continue
        try:
            if not _is_interpretable(journal, database):
                problems.append(
                    _keep_aside(
                        path,
                        f"{journal.title} was interrupted and another program changed the database"
                        " since; reinstall the package",
                    )
                )
            elif _is_committed(journal, database):
                _finish(path, _without_owned(journal, database, host), steps)
                if journal.rows or journal.stages:
                    completed.append(journal.title)
            else:
                _undo(path, journal, cache, steps)
                undone.append(journal.title)
        except (OSError, GuestError) as error:
            problems.append(f"{journal.title} was interrupted: {_reason(error)}")
    return Recovery(tuple(completed), tuple(undone), tuple(problems))


def _is_committed(journal: Journal, database: Database) -> bool:
    changed = _changed_rows(journal)
    return journal.committed or bool(
        changed and all(_stored(row, database) == row.after for row in changed)
    )


def _is_interpretable(journal: Journal, database: Database) -> bool:
    if _is_committed(journal, database):
        return True
    return all(_stored(row, database) == row.before for row in _changed_rows(journal))


def _changed_rows(journal: Journal) -> tuple[RowStep, ...]:
    return tuple(row for row in journal.rows if row.before != row.after)


def _stored(row: RowStep, database: Database) -> str:
    return _digest(database.stored(row.name, row.arch))


def _digest(data: Optional[bytes]) -> str:
    return "" if data is None else hashlib.sha256(data).hexdigest()


def _finish(path: Path, journal: Journal, steps: FileSteps) -> Finished:
    finished = finish(journal, steps)
    if finished.left:
        # Tried again at every start until it works or another package owns the file.
        rest = Journal(journal.title, files=finished.left, folders=journal.folders, committed=True)
        journals.write(path, rest)
    else:
        steps.remove(steps.host.host_path(path))
    return finished


def _without_owned(journal: Journal, database: Database, host: Host) -> Journal:
    """Return the journal without the files to delete that packages own by now."""
    key = host.paths.key
    packages = database.packages()
    owned = {key(path) for package in packages for path in package.installed_files or {}}
    owned.update(key(package.local_path) for package in packages)

    def free(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(path for path in paths if key(path) not in owned)

    return replace(journal, files=free(journal.files), folders=free(journal.folders))


def _undo(path: Path, journal: Journal, cache: Path, steps: FileSteps) -> None:
    undo(journal, steps)
    host = steps.host
    failed = host.host_path(cache / _FAILED)
    for scratch in journal.scratch:
        if host.kind_of(scratch.folder) != "folder":
            continue
        try:
            steps.make_folder(failed)
            keep_logs(scratch, host.paths.join(failed, scratch.package), steps)
        except (OSError, GuestError) as error:
            # The files are as before, which matters more.
            _log.warning("the logs of %s are not kept: %s", scratch.package, _reason(error))
        steps.remove_tree(scratch.folder)
    steps.remove(host.host_path(path))


def _remove_leftovers(cache: Path) -> None:
    """Remove journals that were never complete."""
    for path in cache.glob(".txn-*.json.googet-*"):
        with contextlib.suppress(OSError):
            path.unlink()


def _keep_aside(path: Path, problem: str) -> str:
    aside = path.with_name("damaged-" + path.name)
    try:
        path.replace(aside)
    except OSError as error:
        return f"{problem} (and it cannot be renamed: {error.strerror})"
    return f"{problem} (kept as {aside})"


def _reason(error: Union[OSError, GuestError]) -> str:
    if not isinstance(error, OSError):
        return str(error)
    names = [str(name) for name in (error.filename, error.filename2) if name]
    return f"{' -> '.join(names)}: {error.strerror}" if names else str(error.strerror or error)


def _nothing(step: str, path: str) -> None:
    """Do nothing."""
