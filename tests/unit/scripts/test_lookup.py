"""Which scripts metadata has, and how long it is waited for."""

from __future__ import annotations

import pytest

from google_guest.metadata.errors import (
    BadAnswer,
    ConnectFailed,
    MetadataError,
    NotFound,
    TimedOut,
)
from google_guest.scripts.events import LINUX, WINDOWS, is_url_key
from google_guest.scripts.lookup import Script, find_scripts
from google_guest.scripts.output import Console


class Told(Console):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def write(self, data: bytes) -> None:
        self.text += data.decode()


class Server:
    """Answers in turn, the last answer for ever, on a clock that pauses and timeouts move."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.timeouts: list[float] = []
        self.paths: list[str] = []
        self.now = 50.0
        self.pauses: list[float] = []

    def get_json(
        self, path: str, *, recursive: bool = True, timeout: float = 5, budget: float = 30
    ) -> object:
        assert recursive and budget == 0
        self.paths.append(path)
        self.timeouts.append(timeout)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, TimedOut):
            self.now += timeout
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def find(self, event: str = "startup") -> tuple[Script, ...]:
        self.told = Told()
        return find_scripts(self, LINUX[event], self.told, clock=lambda: self.now, sleep=self.sleep)


def test_order_is_that_of_the_event_and_not_of_the_document() -> None:
    found = Server({"startup-script-url": "u", "other": "x", "startup-script": "s"}).find()
    assert found == (Script("startup-script", "s"), Script("startup-script-url", "u"))


def test_project_is_asked_only_without_a_script_of_the_instance() -> None:
    server = Server({"startup-script": "s"})
    server.find()
    assert server.paths == ["instance/attributes/"]


def test_missing_attributes_are_no_error() -> None:
    server = Server(NotFound("no"))
    assert server.find() == ()
    assert server.pauses == []


def test_late_network_is_waited_for_with_growing_pauses() -> None:
    server = Server(*[ConnectFailed("no route")] * 8, {"startup-script": "s"})
    assert len(server.find()) == 1
    assert server.pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert server.told.text.count("Waiting for metadata") == 1


@pytest.mark.parametrize(("event", "limit"), [("startup", 300), ("shutdown", 10)])
@pytest.mark.parametrize("error", [ConnectFailed("no route"), TimedOut("silent"), BadAnswer("?")])
def test_waiting_ends_within_the_events_limit(
    event: str, limit: float, error: MetadataError
) -> None:
    server = Server(error)
    with pytest.raises(type(error)):
        server.find(event)
    assert limit - 6 <= server.now - 50 <= limit


def test_request_at_shutdown_takes_two_seconds_at_most() -> None:
    server = Server(TimedOut("silent"))
    with pytest.raises(TimedOut):
        server.find("shutdown")
    assert max(server.timeouts) == 2


def test_document_that_is_no_object_is_asked_for_again() -> None:
    assert len(Server(["x"], {"startup-script": "s"}).find()) == 1


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (True, "true"), ({"a": 1}, '{"a": 1}'), ([], "[]")]
)
def test_other_json_values_become_text(value: object, text: str) -> None:
    assert Server({"startup-script": value}).find()[0].value == text


def test_null_counts_as_absent() -> None:
    assert Server({"startup-script": None}).find() == ()


def test_script_is_not_part_of_its_representation() -> None:
    assert "secret" not in repr(Script("startup-script", "secret"))


@pytest.mark.parametrize(
    ("event", "keys"),
    [
        ("startup", "windows-startup-script-{}"),
        ("shutdown", "windows-shutdown-script-{}"),
        ("specialize", "sysprep-specialize-script-{}"),
    ],
)
def test_windows_keys_come_in_the_order_of_the_platform(event: str, keys: str) -> None:
    wanted = tuple(keys.format(kind) for kind in ("ps1", "cmd", "bat", "url"))
    assert WINDOWS[event].keys == wanted
    assert [is_url_key(key) for key in wanted] == [False, False, False, True]
