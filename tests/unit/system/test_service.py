"""Readiness messages, the single-instance lock, wake-ups."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from pathlib import Path

import pytest

from google_guest.system.service import AlreadyRunning, InstanceLock, ServiceManager, WakeUp


def _received(channel: socket.socket) -> list[str]:
    channel.settimeout(5)
    return channel.recv(4096).decode().splitlines()


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_is_sent_to_the_notify_socket(tmp_path: Path, abstract: bool) -> None:
    name = f"@google-guest-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + name[1:] if abstract else name)
        ServiceManager({"NOTIFY_SOCKET": name}).notify(READY="1", STATUS="running")
        assert _received(channel) == ["READY=1", "STATUS=running"]


def test_without_a_socket_nothing_is_sent() -> None:
    manager = ServiceManager({})
    manager.notify(READY="1")
    assert not manager.listens


def test_manager_that_is_gone_is_ignored(tmp_path: Path) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    manager.notify(READY="1")
    assert manager.listens


def test_second_instance_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "run/agent.lock")
    first = InstanceLock(path)
    with pytest.raises(AlreadyRunning, match="another agent is running"):
        InstanceLock(path)
    first.release()
    InstanceLock(path).release()


def test_lock_file_behind_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        InstanceLock(str(tmp_path / "agent.lock"))
    assert not (tmp_path / "elsewhere").exists()


def test_wake_from_another_thread_makes_the_descriptor_readable() -> None:
    wake_up = WakeUp()
    thread = threading.Thread(target=wake_up.wake)
    thread.start()
    assert select.select([wake_up.fileno()], [], [], 5)[0]
    thread.join()
    wake_up.drain()
    assert not select.select([wake_up.fileno()], [], [], 0)[0]
    wake_up.close()


def test_signal_calls_the_action_and_wakes_up() -> None:
    wake_up = WakeUp()
    seen: list[int] = []
    before = signal.getsignal(signal.SIGHUP)
    try:
        wake_up.on_signals([signal.SIGHUP], seen.append)
        os.kill(os.getpid(), signal.SIGHUP)
        assert select.select([wake_up.fileno()], [], [], 5)[0]
        assert seen == [signal.SIGHUP]
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGHUP, before)


def test_a_thousand_wakes_without_a_reader_do_not_block() -> None:
    wake_up = WakeUp()
    for _ in range(100_000):
        wake_up.wake()
    assert select.select([wake_up.fileno()], [], [], 0)[0]
    wake_up.close()
