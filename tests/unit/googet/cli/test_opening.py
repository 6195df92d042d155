from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
from support.goo_machine import Machine, copies, echoes

from googet.host import current_host
from googet.locking import RootLock

TOOL = Path(__file__).resolve().parents[4] / "tools" / "googet"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def start(machine: Machine, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, str(TOOL), "-root", str(machine.root)),
            *("-system_log=false", "-noconfirm", *arguments),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_held_lock_is_waited_for_with_a_message(machine: Machine) -> None:
    began = time.monotonic()
    assert start(machine, "clean").wait(timeout=30) == 0
    without_waiting = time.monotonic() - began
    host = current_host()
    lock = RootLock(machine.root, host, max_age=3600)
    lock.acquire()
    process = start(machine, "clean")
    assert process.stdout is not None
    began = time.monotonic()
    first = process.stdout.readline()
    assert "googet.lock" in first
    assert 4 < time.monotonic() - began < 6 + without_waiting
    lock.release()
    assert process.wait(timeout=10) == 0


def test_lock_that_is_never_released_fails(machine: Machine) -> None:
    lock = RootLock(machine.root, current_host(), max_age=3600)
    lock.acquire()
    with mock.patch("googet.locking.PATIENCE", 0.2):
        assert "googet.lock" in machine.fails("clean").err
    assert machine.ok("listrepos").status == 0
    lock.release()
    machine.ok("clean")


def test_lock_has_the_process_number_and_goes(machine: Machine) -> None:
    script = copies(machine.root / "googet.lock", machine.folder / "lock")
    machine.publish(machine.goo("a", scripts={"install": script}))
    machine.ok("install", "a")
    assert (machine.folder / "lock").read_text() == str(os.getpid())
    assert not (machine.root / "googet.lock").exists()


def test_two_at_once_both_succeed(machine: Machine) -> None:
    machine.publish(*(machine.goo(f"a{n}", scripts={"install": echoes("x")}) for n in range(4)))
    processes = [start(machine, "install", f"a{n}") for n in range(4)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    assert len(machine.installed()) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C needs a console of its own there")
def test_interrupt_restores_what_was_begun(machine: Machine) -> None:
    ready, script = machine.folder / "ready", "exec sleep 60"
    machine.publish(machine.goo("a", "1.0.0", contents={"f": "1"}))
    machine.ok("install", "a")
    machine.publish(
        machine.goo(
            "a", "2.0.0", contents={"f": "2"}, scripts={"install": f"touch {ready}; {script}"}
        )
    )
    process = start(machine, "install", "a")
    deadline = time.monotonic() + 20
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(2)
    # The terminal sends the signal to the package's program, too.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), 2)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert machine.read("f") == "1"
    assert machine.installed() == {"a.noarch": "1.0.0"}
    assert not (machine.root / "googet.lock").exists()


def test_damaged_state_of_old_googet_is_an_error_and_no_database_is_made(
    machine: Machine,
) -> None:
    (machine.root / "googet.state").write_text("[{")
    (machine.root / "googet.state.bak").write_text("{]")
    machine.fails("installed")
    assert not (machine.root / "googet.db").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="rights are tested in operations there")
def test_available_of_a_user_without_rights_changes_nothing(machine: Machine) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    machine.publish(machine.goo("a"))
    machine.root.chmod(0o555)
    try:
        machine.ok("available")
    finally:
        machine.root.chmod(0o755)
    assert not (machine.root / "cache").exists()


def test_many_threads_do_not_keep_googet_alive(machine: Machine) -> None:
    for number in range(6):
        machine.repository(f"r{number}")
    before = threading.active_count()
    machine.fails("available")
    assert threading.active_count() <= before
