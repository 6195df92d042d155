#!/usr/bin/python3
"""The tables of packages and of the distributions that they are built for.

Reads tools/artifacts.yaml (what each package holds) and tools/targets.yaml (the distributions);
both say what their fields mean. ``tools/artifact_table.py`` prints the target of this machine,
which GUEST_TARGET overrides; ``--packages`` the names of its packages, ``--family`` its family.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).resolve().parent.parent
OS_RELEASE = Path("/etc/os-release")
_DEB_MODULES = ["/usr/lib/python3/dist-packages"]
_RPM_UNITS = ["/usr/lib/systemd/system"]
_RPM_LIBRARIES = ["/usr/lib64", "/usr/lib"]
# Distributions that are built as another one, by ID or ID_LIKE of os-release(5).
_LIKE = {
    **dict.fromkeys(("rhel", "rocky", "almalinux", "centos", "ol"), "rhel"),
    **dict.fromkeys(("sles", "sles_sap", "suse", "opensuse-leap", "opensuse"), "sles"),
    **{name: name for name in ("fedora", "debian", "ubuntu")},
}


@dataclass(frozen=True)
class Target:
    """One distribution that packages are built for; the fields are those of tools/targets.yaml."""

    name: str
    format: str
    family: str
    overlays: tuple[str, ...]
    python: str
    distribution: str
    release: str
    suite: str = ""
    interpreter: str = "/usr/bin/python3"
    dist: str = ""
    defines: dict[str, str] = field(default_factory=dict)
    folders: dict[str, list[str]] = field(default_factory=dict)
    """``@UNITS@`` and the like: the folders that a path of the table may mean."""

    @property
    def module_folders(self) -> list[str]:
        """Where programs of this target find modules of the distribution."""
        if self.format == "deb":
            return list(_DEB_MODULES)
        return [f"/usr/{lib}/python{self.python}/site-packages" for lib in ("lib", "lib64")]

    def is_one_of(self, names: list[str] | None) -> bool:
        """Whether ``on:`` of an entry (targets, families, formats) names this target."""
        return names is None or not {self.name, self.family, self.format}.isdisjoint(names)

    def expand(self, path: str) -> list[str]:
        """The concrete patterns of a path of the table."""
        patterns = [path]
        for name, folders in self.folders.items():
            patterns = [
                pattern.replace(name, folder)
                for pattern in patterns
                for folder in (folders if name in pattern else [""])
            ]
        return patterns


@dataclass(frozen=True)
class Package:
    """One package of one target: the table's entry without what is for other targets."""

    key: str
    name: str
    arch: str
    component: str
    modules: str
    programs: list[dict[str, Any]]
    files: list[dict[str, Any]]
    links: dict[str, str]
    directories: dict[str, str]
    without: list[str]

    @property
    def configuration_files(self) -> list[str]:
        """Paths that an administrator may edit and keeps."""
        return sorted(item["path"] for item in self.files if item.get("config"))


def table() -> dict[str, dict[str, Any]]:
    """The packages of tools/artifacts.yaml as they stand there, by key."""
    packages: dict[str, dict[str, Any]] = _read("artifacts.yaml")["packages"]
    return packages


def foreign_programs() -> list[str]:
    """Programs of the distribution that units of ours start."""
    programs: list[str] = _read("artifacts.yaml").get("foreign_programs", [])
    return programs


def targets() -> dict[str, Target]:
    """Every target by its name."""
    return {name: _target(name, facts) for name, facts in _read("targets.yaml")["targets"].items()}


def target(name: str | None = None) -> Target:
    """The target of this name, of GUEST_TARGET, or of this machine; ends the program otherwise."""
    name = name or os.environ.get("GUEST_TARGET") or detect_target()
    known = targets()
    if name not in known:
        sys.exit(f"GUEST_TARGET: there is no target {name}; there are {', '.join(known)}")
    return known[name]


def detect_target(os_release: Path = OS_RELEASE) -> str:
    """The name of the target for the machine that an os-release(5) file describes."""
    facts: dict[str, str] = {}
    for line in os_release.read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator:
            facts[name.strip()] = value.strip().strip("\"'")
    for identity in (facts.get("ID", ""), *facts.get("ID_LIKE", "").split()):
        distribution = _LIKE.get(identity)
        if distribution is not None:
            # The numbers of a derivative's releases are its own, but for those that rebuild RHEL.
            same = identity == facts.get("ID") or distribution == "rhel"
            return _nearest(distribution, facts.get("VERSION_ID", "") if same else "")
    sys.exit(f"{os_release}: no target for {facts.get('ID', 'it')}; set GUEST_TARGET")


def packages(of: Target) -> list[Package]:
    """The packages that are built for a target, each without what is for others."""
    return [
        _package(key, entry, of)
        for key, entry in table().items()
        if of.format in entry["formats"] and of.is_one_of(entry.get("on"))
    ]


def package(of: Target, key: str) -> Package:
    """One of them by its key; ends the program when the target has no such package."""
    for found in packages(of):
        if found.key == key:
            return found
    sys.exit(f"{key}: no package of {of.name} in tools/artifacts.yaml")


def overlay_file(of: Target, path: str) -> Path | None:
    """The file of config/ that an instance of the target receives at ``path``."""
    for overlay in reversed(of.overlays):
        found = TOP / "config" / overlay / path.lstrip("/")
        if found.is_file():
            return found
    return None


def overlay_paths(of: Target) -> dict[str, Path]:
    """Every such file by its path on the instance."""
    found: dict[str, Path] = {}
    for overlay in of.overlays:
        folder = TOP / "config" / overlay
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                found[f"/{file.relative_to(folder)}"] = file
    return found


def matches(path: str, pattern: str) -> bool:
    """Like a shell: ``*`` stays within one folder; ``**`` at the end is everything below."""
    parts, wanted = path.split("/"), pattern.split("/")
    if wanted[-1] == "**":
        depth = len(wanted) - 1
        return len(parts) > depth and matches("/".join(parts[:depth]), "/".join(wanted[:-1]))
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


class _Loader(yaml.SafeLoader):
    """Reads YAML whose key ``on`` is that word, and no truth as in YAML 1.1."""


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile("true|false"), ["t", "f"])


def _read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((TOP / "tools" / name).read_text(), Loader=_Loader)
    return loaded


def _target(name: str, facts: dict[str, Any]) -> Target:
    distribution, release = facts["id"]
    made = Target(
        name=name,
        format=facts["format"],
        family=facts["family"],
        overlays=tuple(facts["overlays"]),
        python=facts["python"],
        distribution=distribution,
        release=release,
        suite=facts.get("suite", ""),
        interpreter=facts.get("interpreter", "/usr/bin/python3"),
        dist=facts.get("dist", ""),
        defines=facts.get("defines", {}),
    )
    made.folders.update(
        {
            "@PYTHON_MODULES@": made.module_folders[:1],
            "@UNITS@": facts.get("units", _RPM_UNITS),
            "@LIBRARIES@": facts.get("libraries", _RPM_LIBRARIES),
        }
    )
    return made


def _nearest(distribution: str, release: str) -> str:
    """The newest target of a distribution that is not newer; the newest when nothing says."""
    own = [each for each in targets().values() if each.distribution == distribution]
    own.sort(key=lambda each: _numbers(each.release))
    if not release:
        return own[-1].name
    older = [each for each in own if _numbers(each.release) <= _numbers(release)]
    return (older or own)[-1 if older else 0].name


def _numbers(release: str) -> list[int]:
    return [int(part) if part.isdecimal() else 0 for part in release.split(".")]


def _package(key: str, entry: dict[str, Any], of: Target) -> Package:
    names = entry.get("names", {})
    links = {}
    for path, link in entry.get("links", {}).items():
        wanted = {"target": link} if isinstance(link, str) else link
        if of.is_one_of(wanted.get("on")):
            links[path] = wanted["target"]
    return Package(
        key=key,
        name=names.get(of.name, names.get(of.family, key)),
        arch=entry.get("arch", "all"),
        component=entry.get("component", ""),
        modules=entry.get("modules", ""),
        programs=[item for item in entry.get("programs", ()) if of.is_one_of(item.get("on"))],
        files=[item for item in entry.get("files", ()) if of.is_one_of(item.get("on"))],
        links=links,
        directories=entry.get("directories", {}),
        without=entry.get("without", []),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="print the target of this machine")
    parser.add_argument("--target", help="a name in tools/targets.yaml")
    parser.add_argument("--packages", action="store_true", help="its packages' names instead")
    parser.add_argument("--family", action="store_true", help="its family instead")
    arguments = parser.parse_args()
    chosen = target(arguments.target)
    if arguments.packages:
        print(" ".join(package.name for package in packages(chosen)))
    else:
        print(chosen.family if arguments.family else chosen.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
