"""What calls the name service object in tests: builds, a driver process, a scripted service."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union

import pytest
from support.tiers import in_ci

SOURCE = Path(__file__).resolve().parents[4] / "src" / "oslogin" / "nss"
HERE = Path(__file__).resolve().parent
SUCCESS, NOTFOUND, UNAVAIL, TRYAGAIN = 1, 0, -1, -2
SANITIZERS = {
    "plain": (),
    "asan": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "tsan": ("-fsanitize=thread",),
}
WARNINGS = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror")


def need(program: str) -> str:
    """The program's path; a visible skip without it, a failure in CI."""
    path = shutil.which(program)
    if path is None:
        message = f"this test needs {program}"
        if in_ci():
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return path


class Files(NamedTuple):
    """Where a build looks."""

    cache: Path
    socket: Path
    passwd: Path

    def definitions(self) -> list[str]:
        return [
            f'-DOSLOGIN_CACHE_FILE="{self.cache}"',
            f'-DOSLOGIN_NSS_SOCKET="{self.socket}"',
            f'-DOSLOGIN_PASSWD_FILE="{self.passwd}"',
            f"-DOSLOGIN_TRUSTED_UID={os.geteuid()}",
        ]


class Answer(NamedTuple):
    status: int
    error: int
    fields: tuple[str, ...]
    micros: int


class Driver:
    """A process that asks the functions; every question is answered in its own order."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="latin-1",
        )

    def ask_all(self, questions: Sequence[Sequence[object]]) -> list[Answer]:
        assert self._process.stdin and self._process.stdout and self._process.stderr
        lines = ["\t".join(str(part) for part in question) for question in questions]
        self._process.stdin.write("".join(f"{line}\n" for line in [*lines, "x\tflush\tx"]))
        self._process.stdin.flush()
        answers = []
        for line in lines:
            out = self._process.stdout.readline()
            took = self._process.stderr.readline() if out else self._process.stderr.read()
            assert out and took.strip().isdigit(), f"{line}: {took}"
            status, error, *rest = out.rstrip("\n").split("\t")
            answers.append(Answer(int(status), int(error), tuple(rest), int(took)))
        return answers

    def ask(
        self, function: str, argument: object = "", size: int = 4096, service: str = "oslogin"
    ) -> Answer:
        return self.ask_all([(service, function, argument, size)])[0]

    def close(self) -> None:
        assert self._process.stdin and self._process.stderr
        self._process.stdin.close()
        rest = self._process.stderr.read()
        assert self._process.wait(timeout=60) == 0, rest


Reply = Union[bytes, None]
Script = Callable[[bytes], Reply]


class Service:
    """A service that says what the test makes it say; None is silence until the test is over."""

    def __init__(self, path: Path, *, backlog: int = 64) -> None:
        self.requests: list[bytes] = []
        self.script: Script = lambda request: reply(request, b"", status=1)
        self._listener = socket.socket(socket.AF_UNIX)
        self._path = path
        self._kept: list[socket.socket] = []
        self._listener.bind(str(path))
        self._listener.listen(backlog)
        self._thread: Optional[threading.Thread] = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            request = connection.recv(4096)
            if not request:
                connection.close()
                continue
            self.requests.append(request)
            said = self.script(request)
            if said is None:
                self._kept.append(connection)
                continue
            with contextlib.suppress(OSError):
                connection.sendall(said)
            connection.close()

    def close(self) -> None:
        self._path.unlink()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._thread:
            self._thread.join(5)
        for connection in self._kept:
            connection.close()


def reply(
    request: bytes,
    payload: bytes,
    *,
    status: int = 0,
    magic: bytes = b"GOL1",
    request_id: Optional[int] = None,
    opcode: Optional[int] = None,
    length: Optional[int] = None,
) -> bytes:
    """The answer to a request, right unless a part of it is given."""
    asked = struct.unpack_from("<H", request, 8)[0]
    return (
        magic
        + struct.pack(
            "<IHHI",
            len(payload) if length is None else length,
            asked | 0x8000 if opcode is None else opcode,
            status,
            struct.unpack_from("<I", request, 12)[0] if request_id is None else request_id,
        )
        + payload
    )
