"""The files of a release and the constants of a build: version, date, tree.

A build never runs in the working tree: it gets a copy of the tree's files with modes 0644 and 0755,
so that umask, left-overs and a second build change nothing, and the working tree stays as it is.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
SOURCE = "google-guest-environment"

# Nothing of these reaches a package; tests and figures of the tree do not make a new build.
_NOT_IN_PACKAGES = ("tests/", "benchmarks/", ".ci/", "tox.ini", ".git")
_HEADING = re.compile(r"(\S+) \((\d{4}-\d\d-\d\d)\)$")
_NOT_IN_RELEASE = {"build", "dist", ".git", ".venv", ".tox", "__pycache__", ".pybuild"}


def version() -> str:
    return (TOP / "VERSION").read_text().strip()


def release_date() -> datetime.datetime:
    """Midnight UTC of the newest entry of NEWS, which the changelogs carry."""
    day = (TOP / "NEWS").read_text().split("\n", 1)[0].split("(")[1].split(")")[0]
    date = datetime.datetime.strptime(day, "%Y-%m-%d")
    return date.replace(tzinfo=datetime.timezone.utc)


def news_entries(news: str) -> list[tuple[str, str, list[str]]]:
    """(version, date, lines) of each entry of NEWS, newest first."""
    found: list[tuple[str, str, list[str]]] = []
    for line in news.splitlines():
        heading = _HEADING.match(line)
        if heading:
            found.append((heading[1], heading[2], []))
        elif line.strip():
            found[-1][2].append(line.rstrip())
    return found


def notes() -> list[str]:
    """What the newest entry of NEWS says, a text each."""
    lines = news_entries((TOP / "NEWS").read_text())[0][2]
    joined = " ".join(line.strip() for line in lines)
    return [note.strip() for note in joined.split("* ") if note.strip()]


def epoch() -> int:
    """SOURCE_DATE_EPOCH of every build; refuses a date that is still to come.

    File times are only ever clamped downwards, so a later date would let the real times through
    and no two builds would be equal.
    """
    date = release_date()
    if date > datetime.datetime.now(datetime.timezone.utc):
        sys.exit(f"NEWS: the newest entry is of {date:%Y-%m-%d}, which is still to come")
    return int(date.timestamp())


def files(*, for_packages: bool = False) -> list[str]:
    """Paths of the release below the top, sorted; uncommitted files belong to it."""
    names = _files_of_git()
    if names is None:
        names = _files_of_tree()
    if for_packages:
        names = [name for name in names if not name.startswith(_NOT_IN_PACKAGES)]
    return sorted(name for name in names if os.path.lexists(TOP / name))


def _files_of_git() -> list[str] | None:
    if not (TOP / ".git").exists():
        return None
    command = ["git", "-C", str(TOP), "ls-files", "-z", "--cached", "--others"]
    listing = subprocess.run([*command, "--exclude-standard"], capture_output=True, text=True)
    if listing.returncode != 0:
        return None
    return [name for name in listing.stdout.split("\0") if name]


def _files_of_tree() -> list[str]:
    """Without git (an unpacked release): everything that no build has left here."""
    names = []
    for folder, folders, file_names in os.walk(TOP):
        folders[:] = [
            name for name in folders if name not in _NOT_IN_RELEASE and ".egg-info" not in name
        ]
        here = Path(folder).relative_to(TOP)
        names += [str(here / name) for name in file_names if not name.endswith(".pyc")]
    return names


def fingerprint(names: list[str], *extra: str) -> str:
    """Changes when a name, a content, an executable bit or one of ``extra`` changes."""
    digest = hashlib.sha256("\0".join(extra).encode())
    for name in names:
        path = TOP / name
        digest.update(f"\0{name}\0".encode())
        if path.is_symlink():
            digest.update(os.readlink(path).encode())
        else:
            digest.update(b"x" if os.access(path, os.X_OK) else b"-")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def stage(names: list[str], folder: Path) -> None:
    """Copies the files into a new ``folder`` with the modes and times of a release."""
    shutil.rmtree(folder, ignore_errors=True)
    moment = epoch()
    for name in names:
        source, target = TOP / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
            continue
        target.write_bytes(source.read_bytes())
        target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
        os.utime(target, (moment, moment))
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o755)


def environment(**more: str) -> dict[str, str]:
    """What a build sees of its caller: nothing that could change its result."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": os.environ.get("HOME", "/"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SOURCE_DATE_EPOCH": str(epoch()),
        **more,
    }


def run(command: list[str], *, folder: Path, log: Path, **variables: str) -> None:
    """Runs one step of a build; its output goes to ``log`` and is shown when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            umask=0o022,
        )
    if done.returncode != 0:
        sys.stderr.write(log.read_text(errors="replace")[-8000:])
        sys.exit(f"{' '.join(command)}: ended with {done.returncode}; the whole log is {log}")
