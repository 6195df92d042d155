"""A machine for googet: a ROOT, folders to install into, a repository, and the command line.

Everything is real but small: .goo archives are written, indexed and served from a folder (or by
whoever serves that folder), and commands run in this process through googet's own ``main``.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional
from unittest import mock

from googet.archive import Member, write_archive
from googet.cli.googet import main
from googet.database import Database, InstalledPackage
from googet.host import Host, current_host
from googet.index import IndexEntry, entry_of, write_index
from googet.pkgspec import Command, PackageSpec
from google_guest.records import record, replace

#: No version of a package is ever hidden by an index that was read a moment ago.
_CONF = "cachelife: 0s\n"


ON_WINDOWS = sys.platform == "win32"


def script_of(lines: str) -> Member:
    """Return a script of the lines, for this system."""
    text = f"@echo off\n{lines}\n".replace("\n", "\r\n") if ON_WINDOWS else f"#!/bin/sh\n{lines}\n"
    return Member(text.encode(), 0o755)


def exits(code: int) -> str:
    """Return the line of a script that ends it with a code."""
    return f"exit /b {code}" if ON_WINDOWS else f"exit {code}"


def echoes(text: str, path: Optional[Path] = None) -> str:
    """Return the line that prints a word, or appends it to a file."""
    return f"echo {text}" if path is None else f'echo {text}>>"{path}"'


def prints(path: Path) -> str:
    """Return the line that prints a file."""
    return f'type "{path}"' if ON_WINDOWS else f'cat "{path}"'


def copies(source: Path, target: Path) -> str:
    """Return the line that copies a file."""
    return f'copy /y "{source}" "{target}">nul' if ON_WINDOWS else f'cp "{source}" "{target}"'


def fails_where(path: Path) -> str:
    """Return the line that ends a script with code 1 where a file exists."""
    return f'if exist "{path}" exit /b 1' if ON_WINDOWS else f'if [ -e "{path}" ]; then exit 1; fi'


def own_file(name: str) -> str:
    """Return how a script calls a file of its package."""
    return f"%~dp0{name}" if ON_WINDOWS else f"$(dirname $0)/{name}"


def make_spec(
    name: str, version: str = "1.0.0@1", arch: str = "noarch", **fields: Any
) -> PackageSpec:
    """Return a spec; ``dependencies`` may be a list of names."""
    if isinstance(fields.get("dependencies"), (list, tuple)):
        fields["dependencies"] = dict.fromkeys(fields["dependencies"], "")
    return PackageSpec(name=name, version=version, arch=arch, **fields)


@record
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Machine:
    """One ROOT with one repository below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._name(folder)
        for path in (self.root, self.disk, self.built):
            path.mkdir(parents=True)
        (self.root / "googet.conf").write_text(_CONF)
        self.repository()

    @classmethod
    def existing(cls, folder: Path) -> Machine:
        """Return the machine that another process has made."""
        machine = cls.__new__(cls)
        machine._name(folder)
        return machine

    def _name(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.disk = folder / "disk"
        self.served = folder / "served"
        self.built = folder / "built"
        #: What commands run on instead of this system.
        self.host: Optional[Host] = None

    def repository(self, name: str = "repo", priority: Optional[str] = None) -> Path:
        """Make a repository known to the machine and return its folder."""
        url = self.served / name / "repo"
        url.mkdir(parents=True)
        (url.parent / "packages").mkdir()
        self.publish(repository=name)
        lines = [f"- name: {name}", f"  url: {url}"]
        if priority is not None:
            lines.append(f"  priority: {priority}")
        repos = self.root / "repos"
        repos.mkdir(exist_ok=True)
        (repos / f"{name}.repo").write_text("\n".join(lines) + "\n")
        return url

    def configure(self, text: str) -> None:
        (self.root / "googet.conf").write_text(_CONF + text)

    def goo(
        self,
        name: str,
        version: str = "1.0.0@1",
        arch: str = "noarch",
        *,
        contents: Optional[Mapping[str, str]] = None,
        scripts: Optional[Mapping[str, str]] = None,
        **fields: Any,
    ) -> Path:
        """Write a package and return the file.

        ``contents`` maps paths below the machine's disk to content; ``scripts`` maps install,
        uninstall and verify to lines of :func:`echoes` and the like.
        """
        members: dict[str, Member] = {}
        files: dict[str, str] = {}
        for number, (path, content) in enumerate((contents or {}).items()):
            members[f"files/{number}"] = Member(content.encode(), 0o644)
            files[f"files/{number}"] = str(self.disk / path)
        for action, lines in (scripts or {}).items():
            script = f"{action}.cmd" if ON_WINDOWS else f"{action}.sh"
            members[script] = script_of(lines)
            fields[action] = replace(fields.get(action, Command()), path=script)
        files.update(fields.pop("files", {}))
        for key in files:
            members.setdefault(key, Member(b"content", 0o644))
        spec = make_spec(name, version, arch, files=files, **fields)
        path = self.built / f"{spec.full_name}.goo"
        write_archive(path, spec, members, mtime=1)
        return path

    def folder_goo(self, name: str, version: str, contents: Mapping[str, str]) -> Path:
        """Write a package whose one folder goes to ``top`` of the disk, folders recorded."""
        members = {f"tree/{path}": Member(text.encode()) for path, text in contents.items()}
        spec = make_spec(name, version, files={"tree": str(self.disk / "top")})
        path = self.built / f"{spec.full_name}.goo"
        write_archive(path, spec, members, mtime=1)
        return path

    def publish(self, *packages: Path, repository: str = "repo") -> None:
        """Make the packages everything that a repository has."""
        base = self.served / repository
        entries: list[IndexEntry] = []
        for package in packages:
            source = f"packages/{package.name}"
            (base / source).write_bytes(package.read_bytes())
            entries.append(entry_of(package, source))
        (base / "repo" / "index").write_bytes(write_index(entries))

    def run(
        self,
        *arguments: str,
        answer: Optional[str] = "",
        top: tuple[str, ...] = ("-system_log=false",),
        root: bool = True,
    ) -> Result:
        """Run ``googet ARGUMENTS``; ``answer`` None is a standard input that does not exist."""
        out, err = io.StringIO(), io.StringIO()
        stdin = None if answer is None else io.StringIO(answer)
        argv = [*(["-root", str(self.root)] if root else []), *top, *arguments]
        host = self.host
        found = current_host if host is None else lambda: host
        with (
            mock.patch("googet.cli.opening.current_host", found),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "stdin", stdin),
        ):
            status = main(argv)
        return Result(status, out.getvalue(), err.getvalue())

    def ok(self, *arguments: str, **options: Any) -> Result:
        """Run without questions; it must succeed."""
        result = self.run("-noconfirm", *arguments, **options)
        assert result.status == 0, result
        return result

    def fails(self, *arguments: str, **options: Any) -> Result:
        """Run without questions; it must fail with status 1 and say why."""
        result = self.run("-noconfirm", *arguments, **options)
        assert result.status == 1, result
        assert result.err.strip(), "nothing says why"
        assert "Traceback" not in result.err
        return result

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        with Database.open(self.root) as database:
            yield database

    def installed(self) -> dict[str, str]:
        """Return ``N.A`` and version of what is installed."""
        return {f"{one.spec.name}.{one.spec.arch}": one.spec.version for one in self.packages()}

    def packages(self) -> tuple[InstalledPackage, ...]:
        with self.database() as database:
            return database.packages()

    def package(self, name: str, arch: str = "") -> InstalledPackage:
        with self.database() as database:
            found = database.get(name, arch)
        assert found is not None, f"{name} is not installed"
        return found

    def read(self, path: str) -> str:
        return (self.disk / path).read_text()

    def tree(self) -> dict[str, str]:
        """Return all files of the disk and their content; folders end with a slash."""
        found = {}
        for path in sorted(self.disk.rglob("*")):
            name = path.relative_to(self.disk).as_posix()
            found[name + "/" if path.is_dir() else name] = "" if path.is_dir() else path.read_text()
        return found

    def state(self) -> dict[str, Any]:
        """Return everything that a failed command must leave as it was."""
        records = {
            one.full_name: json.dumps(dict(one.installed_files or {}), sort_keys=True)
            for one in self.packages()
        }
        return {"disk": self.tree(), "records": records, "cache": self.cached()}

    def cached(self) -> list[str]:
        """Return what is in the cache but for indexes."""
        cache = self.root / "cache"
        names = sorted(path.name for path in cache.iterdir()) if cache.exists() else []
        return [name for name in names if not name.endswith((".rs", ".url", ".serial"))]
