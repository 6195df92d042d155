"""What must be true of every package of a distribution, whatever the table says of its files.

For tools/check-artifacts: place-holders left over, links that point nowhere, units whose program is
in no package, relations with an epoch, and which files count as configuration. Reads unpacked
packages, and the headers of ``.rpm`` files through ``rpm``.
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from pathlib import Path

import artifact_table
from artifact_table import Package

PLACE_HOLDER = re.compile(rb"%\{|@[A-Z][A-Z_]+@|#DEBHELPER#")
# Byte code and machine code may hold any bytes, and other people's modules any text.
_BINARY = {".pyc", ".exe", ".dll", ".pyd", ".zip", ".cat", ".so", ".pp", ".gz"}
# 1.2 (>= 1:2): an epoch in a relation is a number before a colon (never: do not depend on epochs).
_EPOCH = re.compile(r"[<>=]=?\s*[0-9]+:")
_RELATIONS = re.compile(
    r"^(?:Pre-)?(?:Depends|Recommends|Suggests|Enhances|Breaks|Conflicts|Replaces|Provides):", re.M
)
_EXEC = re.compile(
    r"^Exec(?:Start|Stop|Reload|StartPre|StartPost|StopPost|Condition)=[-+!@:]*(\S+)"
)
_UNIT_FOLDERS = ("lib/systemd/system", "usr/lib/systemd/system")
_RPM_RELATIONS = ("requires", "recommends", "suggests", "conflicts", "obsoletes", "provides")
_SCRIPTLETS = "--scripts"


def has_place_holder(file: Path) -> bool:
    """Whether a text of ours still has a macro or a place-holder of a template."""
    ours = _BINARY.isdisjoint(file.suffixes) and "site-packages/google_guest-" not in str(file)
    foreign = "site-packages" in file.parts and "google_guest" not in str(file)
    return ours and not foreign and PLACE_HOLDER.search(file.read_bytes()) is not None


def points_nowhere(link: Path, root: Path) -> bool:
    """Whether a link of a package's tree has no target in it."""
    target = os.readlink(link)
    place = root / target.lstrip("/") if target.startswith("/") else link.parent / target
    return not os.path.lexists(place)


def unpack(file: Path, folder: Path) -> tuple[str, Path]:
    """The name of a ``.deb`` or ``.rpm`` and its unpacked tree in a new ``folder``."""
    if file.suffix == ".deb":
        subprocess.run(["dpkg-deb", "--raw-extract", file, folder], check=True)
        return file.name.split("_")[0], folder
    folder.mkdir(parents=True)
    name = _rpm("-qp", "--queryformat", "%{NAME}", str(file))
    with subprocess.Popen(["rpm2archive", "-n", "-"], stdin=file.open("rb"), stdout=-1) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                member.uid = member.gid = os.getuid()
                member.uname = member.gname = ""
                archive.extract(member, folder)
    if process.returncode != 0:
        raise SystemExit(f"{file}: rpm2archive ended with {process.returncode}")
    return name, folder


def unit_findings(trees: list[tuple[str, Path]]) -> list[str]:
    """Units that start a program which no package of ours has and no distribution is known for."""
    known = set(artifact_table.foreign_programs())
    findings = []
    for name, root in trees:
        for folder in _UNIT_FOLDERS:
            for unit in sorted((root / folder).rglob("*")) if (root / folder).is_dir() else ():
                if not unit.is_file():
                    continue
                for line in unit.read_text().splitlines():
                    found = _EXEC.match(line)
                    if not found or found[1] in known:
                        continue
                    program = found[1].lstrip("/")
                    if not any(os.path.lexists(tree / program) for _, tree in trees):
                        findings.append(f"{name}: {unit.name} starts {found[1]}, which is nowhere")
    return findings


def control_findings(package: Package, root: Path) -> list[str]:
    """Of a Debian package: relations with an epoch, left-overs in scripts, its conffiles."""
    area = root / "DEBIAN"
    if not (area / "control").exists():
        return []
    findings = []
    text = re.sub(r"\n[ \t]+", " ", (area / "control").read_text())
    for line in text.splitlines():
        if _RELATIONS.match(line) and _EPOCH.search(line):
            findings.append(f"{package.name}: a relation has an epoch: {line}")
    for script in ("preinst", "postinst", "prerm", "postrm", "control"):
        if (area / script).exists() and has_place_holder(area / script):
            findings.append(f"{package.name}: {script} has a place-holder that nobody filled in")
    if (area / "md5sums").exists():
        conffiles = area / "conffiles"
        lines = conffiles.read_text().splitlines() if conffiles.exists() else []
        lines = [line for line in lines if line.startswith("/")]
        findings += _configuration_findings(package, lines)
    return findings


def rpm_findings(file: Path, expected: dict[str, Package]) -> list[str]:
    """The same of an ``.rpm``, from its header."""
    name = _rpm("-qp", "--queryformat", "%{NAME}", str(file))
    if name not in expected:
        return []
    findings = []
    # What a repository's build says of its own packages has its epoch.
    own = _rpm("-qp", "--queryformat", "%{EPOCH}:%{VERSION}", str(file))
    for kind in _RPM_RELATIONS:
        for line in _rpm("-qp", f"--{kind}", str(file)).splitlines():
            if _EPOCH.search(line.replace(f" {own}", " ")):
                findings.append(f"{name}: a relation has an epoch: {kind} {line}")
            if "%{" in line:
                findings.append(f"{name}: a relation has a macro left: {kind} {line}")
    if "%{" in _rpm("-qp", _SCRIPTLETS, str(file)):
        findings.append(f"{name}: a script has a macro left")
    listing = _rpm("-qp", "--queryformat", "[%{FILEFLAGS:fflags}|%{FILENAMES}\n]", str(file))
    flags = dict(line.split("|", 1)[::-1] for line in listing.splitlines() if "|" in line)
    findings += [f"{name}: {path} has a macro left" for path in flags if "%" in path]
    configuration = [path for path, flag in flags.items() if "c" in flag]
    findings += [
        f"{name}: {path} is %config without noreplace"
        for path in configuration
        if "n" not in flags[path]
    ]
    return findings + _configuration_findings(expected[name], configuration)


def _configuration_findings(package: Package, found: list[str]) -> list[str]:
    wanted = set(package.configuration_files)
    return [
        f"{package.name}: {path} is a configuration file, the table says it is none"
        for path in sorted(set(found) - wanted)
    ] + [
        f"{package.name}: {path} is no configuration file, the table says it is one"
        for path in sorted(wanted - set(found))
    ]


def _rpm(*arguments: str) -> str:
    done = subprocess.run(["rpm", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout
