"""The log of a Windows service: one entry in the event log, lines on COM1."""

from __future__ import annotations

import io
import logging
import re
import threading
import time
from collections.abc import Iterator

import pytest

from google_guest import logs
from google_guest.system.windows import service_log
from google_guest.system.windows.serial_ports import QUEUE_LINES, SerialWriter
from google_guest.system.windows.service_log import ConsoleLines, ServiceLogHandler, log_name


class Sinks:
    """What reached the event log and COM1."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, str]] = []
        self.serial: list[tuple[str, bytes]] = []

    def report(self, level: int, text: str) -> None:
        self.entries.append((level, text))

    def transfer(self, port: str, data: bytes) -> None:
        self.serial.append((port, data))

    def lines(self, name: str = "GCEGuestAgent", now: float = 1795489200.5) -> ConsoleLines:
        writer = SerialWriter("COM1", notice=lambda count: b"", transfer=self.transfer)
        return ConsoleLines(name, writer=writer, now=lambda: now)


@pytest.fixture
def sinks() -> Sinks:
    return Sinks()


@pytest.fixture
def handler(sinks: Sinks) -> ServiceLogHandler:
    made = ServiceLogHandler("GCEGuestAgent", events=sinks, lines=sinks.lines())
    made.setFormatter(logs.LineFormatter(prefixed=False))
    return made


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    before = (logger.handlers[:], logger.level)
    yield logger
    logger.handlers[:], logger.level = before


def record(message: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("t", level, "", 0, message, (), None)


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("google_guest_agent", "GCEGuestAgent"),
        ("google_metadata_script_runner", "GCEMetadataScripts"),
        ("google_osconfig_agent", "google_osconfig_agent"),
    ],
)
def test_programs_have_the_names_of_the_reference(program: str, name: str) -> None:
    assert log_name(program) == name


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be set here")
def test_line_has_local_time_and_name(sinks: Sinks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XST-3")
    time.tzset()
    try:
        lines = sinks.lines(now=1795489205.9)
        lines.put("hello")
        assert lines.flush(10)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert sinks.serial == [("COM1", b"2026/11/24 06:00:05 GCEGuestAgent: hello\n")]


def test_record_is_one_entry_and_its_lines_each_have_the_prefix(
    handler: ServiceLogHandler, sinks: Sinks
) -> None:
    handler.handle(record("broken\ntrace", logging.ERROR))
    handler.flush()
    assert sinks.entries == [(logging.ERROR, "broken\ntrace")]
    assert [data.split(b" GCEGuestAgent: ")[1] for _, data in sinks.serial] == [
        b"broken\n",
        b"trace\n",
    ]


def test_only_line_ends_end_a_line(sinks: Sinks) -> None:
    lines = sinks.lines()
    lines.put("one\u2028still one")
    assert lines.flush(10)
    assert len(sinks.serial) == 1


def test_lines_without_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    reached, gate = threading.Event(), threading.Event()

    def transfer(port: str, data: bytes) -> None:
        reached.set()
        assert gate.wait(10)
        written.append(data)

    monkeypatch.setattr(
        service_log,
        "SerialWriter",
        lambda port, notice: SerialWriter(port, notice=notice, transfer=transfer),
    )
    lines = ConsoleLines("GCEGuestAgent")
    lines.put("first")
    assert reached.wait(10)
    for _ in range(QUEUE_LINES + 3):
        lines.put("more")
    gate.set()
    assert lines.flush(10)
    assert written[1].endswith(
        b" GCEGuestAgent: lines that found no room here and were dropped: 3\n"
    )


def test_secrets_reach_neither_sink(handler: ServiceLogHandler, sinks: Sinks) -> None:
    handler.handle(record("https://storage.example/b/o?X-Goog-Signature=abcdef"))
    handler.flush()
    assert "abcdef" not in repr(sinks.entries) + repr(sinks.serial)
    assert sinks.entries


def test_windows_service_logs_there(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_log, "ConsoleLines", lambda name: Sinks().lines(name))
    logs.configure_logging("google_guest_agent", environ={}, stderr=io.StringIO(), platform="win32")
    assert isinstance(root.handlers[0], ServiceLogHandler)


def test_windows_console_gets_the_lines(root: logging.Logger) -> None:
    err = io.StringIO()
    environment = {"GUEST_AGENT_DEBUG": "1"}
    logs.configure_logging("x", environ=environment, stderr=err, platform="win32")
    logging.getLogger("t").debug("hello")
    assert err.getvalue() == "hello\n"


def test_repeats_are_counted_and_waited_for(
    root: logging.Logger, handler: ServiceLogHandler, sinks: Sinks
) -> None:
    sink = logs.Sink(handler)
    for _ in range(3):
        handler.handle(record("same"))
    sink.flush(everything=True)
    assert [text for _, text in sinks.entries] == ["same", "same (repeated 2 times)"]
    assert re.fullmatch(rb".* same \(repeated 2 times\)\n", sinks.serial[-1][1])
