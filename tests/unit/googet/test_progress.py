"""The progress bar: silent without a terminal, wiped at the end, one download at a time."""

from __future__ import annotations

import io
import threading

from googet.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_written_without_a_terminal() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.start("a.goo", total=10)
    progress.advance(10)
    progress.finish()
    assert stream.getvalue() == ""


def test_bar_shows_share_and_size() -> None:
    stream, clock = Terminal(), Clock()
    progress = Progress(stream, clock=clock)
    progress.start("a.goo", done=1 << 20, total=4 << 20)
    clock.now = 1.0
    progress.advance(2 << 20)
    shown = [line.strip() for line in stream.getvalue().split("\r") if line.strip()]
    assert shown == ["a.goo   25 %  1.0 of 4.0 MiB", "a.goo   75 %  3.0 of 4.0 MiB"]


def test_unknown_size() -> None:
    stream = Terminal()
    Progress(stream).start("a.goo", done=1 << 19)
    assert stream.getvalue().strip() == "a.goo  0.5 MiB"


def test_bar_is_not_drawn_for_every_block() -> None:
    stream, clock = Terminal(), Clock()
    progress = Progress(stream, clock=clock)
    progress.start("a.goo", total=1000)
    before = len(stream.getvalue())
    for _ in range(100):
        progress.advance(1)
    assert len(stream.getvalue()) == before


def test_bar_is_wiped_at_the_end() -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.start("a.goo", total=10)
    progress.finish()
    assert stream.getvalue().split("\r")[-2].strip() == ""
    assert stream.getvalue().endswith(" \r")


def test_another_thread_stays_silent_meanwhile() -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.start("a.goo", total=10)
    before = stream.getvalue()

    def other() -> None:
        progress.start("b.goo", total=10)
        progress.advance(10)
        progress.finish()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert stream.getvalue() == before


def test_terminal_that_is_gone_does_not_stop_a_download() -> None:
    stream = Terminal()
    progress = Progress(stream)
    stream.close()
    progress.start("a.goo", total=10)
    progress.advance(10)
    progress.finish()


def test_long_names_do_not_wrap() -> None:
    stream = Terminal()
    Progress(stream).start("a" * 500, total=10)
    assert max(len(line) for line in stream.getvalue().split("\r")) < 200
