"""Children that run scripts: what they inherit, how they are followed, who outlives them."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Optional

import pytest

from google_guest.system import children
from google_guest.system.children import (
    Ending,
    Stopped,
    initial_environment,
    run_to_end,
    spawn,
    stop_signals,
)

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


class Kept:
    """A sink that writes to a file, so that a relay's output can be seen, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = 0
        self.ticks = 0
        path.touch()

    def feed(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def due(self) -> Optional[float]:
        return None

    def tick(self) -> None:
        self.ticks += 1

    def close(self) -> None:
        self.feed(b"<end>")
        self.closed += 1

    def text(self) -> str:
        return self.path.read_text()


@pytest.fixture
def sink(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "output")


def run_shell(line: str, sink: Kept, *, drain: float = 2.0) -> Ending:
    child = spawn(["/bin/bash", "-c", line], environment=ENVIRONMENT)
    return run_to_end(child, sink, drain=drain)


def wait_for(sink: Kept, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in sink.text():
        assert time.monotonic() < deadline, f"no {text!r} in {sink.text()!r}"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("line", "ending"),
    [
        ("exit 0", Ending(exit_status=0)),
        ("exit 255", Ending(exit_status=255)),
        ("kill -KILL $$", Ending(signal=signal.SIGKILL)),
        ("kill -TERM $$", Ending(signal=signal.SIGTERM)),
    ],
)
@pytest.mark.parametrize("with_pidfd", [True, False])
def test_ending_is_told(
    line: str, ending: Ending, with_pidfd: bool, sink: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    assert run_shell(line, sink) == ending


def test_both_streams_share_one_pipe_in_order(sink: Kept) -> None:
    run_shell("for i in 1 2 3; do echo o$i; echo e$i >&2; done", sink)
    assert sink.text() == "o1\ne1\no2\ne2\no3\ne3\n<end>"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("umask", "0022\n"),
        ("readlink /proc/self/fd/0", "/dev/null\n"),
        ("yes | head -1; echo ${PIPESTATUS[0]}", "y\n141\n"),
        ("grep SigBlk /proc/self/status | tr -d '0\\t'", "SigBlk:\n"),
    ],
)
def test_child_inherits_a_clean_state(line: str, told: str, sink: Kept) -> None:
    before = os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        run_shell(line, sink)
    finally:
        os.umask(before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    assert sink.text() == told + "<end>"


def test_session_and_process_group_are_the_runners(sink: Kept) -> None:
    run_shell("ps -o sid=,pgid= -p $$", sink)
    told = sink.text().removesuffix("<end>").split()
    assert told == [str(os.getsid(0)), str(os.getpgrp())]


@pytest.mark.parametrize(
    ("content", "mode", "number"),
    [
        (b"echo x", 0o700, errno.ENOEXEC),
        (b"", 0o700, errno.ENOEXEC),
        (b"#!/bin/sh\n", 0o600, errno.EACCES),
        (b"#!/no/such\n", 0o700, errno.ENOENT),
    ],
)
def test_refusal_of_the_kernel_is_told(
    content: bytes, mode: int, number: int, tmp_path: Path
) -> None:
    path = tmp_path / "script"
    path.write_bytes(content)
    path.chmod(mode)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError) as refused:
        spawn([str(path)], environment=ENVIRONMENT)
    assert refused.value.errno == number
    assert os.listdir("/proc/self/fd") == before


def test_last_lines_of_a_helper_are_not_lost(sink: Kept) -> None:
    run_shell("exec > >(sleep 0.2; cat); echo last", sink)
    assert sink.text() == "last\n<end>"


def test_script_that_closed_its_output_is_waited_for(sink: Kept) -> None:
    assert run_shell("exec >&- 2>&-; sleep 0.2; exit 7", sink) == Ending(exit_status=7)


def test_background_process_is_left_to_a_relay(sink: Kept, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    began = time.monotonic()
    line = f"(read x <{tmp_path}/go; echo later; echo partial >&2) & echo now"
    assert run_shell(line, sink, drain=0.2) == Ending(exit_status=0)
    assert time.monotonic() - began < 5
    assert sink.text() == "now\n"
    (tmp_path / "go").write_text("\n")
    wait_for(sink, "now\nlater\npartial\n<end>")
    os.wait()


def test_relay_holds_no_other_descriptor(sink: Kept, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.mkfifo(tmp_path / "go")
    run_shell(f"(read x <{tmp_path}/go) & echo now", sink, drain=0.1)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    (tmp_path / "go").write_text("\n")
    os.wait()


def test_drain_is_bounded_even_if_output_never_pauses(sink: Kept) -> None:
    line = "(while sleep 0.01; do echo tick; done) & echo $!"
    began = time.monotonic()
    run_shell(line, sink, drain=0.3)
    took = time.monotonic() - began
    os.kill(int(sink.text().split()[0]), signal.SIGTERM)
    os.wait()
    assert took < 3


def test_signals_to_end_become_an_exception() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped, stop_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert stopped.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_second_signal_does_not_interrupt_the_clean_up() -> None:
    cleaned = False
    with pytest.raises(Stopped), stop_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned = True
    assert cleaned


def test_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_initial_environment_is_that_of_the_start(tmp_path: Path) -> None:
    path = tmp_path / "environ"
    path.write_bytes(b"A=1\0B=x=y\0EMPTY=\0=odd\0nosign\0\xffN=\xfe\0")
    found = initial_environment(str(path))
    assert found == {"A": "1", "B": "x=y", "EMPTY": "", "\udcffN": "\udcfe"}


def test_environment_of_now_replaces_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONLY_NOW", "1")
    assert initial_environment(str(tmp_path / "none"))["ONLY_NOW"] == "1"


def test_variable_that_python_adds_is_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADDED_LATER", "1")
    assert "ADDED_LATER" not in initial_environment()
    assert children.initial_environment()["PATH"]
