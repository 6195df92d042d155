"""The project's .deb packages as the instance tests and `tools/instance` install them.

Reads: `dist/` of the source tree after `make deb` (which does nothing when nothing has changed), or
the folder that the environment variable GUEST_DEBS names, as it is.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Optional

from support.commands import run_command

SOURCE_TREE = Path(__file__).resolve().parents[2]
LIBRARY = "python3-google-guest"
AGENT = "google-guest-agent"
OSLOGIN = "google-compute-engine-oslogin"
CONFIGS = "google-compute-engine"

_BUILD_TIMEOUT = 600.0


class MissingPackage(Exception):
    """A package that was not built; the message names it and the folder."""


class BuildFailed(Exception):
    """The packages do not build; the message has the build's last words."""


class GuestDebs(tuple[Path, ...]):
    """The agent with its library, as paths for `Bed(debs=...)`; others by name."""

    packages: Mapping[str, Path]

    def __new__(cls, packages: Mapping[str, Path], folder: Path) -> GuestDebs:
        """`packages`: every built package by its name; `folder`: where they were looked for."""
        made = super().__new__(cls, _chosen(packages, (LIBRARY, AGENT), folder))
        made.packages = dict(packages)
        made._folder = folder
        return made

    _folder: Path

    def named(self, *names: str) -> tuple[Path, ...]:
        """The files of packages by their names, without what they depend on."""
        return _chosen(self.packages, names, self._folder)

    def with_packages(self, *names: str) -> tuple[Path, ...]:
        """The agent, its library and further packages."""
        return (*self, *self.named(*names))


def built_debs(folder: Optional[Path] = None, *, target: str = "") -> GuestDebs:
    """The packages of `folder`, of GUEST_DEBS, or of `dist/` after building them if needed.

    `target`: those of another release, in a folder of that name.
    """
    configured = os.environ.get("GUEST_DEBS")
    if folder is None and configured:
        folder = Path(configured) / target
    if folder is None:
        _build(SOURCE_TREE / "dist", target)
        folder = SOURCE_TREE / "dist" / target
    return GuestDebs(found_debs(folder), folder)


def found_debs(folder: Path) -> dict[str, Path]:
    """The newest file of each package in a folder, by package name."""
    files = sorted(folder.glob("*_*.deb"), key=lambda file: file.stat().st_mtime)
    return {file.name.split("_", 1)[0]: file.resolve() for file in files}


def next_versions(debs: Iterable[Path], folder: Path, *, postinst: str = "") -> list[Path]:
    """The same packages with the next revision, as an upgrade; made in `folder`.

    `postinst`: a line of shell that their scripts run in addition.
    """
    made = []
    for deb in debs:
        tree = folder / deb.name
        run_command(["dpkg-deb", "-R", str(deb), str(tree)], purpose="unpack a package")
        control = tree / "DEBIAN" / "control"
        text = control.read_text()
        (own,) = [line.split()[1] for line in text.splitlines() if line.startswith("Version:")]
        newer = f"{own.rpartition('-')[0]}-2"
        control.write_text(text.replace(own, newer))
        if postinst:
            script = tree / "DEBIAN" / "postinst"
            script.write_text(script.read_text().replace("set -e\n", f"set -e\n{postinst}\n", 1))
        made.append(folder / deb.name.replace(own, newer))
        command = ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(made[-1])]
        run_command(command, purpose="pack a package")
    return made


def _build(folder: Path, target: str) -> None:
    folder.mkdir(exist_ok=True)
    # Parallel test workers share the folder: the first one builds, the others find it done.
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        done = run_command(
            ["make", "-C", str(SOURCE_TREE), "deb"],
            purpose="build the packages",
            timeout=_BUILD_TIMEOUT,
            check=False,
            environment={"GUEST_TARGET": target} if target else None,
        )
        if done.status != 0:
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise BuildFailed("`make deb` failed: " + " | ".join(said[-3:]))
    finally:
        os.close(descriptor)


def _chosen(packages: Mapping[str, Path], names: Iterable[str], folder: Path) -> tuple[Path, ...]:
    missing = [name for name in names if name not in packages]
    if missing:
        raise MissingPackage(f"no package {', '.join(missing)} in {folder}")
    return tuple(packages[name] for name in names)
