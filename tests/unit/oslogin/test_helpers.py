"""The helpers of sshd: what they print, how they end, and what they load."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.oslogin.fake_daemon import FakeDaemon, fake_daemon, lines

from oslogin import protocol

SOURCE = Path(__file__).parents[3] / "src"
RUN = """
import sys
sys.path.insert(0, {source!r})
from oslogin import helpers, protocol
import syslog
class Log:
    def __getattr__(self, name):
        return getattr(syslog, name)
    def openlog(self, ident, options, facility):
        sys.stderr.write(f"ident {{ident}} facility {{facility >> 3}}\\n")
    def syslog(self, level, text):
        sys.stderr.write(f"log {{text}}\\n")
helpers.syslog = Log()
options = dict(socket=sys.argv[2], owner={owner})
if sys.argv[1] == "principals":
    status = helpers.print_principals("google_authorized_principals", sys.argv[3:], **options)
else:
    status = helpers.print_keys(sys.argv[1], sys.argv[3:], protocol.MODE_KEYS, **options)
sys.exit(status)
"""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI alice"


def run(
    program: str, socket: str, *arguments: str, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    script = RUN.format(source=str(SOURCE), owner=os.geteuid())
    return subprocess.run(
        [sys.executable, "-IS", "-c", script, program, socket, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )


@contextlib.contextmanager
def daemon(folder: Path, *texts: str, status: int = protocol.OK) -> Iterator[FakeDaemon]:
    with fake_daemon(folder, lines(*texts, status=status)) as running:
        yield running


def test_keys_are_printed_one_a_line(tmp_path: Path) -> None:
    with daemon(tmp_path, KEY, "ssh-rsa AAAA") as running:
        done = run("google_authorized_keys", running.path, "alice")
    assert (done.returncode, done.stdout) == (0, f"{KEY}\nssh-rsa AAAA\n")
    assert running.requests[0].text(protocol.NAME) == "alice"
    assert running.requests[0].opcode == protocol.KEYS


def test_helper_that_starts_with_closed_streams_ends_without_a_trace(tmp_path: Path) -> None:
    with daemon(tmp_path, KEY) as running:
        script = RUN.format(source=str(SOURCE), owner=os.geteuid())
        shell = 'exec "$@" >&-'
        done = subprocess.run(
            ["sh", "-c", shell, "sh", sys.executable, "-IS", "-c", script]
            + ["google_authorized_keys", running.path, "alice"],
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [(), ("alice", "bob")])
def test_wrong_number_of_arguments_is_status_1(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run("google_authorized_keys", str(tmp_path / "none"), *arguments)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    "status", [protocol.OK, protocol.NOT_FOUND, protocol.DENIED, protocol.UNAVAILABLE]
)
def test_whoever_has_no_keys_gets_no_output_and_status_0(tmp_path: Path, status: int) -> None:
    with daemon(tmp_path, status=status) as running:
        done = run("google_authorized_keys", running.path, "alice")
    assert (done.returncode, done.stdout) == (0, "")


def test_lines_of_a_denial_are_not_printed(tmp_path: Path) -> None:
    with daemon(tmp_path, KEY, status=protocol.DENIED) as running:
        done = run("google_authorized_keys", running.path, "alice")
    assert done.stdout == ""


def test_daemon_that_does_not_run_denies_with_one_line_in_the_log(tmp_path: Path) -> None:
    done = run("google_authorized_keys", str(tmp_path / "none"), "alice")
    assert (done.returncode, done.stdout) == (0, "")
    ident, only = done.stderr.splitlines()
    assert ident == "ident sshd facility 3"
    assert only.startswith("log google_authorized_keys: user alice: denied: the OS Login daemon")


def test_reader_that_closes_early_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with daemon(tmp_path, *["k" * 60000] * 10) as running:
            done = run("google_authorized_keys", running.path, "alice", stdout=writing)
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_name_cannot_break_the_line_in_the_log(tmp_path: Path) -> None:
    done = run("google_authorized_keys", str(tmp_path / "none"), "a\nb%s")
    assert len(done.stderr.splitlines()) == 2


def test_keys_are_not_logged(tmp_path: Path) -> None:
    with daemon(tmp_path, KEY) as running:
        done = run("google_authorized_keys", running.path, "alice")
    assert done.stderr.splitlines()[1:] == [
        "log google_authorized_keys: user alice: allowed, 1 lines"
    ]


def test_principal_is_printed(tmp_path: Path) -> None:
    with daemon(tmp_path, "alice") as running:
        done = run("principals", running.path, "alice", "AAAA")
    assert (done.returncode, done.stdout) == (0, "alice\n")
    assert running.requests[0].text(protocol.CERT) == "AAAA"
    assert running.requests[0].integer(protocol.FLAGS) == 0


def test_cloud_run_is_told_to_the_daemon(tmp_path: Path) -> None:
    with daemon(tmp_path, "alice") as running:
        run("principals", running.path, "root", "AAAA", "--cloud_run")
    assert running.requests[0].integer(protocol.FLAGS) == protocol.FLAG_CLOUD_RUN


def test_certificate_that_cannot_be_read_is_status_1(tmp_path: Path) -> None:
    with daemon(tmp_path, status=protocol.BAD_REQUEST) as running:
        done = run("principals", running.path, "alice", "AAAA")
    assert (done.returncode, done.stdout) == (1, "")


def test_certificate_longer_than_a_message_is_status_1(tmp_path: Path) -> None:
    done = run("principals", str(tmp_path / "none"), "alice", "A" * 60001)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    "arguments", [(), ("alice",), ("alice", "AAAA", "--other"), ("a", "b", "--cloud_run", "c")]
)
def test_bad_usage_of_principals_is_status_1(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run("principals", str(tmp_path / "none"), *arguments).returncode == 1


def test_environment_does_not_lead_a_helper_elsewhere() -> None:
    text = (SOURCE / "oslogin" / "helpers.py").read_text() + (
        SOURCE / "oslogin" / "client.py"
    ).read_text()
    assert "environ" not in text
    assert "getenv" not in text


def test_helpers_load_what_their_start_allows_and_nothing_else() -> None:
    script = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        "import oslogin.helpers; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", script, str(SOURCE)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    ours = {"oslogin", "oslogin.helpers", "oslogin.client", "oslogin.paths", "oslogin.protocol"}
    cheap = {"__future__", "_socket", "_struct", "struct", "syslog"}
    assert set(done.stdout.split()) <= ours | cheap
