"""What each Windows package carries, as a tree on this machine before it is packed.

Every function here fills a new folder: below it are the files under their names in the archive, as
the package's goospec in googet/ expects them. The programs come from the table of artifacts, the
library from the one wheel that all formats carry, Python and its wheels from `windows_python`.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import goo_bytecode
import goo_launchers
import library_wheel
import release
import windows_python
import yaml

GOOGET = release.TOP / "googet"
SOURCE = release.TOP / "src"
RUNTIME = "google-guest-python-runtime"
LIBRARY = "google-guest-library"
AGENT = "google-compute-engine-windows"
SCRIPTS = "google-compute-engine-metadata-scripts"
CLIENT = "googet"
PACKAGES = (RUNTIME, LIBRARY, AGENT, SCRIPTS, CLIENT)

STANDARD_LIBRARY = "python313.zip"
BILL = "bill-of-materials.json"
SEARCH_PATH = "python313._pth"
# Nothing of these is ever run.
NOT_IN_RUNTIME = re.compile(r".*/(tests?|demos?)/.*|.*\.(chm|lib|h|pyi)")
# googet's own interpreter: without what only large programs need.
NOT_IN_CLIENT = re.compile(
    r"pythonw\.exe|python\.cat|winsound\.pyd|pyexpat\.pyd"
    r"|_(asyncio|bz2|decimal|elementtree|lzma|multiprocessing|overlapped|uuid|wmi|zoneinfo)\.pyd"
)
NOT_IN_CLIENT_LIBRARY = re.compile(
    r"(asyncio|_pyrepl|multiprocessing|xml|unittest|wsgiref|dbm|curses|zoneinfo|tomllib|__phello__"
    r"|xmlrpc|pydoc_data|html|sysconfig)/.*"
    r"|(pydoc|doctest|turtle|pdb|cProfile|profile|pstats|trace|tabnanny|_pydecimal|statistics)\.pyc"
)
NOT_IN_ZIP = re.compile(r"\.pyd$|\.dist-info/|^urllib3/contrib/emscripten/|^_yaml/")
CLIENT_WHEELS = ("PyYAML", "truststore", "urllib3")
# Of src/googet: packing and serving packages happens elsewhere.
NOT_IN_CLIENT_MODULES = re.compile(
    r"googet\.(buckets|collecting|goformat|goospec|packing|publishing|server|template"
    r"|templatesyntax|cli\.goopack|cli\.gooserve|host\.console|host\.memory|host\.posix)"
)
CLIENT_MAIN = b"""import sys

from googet.cli.googet import main

sys.exit(main())
"""


class PayloadError(Exception):
    """A part is missing or not as expected; one line that names it."""


class Parts:
    """What several packages need, each obtained once in a build."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.version = release.version()
        self._python = work / "python"

    @cached_property
    def launcher(self) -> bytes:
        """The launcher of programs."""
        return goo_launchers.launcher_bytes()

    @cached_property
    def distribution(self) -> windows_python.Distribution:
        """The verified CPython for Windows, unpacked into the folder `python`."""
        shutil.rmtree(self._python, ignore_errors=True)
        return windows_python.unpack_python(self._python)

    @property
    def python(self) -> Path:
        """A folder with the verified CPython for Windows."""
        assert self.distribution
        return self._python

    @cached_property
    def magic(self) -> bytes:
        """What byte code for that Python starts with."""
        with zipfile.ZipFile(self.python / STANDARD_LIBRARY) as library:
            return library.read("os.pyc")[:4]

    @cached_property
    def compiled(self) -> Path:
        """A folder with the three trees of modules, each with its byte code.

        `library` has the content of the library's wheel, `client` the modules of googet and what
        they import, `packages` the wheels of the runtime.
        """
        top = self.work / "modules"
        shutil.rmtree(top, ignore_errors=True)
        self._library_modules(top / "library")
        self._client_modules(top / "client")
        self._runtime_packages(top / "packages")
        trees = (top / "library", top / "client", top / "packages")
        *ours, theirs = goo_bytecode.compile_trees(*trees)
        goo_bytecode.check_magic(top, self.magic)
        for refused in filter(None, ours):
            raise PayloadError(f"{refused[0]} is no Python that Windows' interpreter understands")
        for name in theirs:
            # A module that this Python cannot read has no place in what runs on it.
            (top / "packages" / name).unlink()
        return top

    def _library_modules(self, folder: Path) -> None:
        with zipfile.ZipFile(library_wheel.build(self.work / "wheel")) as wheel:
            for entry in wheel.infolist():
                _write(folder / entry.filename, wheel.read(entry))

    def _client_modules(self, folder: Path) -> None:
        for name in client_module_files():
            _write(folder / name, (SOURCE / name).read_bytes())
        _write(folder / "google_guest" / "VERSION", f"{self.version}\n".encode())
        windows_python.install_wheels(self.wheels(*CLIENT_WHEELS), folder)
        for path in _files(folder):
            # Nothing native can be loaded from a zip.
            if NOT_IN_ZIP.search(path.relative_to(folder).as_posix()):
                path.unlink()

    def _runtime_packages(self, folder: Path) -> None:
        windows_python.install_wheels(self.wheels(), folder)
        for path in _files(folder):
            if NOT_IN_RUNTIME.fullmatch(path.relative_to(folder).as_posix()):
                path.unlink()
        _remove_empty_folders(folder)

    def wheels(self, *names: str) -> tuple[Path, ...]:
        """The wheels of the runtime with these names (all without)."""
        wanted = windows_python.requirements(windows_python.RUNTIME_REQUIREMENTS)
        files = windows_python.wheels(windows_python.RUNTIME_REQUIREMENTS)
        missing = set(names) - {requirement.name for requirement in wanted}
        if missing:
            raise PayloadError(f"requirements-windows.txt does not name {', '.join(missing)}")
        return tuple(
            file
            for requirement, file in zip(wanted, files)
            if not names or requirement.name in names
        )


def fill(package: str, folder: Path, parts: Parts) -> None:
    """Make the new `folder` with all that the package carries."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    {
        RUNTIME: _runtime,
        LIBRARY: _library,
        AGENT: _agent,
        SCRIPTS: _scripts,
        CLIENT: _client,
    }[package](folder, parts)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def programs(package: str) -> Iterator[tuple[str, str]]:
    """Path below the folder of our programs, and entry point, of each program of the table."""
    table = yaml.safe_load((release.TOP / "tools" / "artifacts.yaml").read_text(encoding="utf-8"))
    for item in table["packages"][package].get("programs", ()):
        for path in (item["path"], *item.get("aliases", ())):
            yield path.partition("@BASE@/")[2], item["entry"]


def runtime_version() -> tuple[str, str]:
    """The runtime's own version, and the digest of the content that it stands for."""
    lines = (GOOGET / f"{RUNTIME}.version").read_text(encoding="ascii").splitlines()
    version, digest = [line for line in lines if not line.startswith("#")]
    return version, digest


def digest_of(folder: Path) -> str:
    """A digest of names and contents; byte code does not count, it follows from the modules."""
    digest = hashlib.sha256()
    for path in _files(folder):
        if path.suffix != ".pyc":
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def client_module_files() -> list[str]:
    """The files below src/ that googet.exe carries, from what its modules import."""
    wanted = [name for name in _modules("googet") if not NOT_IN_CLIENT_MODULES.fullmatch(name)]
    # The boundary makes the running Windows when it is first asked for it.
    wanted.append("google_guest.system.windows.native")
    found: dict[str, str] = {}
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found[name] = _file_of(name)
        wanted += [used for used in _imports(name) if used not in found]
        if "." in name:
            wanted.append(name.rpartition(".")[0])
    return sorted(found.values())


# --- the packages ---


def _runtime(folder: Path, parts: Parts) -> None:
    # Whichever package of the folder agent goes last takes the folder with it.
    python = folder / "agent" / "python"
    shutil.copytree(parts.python, python)
    shutil.copytree(parts.compiled / "packages", python / "Lib" / "site-packages")
    lines = (STANDARD_LIBRARY, ".", "Lib\\site-packages", "import site")
    _write(python / SEARCH_PATH, "".join(f"{line}\r\n" for line in lines).encode("ascii"))
    bill = _bill_of_materials(RUNTIME, parts, wheels=parts.wheels())
    _write(python / BILL, bill)
    _write(python / f"LICENSE.{RUNTIME}.txt", _license(""))
    _install_file(folder, RUNTIME)


def _library(folder: Path, parts: Parts) -> None:
    shutil.copytree(parts.compiled / "library", folder / "agent" / "lib" / parts.version)
    _write(folder / "agent" / "lib" / f"LICENSE.{LIBRARY}.txt", _license(""))
    _install_file(folder, LIBRARY)


def _agent(folder: Path, parts: Parts) -> None:
    _programs(folder, AGENT, parts)
    _text_files(folder / "agent", AGENT, "google_metadata_script_runner_adapt.ps1")
    _write(folder / "agent" / f"LICENSE.{AGENT}.txt", _license(_launcher_notice()))
    _write(folder / "agent" / BILL, _bill_of_materials(AGENT, parts, has_launcher=True))
    _install_file(folder)


def _scripts(folder: Path, parts: Parts) -> None:
    _programs(folder, SCRIPTS, parts)
    files = ("run_startup_scripts.cmd", "run_shutdown_scripts.cmd")
    _text_files(folder / "metadata_scripts", SCRIPTS, *files)
    _write(folder / "metadata_scripts" / f"LICENSE.{SCRIPTS}.txt", _license(_launcher_notice()))
    bill = _bill_of_materials(SCRIPTS, parts, has_launcher=True)
    _write(folder / "metadata_scripts" / BILL, bill)
    _install_file(folder)


def _client(folder: Path, parts: Parts) -> None:
    root = folder / "GooGet"
    modules = parts.compiled / "client"
    files = {_in_zip(path, modules): path.read_bytes() for path in _files(modules)}
    files["__main__.py"] = CLIENT_MAIN
    program = goo_launchers.program("python\\python.exe", files, launcher=parts.launcher)
    _write(root / "googet.exe", program)
    python = root / "python"
    for path in sorted(parts.python.iterdir()):
        if path.name == STANDARD_LIBRARY:
            _write(python / path.name, _trimmed(path.read_bytes()))
        elif not NOT_IN_CLIENT.fullmatch(path.name):
            _write(python / path.name, path.read_bytes())
    lines = (STANDARD_LIBRARY, ".", "..\\googet.exe")
    _write(python / SEARCH_PATH, "".join(f"{line}\r\n" for line in lines).encode("ascii"))
    wheels = parts.wheels(*CLIENT_WHEELS)
    bill = _bill_of_materials(CLIENT, parts, wheels=wheels, has_launcher=True)
    _write(python / BILL, bill)
    notices = "".join(_wheel_notice(wheel) for wheel in wheels)
    _write(root / f"LICENSE.{CLIENT}.txt", _license(_launcher_notice() + notices))
    _install_file(folder, CLIENT)


def _programs(folder: Path, package: str, parts: Parts) -> None:
    for path, entry_point in programs(package):
        program = goo_launchers.library_program(
            path, entry_point, version=parts.version, launcher=parts.launcher
        )
        _write(folder / path, program)


def _text_files(folder: Path, package: str, *names: str) -> None:
    for name in names:
        _write(folder / name, (GOOGET / package / name).read_bytes())


def _install_file(folder: Path, package: str = "") -> None:
    _write(folder / "install.cmd", (GOOGET / package / "install.cmd").read_bytes())


# --- byte code, archives ---


def _in_zip(path: Path, folder: Path) -> str:
    """The name in a zip, where byte code stands beside its module (zipimport)."""
    name = path.relative_to(folder).as_posix()
    return name.replace("__pycache__/", "").replace(f".{goo_bytecode.TAG}.pyc", ".pyc")


def _trimmed(library: bytes) -> bytes:
    """Python's own library without what googet never imports."""
    with zipfile.ZipFile(io.BytesIO(library)) as entries:
        kept = {
            entry.filename: entries.read(entry)
            for entry in entries.infolist()
            if not entry.is_dir() and not NOT_IN_CLIENT_LIBRARY.fullmatch(entry.filename)
        }
    return goo_launchers.archive(kept)


# --- imports of googet ---


def _modules(component: str) -> Iterator[str]:
    for path in sorted((SOURCE / component).rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _file_of(module: str) -> str:
    base = module.replace(".", "/")
    return f"{base}.py" if (SOURCE / f"{base}.py").exists() else f"{base}/__init__.py"


def _imports(module: str) -> Iterator[str]:
    """What a module imports of the project, at any time that matters to googet.

    The boundary to the system imports its parts for Linux and for the agent when they are asked
    for, which googet does not do.
    """
    tree = ast.parse((SOURCE / _file_of(module)).read_text(encoding="utf-8"))
    for node in _statements(tree, functions=module != "google_guest.system"):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            ours = name.split(".")[0] in ("google_guest", "googet")
            if ours and (SOURCE / _file_of(name)).exists():
                if not NOT_IN_CLIENT_MODULES.fullmatch(name):
                    yield name


def _statements(node: ast.AST, *, functions: bool) -> Iterator[ast.AST]:
    """The statements of a module but those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if functions or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
            yield from _statements(child, functions=functions)


# --- licences, bill of materials ---


def _license(notices: str) -> bytes:
    text = (release.TOP / "LICENSE").read_text(encoding="utf-8") + notices
    return text.replace("\r\n", "\n").replace("\n", "\r\n").encode("utf-8")


def _launcher_notice() -> str:
    return _notice("The programs' launcher (distlib)", goo_launchers.launcher_license())


def _wheel_notice(wheel: Path) -> str:
    name = wheel.name.split("-")[0]
    with zipfile.ZipFile(wheel) as entries:
        texts = [
            entries.read(entry).decode("utf-8")
            for entry in entries.namelist()
            if re.search(r"\.dist-info/(licenses/)?LICENSE[^/]*$", entry)
        ]
    if not texts:
        raise PayloadError(f"{wheel.name} has no licence")
    return "".join(_notice(name, text) for text in texts)


def _notice(name: str, text: str) -> str:
    return f"\n{'-' * 72}\n{name}\n{'-' * 72}\n\n{text}"


def _bill_of_materials(
    package: str, parts: Parts, *, wheels: Sequence[Path] = (), has_launcher: bool = False
) -> bytes:
    """What of others a package carries, each with the SHA-256 of the file that it came in.

    A package with wheels has Python, too.
    """
    known = [
        *windows_python.requirements(windows_python.RUNTIME_REQUIREMENTS),
        *windows_python.requirements(goo_launchers.LAUNCHER_REQUIREMENTS),
    ]
    files = [*wheels, *(goo_launchers.launcher_wheel() for _ in range(has_launcher))]
    hashes = {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    components = [
        _component(f"pypi/{one.name.lower()}", one.version, one.sha256)
        for one in known
        if one.sha256 in hashes
    ]
    if wheels:
        python = parts.distribution
        components.insert(0, _component("cpython", python.version, python.sha256))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": package}},
        "components": components,
    }
    return (json.dumps(document, indent=2) + "\n").encode("ascii")


def _component(name: str, version: str, sha256: str) -> dict[str, object]:
    kind, _, bare = name.rpartition("/")
    return {
        "type": "library",
        "name": bare,
        "version": version,
        "purl": f"pkg:{kind or 'generic'}/{bare}@{version}",
        "hashes": [{"alg": "SHA-256", "content": sha256}],
    }


# --- files ---


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _remove_empty_folders(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(path):
            os.rmdir(path)
