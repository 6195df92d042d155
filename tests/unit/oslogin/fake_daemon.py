"""A daemon for tests: answers one connection after the other on a socket, with what it is told."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from oslogin import protocol
from oslogin.protocol import Message


class FakeDaemon:
    """``requests`` are those that came."""

    def __init__(self, path: str, answer: Callable[[Message], bytes]) -> None:
        self.path = path
        self.requests: list[Message] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(8)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                if self._stopping.is_set():
                    return
                start = connection.recv(16, socket.MSG_WAITALL)
                if not start:
                    continue
                header = protocol.decode_header(start)
                payload = connection.recv(header.length, socket.MSG_WAITALL)
                request = protocol.decode_payload(header, payload)
                self.requests.append(request)
                with contextlib.suppress(OSError):
                    connection.sendall(self._answer(request))

    def stop(self) -> None:
        self._stopping.set()
        with socket.socket(socket.AF_UNIX) as waker:
            waker.connect(self.path)
        self._thread.join(10)
        self._listener.close()


@contextlib.contextmanager
def fake_daemon(folder: Path, answer: Callable[[Message], bytes]) -> Iterator[FakeDaemon]:
    """Run a daemon that sends the bytes that ``answer`` makes of a request."""
    daemon = FakeDaemon(str(folder / "auth.sock"), answer)
    try:
        yield daemon
    finally:
        daemon.stop()


def lines(*texts: str, status: int = protocol.OK) -> Callable[[Message], bytes]:
    """Return an answer that has these lines."""

    def answer(request: Message) -> bytes:
        fields = [protocol.string_field(protocol.LINE, text) for text in texts]
        return protocol.encode(protocol.reply(request, status, fields))

    return answer
