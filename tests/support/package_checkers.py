"""piuparts and autopkgtest in tests: on an overlay of a base tree, without a network.

Each run gets a mount namespace of its own with everything in memory, so nothing of it is left, and
an apt source of the packages given, in which the packages under test find what they depend on.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from support.commands import Completed, run_command

_ENTER = """
set -eu
lower=$1 work=$2 running=$3
shift 3
mount --make-rprivate /
ip link set lo up 2>/dev/null || true
mount -t tmpfs none "$work/room"
mkdir "$work/room/upper" "$work/room/overlay" "$work/room/root" "$work/room/tmp"
chmod 0755 "$work/room/upper"
root=$work/room/root
mount -t overlay none "$root" \\
  -o "lowerdir=$lower,upperdir=$work/room/upper,workdir=$work/room/overlay"
rm -rf "$root/etc/apt/sources.list" "$root/etc/apt/sources.list.d"
mkdir -p "$root/etc/apt/sources.list.d" "$root/packages"
echo "deb [trusted=yes] file:///packages ./" >"$root/etc/apt/sources.list"
cp "$work/packages/"* "$root/packages"
if [ "$running" = yes ]; then
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount --rbind /dev "$root/dev"
fi
# What debconf makes with every installation through apt.
mkdir -p -m 0700 "$root/var/cache/debconf/tmp.ci"
exec "$@"
"""


def run_piuparts(
    base: Path,
    debs: Iterable[Path],
    *options: str,
    suite: str,
    archive: Iterable[Path],
    folder: Path,
) -> Completed:
    """Run piuparts on `debs`, with the packages of `archive` in the apt source of the system."""
    return _run(
        base,
        [
            *("piuparts", "--existing-chroot", str(folder / "room" / "root")),
            *("--tmpdir", str(folder / "room" / "tmp"), "--distribution", suite),
            *("--keep-sources-list", "--no-eatmydata", "--no-adequate", *options),
            *map(str, debs),
        ],
        archive=archive,
        folder=folder,
        running=False,
    )


def complaints(done: Completed) -> list[str]:
    """The lines in which piuparts objects to something; its warnings are about the base, too."""
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if " ERROR: " in line and " WARN: " not in line]


def run_autopkgtest(
    base: Path, debs: Sequence[Path], source: Path, *, archive: Iterable[Path], folder: Path
) -> Completed:
    """Run the DEP-8 tests of an unpacked source package in a system with `debs`, by chroot."""
    return _run(
        base,
        [
            *("autopkgtest", "--no-built-binaries", *map(str, debs), str(source)),
            *("--", "chroot", str(folder / "room" / "root")),
        ],
        archive=archive,
        folder=folder,
        running=True,
    )


def _run(
    base: Path, argv: Sequence[str], *, archive: Iterable[Path], folder: Path, running: bool
) -> Completed:
    """`running`: with the kernel's file systems; piuparts mounts its own in the copy it makes."""
    for name in ("room", "packages"):
        (folder / name).mkdir(parents=True)
    for deb in archive:
        shutil.copy(deb, folder / "packages")
    listing = run_command(
        ["sh", "-c", 'cd "$0" && dpkg-scanpackages --multiversion .', str(folder / "packages")],
        purpose="list the packages of an archive",
    )
    (folder / "packages" / "Packages").write_text(listing.stdout)
    return run_command(
        [
            *("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"),
            *("sh", "-c", _ENTER, "enter", str(base), str(folder)),
            *("yes" if running else "no", *argv),
        ],
        purpose=f"run {argv[0]}",
        timeout=300,
        check=False,
    )
