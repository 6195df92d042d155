"""googet replaces and removes the very file that it runs from."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.goo_machine import Machine, echoes, exits, script_of

from googet.archive import Member, write_archive
from googet.pkgspec import Command, PackageSpec

SOURCE = Path(__file__).resolve().parents[4] / "src"
MAIN = "import sys\nfrom googet.cli.googet import main\nsys.exit(main())\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def program(path: Path, *, main: str = MAIN, version: str = "1") -> Path:
    """Write googet as one file that Python runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        # Another version begins with other bytes: what was read of the old one is of no use.
        archive.writestr("__main__.py", f"# {version * 1000}\n{main}")
        for package in ("googet", "google_guest"):
            for file in sorted((SOURCE / package).rglob("*.py")):
                archive.write(file, file.relative_to(SOURCE).as_posix())
        archive.writestr("google_guest/VERSION", version)
    return path


def own_package(machine: Machine, version: str, executable: Path, **scripts: str) -> Path:
    new = program(machine.built / f"googet-{version}", version=version)
    members = {"googet": Member(new, 0o755)}
    for action, script in scripts.items():
        members[f"{action}.cmd"] = script_of(script)
    spec = PackageSpec(
        name="googet",
        version=f"{version}.0.0",
        arch="noarch",
        files={"googet": str(executable)},
        **{action: Command(f"{action}.cmd") for action in scripts},
    )
    path = machine.built / f"{spec.full_name}.goo"
    write_archive(path, spec, members, mtime=1)
    return path


def run(machine: Machine, executable: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, str(executable), "-root", str(machine.root)),
            *("-system_log=false", "-noconfirm", *arguments),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_googet_updates_and_removes_itself(machine: Machine) -> None:
    executable = program(machine.root / "googet")
    one = own_package(machine, "1", executable)
    machine.publish(one, machine.goo("b"))
    first = run(machine, executable, "install", "googet")
    assert first.returncode == 0, first.stderr
    two = own_package(machine, "2", executable)
    machine.publish(one, two, machine.goo("b"))
    # Another package after it: that, too, is done by what is in memory.
    update = run(machine, executable, "install", "googet", "b")
    assert update.returncode == 0, update.stderr
    assert update.stdout.count("completed") == 2
    assert run(machine, executable, "-version").stdout == "GooGet version: 2\n"
    removed = run(machine, executable, "remove", "googet")
    assert removed.returncode == 0, removed.stderr
    assert "Removal of googet completed" in removed.stdout
    assert not executable.exists()
    assert list(machine.installed()) == ["b.noarch"]


def test_failed_update_leaves_a_googet_that_runs(machine: Machine) -> None:
    executable = program(machine.root / "googet")
    one = own_package(machine, "1", executable)
    two = own_package(machine, "2", executable, install=exits(7))
    machine.publish(one)
    assert run(machine, executable, "install", "googet").returncode == 0
    machine.publish(one, two)
    failed = run(machine, executable, "update")
    assert failed.returncode == 1
    assert "exit code 7" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert run(machine, executable, "-version").stdout == "GooGet version: 1\n"


RECORDING = """
import sys, threading
from googet import preload
from googet.cli.googet import main
original, known = preload.load_everything, []
def load_everything():
    original()
    known[:] = [set(sys.modules)]
for name in ("installing", "remove"):
    import importlib
    module = importlib.import_module("googet.operations." + name)
    module.load_everything = load_everything
status = main()
late = sorted(set(sys.modules) - known[0]) if known else ["nothing was loaded"]
sys.exit(f"imported late: {late}" if late else status)
"""


@pytest.mark.parametrize("command", ["install", "reinstall", "fail", "remove"])
def test_nothing_is_imported_once_files_are_touched(machine: Machine, command: str) -> None:
    executable = program(machine.folder / "recording", main=RECORDING)
    script = exits(3) if command == "fail" else echoes("hello")
    package = machine.goo(
        "a", contents={"f": "1"}, scripts={"install": script, "uninstall": echoes("bye")}
    )
    machine.publish(package)
    if command in ("remove", "reinstall"):
        machine.ok("install", "a")
    arguments = {"remove": ["remove", "a"], "reinstall": ["install", "-reinstall", "a"]}
    result = run(machine, executable, *arguments.get(command, ["install", "a"]))
    assert "imported late" not in result.stderr
    assert result.returncode == (1 if command == "fail" else 0), result.stderr
