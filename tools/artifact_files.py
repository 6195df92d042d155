"""What is inside the files of a release: tarballs, wheels, Debian, rpm and Windows packages.

For the bills of materials, and to say in which member two builds differ. Reads the artifact alone;
rpm's own programs open its packages.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_RPM_TAGS = (
    *("NAME", "EPOCHNUM", "VERSION", "RELEASE", "ARCH", "SUMMARY", "LICENSE", "URL", "VENDOR"),
    *("BUILDTIME", "BUILDHOST", "SOURCERPM", "OPTFLAGS", "PLATFORM", "SOURCEPKGID"),
    *("PREIN", "POSTIN", "PREUN", "POSTUN", "PRETRANS", "POSTTRANS"),
    *("CHANGELOGTIME", "CHANGELOGTEXT"),
)


@dataclass(frozen=True)
class Member:
    """One file, link or folder inside an artifact; ``facts`` is what is not its content."""

    name: str
    kind: str
    content: bytes
    facts: str

    @property
    def sha1(self) -> str:
        return hashlib.sha1(self.content, usedforsecurity=False).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def members(artifact: Path) -> list[Member]:
    """Everything inside, in its order; an empty list for a file of another kind."""
    name = artifact.name
    if name.endswith(".deb"):
        return [
            member
            for part, content in ar_parts(artifact.read_bytes())
            if part.startswith(("control.tar", "data.tar"))
            for member in _of_tar(content, "DEBIAN" if part.startswith("control") else "")
        ]
    if name.endswith(".rpm"):
        return list(_of_tar(_rpm_payload(artifact)))
    if name.endswith((".goo", ".tar.gz", ".tar.xz")):
        return list(_of_tar(artifact.read_bytes()))
    if name.endswith((".whl", ".zip")):
        return list(_of_zip(artifact))
    return []


def installed_files(artifact: Path) -> list[Member]:
    """The regular files that the artifact brings, without the control data of its format."""
    return [
        member
        for member in members(artifact)
        if member.kind == "file" and not member.name.startswith("DEBIAN/")
    ]


def difference(first: Path, second: Path) -> str:
    """Where two builds of one artifact differ, for people; empty when they are equal."""
    if first.read_bytes() == second.read_bytes():
        return ""
    ours, theirs = ({member.name: member for member in members(path)} for path in (first, second))
    for name in (*ours, *theirs):
        if name not in theirs or name not in ours:
            return f"{name} is in one of them alone"
        if ours[name].content != theirs[name].content:
            return f"{name}: {_first_change(ours[name].content, theirs[name].content)}"
        if ours[name].facts != theirs[name].facts:
            return f"{name}: {ours[name].facts} and {theirs[name].facts}"
    if list(ours) != list(theirs):
        return "the same members in another order"
    if first.name.endswith(".rpm"):
        for tag, one, other in zip(_RPM_TAGS, _rpm_tags(first), _rpm_tags(second)):
            if one != other:
                return f"header {tag}: {_first_change(one.encode(), other.encode())}"
    return _first_change(first.read_bytes(), second.read_bytes())


def ar_parts(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each part of an ar archive, which a Debian package is (deb(5))."""
    if not archive.startswith(_AR_MAGIC):
        raise ValueError("not an ar archive")
    position = len(_AR_MAGIC)
    while position < len(archive):
        header = archive[position : position + _AR_HEADER]
        size = int(header[48:58])
        position += _AR_HEADER
        yield header[:16].decode("ascii").rstrip(" /"), archive[position : position + size]
        position += size + size % 2


def _of_tar(content: bytes, folder: str = "") -> Iterator[Member]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for entry in archive:
            name = entry.name.removeprefix("./").lstrip("/") or "."
            kind, data = "other", b""
            if entry.isfile():
                kind = "file"
                opened = archive.extractfile(entry)
                data = opened.read() if opened is not None else b""
            elif entry.isdir():
                kind = "folder"
            elif entry.issym() or entry.islnk():
                kind, data = "link", entry.linkname.encode()
            facts = f"mode {entry.mode:o}, time {entry.mtime}, owner {entry.uid}:{entry.gid}"
            yield Member(f"{folder}/{name}" if folder else name, kind, data, facts)


def _of_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            facts = f"mode {entry.external_attr >> 16:o}, time {entry.date_time}"
            kind = "folder" if entry.is_dir() else "file"
            yield Member(entry.filename, kind, archive.read(entry), facts)


def _rpm_payload(path: Path) -> bytes:
    """The payload as a tar archive."""
    with path.open("rb") as package:
        done = subprocess.run(
            ["rpm2archive", "-n", "-"], stdin=package, capture_output=True, check=True
        )
    return done.stdout


def _rpm_tags(path: Path) -> list[str]:
    form = "".join(f"[%{{{tag}}} ]\x1e" for tag in _RPM_TAGS)
    command = ["rpm", "-qp", "--nosignature", "--queryformat", form, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split("\x1e")[:-1]


def _first_change(first: bytes, second: bytes) -> str:
    """The first line, or byte, in which two contents differ."""
    try:
        lines = zip(first.decode().splitlines(), second.decode().splitlines())
    except UnicodeDecodeError:
        lines = iter(())
    for number, (one, other) in enumerate(lines, 1):
        if one != other:
            return f"line {number}: {one.strip()[:80]!r} and {other.strip()[:80]!r}"
    for number, (left, right) in enumerate(zip(first, second)):
        if left != right:
            return f"byte {number} of {len(first)}: {left:#04x} and {right:#04x}"
    return f"{len(first)} and {len(second)} bytes"
