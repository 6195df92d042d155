from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from support.goo_machine import Machine

from googet.cli.googet import main
from googet.cli.subcommands import GROUPS, SUBCOMMANDS
from google_guest.version import version

TOOL = Path(__file__).resolve().parents[4] / "tools" / "googet"

GROUPED = {
    "": ["clean", "commands", "flags", "help"],
    "package management": ["download", "install", "remove", "update", "verify"],
    "package query": ["available", "check", "installed", "latest"],
    "repository management": ["addrepo", "listrepos", "rmrepo"],
}
FLAGS = {
    "install": "reinstall redownload db_only sources dry_run force allow_downgrade",
    "remove": "db_only dry_run",
    "update": "db_only sources dry_run force",
    "verify": "reinstall skip_files",
    "download": "download_dir sources extract",
    "installed": "info files format",
    "available": "info sources format",
    "latest": "compare json sources",
    "check": "sources dry_run db_only",
    "clean": "all packages dry_run",
    "addrepo": "file priority dry_run",
    "rmrepo": "dry_run",
    "listrepos": "format",
}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_commands_are_grouped() -> None:
    assert {
        group: [command.name for command in SUBCOMMANDS if command.group == group]
        for group in GROUPS
    } == GROUPED


@pytest.mark.parametrize("command", SUBCOMMANDS, ids=lambda command: command.name)
def test_command_has_its_flags(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    name = str(getattr(command, "name", ""))
    assert main(["flags", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {line.split()[0].lstrip("-") for line in lines if line.startswith("  -")}
    assert found == set(FLAGS.get(name, "").split())


def test_top_level_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flags"]) == 0
    out = capsys.readouterr().out
    for flag in ("root", "noconfirm", "verbose", "system_log", "version"):
        assert f"  -{flag}" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-version"]) == 0
    assert capsys.readouterr().out == f"GooGet version: {version()}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["-nonsense"],
        ["-root"],
        ["-noconfirm=maybe", "install"],
        ["install", "-nonsense", "a"],
        ["install", "-h"],
        ["remove", "a", "-db_only"],
        ["help", "nonsense"],
        ["flags", "nonsense"],
        ["-root", "/nowhere", "installed", "-format", "xml"],
        ["-root", "/nowhere", "installed", "a", "b"],
        ["-root", "/nowhere", "available", "-format", "xml"],
        ["-root", "/nowhere", "latest"],
        ["-root", "/nowhere", "latest", "a", "b"],
        ["-root", "/nowhere", "latest", "-json", "a"],
        ["-root", "/nowhere", "addrepo", "a"],
        ["-root", "/nowhere", "addrepo", "-priority", "high", "a", "https://h/r"],
        ["-root", "/nowhere", "addrepo", "-file", "x.txt", "a", "https://h/r"],
        ["-root", "/nowhere", "addrepo", "-file", "../x.repo", "a", "https://h/r"],
        ["-root", "/nowhere", "rmrepo"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_on_standard_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: googet" in captured.err


@pytest.mark.parametrize("arguments", [["help"], ["-h"], ["--help"], ["help", "install"]])
def test_help_is_no_failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "Usage: googet" in captured.out
    assert captured.err == ""


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["help"])
    out = capsys.readouterr().out
    for command in SUBCOMMANDS:
        assert f"\t{command.name} " in out


def test_commands_lists_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["commands"]) == 0
    assert capsys.readouterr().out.split() == [command.name for command in SUBCOMMANDS]


def test_flag_after_an_argument_is_an_error_with_a_hint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["install", "a", "-reinstall"]) == 2
    assert "before" in capsys.readouterr().err


def test_root_comes_from_the_environment(machine: Machine) -> None:
    with mock.patch.dict(os.environ, {"GooGetRoot": str(machine.root)}):
        assert machine.run("listrepos", root=False).status == 0


def test_without_a_root_there_is_a_hint(machine: Machine) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GooGetRoot"}
    with mock.patch.dict(os.environ, environment, clear=True):
        result = machine.run("listrepos", root=False)
    assert result.status == 1
    assert "-root" in result.err and "GooGetRoot" in result.err


def test_root_is_created_by_commands_that_change_something(tmp_path: Path) -> None:
    root = tmp_path / "new" / "root"
    assert main(["-root", str(root), "-system_log=false", "clean"]) == 0
    assert root.is_dir()
    assert not (root / "googet.lock").exists()


def test_verbose_prints_what_is_logged(machine: Machine) -> None:
    machine.publish(machine.goo("a"))
    assert "INFO : " in machine.ok("-verbose", "install", "a").out


def test_everything_is_logged(machine: Machine) -> None:
    machine.publish(machine.goo("a"))
    machine.ok("install", "a")
    machine.fails("install", "nowhere")
    log = (machine.root / "googet.log").read_text()
    assert "a.noarch.1.0.0@1 is installed" in log
    assert "ERROR: " in log and "nowhere" in log


def test_unreadable_settings_are_an_error_without_a_trace(machine: Machine) -> None:
    (machine.root / "googet.conf").write_text("{")
    assert "googet.conf" in machine.fails("install", "a").err


def test_broken_pipe_is_no_error(machine: Machine) -> None:
    machine.publish(*(machine.goo(f"a{n}") for n in range(40)))
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, str(TOOL), "-root", str(machine.root), "-system_log=false"]
    process = subprocess.run(
        [*command, "available"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert process.returncode == 0
    assert process.stderr == b""


def test_tool_of_the_tree_runs() -> None:
    process = subprocess.run(
        [sys.executable, str(TOOL), "-version"], stdout=subprocess.PIPE, check=True
    )
    assert process.stdout == f"GooGet version: {version()}\n".encode()


def test_programs_get_utf_8_and_line_feeds(machine: Machine) -> None:
    machine.publish(machine.goo("a", description="gr\u00fc\u00dfe \u4f60"))
    machine.ok("install", "a")
    process = subprocess.run(
        [*(sys.executable, str(TOOL), "-root", str(machine.root)), "installed", "-info", "a"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "cp437"},
        check=True,
    )
    assert "gr\u00fc\u00dfe \u4f60\n" in process.stdout.decode("utf-8")
    assert b"\r" not in process.stdout


@pytest.mark.parametrize("arguments", [["-version"], ["help"], ["commands"]])
def test_commands_about_googet_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys; from googet.cli.googet import main\n"
        f"main({arguments!r})\n"
        "heavy = {'yaml', 'urllib3', 'sqlite3', 'ssl', 'logging', 'hashlib', 'subprocess'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    process = subprocess.run(
        [sys.executable, "-S", "-c", script],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(TOOL.parents[1] / "src")},
        check=False,
    )
    assert process.returncode == 0, process.stderr.decode()
