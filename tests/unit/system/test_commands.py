"""Commands: no shell, a time limit for the whole group, errors that name the program."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from google_guest.system.commands import CommandError, CommandMissing, run_command


def test_output_and_status_are_returned() -> None:
    done = run_command([sys.executable, "-c", "print('é'); raise SystemExit(3)"], check=False)
    assert (done.stdout, done.status) == ("é\n", 3)


def test_failure_names_program_status_and_message() -> None:
    script = "import sys; sys.exit('no such group')"
    with pytest.raises(CommandError, match="failed with status 1: no such group") as caught:
        run_command([sys.executable, "-c", script])
    assert caught.value.status == 1


def test_missing_program_is_named() -> None:
    with pytest.raises(CommandMissing, match="/no/such/program is not installed"):
        run_command(["/no/such/program"])


def test_arguments_are_never_seen_by_a_shell() -> None:
    text = "; echo $HOME `id` > /tmp/x"
    done = run_command([sys.executable, "-c", "import sys; print(sys.argv[1])", text])
    assert done.stdout == text + "\n"


def test_standard_input_is_closed_without_input() -> None:
    done = run_command([sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"])
    assert done.stdout == "''\n"


def test_input_reaches_the_program() -> None:
    script = "import sys; print(sys.stdin.read().upper())"
    assert run_command([sys.executable, "-c", script], input="abc").stdout == "ABC\n"


def test_locale_is_fixed_and_service_variables_are_not_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("http_proxy", "http://proxy.invalid")
    script = "import os, json; print(sorted(os.environ))"
    done = run_command([sys.executable, "-c", script])
    assert "NOTIFY_SOCKET" not in done.stdout
    assert "http_proxy" not in done.stdout
    assert run_command([sys.executable, "-c", "import os; print(os.environ['LC_ALL'])"]).stdout == (
        "C.UTF-8\n"
    )


def test_time_limit_ends_the_whole_group(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    script = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(marker)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    start = time.monotonic()
    with pytest.raises(CommandError, match="no end within 1.5 s"):
        run_command([sys.executable, "-c", script], timeout=1.5)
    assert time.monotonic() - start < 10
    deadline = time.monotonic() + 5
    while _runs(int(marker.read_text())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(int(marker.read_text()))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")
