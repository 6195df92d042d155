"""The metadata script runner on Windows Python: real cmd.exe, real programs, a real COM1."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.windows_scripts import (
    LINE,
    PLAIN,
    RUNNER,
    ScriptMachine,
    console_program,
    said,
)
from support.wine import PYTHON, Wine

STARTUP = "windows-startup-script"
CMD, BAT, PS1, URL = (f"{STARTUP}-{kind}" for kind in ("cmd", "bat", "ps1", "url"))
_INTERRUPTED = 0xC000013A


@pytest.fixture(scope="module")
def _machine(_module_wine: Wine) -> ScriptMachine:
    return ScriptMachine(_module_wine)


@pytest.fixture
def machine(shared_wine: Wine, _machine: ScriptMachine) -> ScriptMachine:
    """An instance without scripts; `shared_wine` keeps what explains a failure."""
    _machine.start_anew()
    return _machine


def test_four_keys_run_in_order_and_each_line_is_one_of_com1(machine: ScriptMachine) -> None:
    address = machine.serve({"x.cmd": b"@echo by url\r\n"})
    machine.set("url", f"{address}/x.cmd")
    machine.set("bat", "@echo by bat")
    machine.set("cmd", "@echo by cmd")
    machine.set("ps1", "print by ps1")
    done = machine.perform()
    assert done.status == 0
    # The port carries a line a moment after the program has written it.
    machine.wait_for(said(done)[-1])
    messages = machine.messages()
    assert [line for line in messages if " by " in line] == [
        f"{PS1}: by ps1",
        f"{CMD}: by cmd",
        f"{BAT}: by bat",
        f"{URL}: by url",
    ]
    assert messages == said(done)
    assert all(LINE.match(line) for line in machine.com1())


def test_powershell_gets_its_arguments_and_a_file_that_it_understands(
    machine: ScriptMachine,
) -> None:
    machine.set("ps1", "print grüße\nexit 7")
    done = machine.perform()
    arguments, head, text = said(done, PS1)
    assert json.loads(arguments.partition(" ")[2]) == [
        *("-NoProfile", "-NoLogo", "-NonInteractive", "-ExecutionPolicy", "Unrestricted", "-File")
    ]
    assert head == "bytes efbbbf"
    assert text == "grüße"
    assert f"{PS1} exit status 7" in said(done)


def test_failing_script_stops_neither_the_next_one_nor_the_runner(machine: ScriptMachine) -> None:
    machine.set("cmd", "@exit /b 3010")
    machine.set("bat", "@echo still here")
    done = machine.perform()
    assert done.status == 0
    assert said(done)[2:] == [
        f'Script "{CMD}" failed with error: exit status 3010',
        f"{CMD} exit status 3010",
        f"Found {BAT} in metadata.",
        f"{BAT}: still here",
        f"{BAT} exit status 0",
        "Finished running startup scripts.",
    ]
    assert [row["exit_status"] for row in machine.result()["scripts"]] == [3010, 0]


def test_exit_status_of_a_crash_is_unsigned(machine: ScriptMachine) -> None:
    machine.set("cmd", f'@{PYTHON} -c "import os; os._exit(-1073741819)"')
    assert f"{CMD} exit status 3221225477" in said(machine.perform())


def test_batch_file_with_the_line_ends_of_unix_finds_its_labels(machine: ScriptMachine) -> None:
    machine.set("cmd", "@echo off\nset /a x=0\n:again\nset /a x+=1\nif %x% lss 3 goto again\n"
                       "call :part\nexit /b 0\n:part\necho part %x%\ngoto :eof\n")  # fmt: skip
    assert said(machine.perform(), CMD)[-1] == "part 3"


def test_both_outputs_come_in_their_order(machine: ScriptMachine) -> None:
    machine.python(
        "import os\nfor number in range(40): os.write(1 + number % 2, b'%d\\n' % number)"
    )
    assert said(machine.perform(), BAT) == [str(number) for number in range(40)]


def test_script_reads_nothing_and_does_not_wait(machine: ScriptMachine) -> None:
    machine.set("cmd", "@echo off\r\nset /p x=\r\necho done\r\n")
    assert said(machine.perform(timeout=20), CMD)[-1] == "done"


@pytest.mark.parametrize(("name", "file"), [("x.exe", f"{URL}.exe"), ("setup", f"{URL}.exe")])
def test_program_behind_a_url_runs_itself(machine: ScriptMachine, name: str, file: str) -> None:
    program = console_program(
        b"import os, sys; print(os.path.basename(sys.argv[0]), len(sys.argv)); sys.exit(4)",
        r"C:\windows\Temp\metadata-scripts",
    )
    machine.set("url", f"{machine.serve({name: program})}/{name}")
    done = machine.perform()
    assert said(done, URL)[-1] == f"{file} 1"
    assert f"{URL} exit status 4" in said(done)


@pytest.mark.parametrize("name", ["x.bat", "x.CMD"])
def test_batch_file_behind_a_url_is_left_as_it_is(machine: ScriptMachine, name: str) -> None:
    content = b"@echo off\r\nfor %%A in (%0) do echo %%~nxA %%~zA\r\n"
    machine.set("url", f"{machine.serve({name: content})}/{name}?part=.exe")
    assert said(machine.perform(), URL)[-1] == f"{URL}{name[1:].lower()} {len(content)}"


def test_unknown_kind_behind_a_url_is_a_failure_that_tells_why(machine: ScriptMachine) -> None:
    machine.set("url", f"{machine.serve({'x.sh': b'#!/bin/sh'})}/x.sh")
    done = machine.perform()
    assert done.status == 0
    (line,) = [line for line in said(done) if line.startswith("Script ")]
    assert ".bat, .cmd, .ps1 or .exe" in line


@pytest.mark.parametrize("data", ["grüße".encode(), b"gr\x81\xe1e"])
def test_output_is_utf8_or_the_oem_code_page(machine: ScriptMachine, data: bytes) -> None:
    machine.python(f"import sys; sys.stdout.buffer.write({data!r} + b'\\r\\n')")
    assert said(machine.perform(), BAT) == ["grüße"]
    machine.wait_for(f"{BAT}: grüße")


def test_control_characters_are_shown_and_not_obeyed(machine: ScriptMachine) -> None:
    machine.python(r"import sys; sys.stdout.buffer.write(b'a\x1b[2Jb\0c\td\r\n')")
    assert said(machine.perform(), BAT) == ["a\\x1b[2Jb\\x00c\td"]


def test_megabyte_line_is_complete_and_memory_stays_small(machine: ScriptMachine) -> None:
    machine.python("import sys; sys.stdout.write('x' * (1 << 20) + '\\ndone\\n')")
    done = machine.wine.py(
        """
import ctypes
from google_guest.cli.scripts import main
status = main(["startup"])
class Counters(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("faults", ctypes.c_uint32),
                *((name, ctypes.c_size_t) for name in "peak now a b c d e f".split())]
counters = Counters(ctypes.sizeof(Counters))
process = ctypes.c_void_p(ctypes.WinDLL("kernel32").GetCurrentProcess())
ctypes.WinDLL("kernel32").K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size)
print("peak", counters.peak)
"""
    )
    lines = said(done)
    pieces = [line for line in lines if line.startswith((f"{BAT}: xx", f"{BAT}[+]: xx"))]
    assert sum(line.count("x") for line in pieces) == 1 << 20
    assert f"{BAT}: done" in lines
    assert f"{BAT} exit status 0" in lines
    assert 0 < int(lines[-1].split()[1]) < 64 << 20
    machine.wait_for(f"{BAT} exit status 0")
    serial = [line for line in machine.messages() if line.startswith((f"{BAT}: xx", f"{BAT}[+]"))]
    assert serial == pieces


def test_line_is_visible_within_200_ms(machine: ScriptMachine) -> None:
    machine.python("import time; print(time.time(), flush=True); time.sleep(1)")
    program = machine.begin()
    (line,) = machine.wine.wait_until(lambda: said_by(program, BAT), what="the line is there")
    seen = time.time()
    program.wait()
    # Asking the bed every 50 ms, and the clock's own grain, take their part.
    assert seen - float(line) < 0.2 + 0.15


def said_by(program: Any, key: str) -> list[str]:
    lines: list[str] = program.output().splitlines()
    return [line.partition(": ")[2] for line in lines if line.startswith(f"{key}: ")]


DAEMON = r"""
import os, sys, time
os.write(1, b"in the background\nha")
while not os.path.exists(r"C:\programs\go"):
    time.sleep(0.05)
os.write(1, b"lf\nstill there\n")
"""


@pytest.mark.parametrize("program", [PLAIN, (RUNNER,)], ids=["python", "launcher"])
def test_background_process_outlives_its_script_and_the_runner(
    machine: ScriptMachine, program: tuple[str, ...]
) -> None:
    go = machine.wine.path(r"C:\programs\go")
    go.unlink(missing_ok=True)
    machine.wine.write(r"C:\programs\daemon.py", DAEMON)
    machine.set("cmd", f"@start /b {PYTHON} C:\\programs\\daemon.py\r\n@echo started\r\n")
    machine.set("bat", "@echo next")
    began = time.monotonic()
    done = machine.begin(program).wait(30)
    assert done.status == 0
    # Two seconds are for what the background has to say; the rest is a busy machine's.
    assert time.monotonic() - began < 15
    assert f"{BAT}: next" in said(done)
    assert f"{CMD}: still there" not in machine.messages()
    go.parent.mkdir(exist_ok=True)
    go.write_text("")
    machine.wait_for(f"{CMD}: still there")
    messages = machine.messages()
    assert f"{CMD}: in the background" in messages
    assert [line for line in messages if line in (f"{CMD}: ha", f"{CMD}[+]: lf")] == [
        f"{CMD}: ha",
        f"{CMD}[+]: lf",
    ]
    assert messages.count(f"{CMD}: still there") == 1


def test_request_to_end_cleans_up_and_leaves_the_script_its_output(machine: ScriptMachine) -> None:
    go = machine.wine.path(r"C:\programs\go")
    go.unlink(missing_ok=True)
    machine.python(DAEMON, name="long")
    # Wine delivers no Ctrl-Break to a program: its handler is called as Windows calls it.
    running = machine.wine.begin(
        [
            PYTHON,
            "-c",
            "import threading, time\n"
            "from google_guest.cli.scripts import main\n"
            "from google_guest.system.windows.processes import take_console_event\n"
            "event = lambda: take_console_event(1, threading.Event())\n"
            "threading.Timer(2, event).start()\n"
            "main()",
            "startup",
        ],
        environment={"TEMP": r"C:\windows\Temp"},
    )
    assert running.wait(20).status == _INTERRUPTED
    assert machine.directories() == []
    assert machine.result()["state"] == "interrupted"
    go.write_text("")
    machine.wait_for(f"{BAT}: still there")


def test_log_off_of_a_user_is_no_reason_to_end(machine: ScriptMachine) -> None:
    done = machine.wine.py(
        """
import threading
from google_guest.system.windows.processes import stop_requests, take_console_event
with stop_requests():
    print(take_console_event(5, threading.Event()))
    print("goes on")
"""
    )
    assert said(done) == ["True", "goes on"]


def test_directory_is_private_and_gone_afterwards(machine: ScriptMachine) -> None:
    machine.python(
        "import glob\n"
        "from google_guest.system.windows.scratch import is_private_folder\n"
        r"folders = glob.glob(r'C:\windows\Temp\metadata-scripts*')" + "\n"
        r"print([is_private_folder(one) for one in folders], is_private_folder(r'C:\windows'))"
    )
    assert said(machine.perform(), BAT) == ["[True] False"]
    assert machine.directories() == []


def test_leftover_of_a_killed_runner_is_removed_by_the_next_one(machine: ScriptMachine) -> None:
    machine.python("import time; print('ready', flush=True); time.sleep(8)")
    killed = machine.begin()
    machine.wait_for(f"{BAT}: ready")
    machine.set("bat", "@echo second")
    # One that is in use stays.
    assert said(machine.perform(), BAT) == ["second"]
    assert len(machine.directories()) == 1
    killed.terminate()
    killed.wait()
    assert said(machine.perform(), BAT) == ["second"]
    assert machine.directories() == []


def test_run_dir_with_a_difficult_name_is_used(machine: ScriptMachine) -> None:
    machine.configure(r"run_dir = C:\my scripts (x) & more")
    machine.set("cmd", '@echo "%~dp0"')
    machine.set("ps1", "print ps1 runs")
    done = machine.perform()
    assert said(done, CMD)[0].startswith('"C:\\my scripts (x) & more\\metadata-scripts')
    assert said(done, PS1)[-1] == "ps1 runs"


@pytest.mark.parametrize("setting", ["sysprep-specialize", "sysprep_specialize"])
def test_specialize_can_be_switched_off(machine: ScriptMachine, setting: str) -> None:
    machine.configure(f"{setting} = false")
    machine.set("cmd", "@echo never", stem="sysprep-specialize-script")
    done = machine.perform("specialize")
    assert done.status == 0
    assert said(done)[1:] == ["windows specialize scripts disabled in instance config"]


def test_specialize_runs_its_scripts(machine: ScriptMachine) -> None:
    machine.set("cmd", "@echo special", stem="sysprep-specialize-script")
    assert said(machine.perform("specialize"), "sysprep-specialize-script-cmd") == ["special"]


def test_without_scripts_nothing_is_made(machine: ScriptMachine) -> None:
    done = machine.perform()
    assert done.status == 0
    assert said(done)[1:] == ["No startup scripts to run."]
    assert machine.directories() == []


@pytest.mark.parametrize("words", [("foo",), ("startup", "shutdown"), ("startup", "--if-stopping")])
def test_wrong_arguments_are_status_2_before_anything_is_asked(
    machine: ScriptMachine, words: tuple[str, ...]
) -> None:
    machine.wine.mds.clear_requests()
    done = machine.perform(*words)
    assert done.status == 2
    assert done.stderr.splitlines()[-1] == "usage: GCEMetadataScripts startup|shutdown|specialize"
    assert machine.wine.mds.requests() == []
    assert machine.com1() == []


def test_version_is_told(machine: ScriptMachine) -> None:
    done = machine.perform("--version")
    assert done.status == 0
    assert re.fullmatch(r"[0-9]{8}\.[0-9]{2}", done.stdout.strip())


def test_silent_metadata_server_at_shutdown_is_status_1_in_time(machine: ScriptMachine) -> None:
    began = time.monotonic()
    done = machine.perform("shutdown", GCE_METADATA_HOST="10.128.0.77")
    assert done.status == 1
    assert time.monotonic() - began < 15
    assert said(done)[-1].startswith("Cannot read shutdown scripts from metadata: ")


def test_machine_that_is_no_instance_is_left_alone(wine_bed: Any) -> None:
    machine = ScriptMachine(wine_bed(metadata=False))
    machine.wine.registry.delete(r"HKLM\SYSTEM\HardwareConfig\Current")
    done = machine.perform()
    assert done.status == 0
    assert said(done) == ["this machine is no Compute Engine instance: nothing to do"]


def test_read_host_fails_instead_of_hanging(wine: Wine, lacking: Callable[[str], None]) -> None:
    lacking("PowerShell")
    wine.registry.set(
        r"HKLM\SYSTEM\HardwareConfig\Current", "SystemProductName", "Google Compute Engine"
    )
    wine.mds.set(f"instance/attributes/{PS1}", "Read-Host 'grüße'")
    done = wine.py("from google_guest.cli.scripts import main\nmain(['startup'])", timeout=30)
    assert f"{PS1} exit status 1" in said(done)


def test_lines_are_entries_of_the_event_log(
    machine: ScriptMachine, lacking: Callable[[str], None]
) -> None:
    lacking("event log")
    machine.set("cmd", "@echo hello\r\n@exit /b 3")
    machine.perform()
    done = machine.wine.py(
        """
import win32evtlog as log
handle = log.OpenEventLog(None, "Application")
flags = log.EVENTLOG_SEQUENTIAL_READ | log.EVENTLOG_FORWARDS_READ
for entry in log.ReadEventLog(handle, flags, 0):
    if entry.SourceName == "GCEMetadataScripts":
        print(entry.EventID, entry.EventType, *entry.StringInserts)
"""
    )
    assert f"882 4 {CMD}: hello" in done.stdout.splitlines()
    assert f'882 2 Script "{CMD}" failed with error: exit status 3' in done.stdout.splitlines()
