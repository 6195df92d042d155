"""Debian packages built in the root tree of another release: for `tools/build-deb` and its tests.

Reads: Build-Depends of debian/control.  Writes: the cache of `support.cache`, a work folder.

A tree has what the release's archive calls essential, a compiler of C and the source package's
build dependencies.  Making one needs root and the archive; building in one needs root alone: it
happens on an overlay, in namespaces of its own, without a network.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from support import cache, chroot, roots
from support.chroot import Chroot
from support.commands import missing_programs

# build-essential without its compiler of C++, which is large and not used.
_ALWAYS = ("dpkg-dev", "gcc", "libc6-dev", "make")
_SATISFY = (
    'chroot "$1" apt-get -qq -y -o Dpkg::Use-Pty=false satisfy --no-install-recommends {wanted}'
)
_BUILD_TIMEOUT = 900.0


class CannotBuildHere(Exception):
    """Packages of a release cannot be built on this machine; the message says what is missing."""


class BuildFailed(Exception):
    """The packages do not build in that release; the message has the build's last words."""


def build_depends(control: str) -> str:
    """The relations of Build-Depends that a build without tests needs, on one line."""
    field = re.search(r"^Build-Depends:((?:.*\n)(?:[ \t].*\n)*)", control, re.MULTILINE)
    relations = [part.strip() for part in field[1].split(",")] if field else []
    return ", ".join(part for part in relations if part and "<!nocheck>" not in part)


def problem(suite: str, control: str) -> Optional[str]:
    """What this machine lacks for building packages of `suite`, or None."""
    if chroot.is_possible():
        return f"a root tree of {suite} is made and entered by root"
    missing = missing_programs(("unshare", "chroot", "mount"))
    if missing:
        return f"program {missing[0]}"
    if cache.cached("build", _facts(suite, control)):
        return None
    if missing_programs(("mmdebstrap",)):
        return "program mmdebstrap"
    return roots.archive_problem(suite)


def tree(suite: str, control: str) -> Path:
    """The root tree of `suite` for the build dependencies of `control`; read-only for its users."""
    facts = _facts(suite, control)
    return cache.artifact("build", facts, _TreeBuild(suite, control)).tree


def build(
    source: Path, suite: str, output: Path, log: Path, *, environment: Mapping[str, str]
) -> list[Path]:
    """Builds the binary packages of an unpacked source package; copies them into `output`.

    Raises CannotBuildHere, CommandFailed when the tree cannot be made, and BuildFailed; `log` has
    the build's words.
    """
    control = (source / "debian" / "control").read_text()
    reason = problem(suite, control)
    if reason is not None:
        raise CannotBuildHere(reason)
    base = tree(suite, control)
    folder = Path(tempfile.mkdtemp(prefix="guest-build-"))
    try:
        system = Chroot([base], folder, network=False)
        inside = folder / "media" / source.name
        shutil.copytree(source, inside, symlinks=True)
        done = system.run(
            [
                *("sh", "-c"),
                f"umask 022; cd /media/{source.name} && exec dpkg-buildpackage -d -us -uc -b 2>&1",
            ],
            check=False,
            environment=environment,
            timeout=_BUILD_TIMEOUT,
        )
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout + done.stderr)
        if done.status != 0:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
            raise BuildFailed(
                f"{said}\nthe build in a root tree of {suite} ended with {done.status}"
            )
        # What the packages say of each other is the tree's, for every release the same.
        if (inside / "debian" / "control").read_text() != control:
            raise BuildFailed("the build changed debian/control")
        return [
            Path(shutil.copy2(deb, output / deb.name))
            for deb in sorted((folder / "media").glob("*.deb"))
        ]
    finally:
        cache.remove_tree(folder)


class _TreeBuild:
    """Fills a directory with a suite's tree."""

    def __init__(self, suite: str, control: str) -> None:
        self._suite = suite
        self._control = control

    def __call__(self, tree: Path) -> None:
        roots.bootstrap(
            self._suite,
            tree,
            *("--variant=apt", "--include=" + ",".join(_ALWAYS)),
            f"--customize-hook={_satisfy(self._control)}",
        )


def _satisfy(control: str) -> str:
    return _SATISFY.format(wanted=f'"{build_depends(control)}"')


def _facts(suite: str, control: str) -> dict[str, object]:
    return {"suite": suite, "packages": list(_ALWAYS), "hook": _satisfy(control)}
