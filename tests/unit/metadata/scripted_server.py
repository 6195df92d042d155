"""A server that says exactly the bytes it is told, to whoever connects.

For what no well-behaved server sends: truncated bodies, garbage, endless headers, one byte at a
time. ``requests`` has the head of every request, ``connections`` counts who came.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Optional, Union

Script = Union[bytes, Callable[[socket.socket], None]]
GENUINE = b"Metadata-Flavor: Google\r\n"


def answer(
    body: bytes = b"value",
    *,
    status: str = "200 OK",
    headers: bytes = GENUINE,
    length: Optional[int] = None,
) -> bytes:
    """Return a whole HTTP answer."""
    size = len(body) if length is None else length
    head = b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n" % (status.encode(), headers, size)
    return head + body


class ScriptedServer:
    """Gives the next script to each request, the last one for ever; a context manager.

    With ``keep_alive`` a connection carries one request after the other, otherwise it is closed
    after each answer.
    """

    def __init__(self, *scripts: Script, keep_alive: bool = False) -> None:
        self.scripts: Sequence[Script] = scripts
        self.requests: list[bytes] = []
        self.connections = 0
        self._keep_alive = keep_alive
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Refuse connections from now on and cut the open ones."""
        # shutdown(2) wakes accept(2); close(2) alone would leave it waiting.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Close all open connections."""
        for sock in self._open:
            sock.close()
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            while self._serve_one(sock) and self._keep_alive:
                continue
        except OSError:
            return
        finally:
            if not self._keep_alive:
                _close_gently(sock)

    def _serve_one(self, sock: socket.socket) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            data = sock.recv(65536)
            if not data:
                return False
            head += data
        self.requests.append(head)
        script = self.scripts[min(len(self.requests), len(self.scripts)) - 1]
        if callable(script):
            script(sock)
        else:
            sock.sendall(script)
        return True


def _close_gently(sock: socket.socket) -> None:
    """Close without a reset, which could overtake the answer."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        sock.close()
        return
    sock.close()
