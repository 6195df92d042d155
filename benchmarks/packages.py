"""Figures of googet: packing, indexes, installing, starting; each runs the programs of the tree.

No distribution carries another googet, so the columns of a reference stay empty: the figures stand
against their own bounds. Packages and repositories are made in a scratch folder and served from it
as a folder, so that no network is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
PACK, GET = TOP / "tools/goopack", TOP / "tools/googet"
SMALL_PACKAGES = 1_000
INDEXED_PACKAGES = 10_000
LARGE_FILE = 1 << 30
_PYTHON = sys.executable
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}


def start_seconds() -> float:
    """Return how long ``googet -version`` takes."""
    began = time.monotonic()
    _run([str(GET), "-version"])
    return time.monotonic() - began


def interpreter_seconds() -> float:
    """Return how long the interpreter alone takes to start and end."""
    began = time.monotonic()
    _run([_PYTHON, "-IS", "-c", "pass"])
    return time.monotonic() - began


def write_small_specs(folder: Path) -> None:
    """Write ``SMALL_PACKAGES`` goospecs with one small file each."""
    (folder / "payload").mkdir(parents=True)
    for number in range(SMALL_PACKAGES):
        name = f"small-{number:04}"
        (folder / "payload" / f"{name}.txt").write_text(f"content of {name}\n" * 20)
        spec = {
            "name": name,
            "version": "1.0.0@1",
            "arch": "noarch",
            "files": {f"payload/{name}.txt": f"{folder}/installed/{name}.txt"},
            "sources": [{"include": [f"payload/{name}.txt"]}],
        }
        (folder / f"{name}.goospec").write_text(json.dumps(spec))


def pack_seconds(folder: Path) -> float:
    """Pack all small packages, one process for all of them; return the seconds."""
    output = folder / "packages"
    output.mkdir(exist_ok=True)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from googet.packing import pack\n"
        "folder = Path(sys.argv[2])\n"
        "for spec in sorted(folder.glob('*.goospec')):\n"
        "    pack(spec, variables={}, output=folder / 'packages', working_folder=folder)\n"
    )
    began = time.monotonic()
    _run([_PYTHON, "-c", code, str(TOP / "src"), str(folder)], cwd=folder)
    return time.monotonic() - began


def pack_memory_mib(folder: Path) -> float:
    """Pack a file of 1 GiB; return the packer's peak resident memory in MiB."""
    folder.mkdir(parents=True, exist_ok=True)
    block = os.urandom(1 << 20)
    with open(folder / "large.bin", "wb") as file:
        for _ in range(LARGE_FILE >> 20):
            file.write(block)
    spec = {
        "name": "large",
        "version": "1.0.0@1",
        "arch": "noarch",
        "files": {"large.bin": "/opt/large.bin"},
        "sources": [{"include": ["large.bin"]}],
    }
    (folder / "large.goospec").write_text(json.dumps(spec))
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.execve(PACK, [str(PACK), "-output_dir", str(folder), "large.goospec"], _ENVIRONMENT)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"goopack ended with {os.waitstatus_to_exitcode(status)}")
    for name in ("large.bin", "large.noarch.1.0.0@1.goo"):
        (folder / name).unlink()
    return usage.ru_maxrss / 1024


def write_repository(folder: Path) -> None:
    """Make the packed small packages a repository below ``folder``."""
    _run(
        [
            *(str(TOP / "tools/gooserve"), "-save_index", "-root", str(folder)),
            *("-package_path", "packages", "-repo_name", "repo"),
        ]
    )


def write_large_index(folder: Path) -> None:
    """Write an index of ``INDEXED_PACKAGES`` packages in chains of ten dependencies."""
    entries = []
    for number in range(INDEXED_PACKAGES):
        name = f"indexed-{number:05}"
        spec: dict[str, object] = {
            "Name": name,
            "Version": f"1.{number % 7}.0@1",
            "Arch": "noarch",
            "Description": f"package number {number} of a large index",
            "Authors": "Example",
        }
        if number % 10:
            spec["PkgDependencies"] = {f"indexed-{number - 1:05}.noarch": "1.0.0"}
        spec.update(Replaces=None, Conflicts=None, Provides=None)
        spec.update(Install={}, Uninstall={}, Verify={})
        spec.update(Files={f"{name}.txt": f"/opt/{name}.txt"}, ExternalProgramName="")
        source = f"packages/{name}.noarch.{spec['Version']}.goo"
        entries.append({"Checksum": f"{number:064x}", "Source": source, "PackageSpec": spec})
    (folder / "repo").mkdir(parents=True)
    (folder / "repo/index").write_text(json.dumps(entries))


def new_root(folder: Path, repository: Path) -> Path:
    """Make an empty googet root below ``folder`` that uses the repository."""
    root = folder / f"root-{time.monotonic_ns()}"
    (root / "repos").mkdir(parents=True)
    (root / "repos/bench.repo").write_text(f"- name: bench\n  url: file://{repository}/repo\n")
    (root / "googet.conf").write_text("allowunsafeurl: true\narchs: [noarch, x86_64]\n")
    return root


def resolve_seconds(root: Path) -> float:
    """Return how long it takes to read the large index and plan an install of ten packages."""
    began = time.monotonic()
    _googet(root, "install", "-dry_run", f"indexed-{INDEXED_PACKAGES - 1:05}")
    return time.monotonic() - began


def install_seconds(root: Path) -> float:
    """Install all small packages in one command; return the seconds."""
    names = [f"small-{number:04}" for number in range(SMALL_PACKAGES)]
    began = time.monotonic()
    _googet(root, "install", *names)
    return time.monotonic() - began


def remove_seconds(root: Path) -> float:
    """Remove all small packages in one command; return the seconds."""
    names = [f"small-{number:04}" for number in range(SMALL_PACKAGES)]
    began = time.monotonic()
    _googet(root, "remove", *names)
    return time.monotonic() - began


def _googet(root: Path, *arguments: str) -> None:
    _run([str(GET), "-root", str(root), "-noconfirm", "-system_log=false", *arguments])


def _run(argv: list[str], *, cwd: Path = TOP) -> None:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(argv[:4])} ended with {done.returncode}: {done.stdout[-800:]}"
        )
