"""The client of QEMU's control socket, against a server that says what it is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.vm_qmp import Monitor, QmpError

GREETING = {"QMP": {"version": {}, "capabilities": []}}
OK = {"return": {}}


class Server:
    """Answers each line with the next text of a list; without one it hangs up."""

    def __init__(self, path: Path) -> None:
        self.requests: list[dict[str, object]] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)

    def serve(self, answers: Sequence[Sequence[object]]) -> None:
        threading.Thread(target=self._run, args=(answers,), daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _run(self, answers: Sequence[Sequence[object]]) -> None:
        connection, _ = self._socket.accept()
        with connection, connection.makefile("r") as lines:
            self._say(connection, [GREETING])
            for answer in answers:
                self.requests.append(json.loads(lines.readline()))
                self._say(connection, answer)

    @staticmethod
    def _say(connection: socket.socket, objects: Sequence[object]) -> None:
        connection.sendall("".join(json.dumps(one) + "\n" for one in objects).encode())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "qmp")
    yield made
    made.close()


def connect(tmp_path: Path) -> Monitor:
    return Monitor(tmp_path / "qmp", alive=lambda: True)


def test_answer_is_found_among_events(server: Server, tmp_path: Path) -> None:
    server.serve([[OK], [{"event": "RESUME"}, {"return": {"status": "running"}}]])
    monitor = connect(tmp_path)
    assert monitor.command("query-status") == {"status": "running"}
    assert [request["execute"] for request in server.requests] == [
        "qmp_capabilities",
        "query-status",
    ]
    monitor.close()


def test_refusal_is_an_error_with_its_words(server: Server, tmp_path: Path) -> None:
    server.serve([[OK], [{"error": {"class": "GenericError", "desc": "no such disk"}}]])
    monitor = connect(tmp_path)
    with pytest.raises(QmpError, match="device_del: no such disk"):
        monitor.command("device_del", {"id": "x"})
    monitor.close()


def test_end_of_the_connection_is_an_error(server: Server, tmp_path: Path) -> None:
    server.serve([[OK]])
    monitor = connect(tmp_path)
    with pytest.raises(QmpError):
        monitor.command("cont")
    monitor.close()


def test_program_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(QmpError, match="control socket"):
        Monitor(tmp_path / "none", alive=lambda: False)
