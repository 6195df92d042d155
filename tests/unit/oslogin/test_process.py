"""The service as a process that systemd starts: sockets by number, READY, signals, modules."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.oslogin.daemon import ask

from metadata_server import Emulator
from oslogin import protocol
from oslogin.protocol import string_field

SOURCE = Path(__file__).resolve().parents[3] / "src"
START = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
sys.path.insert(0, sys.argv[1])
folder = sys.argv[2]
from oslogin import service
service.Places = type("Places", (service.Places,), {})
values = dict(
    cache=folder + "/cache", users=folder + "/users", sudoers=(folder + "/sudoers",),
    answered=folder + "/answered", refreshed=folder + "/refreshed", former=(),
)
original = service.Daemon
service.Daemon = lambda client, idle: original(
    client, places=service.Places(**values), idle=idle
)
status = service.main(sys.argv[3:])
print("MODULES", *sorted(sys.modules))
sys.exit(status)
"""


class Process:
    """The service and its sockets."""

    def __init__(self, folder: Path, host: str, *arguments: str) -> None:
        self.folder = folder
        (folder / "users").mkdir()
        (folder / "sudoers").mkdir()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.settimeout(10.0)
        self.listeners = []
        for name in ("nss", "auth"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(folder / name))
            listener.listen(16)
            self.listeners.append(listener)
        first, second = (listener.fileno() for listener in self.listeners)
        shell = f'exec 3<&{first} 4<&{second}; exec "$@"'
        environment = {
            "LISTEN_FDS": "2",
            "LISTEN_FDNAMES": "nss:auth",
            "NOTIFY_SOCKET": str(folder / "notify"),
            "GCE_METADATA_HOST": host,
            "http_proxy": "http://127.0.0.1:9",
        }
        command = [sys.executable, "-IS", "-c", START, str(SOURCE), str(folder), *arguments]
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "bash", *command],
            env=environment,
            pass_fds=(first, second),
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_ready(self) -> None:
        while b"READY=1" not in self.notify.recv(4096):
            continue

    def connect(self, name: str = "nss") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10.0)
        sock.connect(str(self.folder / name))
        return sock

    def end(self) -> str:
        """Return what was printed, after the end."""
        return self.process.communicate(timeout=10)[0]


@pytest.fixture
def mds() -> Iterator[Emulator]:
    with Emulator(profile="linux") as emulator:
        emulator.oslogin.enabled = True
        emulator.oslogin.add_user("ada", 20001)
        yield emulator


@pytest.fixture
def process(tmp_path: Path, mds: Emulator) -> Iterator[Process]:
    started = Process(tmp_path, mds.host)
    try:
        started.wait_ready()
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def test_answers_on_the_sockets_of_systemd(process: Process) -> None:
    with process.connect() as sock:
        reply = ask(sock, protocol.GETPWNAM, string_field(protocol.NAME, "ada"))
    assert reply.integer(protocol.ID) == 20001


def test_term_ends_it_in_well_under_a_second(process: Process, mds: Emulator) -> None:
    mds.fault("oslogin/", "hang")
    with process.connect() as sock:
        name = string_field(protocol.NAME, "zoe")
        sock.sendall(protocol.encode(protocol.Message(protocol.GETPWNAM, [name])))
        time.sleep(0.2)
        started = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(5.0) == 0
        assert time.monotonic() - started < 0.8


def test_never_loads_what_asks_the_name_service(process: Process) -> None:
    with process.connect() as sock:
        ask(sock, protocol.GETPWNAM, string_field(protocol.NAME, "ada"))
    process.process.send_signal(signal.SIGTERM)
    modules = process.end().split()
    assert "oslogin.server" in modules
    unwanted = {"pwd", "grp", "getpass", "ssl", "http.client", "argparse"}
    # Python's own subprocess loads two of them up to 3.9, and asks them for nothing of ours.
    unwanted -= {"pwd", "grp"} if sys.version_info < (3, 10) else set()
    assert not unwanted & set(modules)


def test_kill_in_the_midst_of_an_answer_ends_the_connection(
    process: Process, mds: Emulator
) -> None:
    mds.fault("oslogin/", "hang")
    with process.connect() as sock:
        name = string_field(protocol.NAME, "zoe")
        sock.sendall(protocol.encode(protocol.Message(protocol.GETPWNAM, [name])))
        time.sleep(0.1)
        process.process.kill()
        assert sock.recv(1) == b""


def test_small_in_memory(process: Process) -> None:
    with process.connect() as sock:
        ask(sock, protocol.GETPWNAM, string_field(protocol.NAME, "ada"))
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
    assert resident < 32 * 1024


def test_ends_without_work(tmp_path: Path, mds: Emulator) -> None:
    started = Process(tmp_path, mds.host, "--idle", "1")
    started.wait_ready()
    assert "MODULES" in started.end()
    assert started.process.returncode == 0


def test_without_sockets_there_is_nothing_to_serve() -> None:
    command = [sys.executable, "-IS", "-c", START, str(SOURCE), "/nonexistent"]
    assert subprocess.run(command, env={}, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("word", ["--help", "--idle", "x"])
def test_other_arguments_are_refused(tmp_path: Path, word: str) -> None:
    command = [sys.executable, "-IS", "-c", START, str(SOURCE), str(tmp_path), word]
    assert subprocess.run(command, env=os.environ, capture_output=True).returncode == 2
