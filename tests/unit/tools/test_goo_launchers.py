"""Programs for Windows as files: the line that names Python, the zip, what runs in it.

Python runs a zip with anything in front of it on every platform, so the programs run here, too.
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import goo_launchers
import pytest

LAUNCHER = b"MZ launcher\r\n"
VERSION = "20261124.00"


def program(path: str, entry_point: str = "google_guest.cli.agent:main") -> bytes:
    return goo_launchers.library_program(path, entry_point, version=VERSION, launcher=LAUNCHER)


def run(tmp_path: Path, library: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run a program with a library of these modules; its status and output."""
    for name, text in library.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    exe = tmp_path / "GCEWindowsAgent.exe"
    exe.write_bytes(program("agent/GCEWindowsAgent.exe", "google_guest.cli:main"))
    done = subprocess.run(
        [sys.executable, "-S", str(exe), *arguments],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def library(version: str) -> dict[str, str]:
    return {
        "google_guest/__init__.py": "",
        "google_guest/version.py": f"def version():\n    return '{version}'\n",
        "google_guest/cli.py": "import sys\ndef main():\n    print(sys.argv[1:])\n    return 7\n",
    }


@pytest.mark.parametrize(
    ("path", "python"),
    [
        ("agent/GCEWindowsAgent.exe", r"..\agent\python\python.exe"),
        ("metadata_scripts/GCEMetadataScripts.exe", r"..\agent\python\python.exe"),
        ("tools/deep/x.exe", r"..\..\agent\python\python.exe"),
    ],
)
def test_program_names_python_relative_to_itself(path: str, python: str) -> None:
    line = f'#!"<launcher_dir>\\{python}" -I -B\r\n'.encode()
    assert program(path).startswith(LAUNCHER + line + b"PK")


def test_same_input_gives_the_same_bytes() -> None:
    assert program("agent/x.exe") == program("agent/x.exe")


def test_zip_says_nothing_about_its_making() -> None:
    content = goo_launchers.archive({"b.py": b"2", "a.py": b"1"})
    with zipfile.ZipFile(io.BytesIO(content)) as entries:
        assert [entry.filename for entry in entries.infolist()] == ["a.py", "b.py"]
        assert {entry.date_time for entry in entries.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.create_system for entry in entries.infolist()} == {0}


@pytest.mark.parametrize("version", [VERSION, "20261124.01", "20270101.00"])
def test_library_of_the_same_or_a_newer_version_runs(tmp_path: Path, version: str) -> None:
    status, out, err = run(tmp_path, library(version), "a b", "--x")
    assert (status, out, err) == (7, "['a b', '--x']\n", "")


@pytest.mark.parametrize("version", ["20261123.99", "20251124.00", "9.99"])
def test_older_library_is_refused_in_one_line(tmp_path: Path, version: str) -> None:
    status, out, err = run(tmp_path, library(version))
    assert (status, out) == (1, "")
    assert err == (
        f"GCEWindowsAgent: google-guest-library {version} is older than this program ({VERSION}); "
        "run: googet install google-guest-library\n"
    )


def test_missing_library_is_told_in_one_line(tmp_path: Path) -> None:
    status, out, err = run(tmp_path, {})
    assert (status, out) == (1, "")
    assert err == (
        "GCEWindowsAgent: google-guest-library is not installed; "
        "run: googet install google-guest-library\n"
    )
