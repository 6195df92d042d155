"""One question to the daemon, and what becomes of each way in which it does not answer."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from unit.oslogin.fake_daemon import fake_daemon, lines

from oslogin import client, protocol
from oslogin.protocol import Message


def ask(path: str, **options: float) -> Message:
    return client.ask(
        path, Message(protocol.KEYS), **{"seconds": 5.0, "owner": os.geteuid(), **options}
    )


def test_answer_is_returned(tmp_path: Path) -> None:
    with fake_daemon(tmp_path, lines("one", "two")) as daemon:
        assert ask(daemon.path).texts(protocol.LINE) == ("one", "two")


def test_answer_of_many_pieces_is_returned_whole(tmp_path: Path) -> None:
    texts = tuple("k" * 60000 for _ in range(16))
    with fake_daemon(tmp_path, lines(*texts)) as daemon:
        assert ask(daemon.path).texts(protocol.LINE) == texts


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GOL1", id="half a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="another protocol"),
        pytest.param(b"GOL1\xff\xff\xff\xff\x21\x80\0\0\1\0\0\0", id="too long"),
        pytest.param(b"GOL1\0\0\0\0\x22\x80\0\0\1\0\0\0", id="another opcode"),
        pytest.param(b"GOL1\0\0\0\0\x21\x80\0\0\2\0\0\0", id="another number"),
        pytest.param(b"GOL1\5\0\0\0\x21\x80\0\0\1\0\0\0\x18\0\1\0x", id="bad field"),
        pytest.param(b"GOL1\5\0\0\0\x21\x80\0\0\1\0\0\0", id="payload missing"),
    ],
)
def test_wrong_answer_is_no_answer(tmp_path: Path, bad: bytes) -> None:
    with (
        fake_daemon(tmp_path, lambda request: bad) as daemon,
        pytest.raises(client.Unreachable) as error,
    ):
        ask(daemon.path)
    assert not isinstance(error.value, client.NotThere)


def test_nobody_listening_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(client.NotThere):
        ask(str(tmp_path / "none.sock"))


def test_daemon_of_another_user_is_not_believed(tmp_path: Path) -> None:
    with (
        fake_daemon(tmp_path, lines("key")) as daemon,
        pytest.raises(client.Unreachable, match="does not belong"),
    ):
        # It closes without having read, which the fake takes for an end.
        client.ask(daemon.path, Message(protocol.KEYS), seconds=5.0, owner=os.geteuid() + 1)


def test_silent_daemon_is_waited_for_no_longer_than_allowed(tmp_path: Path) -> None:
    path = str(tmp_path / "silent.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        started = time.monotonic()
        with pytest.raises(client.Unreachable):
            ask(path, seconds=0.3)
    assert 0.25 < time.monotonic() - started < 3
