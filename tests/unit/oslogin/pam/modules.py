"""Runs the PAM modules in tests: builds, one call in a process, and a scripted service."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Union

import pytest
from support.tiers import in_ci

from oslogin import protocol
from oslogin.protocol import Message

ROOT = Path(__file__).resolve().parents[4]
SOURCE = ROOT / "src" / "oslogin" / "pam"
HERE = Path(__file__).resolve().parent
SECOND_MS = 10
"""A second of the builds under test."""

# Linux-PAM's numbers.
SUCCESS, PERM_DENIED, AUTH_ERR, AUTHINFO_UNAVAIL, IGNORE = 0, 6, 7, 9, 25
SILENT = 0x8000
SANITIZERS = {
    "plain": (),
    "sanitized": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
}
HANDLE = bytes(range(1, 17))


def absent(message: str) -> None:
    """A visible skip, and a failure in CI."""
    if in_ci():
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        absent(f"this test needs {program}")
    assert path
    return path


def need_pam_headers() -> None:
    if not Path("/usr/include/security/pam_modules.h").exists():
        absent("this test needs the headers of libpam")


class Run(NamedTuple):
    """What one call of a function did."""

    result: int
    prompts: tuple[tuple[int, str], ...]
    log: tuple[str, ...]


class Module:
    """One build of one module."""

    def __init__(self, program: Path, socket_path: Path) -> None:
        self._program = program
        self.socket_path = socket_path

    def call(
        self,
        function: str,
        user: str,
        *options: str,
        answers: Sequence[str] = (),
        flags: int = 0,
    ) -> Run:
        done = subprocess.run(
            [str(self._program), function, user, str(flags), *options],
            input="".join(f"{answer}\n" for answer in answers).encode(),
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
        prompts, log, result = [], [], None
        for line in done.stdout.decode().splitlines():
            kind, rest = line.split(" ", 1)
            if kind == "P":
                style, text = rest.split(" ", 1)
                prompts.append((int(style), bytes.fromhex(text).decode()))
            elif kind == "L":
                log.append(rest)
            else:
                result = int(rest)
        assert result is not None
        return Run(result, tuple(prompts), tuple(log))


Reply = Union[Callable[[Message], bytes], None]
"""Makes the bytes of a reply; None: no reply, the connection stays open."""


class Service:
    """A service that gives its scripted replies in order, on one connection after the other."""

    def __init__(self, path: Path, replies: Sequence[Reply]) -> None:
        self.requests: list[Message] = []
        self._replies = list(replies)
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()
        self._path.unlink()

    def opcodes(self) -> list[int]:
        return [request.opcode for request in self.requests]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # The module hangs up on what it does not understand.
            with connection, contextlib.suppress(ConnectionError):
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while True:
            head = stream.read(protocol.HEADER_SIZE)
            if len(head) < protocol.HEADER_SIZE:
                return
            header = protocol.decode_header(head, protocol.AUTH_REQUEST_LIMIT)
            request = protocol.decode_payload(header, stream.read(header.length))
            self.requests.append(request)
            if not self._replies:
                continue
            reply = self._replies.pop(0)
            if reply is None:
                continue
            data = reply(request)
            connection.sendall(data)
            if len(data) < protocol.HEADER_SIZE or len(
                data
            ) < protocol.HEADER_SIZE + int.from_bytes(data[4:8], "little"):
                return  # cut off: nothing more comes


def status(value: int) -> Callable[[Message], bytes]:
    return lambda request: protocol.encode(protocol.reply(request, value))


def result(value: int, *prompts: tuple[int, str]) -> Callable[[Message], bytes]:
    """The end of a conversation, with texts to show before."""
    fields = [*prompt_fields(*prompts), protocol.number_field(protocol.RESULT, value)]
    return lambda request: protocol.encode(protocol.reply(request, fields=fields))


def ask(*prompts: tuple[int, str]) -> Callable[[Message], bytes]:
    """Texts to show, of which the last is a question."""
    fields = [protocol.bytes_field(protocol.HANDLE, HANDLE), *prompt_fields(*prompts)]
    return lambda request: protocol.encode(protocol.reply(request, fields=fields))


def prompt_fields(*prompts: tuple[int, str]) -> list[tuple[int, bytes]]:
    fields = []
    for style, text in prompts:
        fields.append(protocol.number_field(protocol.STYLE, style))
        fields.append(protocol.string_field(protocol.PROMPT, text))
    return fields
