"""The three sinks of a run on Windows, and the code pages of scripts' output."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.scripts.output import ScriptOutput
from google_guest.scripts.windows_console import WindowsConsole, decode, from_code_page
from google_guest.system.windows.serial_ports import SerialWriter
from google_guest.system.windows.service_log import ConsoleLines

LINE = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d GCEMetadataScripts: ")


class Sinks:
    """What reached COM1, the event log and standard output."""

    def __init__(self) -> None:
        self.serial: list[bytes] = []
        self.events: list[tuple[int, str]] = []
        self.stream = io.BytesIO()
        writer = SerialWriter("COM1", notice=lambda count: b"", transfer=self._transfer)
        self.console = WindowsConsole(
            lines=ConsoleLines("GCEMetadataScripts", writer=writer),
            events=self,
            stream=self.stream,
        )

    def report(self, level: int, text: str) -> None:
        self.events.append((level, text))

    def _transfer(self, port: str, data: bytes) -> None:
        self.serial.append(data)

    def com1(self) -> list[str]:
        self.console.close()
        return [data.decode() for data in self.serial]


@pytest.fixture
def sinks() -> Sinks:
    return Sinks()


def test_line_reaches_all_three(sinks: Sinks) -> None:
    sinks.console.info("Found windows-startup-script-ps1 in metadata.")
    (line,) = sinks.com1()
    assert LINE.sub("", line) == "Found windows-startup-script-ps1 in metadata.\n"
    assert LINE.match(line)
    assert sinks.events == [(logging.INFO, "Found windows-startup-script-ps1 in metadata.")]
    assert sinks.stream.getvalue() == b"Found windows-startup-script-ps1 in metadata.\n"


def test_warning_is_one_in_the_event_log_and_bare_text_elsewhere(sinks: Sinks) -> None:
    sinks.console.warning("no\nnews")
    assert sinks.events == [(logging.WARNING, "no news")]
    assert sinks.stream.getvalue() == b"no news\n"


def test_every_line_of_a_script_is_a_write_of_its_own(sinks: Sinks) -> None:
    output = ScriptOutput("k", sinks.console, decode=decode)
    output.feed(b"one\r\ntwo\r\n\r\nth")
    output.close()
    assert [LINE.sub("", line) for line in sinks.com1()] == [
        "k: one\n",
        "k: two\n",
        "k: \n",
        "k: th\n",
    ]
    assert [text for _, text in sinks.events] == ["k: one", "k: two", "k: ", "k: th"]


def test_reader_that_is_gone_stops_nothing(sinks: Sinks) -> None:
    sinks.stream.close()
    sinks.console.info("a")
    sinks.console.info("b")
    assert len(sinks.com1()) == len(sinks.events) == 2


def test_process_without_standard_output_is_fine() -> None:
    console = WindowsConsole(lines=Sinks().console._lines, events=Sinks())
    console.info("a")
    console.close()


@pytest.mark.parametrize(
    ("data", "code_page", "text"),
    [
        (b"gr\x81\xe1e", "cp437", "grüße"),
        (b"gr\x81\xe1e", "cp850", "grüße"),
        (b"\x83\x65\x83\x58\x83\x67", "cp932", "テスト"),
        (b"a\xff", "no-such-code-page", "a\\xff"),
        (b"\x83", "cp932", "\\x83"),
    ],
)
def test_code_page_is_understood(data: bytes, code_page: str, text: str) -> None:
    assert from_code_page(data, code_page) == text


def test_utf8_comes_first() -> None:
    assert decode("grüße".encode()) == "grüße"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows the code page")
def test_escapes_come_last() -> None:
    assert decode(b"\xff\xfeA") == "\\xff\\xfeA"


@given(st.binary(max_size=200))
def test_any_output_can_be_shown(data: bytes) -> None:
    sinks = Sinks()
    output = ScriptOutput("k", sinks.console, decode=lambda piece: from_code_page(piece, "cp437"))
    output.feed(data)
    output.close()
    shown = sinks.stream.getvalue().decode()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
