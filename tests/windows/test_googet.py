"""googet of this tree on Windows: real locks, programs in use, the registry, installers, kills.

The repository is a gooserve in the network around the bed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import pytest
from support.commands import Completed
from support.windows_packages import ENVIRONMENT, ROOT, PackageMachine
from support.wine import PYTHON, Program, Wine

from googet.archive import Member, write_archive
from googet.pkgspec import Command, PackageSpec

UNINSTALL = r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall"
GOOGET = [PYTHON, "-m", "googet.cli.googet", "-root", ROOT, "-noconfirm"]
SLEEP = "import time; print('begun', flush=True); time.sleep(600)"
INSTALLER = """<?xml version="1.0"?><Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
<Product Id="*" Name="Tested App" UpgradeCode="9e9a0ae9-6b55-4e0d-a6d0-5e04c6ef0b01" Version="1.0"
  Language="1033" Manufacturer="Tests"><Package InstallerVersion="200" Compressed="yes"/>
<Media Id="1" Cabinet="a.cab" EmbedCab="yes"/>
<Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="ProgramFilesFolder">
<Directory Id="D" Name="Tested"><Component Id="C" Guid="9e9a0ae9-6b55-4e0d-a6d0-5e04c6ef0b02">
<File Id="F" Source="/bed/payload.txt"/></Component></Directory></Directory></Directory>
<Feature Id="All" Level="1"><ComponentRef Id="C"/></Feature></Product></Wix>"""


class Googet:
    """googet of the tree, and a repository for packages that tests make."""

    def __init__(self, wine: Wine, folder: Path) -> None:
        self.wine = wine
        self._folder = folder
        self._machine = PackageMachine(wine, [])

    def offer(
        self,
        name: str,
        version: str,
        members: Mapping[str, bytes],
        files: Optional[Mapping[str, str]] = None,
        **fields: Any,
    ) -> None:
        """Put a package into the repository and wait until it is offered."""
        spec = PackageSpec(name, version, "noarch", files=dict(files or {}), **fields)
        path = self._folder / f"{spec.full_name}.goo"
        contents = {member: Member(content, 0o644) for member, content in members.items()}
        write_archive(path, spec, contents, mtime=1)
        self._machine.publish([path])
        self._machine.wait_for_index(path.name)

    def run(self, *arguments: str, check: bool = True) -> Completed:
        return self.wine.run([*GOOGET, *arguments], check=check, timeout=120)

    def begin(self, *arguments: str) -> Program:
        return self.wine.begin([*GOOGET, *arguments])

    def fails(self, *arguments: str) -> str:
        """What it says when it fails; it says it without a trace of Python."""
        done = self.run(*arguments, check=False)
        assert done.status == 1, done
        assert "Traceback" not in done.stderr
        return done.stderr

    def version(self, name: str) -> Optional[str]:
        """The installed version of a package."""
        for line in self.run("installed").stdout.splitlines():
            if line.strip().startswith(f"{name}."):
                return line.split()[1]
        return None


@pytest.fixture
def googet(wine: Wine, tmp_path: Path) -> Googet:
    return Googet(wine, tmp_path)


def script(*lines: str) -> bytes:
    return "\r\n".join(["@echo off", *lines, ""]).encode()


def leftovers(wine: Wine, folder: str) -> list[str]:
    return sorted(path.name for path in wine.path(folder).iterdir())


def hold(wine: Wine, code: str) -> Program:
    """Start a Python that has begun, and goes on for long."""
    wine.write(r"C:\hold.py", code)
    program = wine.begin([PYTHON, r"C:\hold.py"])
    wine.wait_until(lambda: "begun" in program.output(), what="it has begun")
    return program


def test_package_is_installed_verified_and_removed(googet: Googet) -> None:
    members = {"files/a.txt": b"one", "files/sub/b.txt": b"two", "setup.cmd": script("exit /b 0")}
    googet.offer(
        "tool",
        "1.2.0@3",
        members,
        {"files": "<ProgramFiles>/Tool"},
        install=Command("setup.cmd"),
        description="A tool",
    )
    googet.run("install", "tool")
    wine = googet.wine
    assert wine.path(r"C:\Program Files\Tool\sub\b.txt").read_bytes() == b"two"
    assert googet.version("tool") == "1.2.0@3"
    entry = wine.registry.values(rf"{UNINSTALL}\GooGet - tool") or {}
    assert entry["DisplayVersion"] == "1.2.0@3"
    assert (ROOT in entry["UninstallString"], "remove tool" in entry["UninstallString"]) == (
        True,
        True,
    )
    googet.run("verify", "tool")
    wine.write(r"C:\Program Files\Tool\a.txt", "changed")
    said = googet.run("verify", "tool", check=False)
    assert (said.status, "a.txt" in said.stdout + said.stderr) == (1, True)
    googet.run("remove", "tool")
    assert not wine.path(r"C:\Program Files\Tool").exists()
    assert wine.registry.values(rf"{UNINSTALL}\GooGet - tool") is None
    assert googet.version("tool") is None


def test_database_is_one_that_sqlite_calls_whole(googet: Googet, tmp_path: Path) -> None:
    googet.offer("a", "1.0.0@1", {"a.txt": b"a"}, {"a.txt": "C:/A/a.txt"})
    googet.run("install", "a")
    copy = tmp_path / "googet.db"
    copy.write_bytes(googet.wine.path(rf"{ROOT}\googet.db").read_bytes())
    with sqlite3.connect(copy) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_running_program_is_replaced_and_its_old_copy_goes_at_the_restart(googet: Googet) -> None:
    wine = googet.wine
    program = wine.path(r"C:\windows\system32\cmd.exe").read_bytes()
    googet.offer("a", "1.0.0@1", {"a.exe": program}, {"a.exe": "C:/A/a.exe"})
    googet.run("install", "a.noarch.1.0.0@1")
    wine.write(r"C:\sleep.py", SLEEP)
    running = wine.begin([r"C:\A\a.exe", "/c", PYTHON, r"C:\sleep.py"])
    wine.wait_until(lambda: "begun" in running.output(), what="the program runs")
    googet.offer("a", "2.0.0@1", {"a.exe": program + b"2"}, {"a.exe": "C:/A/a.exe"})
    googet.run("update")
    assert running.running
    assert wine.path(r"C:\A\a.exe").read_bytes() == program + b"2"
    assert googet.version("a") == "2.0.0@1"
    googet.run("verify", "a")
    running.terminate()
    wine.restart_session()
    assert leftovers(wine, r"C:\A") == ["a.exe"]


def test_file_that_a_program_holds_open_fails_the_update_which_is_undone(googet: Googet) -> None:
    wine = googet.wine
    files = {"a.txt": "C:/A/a.txt", "held.txt": "C:/A/held.txt", "z.txt": "C:/A/z.txt"}
    googet.offer("a", "1.0.0@1", dict.fromkeys(files, b"one"), files)
    googet.run("install", "a.noarch.1.0.0@1")
    holder = hold(wine, rf"file = open(r'C:\A\held.txt'); {SLEEP}")
    googet.offer("a", "2.0.0@1", dict.fromkeys(files, b"two"), files)
    assert "held.txt" in googet.fails("install", "a")
    found = {name: wine.path(rf"C:\A\{name}").read_bytes() for name in leftovers(wine, r"C:\A")}
    assert found == dict.fromkeys(files, b"one")
    assert googet.version("a") == "1.0.0@1"
    googet.run("verify", "a")
    holder.terminate()
    googet.run("install", "a")
    assert googet.version("a") == "2.0.0@1"
    assert wine.path(r"C:\A\held.txt").read_bytes() == b"two"


def test_file_in_use_of_a_removed_package_goes_once_it_is_not(googet: Googet) -> None:
    wine = googet.wine
    files = {"a.txt": "C:/A/a.txt", "b.txt": "C:/A/b.txt"}
    googet.offer("a", "1.0.0@1", dict.fromkeys(files, b"one"), files)
    googet.run("install", "a")
    holder = hold(wine, rf"file = open(r'C:\A\a.txt'); {SLEEP}")
    googet.run("remove", "a")
    assert googet.version("a") is None
    assert leftovers(wine, r"C:\A") == ["a.txt"]
    log = wine.path(rf"{ROOT}\googet.log").read_text()
    assert r"C:\A\a.txt is in use by another program and is left behind" in log
    holder.terminate()
    googet.run("clean")
    assert leftovers(wine, r"C:\A") == []


@pytest.mark.parametrize(
    ("code", "listed", "succeeds"),
    [(0, (), True), (7, (), False), (7, (5, 7), True), (3010, (), False), (3010, (3010,), True)],
)
def test_exit_code_of_a_batch_file_decides(
    googet: Googet, code: int, listed: tuple[int, ...], succeeds: bool
) -> None:
    googet.offer(
        "a",
        "1.0.0@1",
        {"setup.cmd": script("echo arguments %1 %2", f"exit /b {code}"), "a.txt": b"a"},
        {"a.txt": "C:/A/a.txt"},
        install=Command("setup.cmd", ("one", "two words"), listed),
    )
    done = googet.run("install", "a", check=False)
    assert done.status == (0 if succeeds else 1)
    assert (googet.version("a") is not None) == succeeds
    assert googet.wine.path(r"C:\A\a.txt").exists() == succeeds
    assert 'arguments one "two words"' in done.stdout


def test_installer_is_run_and_its_application_removed_with_the_package(googet: Googet) -> None:
    wine = googet.wine
    wine.write(r"Z:\bed\payload.txt", "from the installer")
    wine.write(r"Z:\bed\app.wxs", INSTALLER)
    wine.linux(["wixl", "-o", "/bed/app.msi", "/bed/app.wxs"])
    installer = wine.path(r"Z:\bed\app.msi").read_bytes()
    googet.offer(
        "app",
        "1.0.0@1",
        {"app.msi": installer},
        install=Command("app.msi"),
        external_program_name="Tested App",
    )
    googet.run("install", "app")
    payload = r"C:\Program Files (x86)\Tested\payload.txt"
    assert wine.path(payload).read_bytes() == b"from the installer"
    googet.run("remove", "app")
    assert not wine.path(payload).exists()
    assert googet.version("app") is None


@pytest.mark.parametrize("update", [False, True], ids=["installation", "update"])
def test_googet_that_is_terminated_while_a_script_runs_leaves_the_package_as_it_was(
    googet: Googet, update: bool
) -> None:
    wine = googet.wine
    if update:
        googet.offer("a", "1.0.0@1", {"a.txt": b"one"}, {"a.txt": "C:/A/a.txt"})
        googet.run("install", "a")
    wine.write(r"C:\sleep.py", "open(r'C:\\script', 'w').close(); import time; time.sleep(600)")
    googet.offer(
        "a",
        "2.0.0@1",
        {"a.txt": b"two", "b.txt": b"new", "setup.cmd": script(rf"{PYTHON} C:\sleep.py")},
        {"a.txt": "C:/A/a.txt", "b.txt": "C:/A/b.txt"},
        install=Command("setup.cmd"),
    )
    killed = googet.begin("install", "a")
    wine.wait_until(lambda: wine.path(r"C:\script").exists(), 60, "the script runs")
    assert wine.path(r"C:\A\a.txt").read_bytes() == b"two"
    killed.terminate()
    wine.restart_session()
    googet.run("clean")
    assert googet.version("a") == ("1.0.0@1" if update else None)
    if update:
        assert leftovers(wine, r"C:\A") == ["a.txt"]
        assert wine.path(r"C:\A\a.txt").read_bytes() == b"one"
        googet.run("verify", "a")
    else:
        assert not wine.path(r"C:\A").exists()


def test_second_googet_waits_for_the_first(googet: Googet) -> None:
    wine = googet.wine
    wine.write(r"C:\wait.py", "import time; open(r'C:\\script', 'w').close(); time.sleep(4)")
    wait = rf"{PYTHON} C:\wait.py"
    for name, before in (("slow", wait), ("other", "rem")):
        members = {"setup.cmd": script(before, rf"echo {name}>>C:\order")}
        googet.offer(name, "1.0.0@1", members, install=Command("setup.cmd"))
    first = googet.begin("install", "slow")
    wine.wait_until(lambda: wine.path(r"C:\script").exists(), 60, "the first holds the lock")
    googet.run("install", "other")
    assert first.wait().status == 0
    assert wine.path(r"C:\order").read_text().split() == ["slow", "other"]
    assert (googet.version("slow"), googet.version("other")) == ("1.0.0@1", "1.0.0@1")


def test_path_longer_than_windows_once_took_is_placed_and_removed(googet: Googet) -> None:
    name = "/".join(["long-folder-name-of-thirty-char"] * 10) + "/file.txt"
    googet.offer("a", "1.0.0@1", {f"files/{name}": b"deep"}, {"files": "C:/A"})
    googet.run("install", "a")
    assert googet.wine.path("C:\\A\\" + name.replace("/", "\\")).read_bytes() == b"deep"
    googet.run("verify", "a")
    googet.run("remove", "a")
    assert not googet.wine.path(r"C:\A").exists()


def test_root_is_taken_from_the_environment_of_the_machine(googet: Googet) -> None:
    googet.wine.registry.set(ENVIRONMENT, "GooGetRoot", ROOT)
    googet.wine.restart_session()
    said = googet.wine.run([PYTHON, "-m", "googet.cli.googet", "listrepos"]).stdout
    assert "http://" in said


def test_package_that_was_changed_on_its_way_is_refused(googet: Googet) -> None:
    googet.offer("a", "1.0.0@1", {"a.txt": b"one"}, {"a.txt": "C:/A/a.txt"})
    googet.run("available", "a")
    served = next(googet.wine.directory.glob("repository-*/packages/a*.goo"))
    content = served.read_bytes()
    served.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert googet.fails("install", "a")
    assert googet.version("a") is None
    assert not googet.wine.path(r"C:\A").exists()
