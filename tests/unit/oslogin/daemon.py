"""The OS Login service in this process: real sockets, a real metadata server, files of a test."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from google_guest.metadata.client import MetadataClient
from metadata_server import Emulator
from oslogin import protocol
from oslogin.protocol import Message, number_field, string_field
from oslogin.service import Daemon, Places


class Service:
    """A running daemon and how to talk to it."""

    def __init__(self, daemon: Daemon, folder: Path, mds: Emulator) -> None:
        self.daemon = daemon
        self.folder = folder
        self.mds = mds
        self.thread = threading.Thread(target=daemon.run, daemon=True)

    @property
    def cache(self) -> str:
        return str(self.folder / "identity.v1.cache")

    def connect(self, name: str = "nss", timeout: float = 10.0) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(str(self.folder / f"{name}.sock"))
        return sock

    def ask(
        self, opcode: int, *fields: tuple[int, bytes], on: str = "nss", timeout: float = 10.0
    ) -> Message:
        with self.connect(on, timeout) as sock:
            return ask(sock, opcode, *fields)

    def user(self, name: str) -> Message:
        return self.ask(protocol.GETPWNAM, string_field(protocol.NAME, name))

    def uid(self, number: int) -> Message:
        return self.ask(protocol.GETPWUID, number_field(protocol.ID, number))

    def group(self, name: str) -> Message:
        return self.ask(protocol.GETGRNAM, string_field(protocol.NAME, name))


def ask(sock: socket.socket, opcode: int, *fields: tuple[int, bytes]) -> Message:
    """Send one request and return its reply."""
    sock.sendall(protocol.encode(Message(opcode, fields, number=77)))
    return receive(sock)


def receive(sock: socket.socket) -> Message:
    """Return the next reply."""
    data = _exactly(sock, protocol.HEADER_SIZE)
    header = protocol.decode_header(data)
    return protocol.decode_payload(header, _exactly(sock, header.length))


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError("the connection was closed")
        data += more
    return data


@contextlib.contextmanager
def running(
    folder: Path, mds: Emulator, *, idle: float = 0.0, peers: Optional[dict[str, Any]] = None
) -> Iterator[Service]:
    """Run the service with its files in ``folder``; ``peers`` replaces what peers are seen."""
    for name in ("users", "sudoers", "run-sudoers"):
        (folder / name).mkdir(exist_ok=True)
    places = Places(
        cache=str(folder / "identity.v1.cache"),
        users=str(folder / "users"),
        sudoers=(str(folder / "sudoers"), str(folder / "run-sudoers")),
        answered=str(folder / "answered"),
        refreshed=str(folder / "refreshed"),
        former=(str(folder / "oslogin_passwd.cache"),),
    )
    client = MetadataClient(mds.host, environ={}, connect_timeout=1.0, redirects=0)
    daemon = Daemon(client, places=places, idle=idle)
    sockets = {}
    for name in ("nss", "auth", "userdb"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / f"{name}.sock"))
        listener.listen(128)
        sockets[name] = [listener]
    assert daemon.serve(sockets) == 3
    seen = peers or {}
    original = daemon.server._peer

    def peer(sock: socket.socket) -> Any:
        # The tests are this process, and may not be root.
        found = original(sock)
        fields = {"uid": 0, "pid": os.getpid() + 1, **seen}
        return type(found)(fields["uid"], fields["pid"], found.connection_id)

    daemon.server._peer = peer  # type: ignore[method-assign]
    service = Service(daemon, folder, mds)
    service.thread.start()
    try:
        yield service
    finally:
        daemon.server.stop()
        service.thread.join(5.0)
        for listeners in sockets.values():
            listeners[0].close()
        assert not service.thread.is_alive()


def random_bytes(seed: int, size: int) -> bytes:
    """Return the same unpredictable bytes for the same seed."""
    state = seed or 1
    found = bytearray()
    while len(found) < size:
        state = (state * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
        found += struct.pack("<Q", state ^ (state >> 29))
    return bytes(found[:size])
