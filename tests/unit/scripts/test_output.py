"""From bytes to lines: any bytes, read in any portions, give the same lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from google_guest.scripts.output import (
    CHUNK,
    FLUSH_SECONDS,
    Console,
    LineSplitter,
    ScriptOutput,
    is_journal,
    pieces,
    rendered,
)


class Collected(Console):
    """A console that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    @property
    def lines(self) -> list[str]:
        return self.data.decode().split("\n")[:-1]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines_of(*portions: bytes) -> list[str]:
    console = Collected()
    output = ScriptOutput("k", console)
    for portion in portions:
        output.feed(portion)
    output.close()
    return console.lines


def split(data: bytes, cuts: Sequence[int]) -> list[tuple[bool, bytes]]:
    found: list[tuple[bool, bytes]] = []
    splitter = LineSplitter(lambda continued, piece: found.append((continued, piece)))
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in zip(places, places[1:]):
        splitter.feed(data[start:end])
    splitter.close()
    return found


PARTS = st.sampled_from(
    [b"\n", b"\r\n", b"\r", b"a", "é€😀".encode(), b"\xff", b"\x80", b"\x1b[0m", b"\xf0\x9f"]
)
BULK = st.builds(lambda part, size: part * size, PARTS, st.integers(CHUNK // 9, CHUNK + 2))
STREAM = st.lists(st.one_of(PARTS, st.binary(max_size=20), BULK), max_size=12).map(b"".join)


@given(STREAM, st.lists(st.integers(0, 4 * CHUNK), max_size=8))
@example(b"x" * CHUNK + b"\r\n", [CHUNK, CHUNK + 1])
@example(b"x" * (CHUNK - 1) + "€".encode() + b"\n", [CHUNK - 1, CHUNK, CHUNK + 1])
def test_portions_do_not_matter(data: bytes, cuts: list[int]) -> None:
    assert split(data, cuts) == split(data, [])


@given(STREAM)
def test_no_byte_of_a_line_is_lost(data: bytes) -> None:
    lines: list[bytes] = []
    for continued, piece in split(data, []):
        if continued:
            lines[-1] += piece
        else:
            lines.append(piece)
    wanted = data.split(b"\n")
    if wanted[-1] == b"":
        wanted.pop()
    assert lines == [line[:-1] if line.endswith(b"\r") else line for line in wanted]


@given(STREAM)
def test_every_written_line_is_printable_and_short(data: bytes) -> None:
    for line in lines_of(data):
        assert len(line.encode()) <= CHUNK + len("k[+]: ")
        assert all(char == "\t" or not (ord(char) < 32 or 126 < ord(char) < 160) for char in line)


@given(st.text(max_size=CHUNK * 2))
def test_characters_are_never_cut(text: str) -> None:
    for piece in pieces(text.encode("utf-8", "replace")):
        piece.decode()


def test_long_line_comes_in_marked_chunks() -> None:
    first, *others = lines_of(b"x" * (1 << 20) + b"\ndone\n")
    assert first == "k: " + "x" * CHUNK
    assert {line[:6] for line in others[:-1]} == {"k[+]: "}
    assert len(others) == (1 << 20) // CHUNK
    assert others[-1] == "k: done"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xff\xfeA", "\\xff\\xfeA"),
        (b"a\0b", "a\\x00b"),
        (b"\tx", "\tx"),
        ("grün €".encode(), "grün €"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m".encode(), "\\x9b31m"),
        (b"\x7f", "\\x7f"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(data: bytes, text: str) -> None:
    assert rendered(data).decode() == text


def test_complete_line_is_written_at_once() -> None:
    console = Collected()
    ScriptOutput("k", console).feed(b"one\ntw")
    assert console.lines == ["k: one"]


def test_unterminated_line_is_written_after_five_seconds_and_continued() -> None:
    clock, console = Clock(), Collected()
    output = ScriptOutput("k", console, clock=clock)
    output.feed(b"working")
    assert output.due() == clock.now + FLUSH_SECONDS
    output.tick()
    assert console.lines == []
    clock.now += FLUSH_SECONDS
    output.tick()
    output.feed(b" done\nnext\n")
    assert console.lines == ["k: working", "k[+]:  done", "k: next"]


def test_flushed_line_that_only_ends_adds_no_line() -> None:
    clock, console = Clock(), Collected()
    output = ScriptOutput("k", console, clock=clock)
    output.feed(b"working")
    clock.now += FLUSH_SECONDS
    output.tick()
    output.feed(b"\r\nnext\n")
    assert console.lines == ["k: working", "k: next"]


def test_flush_waits_for_the_rest_of_a_character() -> None:
    clock, console = Clock(), Collected()
    output = ScriptOutput("k", console, clock=clock)
    output.feed("a€".encode()[:-1])
    clock.now += FLUSH_SECONDS
    output.tick()
    assert output.due() is None
    output.feed("€".encode()[-1:] + b"\n")
    assert console.lines == ["k: a", "k[+]: €"]


def test_reader_that_went_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    Console(writer).info("nobody listens")
    os.close(writer)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Windows always block")
def test_full_non_blocking_output_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    try:
        while True:
            filled += os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    if os.fork() == 0:
        os.close(writer)
        arrived = 0
        while data := os.read(reader, 65536):
            arrived += len(data)
        os._exit(0 if arrived == filled + 200000 else 1)
    os.close(reader)
    Console(writer).write(b"y" * 200000)
    os.close(writer)
    assert os.wait()[1] == 0


@pytest.mark.parametrize(("prefixed", "line"), [(True, b"<4>careful\n"), (False, b"careful\n")])
def test_warning_carries_its_priority_for_the_journal_only(prefixed: bool, line: bytes) -> None:
    reader, writer = os.pipe()
    Console(writer, prefixed=prefixed).warning("careful")
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read() == line


def test_message_never_becomes_two_lines() -> None:
    console = Collected()
    console.info("first\nsecond\x1b")
    assert console.lines == ["first second\\x1b"]


def test_journal_is_recognised_by_device_and_inode() -> None:
    reader, writer = os.pipe()
    facts = os.fstat(writer)
    assert is_journal(f"{facts.st_dev}:{facts.st_ino}", writer)
    assert not is_journal(f"{facts.st_dev}:{facts.st_ino + 1}", writer)
    assert not is_journal("", writer)
    os.close(reader)
    os.close(writer)


def handed_over(before: bytes, after: bytes) -> list[str]:
    """Return the lines when another process takes over between two portions."""
    console = Collected()
    first = ScriptOutput("k", console)
    first.feed(before)
    second = ScriptOutput("k", console, continued=first.hand_over())
    second.feed(after)
    second.close()
    return console.lines


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (b"one\n", b"two\n", ["k: one", "k: two"]),
        (b"one\npart", b"ial\ntwo", ["k: one", "k: part", "k[+]: ial", "k: two"]),
        (b"one\r", b"\ntwo\n", ["k: one", "k: two"]),
        (b"one", b"\n\n", ["k: one", "k: "]),
        (b"one", b"", ["k: one"]),
        (b"", b"one", ["k: one"]),
    ],
)
def test_another_process_goes_on_with_the_line(
    before: bytes, after: bytes, lines: list[str]
) -> None:
    assert handed_over(before, after) == lines


def test_output_is_decoded_as_asked() -> None:
    console = Collected()
    output = ScriptOutput("k", console, decode=lambda data: data.decode("cp437"))
    output.feed(b"gr\x81\xe1e\n")
    assert console.lines == ["k: gr\u00fc\u00dfe"]
