"""How the files of a package get into place: what has to be moved, made and named first.

Only reads. The names of temporary files and backups begin with ``.`` and the transaction's own
name, beside the file that they are for, so that a rename is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from googet.host import Host
from googet.journal import ClearedFolder, FileStep, MovedFile, Stage
from googet.placing import PlacementPlan, PlacingError


class StagePlanner:
    """Plans one stage; ``name`` is the transaction's, ``number`` differs for each of its stages.

    ``files`` and ``folders`` are what the transaction deletes in the end: such a file may stand
    where a folder has to be, such a folder where a file has to be.
    """

    def __init__(
        self, host: Host, name: str, number: int, *, files: Iterable[str], folders: Iterable[str]
    ) -> None:
        self._host = host
        self._prefix = f".{name}-{number}"
        self._files = {host.paths.key(path): path for path in files}
        self._folders = {host.paths.key(path): path for path in folders}
        self._moved: dict[str, MovedFile] = {}
        self._cleared: dict[str, str] = {}

    def stage(self, plan: PlacementPlan) -> Stage:
        """Return the stage that places ``plan``.

        Raises:
            PlacingError: a folder is where a file has to be or the reverse, and it is not one
                that goes anyway.
        """
        paths = self._host.paths
        steps = []
        for index, file in enumerate(plan.files):
            folder = paths.parent(file.target)
            beside = paths.join(folder, f"{self._prefix}-{index}")
            kind = self._host.kind_of(file.target)
            if kind == "folder":
                self._clear(file.target)
            steps.append(
                FileStep(file.target, beside + ".new", beside + ".old", kind in ("file", "link"))
            )
        folders = self._missing_folders(plan)
        return Stage(
            moved=tuple(self._moved.values()),
            cleared=tuple(self._cleared_folders()),
            folders=tuple(folders.values()),
            files=tuple(steps),
        )

    def _missing_folders(self, plan: PlacementPlan) -> Mapping[str, str]:
        """Return the folders to make by key, parents first."""
        paths = self._host.paths
        missing: dict[str, str] = {}
        known: set[str] = set()
        wanted = [*plan.folders, *(paths.parent(file.target) for file in plan.files)]
        for folder in wanted:
            chain = [folder, *paths.ancestors(folder)]
            for each in reversed(chain):
                key = paths.key(each)
                if key in known:
                    continue
                known.add(key)
                if not self._is_folder(each):
                    missing[key] = each
        return missing

    def _is_folder(self, path: str) -> bool:
        paths = self._host.paths
        kind = self._host.kind_of(path)
        if kind == "folder" or (kind == "link" and self._host.leads_to_folder(path)):
            return paths.key(path) not in self._cleared
        if kind:
            if paths.key(path) not in self._files:
                raise PlacingError(f"{path} has to be a folder, but there is a file")
            self._move(path)
        return False

    def _move(self, path: str) -> None:
        paths = self._host.paths
        backup = paths.join(
            self._standing_parent(path), f"{self._prefix}-moved-{len(self._moved)}.old"
        )
        self._moved.setdefault(paths.key(path), MovedFile(path, backup))

    def _standing_parent(self, path: str) -> str:
        """Return the nearest folder above ``path`` that is not cleared away."""
        paths = self._host.paths
        return next(each for each in paths.ancestors(path) if paths.key(each) not in self._cleared)

    def _clear(self, folder: str) -> None:
        """Have an obsolete folder, with nothing but obsolete things in it, go."""
        paths = self._host.paths
        if paths.key(folder) not in self._folders:
            raise PlacingError(f"{folder} has to be a file, but there is a folder")
        self._cleared[paths.key(folder)] = folder
        for name in self._host.list_folder(folder):
            below = paths.join(folder, name)
            if self._host.kind_of(below) == "folder":
                self._clear(below)
            elif paths.key(below) in self._files:
                self._move(below)
            else:
                raise PlacingError(
                    f"{folder} has to be a file, but is a folder with {name!r} in it"
                )

    def _cleared_folders(self) -> Iterable[ClearedFolder]:
        parents_first = sorted(self._cleared.values(), key=len)
        for path in parents_first:
            yield ClearedFolder(path, self._host.facts(path).st_mode & 0o7777)
