"""Changes of packages that a test ends at any step: installing, updating, taking over, removing.

Each change is what googet does for one package, in its order: extract, journal, place, run the
command, write the rows, clean up. :func:`ended_at` runs one in a process of its own and kills it
just before its n-th access to files, the kernel's own way (SIGKILL, TerminateProcess).
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Callable, Optional

from googet.database import Database, InstalledPackage
from googet.filesteps import Fault
from googet.host import Host, current_host
from googet.host.memory import MemoryHost
from googet.pkgspec import PackageSpec, spec_from_json
from googet.placing import obsolete, plan_files, transfers
from googet.transaction import Committed, Recovery, Transaction, recover

NO_FILES = "C:\\NoFiles"
_EVENTS = {
    "open",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.utime",
    "sqlite3.connect",
}
_DATE = 1767225600


class World:
    """A ROOT, a folder ``target`` that packages place files in, and a host."""

    def __init__(self, folder: Path, host: Optional[Host] = None) -> None:
        self.folder = folder
        self.host = host or current_host()
        self.root = folder / "C" / "GooGet"
        self.target = folder / "C" / "target"
        for path in (self.root / "cache", self.target):
            path.mkdir(parents=True, exist_ok=True)

    def destination(self, *names: str) -> str:
        """Return a host path below ``target``."""
        return self.host.paths.join(self.host.host_path(self.target), *names)

    def database(self) -> Database:
        """Open the database."""
        return Database.open(self.root)

    def spec(self, name: str, version: str, contents: dict[str, str]) -> PackageSpec:
        """Return a spec that places everything below ``files`` in the target."""
        files = {"files": self.destination()} if contents else {}
        return spec_from_json({"Name": name, "Version": version, "Arch": "noarch", "Files": files})

    def unpack(self, spec: PackageSpec, contents: dict[str, str]) -> Path:
        """Extract a package."""
        unpacked = self.root / "cache" / spec.full_name
        for name, text in contents.items():
            path = unpacked.joinpath("files", *name.split("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if name.startswith("bin/") else 0o640)
            os.utime(path, (1e9, 1e9))
        return unpacked

    def change(
        self,
        name: str,
        version: str,
        contents: dict[str, str],
        *,
        fault: Optional[Fault] = None,
        command: Callable[[Path], None] = lambda unpacked: None,
    ) -> Committed:
        """Install or update a package; ``command`` is its install command."""
        with self.database() as database:
            spec = self.spec(name, version, contents)
            unpacked = self.unpack(spec, contents)
            plan = plan_files(spec, unpacked, self.host)
            old = database.named(name)
            others = [each for each in database.packages() if each.spec.name != name]
            title = f"install {spec.full_name}"
            with Transaction(
                self.root, self.host, database, title=title, fault=fault
            ) as transaction:
                transaction.scratch(unpacked, spec.full_name)
                transaction.discard(obsolete(old, plan, others, self.host, root=self.root))
                transaction.place(plan)
                (unpacked / "install.log").write_text("what the command said")
                command(unpacked)
                transaction.put(
                    InstalledPackage(spec, installed_files=plan.recorded, install_date=_DATE)
                )
                for package in transfers(plan, others, self.host):
                    transaction.put(package)
                return transaction.commit()

    def removal(self, name: str, *, fault: Optional[Fault] = None) -> Committed:
        """Remove a package."""
        with self.database() as database:
            old = database.named(name)
            others = [each for each in database.packages() if each.spec.name != name]
            with Transaction(
                self.root, self.host, database, title=f"remove {name}", fault=fault
            ) as transaction:
                transaction.discard(obsolete(old, None, others, self.host, root=self.root))
                for package in old:
                    transaction.remove(package.spec.name, package.spec.arch)
                return transaction.commit()

    def recover(self, *, fault: Optional[Fault] = None) -> Recovery:
        """Do what the next start does first."""
        with self.database() as database:
            return recover(self.root, self.host, database, fault=fault)

    def state(self) -> dict[str, object]:
        """Return every file, folder and mode below the target, and every row."""
        found: dict[str, object] = {}
        for folder, names, files in os.walk(self.target):
            for name in names:
                path = Path(folder, name)
                found[str(path.relative_to(self.target)) + "/"] = _mode(path)
            for name in files:
                path = Path(folder, name)
                facts = path.stat()
                found[str(path.relative_to(self.target))] = (
                    path.read_bytes(),
                    _mode(path),
                    facts.st_mtime_ns,
                )
        with self.database() as database:
            for package in database.packages():
                spec = package.spec
                found[f"row {spec.name}.{spec.arch}"] = database.stored(spec.name, spec.arch)
        return found

    def leftovers(self) -> list[str]:
        """Return what no finished or undone change leaves behind."""
        found = [path.name for path in (self.root / "cache").iterdir() if path.name != "failed"]
        return found + [path.name for path in self.target.rglob(".txn-*")]


def _mode(path: Path) -> int:
    return 0 if sys.platform == "win32" else stat.S_IMODE(path.lstat().st_mode)


OLD = {
    "bin/tool": "tool 1",
    "lib/kept.txt": "kept 1",
    "lib/gone.txt": "gone",
    "onlyold/deep/x.txt": "x",
    "becomes-folder": "a file once",
    "becomes-file/inner/y.txt": "y",
}
NEW = {
    "bin/tool": "tool 2",
    "lib/kept.txt": "kept 2",
    "lib/new/b.txt": "b",
    "becomes-folder/z.txt": "z",
    "becomes-file": "a folder once",
}


def _prepare_nothing(world: World) -> None:
    (world.target / "lib").mkdir()
    (world.target / "lib" / "kept.txt").write_text("the user's own, overwritten")
    (world.target / "lib" / "user.txt").write_text("the user's own")


def _prepare_old(world: World) -> None:
    _prepare_nothing(world)
    world.change("example", "1.0.0@1", OLD)


def _prepare_other(world: World) -> None:
    _prepare_old(world)
    world.change("other", "1.0.0@1", {"other.txt": "other"})


CHANGES: dict[str, tuple[Callable[[World], None], Callable[[World], object]]] = {
    "install": (_prepare_nothing, lambda world: world.change("example", "2.0.0@1", NEW)),
    "update": (_prepare_old, lambda world: world.change("example", "2.0.0@1", NEW)),
    "downgrade": (
        lambda world: (_prepare_nothing(world), world.change("example", "2.0.0@1", NEW))[0],
        lambda world: world.change("example", "1.0.0@1", OLD),
    ),
    "repair": (
        lambda world: (
            _prepare_old(world),
            (world.target / "bin" / "tool").write_text("damaged"),
        )[0],
        lambda world: world.change("example", "1.0.0@1", OLD),
    ),
    "take over": (
        _prepare_other,
        lambda world: world.change("third", "1.0.0@1", {"other.txt": "third", "bin/tool": "3"}),
    ),
    "remove": (_prepare_other, lambda world: world.removal("example")),
}
"""Name to what is there before and what is changed."""


def world_in(folder: Path, kind: str) -> World:
    """Return the world of ``folder``, which exists already; ``kind`` is real or memory."""
    return World(folder, MemoryHost(folder) if kind == "memory" else None)


def ended_at(number: int, action: str, folder: Path, kind: str) -> bool:
    """Run ``action`` (a change, or ``recover``), killed at its ``number``-th access to files.

    Return whether it was killed, not at its end by then.
    """
    if hasattr(os, "fork"):
        child = os.fork()
        if child == 0:
            try:
                _run(number, action, folder, kind)
            finally:
                os._exit(3)
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status)
        code = 0 if killed else os.WEXITSTATUS(status)
    else:
        call = f"_run({number}, {action!r}, Path({str(folder)!r}), {kind!r})"
        source = f"from support.package_changes import _run, Path; {call}"
        code = subprocess.run([sys.executable, "-c", source]).returncode
        killed = code == 9
    if not killed and code != 0:
        raise AssertionError(f"{action} ended with {code} instead of by the kill")
    return killed


def _run(number: int, action: str, folder: Path, kind: str) -> None:
    world = world_in(folder, kind)
    left = number

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event not in _EVENTS:
            return
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL if sys.platform != "win32" else 9)

    sys.addaudithook(watch)
    if action == "recover":
        world.recover()
    else:
        CHANGES[action][1](world)
    os._exit(0)
