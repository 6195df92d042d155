"""Every build that this tree knows, and how one is run: for `make packages` and `make release`.

A build is a command of tools/ that leaves its files below dist/. What cannot be built on this
machine is a result, too: the build's own words are the reason. The tools end with status 3 then,
and with another one when the build failed.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import artifact_table

PYTHON = "/usr/bin/python3"
CANNOT_BUILD_HERE = 3
_BUILD_TIMEOUT = 3600.0


@dataclass(frozen=True)
class Build:
    """One command; ``folder`` is where its files go below dist/ ("" for dist/ itself)."""

    name: str
    command: tuple[str, ...]
    target: str
    folder: str = ""
    place: str = "this machine"
    """Where it is built, for people."""
    suffixes: tuple[str, ...] = ()
    """Of its files, which tell them from those of other builds in the same folder."""

    @property
    def variables(self) -> dict[str, str]:
        return {"GUEST_TARGET": self.target} if self.folder in artifact_table.targets() else {}


@dataclass(frozen=True)
class Result:
    """What a build left: its files, or the reason why there are none."""

    build: Build
    files: tuple[Path, ...] = ()
    seconds: float = 0.0
    reason: str = ""
    has_failed: bool = False


def all_builds(host: str | None = None) -> list[Build]:
    """The builds of every format and target; ``host`` is the target of this machine."""
    host = host or artifact_table.detect_target()
    tools = "tools/"
    found = [
        Build("sdist", (tools + "build-sdist",), "any", suffixes=(".tar.gz",)),
        Build("wheel", (tools + "build-wheel",), "any", suffixes=(".whl",)),
        Build(
            "dsc",
            (tools + "build-deb", "--source"),
            "any",
            suffixes=(".dsc", ".orig.tar.gz", ".debian.tar.xz"),
        ),
        Build("deb-lib", (tools + "build-deb-lib",), "any", "deb-lib", suffixes=(".deb",)),
    ]
    for name, target in artifact_table.targets().items():
        if target.format == "deb" and name == host:
            found.append(Build("deb", (tools + "build-deb",), name, suffixes=(".deb",)))
        elif target.format == "deb":
            place = f"root of {target.suite}"
            command = (tools + "build-deb",)
            found.append(Build(f"deb {name}", command, name, name, place, (".deb",)))
        elif target.format == "rpm":
            command = (tools + "build-rpm",)
            place = "this machine's rpm" if name != host else "this machine"
            found.append(Build(f"rpm {name}", command, name, name, place, (".rpm",)))
    found.append(Build("goo", (tools + "build-goo",), "windows", suffixes=(".goo",)))
    return found


def run(
    build: Build,
    tree: Path,
    *,
    force: bool = False,
    environment: Mapping[str, str] | None = None,
    umask: int = 0o022,
    prefix: Sequence[str] = (),
) -> Result:
    """Runs a build in a tree, behind a command ``prefix``, with further environment variables."""
    if not (tree / build.command[0]).exists():
        return Result(build, reason=f"there is no {build.command[0]}", has_failed=True)
    options = ["--force"] if force and build.name.split()[0] in ("deb", "dsc", "rpm", "goo") else []
    inherited = {name: os.environ[name] for name in os.environ if name != "GUEST_TARGET"}
    began = time.time()
    done = subprocess.run(
        [*prefix, PYTHON, *build.command, *options],
        cwd=tree,
        env={**inherited, **build.variables, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        umask=umask,
        timeout=_BUILD_TIMEOUT,
    )
    seconds = time.time() - began
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no word"]
        failed = done.returncode != CANNOT_BUILD_HERE
        return Result(build, (), seconds, lines[-1].strip(), failed)
    made = tuple(_made(build, tree, done.stdout))
    if not made:
        return Result(build, (), seconds, "the build names no file that is there", True)
    return Result(build, made, seconds)


def found(build: Build, tree: Path) -> Result:
    """What an earlier run of a build left in a tree, of whatever state of the tree."""
    version = (tree / "VERSION").read_text().strip()
    # The wheel's name has the version as Python writes it.
    wanted = re.compile(rf"[-_.]({re.escape(version)}|{version.replace('.0', '.')})[-_.]")
    others = tuple(suffix for one in all_builds() for suffix in one.suffixes)
    files = [
        path
        for path in (tree / "dist" / build.folder).glob("*")
        if max((each for each in others if path.name.endswith(each)), key=len, default="")
        in build.suffixes
        # The runtime's version is its own, which changes with its content.
        and (wanted.search(path.name) or path.name.startswith("google-guest-python-runtime."))
    ]
    return Result(build, tuple(sorted(files)), reason="" if files else "not built yet")


def table(results: Sequence[Result], top: Path) -> str:
    """What was built, a file a line, and what was not; ``top`` is the folder that holds the files.

    The digest is the beginning of the SHA-256.
    """
    rows = [("artifact", "size", "digest", "target", "built in")]
    for result in results:
        build = result.build
        for path in result.files:
            shown = path.relative_to(top).as_posix() if path.is_relative_to(top) else path.name
            size = f"{path.stat().st_size:,}".replace(",", " ")
            rows.append((shown, size, file_digest(path)[:16], build.target, build.place))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            text.rjust(width) if column == 1 else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
    lines += [
        f"{'failed' if result.has_failed else 'not built'}: {result.build.name}: {result.reason}"
        for result in results
        if result.reason
    ]
    return "\n".join(lines) + "\n"


def file_digest(path: Path) -> str:
    """SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _made(build: Build, tree: Path, said: str) -> list[Path]:
    """The files that a build has made, or found to be as they would be made.

    The tools name them: a path a line, or in one line after "nothing has changed since".
    """
    output = tree / "dist" / build.folder
    names = {Path(word.rstrip(",")).name for word in said.split()}
    found = [output / name for name in names if name.endswith(build.suffixes)]
    return sorted(path for path in found if path.is_file())
