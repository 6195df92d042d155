"""Running programs on the system of the test."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

from googet.host import HostError, current_host

HOST = current_host()


def python(source: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", source, *arguments]


def test_output_goes_to_the_log_and_to_the_console(tmp_path: Path) -> None:
    console = io.StringIO()
    log = tmp_path / "x.log"
    source = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
    assert HOST.run_program(python(source), log=log, console=console) == 0
    assert log.read_text().split() == ["out", "err"]
    assert console.getvalue().split() == ["out", "err"]


def test_output_appears_while_the_program_runs(tmp_path: Path) -> None:
    class Console(io.StringIO):
        def write(self, text: str) -> int:
            if "first" in text:
                (tmp_path / "seen").touch()
            return super().write(text)

    source = (
        "import os, sys, time; print('first', flush=True)\n"
        "for _ in range(500):\n"
        "    if os.path.exists(sys.argv[1]): sys.exit(4)\n"
        "    time.sleep(0.02)\n"
    )
    argv = python(source, str(tmp_path / "seen"))
    assert HOST.run_program(argv, log=tmp_path / "x.log", console=Console()) == 4


def test_characters_that_the_console_does_not_have_are_replaced(tmp_path: Path) -> None:
    data = io.BytesIO()
    console = io.TextIOWrapper(data, encoding="ascii")
    source = "import sys; sys.stdout.buffer.write('é\\n'.encode())"
    HOST.run_program(python(source), log=tmp_path / "x.log", console=console)
    assert data.getvalue().split() == [b"?"]
    assert (tmp_path / "x.log").read_bytes().split() == ["é".encode()]


def test_console_that_is_closed_does_not_matter(tmp_path: Path) -> None:
    console = io.StringIO()
    console.close()
    assert HOST.run_program(python("print(1)"), log=tmp_path / "x.log", console=console) == 0


@pytest.mark.parametrize("code", [0, 1, 5, 200])
def test_exit_code_is_that_of_the_program(tmp_path: Path, code: int) -> None:
    argv = python(f"import sys; sys.exit({code})")
    assert HOST.run_program(argv, log=tmp_path / "x.log") == code


@pytest.mark.skipif(sys.platform != "win32", reason="exit codes of Windows have 32 bits")
@pytest.mark.parametrize("code", [3010, 1641, 0xC0000005, 0xFFFFFFFF])
def test_exit_code_has_32_bits(tmp_path: Path, code: int) -> None:
    argv = python(f"import ctypes; ctypes.windll.kernel32.ExitProcess(ctypes.c_uint({code}))")
    assert HOST.run_program(argv, log=tmp_path / "x.log") == code


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_program_that_a_signal_ends_has_minus_one(tmp_path: Path) -> None:
    argv = python("import os; os.kill(os.getpid(), 15)")
    assert HOST.run_program(argv, log=tmp_path / "x.log") == -1


def test_program_is_ended_with_what_it_started_at_the_time_limit(tmp_path: Path) -> None:
    child = "import time, sys; time.sleep(30); open(sys.argv[1], 'w')"
    source = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}, sys.argv[1]])\n"
        "print('started', flush=True); time.sleep(30)"
    )
    began = time.monotonic()
    argv = python(source, str(tmp_path / "alive"))
    assert HOST.run_program(argv, log=tmp_path / "x.log", timeout=2) == -1
    assert time.monotonic() - began < 20


def test_program_left_running_does_not_keep_googet_waiting(tmp_path: Path) -> None:
    child = "import time; time.sleep(20)"
    source = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    began = time.monotonic()
    assert HOST.run_program(python(source), log=tmp_path / "x.log", console=io.StringIO()) == 0
    assert time.monotonic() - began < 15


def test_standard_input_is_closed(tmp_path: Path) -> None:
    argv = python("import sys; sys.exit(7 if sys.stdin.read() == '' else 1)")
    assert HOST.run_program(argv, log=tmp_path / "x.log") == 7


def test_environment_and_folder_are_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOOGET_TEST", "yes")
    source = "import os; print(os.environ['GOOGET_TEST'], os.path.samefile('.', os.getcwd()))"
    HOST.run_program(python(source + "; open('here', 'w')"), log=tmp_path / "x.log")
    assert (tmp_path / "here").exists()
    assert (tmp_path / "x.log").read_text().split() == ["yes", "True"]


def test_arguments_arrive_as_they_were_given(tmp_path: Path) -> None:
    arguments = ["", "a b", 'q"q', "C:\\x y\\", "tab\there", "ü", "%PATH%", "a\\\\b"]
    source = "import sys; sys.stdout.buffer.write('|'.join(sys.argv[1:]).encode())"
    HOST.run_program(python(source, *arguments), log=tmp_path / "x.log")
    assert (tmp_path / "x.log").read_bytes().decode() == "|".join(arguments)


def test_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no-such-program"):
        HOST.run_program([str(tmp_path / "no-such-program.exe")], log=tmp_path / "x.log")
