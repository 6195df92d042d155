"""The project's rpms of each target, built once, and what is in one.

`rpm_versions.rpms` builds them; this module asks rpm about a file, and unpacks it.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import artifact_table
import package_scans

from support import rpm_versions
from support.commands import missing_programs, run_command

TARGETS = tuple(name for name, each in artifact_table.targets().items() if each.format == "rpm")
SPEC = Path(__file__).resolve().parents[2] / "rpm" / "google-guest-environment.spec"
SCRIPTLETS = ("PREIN", "POSTIN", "PREUN", "POSTUN", "PRETRANS", "POSTTRANS")


def missing() -> tuple[str, ...]:
    """What this machine lacks for building rpms."""
    programs = ("rpmbuild", "rpm2archive", "checkmodule", "semodule_package", "gcc", "make")
    return tuple(f"program {name}" for name in missing_programs(programs))


def built_rpms(target: str) -> Mapping[str, Path]:
    """The packages of a target by their key in tools/artifacts.yaml; built if need be."""
    return rpm_versions.rpms(target)


def query(rpm: Path, form: str) -> str:
    """What rpm says of a package file, by a query format."""
    command = ["rpm", "-qp", "--nosignature", "--queryformat", form, str(rpm)]
    return run_command(command, purpose="ask a package").stdout


def relations(rpm: Path, kind: str) -> list[str]:
    """ "NAME", or "NAME OPERATOR VERSION": of one kind ("requires"), without rpm's own."""
    command = ["rpm", "-qp", "--nosignature", f"--{kind}", str(rpm)]
    lines = run_command(command, purpose="ask a package").stdout.splitlines()
    return sorted({line.strip() for line in lines if not line.startswith("rpmlib(")})


@dataclass(frozen=True)
class PackagedFile:
    """One path of a package."""

    path: str
    mode: int
    owner: str
    flags: str

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)


def packaged_files(rpm: Path) -> list[PackagedFile]:
    form = "[%{FILENAMES}|%{FILEMODES}|%{FILEUSERNAME}:%{FILEGROUPNAME}|%{FILEFLAGS:fflags}\n]"
    found = []
    for line in query(rpm, form).splitlines():
        path, mode, owner, flags = line.split("|")
        found.append(PackagedFile(path, int(mode) & 0xFFFF, owner, flags))
    return found


def unpacked(rpm: Path, folder: Path) -> Path:
    """The package's files below a new `folder`."""
    return package_scans.unpack(rpm, folder)[1]


def spec_definitions(target: str) -> list[str]:
    """What rpmspec and rpmbuild are told on a machine that is not the target."""
    known = artifact_table.target(target)
    macros = {**known.defines, **({"dist": known.dist} if known.dist else {})}
    return [word for name, text in macros.items() for word in ("--define", f"{name} {text}")]


def spec_query(target: str, form: str, *options: str) -> str:
    """What the bare spec says for a target."""
    command = ["rpmspec", "-q", "--queryformat", form, *spec_definitions(target), *options]
    return run_command([*command, str(SPEC)], purpose="read the spec").stdout
