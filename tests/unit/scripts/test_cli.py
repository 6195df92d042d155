"""The command line: names, synonyms, exit codes, what is asked and what is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from unit.scripts.conftest import ScriptGuest

from google_guest.cli import scripts as program
from google_guest.cli.scripts import Arguments, WrongUsage, main, parse_arguments, run
from google_guest.scripts.events import LINUX, WINDOWS
from google_guest.system import System
from google_guest.system.commands import Completed

SOURCE = Path(program.__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["startup"], Arguments(LINUX["startup"])),
        (["shutdown"], Arguments(LINUX["shutdown"])),
        (["shutdown", "--if-stopping"], Arguments(LINUX["shutdown"], if_stopping=True)),
        (["--if-stopping", "shutdown"], Arguments(LINUX["shutdown"], if_stopping=True)),
        (["--script-type", "startup"], Arguments(LINUX["startup"])),
        (["--script-type=shutdown", "-d"], Arguments(LINUX["shutdown"])),
        (["--debug", "startup"], Arguments(LINUX["startup"])),
    ],
)
def test_command_line_is_understood(words: list[str], arguments: Arguments) -> None:
    assert parse_arguments(words) == arguments


@pytest.mark.parametrize(
    "words",
    [
        *([], ["foo"], ["startup", "x"], ["specialize"], ["--script-type"], ["--nope", "startup"]),
        *(["Startup"], [""], ["startup", "shutdown"], ["--script-type=startup", "startup"]),
    ],
)
def test_wrong_command_line_is_status_2_with_the_usage(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "run", None)
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "usage: google_metadata_script_runner startup|shutdown" in told.err


@pytest.mark.parametrize("event", ["startup", "shutdown", "specialize"])
def test_windows_has_three_events(event: str) -> None:
    assert parse_arguments([event], WINDOWS) == Arguments(WINDOWS[event])


@pytest.mark.parametrize("words", [[], ["foo"], ["startup", "--if-stopping"], ["startup", "x"]])
def test_wrong_command_line_is_refused_on_windows(words: list[str]) -> None:
    with pytest.raises(WrongUsage):
        parse_arguments(words, WINDOWS)


@pytest.mark.parametrize("word", ["-h", "--help", "--version"])
def test_help_and_version_go_to_standard_output(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(("words", "status"), [(["--version"], 0), (["nonsense"], 2)])
def test_program_ends_with_its_status_and_all_of_its_output(words: list[str], status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from google_guest.cli.scripts import main; main()", *words],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
    )
    assert done.returncode == status
    assert done.stdout if status == 0 else done.stderr


def _shutdown_if_stopping(guest: ScriptGuest, state: str) -> str:
    def systemctl(argv: object, **_: object) -> Completed:
        return Completed((), 0, f"ActiveState={state}\n", "")

    system = System(root=guest.root, runner=systemctl)
    log = guest.root / "log"
    with log.open("wb") as file:
        arguments = parse_arguments(["shutdown", "--if-stopping"])
        status = run(arguments, system, environment=guest.environment, descriptor=file.fileno())
    assert status == 0
    return log.read_text()


def test_shutdown_script_is_skipped_while_the_system_stays_up(guest: ScriptGuest) -> None:
    guest.set("shutdown-script", "echo never")
    told = _shutdown_if_stopping(guest, "inactive")
    assert told == "system is not shutting down, skipping shutdown scripts\n"
    assert guest.mds.requests() == []


@pytest.mark.parametrize("state", ["active", ""])
def test_shutdown_script_runs_when_the_system_goes_down_or_may(
    guest: ScriptGuest, state: str
) -> None:
    guest.set("shutdown-script", "echo ran")
    assert "shutdown-script: ran\n" in _shutdown_if_stopping(guest, state)


def test_machine_that_is_no_instance_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(System, "is_live", property(lambda self: True))
    log = tmp_path / "log"
    with log.open("wb") as file:
        arguments = parse_arguments(["startup"])
        assert run(arguments, System(tmp_path), environment={}, descriptor=file.fileno()) == 0
    assert log.read_text() == "this machine is no Compute Engine instance: nothing to do\n"


def test_metadata_host_that_is_nonsense_is_status_1(guest: ScriptGuest) -> None:
    guest.environment["GCE_METADATA_HOST"] = "ftp://x"
    assert guest.run().status == 1


PROGRAM = """
import sys
from pathlib import Path
from google_guest.cli.scripts import parse_arguments, run
from google_guest.system import System
from google_guest.system.children import Stopped, end_by_signal, stop_signals
root, host = sys.argv[1:]
environment = {"PATH": "/usr/bin:/bin", "GCE_METADATA_HOST": host}
try:
    with stop_signals():
        sys.exit(run(parse_arguments(["startup"]), System(Path(root)), environment=environment))
except Stopped as stopped:
    end_by_signal(stopped.number)
"""


def start_program(guest: ScriptGuest) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(guest.root), guest.mds.host],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        bufsize=0,
    )


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    assert process.stdout is not None
    told = b""
    while text not in told:
        data = process.stdout.read(65536)
        if not data:
            raise AssertionError(f"ended without {text!r}: {told!r}")
        told += data
    return told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_cleans_up_ends_the_runner_and_leaves_the_script_its_output(
    guest: ScriptGuest, number: signal.Signals
) -> None:
    guest.set("startup-script", "echo started; read line <go; echo went on")
    os.mkfifo(guest.root / "go")
    guest.set("startup-script", f"echo started; read line <{guest.root}/go; echo went on")
    process = start_program(guest)
    read_until(process, b"startup-script: started\n")
    process.send_signal(number)
    assert process.wait(10) == -number
    assert guest.scripts_left() == []
    result = (guest.root / "run/google-guest-agent/scripts/startup.json").read_text()
    assert '"state": "interrupted"' in result
    (guest.root / "go").write_text("\n")
    assert read_until(process, b"went on\n").endswith(b"startup-script: went on\n")


def test_megabyte_line_is_complete_and_memory_stays_small(guest: ScriptGuest) -> None:
    guest.set(
        "startup-script",
        "head -c 1048576 /dev/zero | tr '\\0' x; echo; echo done;"
        " echo peak $(grep VmHWM /proc/$PPID/status)",
    )
    process = start_program(guest)
    told, _ = process.communicate(timeout=20)
    lines = told.decode().splitlines()
    chunks = [
        line for line in lines if line.startswith(("startup-script: xx", "startup-script[+]"))
    ]
    assert sum(line.count("x") for line in chunks) == 1048576
    assert "startup-script: done" in lines
    assert "startup-script exit status 0" in lines
    peak = next(line for line in lines if line.startswith("startup-script: peak"))
    assert int(peak.split()[3]) < 64 * 1024


def test_line_is_visible_within_200_ms(guest: ScriptGuest) -> None:
    guest.set("startup-script", "read line </dev/null; date +%s.%N; sleep 5")
    process = start_program(guest)
    told = read_until(process, b"startup-script: 1")
    seen = time.time()
    line = told.rpartition(b": ")[2]
    process.kill()
    process.wait()
    assert seen - float(line) < 0.2


def test_no_lazy_module_is_loaded_without_scripts(guest: ScriptGuest) -> None:
    code = PROGRAM.replace("sys.exit(run(", "status = run(").replace(
        "environment=environment))", "environment=environment)"
    )
    code += "\nprint('loaded', *sys.modules)\n"
    told = subprocess.run(
        [sys.executable, "-c", code, str(guest.root), guest.mds.host],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    loaded = set(told.rpartition("loaded ")[2].split())
    unwanted = {"urllib3", "ssl", "http.client", "email", "argparse", "tempfile", "shutil"}
    assert "No startup scripts to run." in told
    assert [name for name in loaded if "windows" in name] == []
    assert loaded & (unwanted | {"random", "hashlib", "asyncio", "urllib.request"}) == set()
