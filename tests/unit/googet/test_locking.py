"""One googet at a time."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from googet.host import ProcessFacts, current_host
from googet.host.memory import MemoryHost
from googet.locking import LockTimeout, RootLock
from google_guest.errors import GuestError

HOST = current_host()


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def lock(root: Path, **more: object) -> RootLock:
    return RootLock(root, HOST, max_age=3600, **more)  # type: ignore[arg-type]


def make_old(path: Path, hours: float) -> None:
    moment = time.time() - hours * 3600
    os.utime(path, (moment, moment))


def test_file_is_there_while_it_is_held_and_gone_afterwards(tmp_path: Path) -> None:
    root = tmp_path / "made" / "root"
    with lock(root):
        assert (root / "googet.lock").read_bytes() == str(os.getpid()).encode()
    assert not (root / "googet.lock").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="modes exist on Linux")
def test_lock_and_root_have_their_modes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with lock(root):
        assert root.stat().st_mode & 0o777 == 0o755
        assert (root / "googet.lock").stat().st_mode & 0o777 == 0o600


def test_lock_is_given_back_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    with lock(tmp_path):
        pass


def test_content_of_a_longer_number_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "googet.lock").write_bytes(b"123456789012")
    with lock(tmp_path):
        assert (tmp_path / "googet.lock").read_bytes() == str(os.getpid()).encode()


def test_second_taker_waits_until_release(tmp_path: Path) -> None:
    order = []
    first = lock(tmp_path)
    first.acquire()

    def take() -> None:
        with lock(tmp_path):
            order.append("second")

    thread = threading.Thread(target=take)
    thread.start()
    time.sleep(0.3)
    order.append("first")
    first.release()
    thread.join(10)
    assert order == ["first", "second"]


def test_waiting_is_told_every_five_seconds_and_given_up_after_seventy(tmp_path: Path) -> None:
    clock, told = Clock(), []
    with lock(tmp_path):
        waiting = lock(
            tmp_path,
            tell=lambda text: told.append((round(clock.now - 1000), text)),
            clock=clock,
            sleep=clock.sleep,
        )
        with pytest.raises(LockTimeout, match=r"googet\.lock"):
            waiting.acquire()
        assert (tmp_path / "googet.lock").exists()
    assert [moment for moment, _ in told] == list(range(5, 70, 5))
    assert 70 <= clock.now - 1000 < 71
    assert all("googet.lock" in text for _, text in told)


def test_old_file_that_nobody_locks_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "googet.lock"
    path.write_text(str(os.getpid()))
    make_old(path, 2)
    with lock(tmp_path):
        assert time.time() - path.stat().st_mtime < 60


def test_file_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "googet.lock").mkdir()
    with pytest.raises(GuestError, match=r"googet\.lock"):
        lock(tmp_path).acquire()


class TestStaleHolder:
    def ended(
        self,
        tmp_path: Path,
        executable: str,
        *,
        hours: float = 2,
        started: float = 3,
        pid: str = "4711",
    ) -> list[int]:
        """Return which processes are ended by a taker while another one holds the lock."""
        if sys.platform == "win32":
            pytest.skip("the double keeps its files on Linux")
        host = MemoryHost(tmp_path / "drives")
        host.processes[4711] = ProcessFacts(executable, time.time() - started * 3600)
        held = host.lock_file(tmp_path / "googet.lock")
        assert held is not None
        held.write(pid.encode())
        make_old(tmp_path / "googet.lock", hours)
        clock = Clock()
        taker = RootLock(
            tmp_path, host, max_age=3600, tell=lambda _: None, clock=clock, sleep=clock.sleep
        )
        with pytest.raises(LockTimeout):
            taker.acquire()
        assert (tmp_path / "googet.lock").exists() is not bool(host.ended)
        return host.ended

    @pytest.mark.parametrize("name", ["googet.exe", "GooGet.EXE", "googet"])
    def test_googet_that_holds_it_too_long_is_ended(self, tmp_path: Path, name: str) -> None:
        assert self.ended(tmp_path, f"C:\\x\\{name}") == [4711]

    def test_own_interpreter_is_googet(self, tmp_path: Path) -> None:
        assert self.ended(tmp_path, str(tmp_path / "python" / "python.exe")) == [4711]

    def test_other_program_is_never_ended(self, tmp_path: Path) -> None:
        assert self.ended(tmp_path, "C:\\x\\notgooget.exe") == []

    def test_young_lock_is_respected(self, tmp_path: Path) -> None:
        assert self.ended(tmp_path, "C:\\x\\googet.exe", hours=0.5) == []

    def test_process_that_is_younger_than_the_lock_is_never_ended(self, tmp_path: Path) -> None:
        assert self.ended(tmp_path, "C:\\x\\googet.exe", started=1) == []

    @pytest.mark.parametrize("pid", ["", "4711\n", "-1", "x", "4712", "99999999999999999999"])
    def test_number_that_is_none_or_of_nobody_ends_nothing(self, tmp_path: Path, pid: str) -> None:
        assert self.ended(tmp_path, "C:\\x\\googet.exe", pid=pid) == []

    def test_own_number_ends_nothing(self, tmp_path: Path) -> None:
        assert self.ended(tmp_path, "C:\\x\\googet.exe", pid=str(os.getpid())) == []
