"""Serial ports: retries, and lines behind a bounded queue."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from google_guest.system.windows import serial_ports
from google_guest.system.windows.serial_ports import QUEUE_LINES, SerialWriter, write_now


class Port:
    """A port that takes what it gets, fails as often as it is told, or waits for ``gate``."""

    def __init__(self, *failures: OSError) -> None:
        self.failures = list(failures)
        self.written: list[tuple[str, bytes]] = []
        self.pauses: list[float] = []
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def transfer(self, port: str, data: bytes) -> None:
        self.reached.set()
        assert self.gate.wait(10)
        if self.failures:
            raise self.failures.pop(0)
        self.written.append((port, data))

    def lines(self) -> list[bytes]:
        return [data for _, data in self.written]


@pytest.fixture
def port() -> Iterator[Port]:
    one = Port()
    yield one
    one.gate.set()


def writer_to(port: Port) -> SerialWriter:
    return SerialWriter(
        "COM1",
        notice=lambda count: b"%d dropped\n" % count,
        transfer=port.transfer,
        sleep=port.pauses.append,
    )


def test_data_is_written_in_one_piece(port: Port) -> None:
    write_now("COM4", b"answer\n", transfer=port.transfer)
    assert port.written == [("COM4", b"answer\n")]


def test_failed_write_is_tried_three_times_a_second_apart() -> None:
    port = Port(OSError("1"), FileNotFoundError("2"))
    write_now("COM4", b"x", transfer=port.transfer, sleep=port.pauses.append)
    assert port.written == [("COM4", b"x")]
    assert port.pauses == [1.0, 1.0]


def test_third_failure_is_the_callers() -> None:
    port = Port(OSError("first"), OSError("second"), OSError("third"))
    with pytest.raises(OSError, match="third"):
        write_now("COM4", b"x", transfer=port.transfer, sleep=port.pauses.append)
    assert port.pauses == [1.0, 1.0]


def test_lines_are_written_one_by_one_in_their_order(port: Port) -> None:
    writer = writer_to(port)
    for number in range(50):
        writer.put(b"line %d\n" % number)
    assert writer.flush(10)
    assert port.lines() == [b"line %d\n" % number for number in range(50)]


def test_port_of_somebody_else_is_tried_three_times_100_ms_apart() -> None:
    port = Port(PermissionError(), PermissionError())
    writer = writer_to(port)
    writer.put(b"x\n")
    assert writer.flush(10)
    assert port.lines() == [b"x\n"]
    assert port.pauses == [0.1, 0.1]


def test_line_is_dropped_when_the_port_stays_with_somebody_else() -> None:
    port = Port(PermissionError(), PermissionError(), PermissionError())
    writer = writer_to(port)
    writer.put(b"x\n")
    writer.put(b"y\n")
    assert writer.flush(10)
    assert port.lines() == [b"y\n"]


def test_other_failures_cost_the_line_at_once() -> None:
    port = Port(FileNotFoundError())
    writer = writer_to(port)
    writer.put(b"x\n")
    writer.put(b"y\n")
    assert writer.flush(10)
    assert port.lines() == [b"y\n"]
    assert port.pauses == []


def test_oldest_lines_give_way_and_are_counted(port: Port) -> None:
    port.gate.clear()
    writer = writer_to(port)
    writer.put(b"first\n")
    assert port.reached.wait(10)
    for number in range(QUEUE_LINES + 7):
        writer.put(b"%d\n" % number)
    port.gate.set()
    assert writer.flush(10)
    assert port.lines()[:3] == [b"first\n", b"7 dropped\n", b"7\n"]
    assert port.lines()[-1] == b"%d\n" % (QUEUE_LINES + 6)
    assert len(port.lines()) == 2 + QUEUE_LINES


def test_wedged_port_holds_up_nobody(port: Port) -> None:
    port.gate.clear()
    writer = writer_to(port)
    writer.put(b"x\n")
    assert not writer.flush(0.05)
    assert not writer.close(0.05)


def test_closed_writer_has_written_everything_and_takes_no_more(port: Port) -> None:
    writer = writer_to(port)
    writer.put(b"x\n")
    assert writer.close(10)
    writer.put(b"y\n")
    assert writer.flush(10)
    assert port.lines() == [b"x\n"]


def test_writer_without_lines_has_no_thread(port: Port) -> None:
    before = threading.active_count()
    assert writer_to(port).close(10)
    assert threading.active_count() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has ports of that name")
def test_machine_without_such_ports_says_so() -> None:
    with pytest.raises(OSError, match="COM4"):
        serial_ports.transfer("COM4", b"x")
