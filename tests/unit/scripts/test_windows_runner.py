"""The runner on Windows as users see it: keys, order, commands, messages, settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.scripts.conftest import IMPATIENT
from unit.scripts.web import Page, Web
from unit.scripts.windows_guest import PROGRAMS, Started, WindowsGuest

from google_guest.scripts.output import ScriptOutput

STARTUP = "windows-startup-script"


@pytest.fixture
def guest(tmp_path: Path, mds: Iterator[object]) -> WindowsGuest:
    return WindowsGuest(tmp_path / "guest", mds)


def test_four_keys_run_in_the_order_ps1_cmd_bat_url(guest: WindowsGuest, web: Web) -> None:
    url = f"http://127.0.0.1:{web.port}/x.cmd"
    web.page(url, Page(b"@echo url\r\n"))
    for kind, value in (("url", url), ("bat", "@echo bat"), ("cmd", "@echo cmd"), ("ps1", "'ps1'")):
        guest.set(f"{STARTUP}-{kind}", value)
    assert guest.run() == 0
    assert [started.name for started in guest.started] == [
        f"{STARTUP}-ps1.ps1",
        f"{STARTUP}-cmd.cmd",
        f"{STARTUP}-bat.bat",
        f"{STARTUP}-url.cmd",
    ]
    assert [line for line in guest.console.lines if line.startswith("Found ")] == [
        f"Found {STARTUP}-{kind} in metadata." for kind in ("ps1", "cmd", "bat", "url")
    ]


@pytest.mark.parametrize(
    ("event", "stem"),
    [
        ("startup", "windows-startup-script"),
        ("shutdown", "windows-shutdown-script"),
        ("specialize", "sysprep-specialize-script"),
    ],
)
def test_event_runs_its_own_keys(guest: WindowsGuest, event: str, stem: str) -> None:
    for key in ("windows-startup-script", "windows-shutdown-script", "sysprep-specialize-script"):
        guest.set(f"{key}-cmd", "@echo on")
    assert guest.run(event) == 0
    assert [started.key for started in guest.started] == [f"{stem}-cmd"]
    assert guest.console.lines[-1] == f"Finished running {event} scripts."


@pytest.mark.parametrize(
    "key", ["startup-script", "windows-startup-script", "windows-startup-script-exe"]
)
def test_other_keys_are_no_scripts(guest: WindowsGuest, key: str) -> None:
    guest.set(key, "echo never")
    assert guest.run() == 0
    assert guest.console.lines[-1] == "No startup scripts to run."
    assert guest.started == []


def test_instance_hides_the_scripts_of_the_project(guest: WindowsGuest) -> None:
    guest.set(f"{STARTUP}-bat", "@echo instance")
    guest.set(f"{STARTUP}-ps1", "'project'", level="project")
    guest.run()
    assert [started.key for started in guest.started] == [f"{STARTUP}-bat"]


@pytest.mark.parametrize(
    ("event", "setting"),
    [
        ("startup", "startup-windows = false"),
        ("startup", "startup_windows = false"),
        ("shutdown", "shutdown-windows = false"),
        ("specialize", "sysprep-specialize = false"),
        ("specialize", "sysprep_specialize = false"),
    ],
)
def test_event_can_be_switched_off(guest: WindowsGuest, event: str, setting: str) -> None:
    guest.configure(setting)
    for key in ("windows-startup-script", "windows-shutdown-script", "sysprep-specialize-script"):
        guest.set(f"{key}-cmd", "@echo never")
    assert guest.run(event) == 0
    assert guest.console.lines[-1] == f"windows {event} scripts disabled in instance config"
    assert guest.started == []


def test_settings_of_linux_switch_nothing_here(guest: WindowsGuest) -> None:
    guest.configure("startup = false")
    guest.set(f"{STARTUP}-cmd", "@echo on")
    guest.run()
    assert len(guest.started) == 1


def test_powershell_gets_exactly_these_arguments(guest: WindowsGuest) -> None:
    guest.set(f"{STARTUP}-ps1", "'x'")
    guest.run()
    (started,) = guest.started
    path = started.command.line[-1]
    assert started.command.program == PROGRAMS.powershell
    assert started.command.line == (
        PROGRAMS.powershell,
        *("-NoProfile", "-NoLogo", "-NonInteractive", "-ExecutionPolicy", "Unrestricted"),
        *("-File", path),
    )
    assert path.endswith(f"/{STARTUP}-ps1.ps1")


def test_powershell_script_that_is_not_ascii_has_a_mark(guest: WindowsGuest) -> None:
    guest.set(f"{STARTUP}-ps1", "Write-Host 'ä'")
    guest.run()
    assert guest.started[0].data == b"\xef\xbb\xbfWrite-Host '\xc3\xa4'"


def test_batch_file_is_quoted_for_cmd_and_has_the_line_ends_of_windows(
    guest: WindowsGuest,
) -> None:
    guest.set(f"{STARTUP}-cmd", "goto end\n:end\n")
    guest.run()
    (started,) = guest.started
    line = started.command.line
    assert started.command.program == PROGRAMS.cmd
    assert isinstance(line, str)
    assert line.startswith(f'"{PROGRAMS.cmd}" /d /s /c ""')
    assert line.endswith(f'/{STARTUP}-cmd.cmd""')
    assert started.data == b"goto end\r\n:end\r\n"


def fetched(guest: WindowsGuest, web: Web, name: str, content: bytes) -> None:
    url = f"http://127.0.0.1:{web.port}/{name}"
    web.page(url, Page(content))
    guest.set(f"{STARTUP}-url", url)


@pytest.mark.parametrize(
    ("name", "content", "file"),
    [
        ("x.exe", b"MZ\0\n", f"{STARTUP}-url.exe"),
        ("setup", b"MZ\0\n", f"{STARTUP}-url.exe"),
        ("x.PS1", b"'a'\n\xff", f"{STARTUP}-url.ps1"),
        ("x.bat?y=.exe", b"a\nb", f"{STARTUP}-url.bat"),
    ],
)
def test_what_was_fetched_is_left_as_it_is(
    guest: WindowsGuest, web: Web, name: str, content: bytes, file: str
) -> None:
    fetched(guest, web, name, content)
    guest.run()
    (started,) = guest.started
    assert (started.name, started.data) == (file, content)


def test_program_is_started_itself(guest: WindowsGuest, web: Web) -> None:
    fetched(guest, web, "setup", b"MZ")
    guest.run()
    command = guest.started[0].command
    assert command.line == (command.program,)
    assert command.program.endswith(f"{STARTUP}-url.exe")


def test_unknown_kind_fails_with_the_extensions(guest: WindowsGuest, web: Web) -> None:
    fetched(guest, web, "x.sh", b"#!/bin/sh\n")
    assert guest.run() == 0
    (warning,) = [line for line in guest.console.warnings if line.startswith("Script ")]
    assert all(name in warning for name in (".bat", ".cmd", ".ps1", ".exe"))
    assert guest.started == []


def test_exit_status_is_unsigned_and_fails_only_the_script(guest: WindowsGuest) -> None:
    guest.behaviour = lambda started, output: 3221225477 if started.key.endswith("cmd") else 3010
    guest.set(f"{STARTUP}-cmd", "@exit 1")
    guest.set(f"{STARTUP}-bat", "@exit 1")
    assert guest.run() == 0
    assert guest.console.lines[2:] == [
        f'Script "{STARTUP}-cmd" failed with error: exit status 3221225477',
        f"{STARTUP}-cmd exit status 3221225477",
        f"Found {STARTUP}-bat in metadata.",
        f'Script "{STARTUP}-bat" failed with error: exit status 3010',
        f"{STARTUP}-bat exit status 3010",
        "Finished running startup scripts.",
    ]


def test_output_carries_the_key(guest: WindowsGuest) -> None:
    def say(started: Started, output: ScriptOutput) -> int:
        output.feed("hällo\r\n".encode())
        return 0

    guest.behaviour = say
    guest.set(f"{STARTUP}-bat", "@echo hällo")
    guest.run()
    assert f"{STARTUP}-bat: hällo" in guest.console.lines


def test_program_that_cannot_start_is_named(guest: WindowsGuest) -> None:
    def refuse(started: Started, output: ScriptOutput) -> int:
        raise OSError(2, "The system cannot find the file specified")

    guest.behaviour = refuse
    guest.set(f"{STARTUP}-ps1", "'x'")
    assert guest.run() == 0
    assert guest.console.warnings[-1] == (
        f'Script "{STARTUP}-ps1" failed with error: powershell.exe cannot be started:'
        " The system cannot find the file specified"
    )
    assert guest.scripts_left() == []


def test_directory_is_below_the_temporary_files_of_windows(guest: WindowsGuest) -> None:
    places: list[Path] = []
    guest.behaviour = lambda started, output: places.append(guest.scripts_left()[0].parent) or 0
    guest.set(f"{STARTUP}-cmd", "@echo on")
    guest.run()
    assert places == [guest.root / "C/Windows/Temp"]
    assert guest.scripts_left() == []


def test_run_dir_is_made_and_used(guest: WindowsGuest) -> None:
    places: list[Path] = []
    guest.behaviour = lambda started, output: places.append(guest.scripts_left()[0].parent) or 0
    guest.configure(r"run_dir = D:\scripts\here")
    guest.set(f"{STARTUP}-cmd", "@echo on")
    guest.run()
    assert places == [guest.root / "D/scripts/here"]


def test_run_dir_that_is_unusable_fails_the_script(guest: WindowsGuest) -> None:
    guest.configure("run_dir = scripts")
    guest.set(f"{STARTUP}-cmd", "@echo on")
    assert guest.run() == 0
    assert guest.console.warnings[-1].endswith("scripts: it is no absolute path")
    assert guest.started == []


def test_leftover_of_a_killed_runner_is_removed(guest: WindowsGuest) -> None:
    left = guest.root / "C/Windows/Temp/metadata-scripts0123456789abcdef"
    left.mkdir(mode=0o700)
    (left / ".lock").touch()
    guest.run()
    assert guest.scripts_left() == []


def test_result_file_tells_every_script(guest: WindowsGuest) -> None:
    guest.behaviour = lambda started, output: 3010
    guest.set(f"{STARTUP}-cmd", "@exit 3010")
    guest.run()
    folder = guest.root / "C/ProgramData/Google/Compute Engine/google-guest-agent/run/scripts"
    document = json.loads((folder / "startup.json").read_text())
    assert document["boot_id"] == "boot-1"
    assert [(row["key"], row["exit_status"]) for row in document["scripts"]] == [
        (f"{STARTUP}-cmd", 3010)
    ]


def test_silent_metadata_server_is_status_1(guest: WindowsGuest) -> None:
    guest.mds.fault("instance/attributes", "hang")
    assert guest.run("shutdown", patience=IMPATIENT) == 1
    assert guest.console.warnings[-1].startswith("Cannot read shutdown scripts from metadata: ")
