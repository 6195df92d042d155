"""Steering an emulator from outside: Unix socket, TCP with a token, the program."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import metadata_server
from metadata_server import ControlClient, Emulator
from metadata_server.control import CALLS, TOKEN_HEADER, ControlError

from .conftest import ask_host


@pytest.fixture
def steered(tmp_path: Path) -> Iterator[tuple[Emulator, ControlClient]]:
    path = str(tmp_path / "mds.sock")
    with Emulator(control_socket=path) as mds:
        yield mds, ControlClient(path)
        assert mds.failures == []


Steered = tuple[Emulator, ControlClient]


def test_socket_is_for_its_owner_only_and_goes_with_the_emulator(tmp_path: Path) -> None:
    path = tmp_path / "mds.sock"
    with Emulator(control_socket=str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_socket_of_a_killed_emulator_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mds.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with Emulator(control_socket=str(path)):
        assert ControlClient(str(path)).get("instance/name") == "demo-1"


def test_socket_in_use_and_other_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mds.sock"
    with Emulator(control_socket=str(path)), pytest.raises(OSError, match=r"mds\.sock"):
        Emulator(control_socket=str(path)).start()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        Emulator(control_socket=str(tmp_path / "file")).start()
    assert (tmp_path / "file").read_text() == "mine"


def test_document_can_be_changed_and_read(steered: Steered) -> None:
    mds, client = steered
    client.set("instance/attributes/color", "blue")
    client.set("instance/attributes/raw", b"\xff\x00")
    assert mds.get("instance/attributes/color") == "blue"
    assert mds.get("instance/attributes/raw") == b"\xff\x00"
    assert client.get("instance/attributes/raw") == b"\xff\x00"
    client.delete("instance/attributes/color")
    assert client.get("instance/attributes/color", "gone") == "gone"
    assert client.etag() == mds.etag()
    client.replace({"instance": {"id": 2**63}})
    assert client.get() == {"instance": {"id": 2**63}}
    client.use_profile("windows")
    assert client.get("instance/name") == "win-7"


def test_null_is_told_from_absent(steered: Steered) -> None:
    _, client = steered
    client.set("instance/attributes/null", None)
    assert client.get("instance/attributes/null", "default") is None


def test_batch_is_sent_as_one_change(steered: Steered) -> None:
    mds, client = steered
    with client.batch():
        client.set("instance/attributes/a", "1")
        client.delete("instance/attributes/startup-script")
        assert mds.get("instance/attributes/a") is None
    assert mds.get("instance/attributes/a") == "1"
    with pytest.raises(RuntimeError), client.batch():
        client.set("instance/attributes/a", "2")
        raise RuntimeError
    assert mds.get("instance/attributes/a") == "1"


def test_batch_with_a_mistake_changes_nothing(steered: Steered) -> None:
    mds, client = steered
    with pytest.raises(KeyError), client.batch():
        client.set("instance/attributes/a", "1")
        client.delete("instance/nothing")
    assert mds.get("instance/attributes/a") is None


def test_requests_can_be_read_and_waited_for(steered: Steered) -> None:
    mds, client = steered
    threading.Timer(
        0.05,
        lambda: ask_host(mds.host, "instance/guest-attributes/a/b?x=y", method="PUT", body=b"\xff"),
    ).start()
    seen = client.wait_for_request("instance/guest-attributes/", 10, method="PUT")
    assert (seen.method, seen.path, seen.query) == (
        "PUT",
        "instance/guest-attributes/a/b",
        {"x": "y"},
    )
    assert (seen.body, seen.headers["metadata-flavor"]) == (b"\xff", "Google")
    assert seen == mds.requests()[0] or seen.number == mds.requests()[0].number
    with pytest.raises(TimeoutError, match="PUT instance/guest-attributes"):
        client.wait_for_request("instance/", 0.01, since=seen)
    assert len(client.requests("instance/")) == 1
    assert client.requests("project/") == []
    client.clear_requests()
    assert (client.requests(), client.request_count) == ([], 1)


def test_control_calls_are_not_recorded(steered: Steered) -> None:
    mds, client = steered
    client.get("instance/id")
    assert mds.requests() == []


def test_faults_can_be_set_listed_and_removed(steered: Steered) -> None:
    mds, client = steered
    number = client.fault("instance/id", "status", status=503, count=5)
    client.fault("instance/name", "body", body=b"\xfe")
    assert ask_host(mds.host, "instance/id").status == 503
    assert ask_host(mds.host, "instance/name").body == b"\xfe"
    assert [(fault["kind"], fault["hits"]) for fault in client.faults()] == [
        ("status", 1),
        ("body", 1),
    ]
    client.remove_fault(number)
    assert ask_host(mds.host, "instance/id").status == 200
    client.clear_faults()
    assert client.faults() == []


def test_control_socket_works_while_offline(steered: Steered) -> None:
    mds, client = steered
    client.offline()
    with pytest.raises(ConnectionRefusedError):
        ask_host(mds.host, "instance/id")
    client.online()
    assert ask_host(mds.host, "instance/id").status == 200


def test_everything_else_has_its_call(steered: Steered) -> None:
    mds, client = steered
    client.preset("preemption")
    assert client.get("instance/preempted") == "TRUE"
    client.set("instance/attributes/enable-oslogin", "TRUE")
    client.set_oslogin({"users": [{"username": "ada", "uid": 2001}]})
    assert ask_host(mds.host, "oslogin/users?uid=2001").status == 200
    ask_host(mds.host, "instance/guest-attributes/a/b", method="PUT", body=b"x")
    assert client.guest_attributes() == {"a": {"b": "x"}}
    client.limit_guest_attributes(0.001)
    statuses = [ask_host(mds.host, "instance/guest-attributes/a/b").status for _ in range(2)]
    assert statuses == [200, 429]
    assert (client.host, client.url, client.failures) == (mds.host, mds.url, [])
    assert "keys" in client.public_keys()
    assert client.waiting_clients == 0


@pytest.mark.parametrize(
    ("call", "arguments", "error"),
    [
        ("set", {"path": "instance/name/below", "value": 1}, ValueError),
        ("set", {"path": "x"}, ValueError),
        ("set", {"path": 7, "value": 1}, ValueError),
        ("set", {"path": "x", "value": {"$base64": "%"}}, ValueError),
        ("delete", {"path": "nothing"}, KeyError),
        ("delete", {}, ValueError),
        ("etag", {"path": "nothing"}, KeyError),
        ("replace", {"document": []}, ValueError),
        ("batch", {"changes": [{"call": "offline"}]}, ValueError),
        ("batch", {}, ValueError),
        ("fault", {"path_prefix": "", "kind": "nonsense"}, ValueError),
        ("fault", {"path_prefix": "", "kind": "status", "count": "x"}, ValueError),
        ("remove_fault", {"number": 99}, KeyError),
        ("preset", {"name": "nonsense"}, ValueError),
        ("use_profile", {"name": "nonsense"}, ValueError),
        ("offline", {"seconds": "x"}, ValueError),
        ("no_such_call", {}, ControlError),
    ],
)
def test_mistakes_are_answered_with_what_is_wrong(
    steered: Steered, call: str, arguments: dict[str, object], error: type[Exception]
) -> None:
    _, client = steered
    with pytest.raises(error):
        client.call(call, arguments)


def test_client_says_where_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="absent"):
        ControlClient(str(tmp_path / "absent")).get()


def test_metadata_is_not_served_on_the_control_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "mds.sock")
    with Emulator(control_socket=path), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(
            b"GET /computeMetadata/v1/instance/id HTTP/1.1\r\nMetadata-Flavor: Google\r\n\r\n"
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 404")


# TCP


@pytest.mark.parametrize("token", ["", "wrong", "caf\xe9"])
def test_tcp_control_needs_the_token(mds: Emulator, token: str) -> None:
    connection = http.client.HTTPConnection(mds.host, timeout=10)
    headers = {TOKEN_HEADER: token, "Metadata-Flavor": "Google"}
    connection.request("POST", "/_emulator/get", b'{"path":""}', headers)
    assert connection.getresponse().status == 403
    connection.close()


def test_tcp_control_with_the_token(mds: Emulator) -> None:
    client = ControlClient(host=mds.host, token=mds.control_token)
    client.set("instance/name", "renamed")
    assert mds.get("instance/name") == "renamed"


def test_calls_are_made_with_post(mds: Emulator) -> None:
    connection = http.client.HTTPConnection(mds.host, timeout=10)
    connection.request("GET", "/_emulator/get", headers={TOKEN_HEADER: mds.control_token})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Allow")) == (405, "POST")
    connection.close()


def test_client_has_the_emulators_methods() -> None:
    names = {name for name in vars(Emulator) if not name.startswith("_")}
    only_here = {"later", "start", "stop", "port", "tls_port", "serve_credentials"}
    assert names - only_here <= set(vars(ControlClient))
    assert {"set", "requests", "fault"} <= set(CALLS)


# The program


class Program:
    """google_mds_emulator as a child process."""

    def __init__(self, *arguments: str) -> None:
        source = Path(metadata_server.__file__).parent.parent
        self.process = subprocess.Popen(
            [sys.executable, "-m", "metadata_server", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(source)},
            text=True,
        )

    def host(self) -> str:
        assert self.process.stdout is not None
        name, _, host = self.process.stdout.readline().strip().partition("=")
        assert name == "GCE_METADATA_HOST"
        return host

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_program_prints_its_address_and_stops_on_a_signal(number: int) -> None:
    program = Program("--profile", "minimal")
    assert ask_host(program.host(), "instance/id").text == "1"
    assert program.end(number) == (0, "")


def test_program_takes_files_and_makes_a_token(tmp_path: Path) -> None:
    tree, users = tmp_path / "tree.json", tmp_path / "users.json"
    tree.write_text('{"instance": {"name": "mine", "attributes": {"enable-oslogin": "TRUE"}}}')
    users.write_text('{"users": [{"username": "ada", "uid": 2001}]}')
    token = tmp_path / "token"
    program = Program(
        *("--tree", str(tree), "--oslogin", str(users), "--control-token-file", str(token))
    )
    try:
        host = program.host()
        assert ask_host(host, "instance/name").text == "mine"
        assert ask_host(host, "oslogin/users?username=ada").status == 200
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        client = ControlClient(host=host, token=token.read_text().strip())
        client.set("instance/name", "renamed")
        assert ask_host(host, "instance/name").text == "renamed"
    finally:
        program.end()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tree", "/dev/no-such-tree"), "/dev/no-such-tree: No such file"),
        (("--tree", os.devnull), "not JSON"),
        (("--address", "192.0.2.1"), "cannot listen on 192.0.2.1"),
        (("--address", "nonsense."), "nonsense."),
        (("--mtls-credentials",), "needs --tls"),
    ],
)
def test_program_tells_mistakes_in_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = Program(*arguments)
    _, errors = program.process.communicate(timeout=20)
    assert program.process.returncode == 1
    assert message in errors
    assert errors.count("\n") == 1
