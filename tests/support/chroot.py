"""An installed system without a running systemd: an overlay on a base tree, entered by chroot.

For what packages do when they are installed, upgraded and removed.  Each command gets mount and
pid namespaces of its own, so nothing of it outlives it; what it changes stays in the overlay's
upper directory until the next one.  With `recorded_systemctl` the tree looks like one whose systemd
runs, and every call of systemctl is written down instead of made.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Optional

from support.commands import Completed, run_command

_ENTER = """
set -eu
lower=$1 work=$2 running=$3
shift 3
root=$work/root
mount --make-rprivate /
mount -t overlay none "$root" -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/overlay"
if [ -e "$work/read-only-etc" ]; then
    mount --bind "$root/etc" "$root/etc"
    mount -o remount,ro,bind "$root/etc"
fi
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/media"
mount --rbind "$work/media" "$root/media"
if [ "$running" = yes ]; then
    mkdir -p "$root/run/systemd/system"
    touch "$root/run/systemctl-of-the-system"
    mount --bind "$root/usr/bin/systemctl" "$root/run/systemctl-of-the-system"
    mount --bind "$work/systemctl" "$root/usr/bin/systemctl"
fi
while read -r program; do
    mkdir -p "$root${program%/*}"
    : >>"$root$program"
    mount --bind "$work/recorder" "$root$program"
done <"$work/recorded"
exec chroot "$root" "$@"
"""

_RECORDER = """#!/bin/sh
# Questions and presets are answered from the files of the system; the rest is only written down.
echo "$*" >>/media/systemctl-calls
for word in "$@"; do
    case $word in
    is-enabled | preset) SYSTEMD_OFFLINE=1 exec /run/systemctl-of-the-system "$@" ;;
    is-active) exit 3 ;;
    esac
done
"""

_PROGRAM_RECORDER = """#!/bin/sh
echo "${0##*/} $*" >>/media/program-calls
"""

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class Chroot:
    """One such system; `folder` holds its upper directory and must lie on a real file system."""

    def __init__(
        self,
        trees: Sequence[Path],
        folder: Path,
        *,
        recorded_systemctl: bool = False,
        recorded: Sequence[str] = (),
        network: bool = True,
    ) -> None:
        """`trees`: a base, in front of it the layers of what is installed already.

        `recorded`: absolute paths of programs that are written down as well, and succeed.
        """
        self._lower = ":".join(str(tree) for tree in trees)
        self._folder = folder
        self._recorded = recorded_systemctl
        self._namespaces = ("--mount", "--pid", *(() if network else ("--net",)))
        for name in ("upper", "overlay", "root", "media"):
            (folder / name).mkdir(parents=True)
        (folder / "upper").chmod(0o755)
        (folder / "enter").write_text(_ENTER)
        (folder / "recorded").write_text("".join(f"{path}\n" for path in recorded))
        for name, text in {"systemctl": _RECORDER, "recorder": _PROGRAM_RECORDER}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        environment: Optional[Mapping[str, str]] = None,
        timeout: float = 120.0,
    ) -> Completed:
        """Run a command inside, as root, with closed standard input."""
        variables = {**_ENVIRONMENT, **(environment or {})}
        return run_command(
            [
                *("unshare", *self._namespaces, "--fork", "--kill-child"),
                *(
                    "sh",
                    str(self._folder / "enter"),
                    self._lower,
                    str(self._folder),
                    "yes" if self._recorded else "no",
                ),
                *("env", "-i", *(f"{name}={value}" for name, value in variables.items())),
                *argv,
            ],
            purpose=f"run {shlex.join(argv)} in the chroot",
            timeout=timeout,
            check=check,
        )

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run a shell script inside and return its standard output."""
        return self.run(["sh", "-euc", script], check=check).stdout

    def dpkg(self, *arguments: str, check: bool = True, **environment: str) -> Completed:
        return self.run(["dpkg", *arguments], check=check, environment=environment)

    def install(self, debs: Iterable[Path], *options: str) -> Completed:
        """Install package files in one run of dpkg, as apt calls it; returns what it said."""
        names = []
        for deb in debs:
            copy = self._folder / "media" / deb.name
            copy.write_bytes(deb.read_bytes())
            names.append(f"/media/{deb.name}")
        done = self.dpkg("--auto-deconfigure", *options, "--install", *names)
        for name in names:
            (self._folder / name.lstrip("/")).unlink()
        return done

    def put(self, file: Path, path: str) -> None:
        """Copy a file of the host into the system."""
        handed_over = self._folder / "media" / "handed-over"
        handed_over.write_bytes(file.read_bytes())
        self.run(["cp", "/media/handed-over", path])
        handed_over.unlink()

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file of the system, whose folder may be new."""
        target = self._folder / "media" / "handed-over"
        target.write_text(text)
        place = shlex.quote(path)
        self.shell(
            f"mkdir -p $(dirname {place}); cat /media/handed-over >{place}; chmod {mode:o} {place}"
        )
        target.unlink()

    def read(self, path: str) -> Optional[str]:
        """A file's text, or None if there is no such file."""
        done = self.run(["cat", path], check=False)
        return done.stdout if done.status == 0 else None

    def exists(self, path: str) -> bool:
        return self.run(["test", "-e", path, "-o", "-L", path], check=False).status == 0

    def is_enabled(self, unit: str) -> str:
        """What systemctl says of the unit's files: `enabled`, `disabled`, `masked`, ..."""
        done = self.run(
            ["systemctl", "is-enabled", unit], check=False, environment={"SYSTEMD_OFFLINE": "1"}
        )
        return done.stdout.strip()

    def make_etc_read_only(self) -> None:
        """From the next command on."""
        (self._folder / "read-only-etc").touch()

    def systemctl_calls(self) -> list[str]:
        """The recorded calls that ask systemd to do something, in order; empties the record."""
        questions = {"is-enabled", "is-active", "preset"}
        lines = self._record("systemctl-calls")
        return [line for line in lines if not questions & set(line.split())]

    def program_calls(self) -> list[str]:
        """The calls of `recorded` programs by name, in order; empties the record."""
        return self._record("program-calls")

    def _record(self, name: str) -> list[str]:
        record = self._folder / "media" / name
        lines = record.read_text().splitlines() if record.exists() else []
        record.unlink(missing_ok=True)
        return lines

    def files(self) -> set[str]:
        """Paths of everything but what kernel and run time put there."""
        skipped = " -o ".join(f"-path {p}" for p in ("/proc", "/sys", "/dev", "/run", "/media"))
        return set(self.shell(f"find / \\( {skipped} \\) -prune -o -print").split("\n"))


def is_possible() -> Optional[str]:
    """Why chroots cannot be made here, or None."""
    if os.geteuid() != 0:
        return "root"
    return None
