"""Where lines of the log go, and what they look like."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from googet import logbook
from googet.host.memory import MemoryHost

LINE = re.compile(
    r"(INFO |WARN |ERROR|FATAL): \d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6} test_logbook\.py:\d+: (.*)"
)
LOG = logging.getLogger("googet.test")


class Sinks:
    """The three places besides the file."""

    def __init__(self, folder: Path) -> None:
        self.out = io.StringIO()
        self.err = io.StringIO()
        self.host = MemoryHost(folder / "drives")
        self.root: Optional[Path] = folder
        self._open: list[logbook.Logbook] = []

    def configure(self, *, verbose: bool = False, system_log: bool = True) -> None:
        self._open.append(
            logbook.configure(
                self.root,
                self.host,
                verbose=verbose,
                system_log=system_log,
                stdout=self.out,
                stderr=self.err,
            )
        )

    def close(self) -> None:
        for each in self._open:
            each.close()

    def file(self) -> list[str]:
        assert self.root is not None
        return (self.root / "googet.log").read_text().splitlines()

    def lines(self, stream: io.StringIO) -> list[str]:
        return [found[2] for line in stream.getvalue().splitlines() if (found := LINE.match(line))]


@pytest.fixture
def sinks(tmp_path: Path) -> Iterator[Sinks]:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    sinks = Sinks(tmp_path)
    yield sinks
    sinks.close()
    logging.getLogger().handlers[:], level = before
    logging.getLogger().setLevel(level)


def tell_all() -> None:
    LOG.info("one")
    LOG.warning("two")
    LOG.error("three")
    LOG.critical("four")


def test_lines_have_the_form_of_gos_googet(sinks: Sinks) -> None:
    sinks.configure()
    tell_all()
    found = [LINE.fullmatch(line) for line in sinks.file()]
    assert [match and match.groups() for match in found] == [
        ("INFO ", "one"),
        ("WARN ", "two"),
        ("ERROR", "three"),
        ("FATAL", "four"),
    ]


def test_errors_go_to_standard_error_too(sinks: Sinks) -> None:
    sinks.configure()
    tell_all()
    assert sinks.lines(sinks.err) == ["three", "four"]
    assert sinks.out.getvalue() == ""


def test_verbose_shows_everything_on_standard_output(sinks: Sinks) -> None:
    sinks.configure(verbose=True)
    tell_all()
    assert sinks.lines(sinks.out) == ["one", "two", "three", "four"]


def test_everything_goes_to_the_system_log(sinks: Sinks) -> None:
    sinks.configure()
    tell_all()
    assert sinks.host.events == [
        ("GooGet", logging.INFO, "one"),
        ("GooGet", logging.WARNING, "two"),
        ("GooGet", logging.ERROR, "three"),
        ("GooGet", logging.CRITICAL, "four"),
    ]


def test_system_log_can_be_switched_off(sinks: Sinks) -> None:
    sinks.configure(system_log=False)
    tell_all()
    assert sinks.host.events == []
    assert len(sinks.file()) == 4


def test_command_without_a_lock_writes_to_standard_error_alone(sinks: Sinks) -> None:
    root, sinks.root = sinks.root, None
    sinks.configure()
    tell_all()
    assert root is not None and not (root / "googet.log").exists()
    assert sinks.lines(sinks.err) == ["two", "three", "four"]
    assert (sinks.out.getvalue(), sinks.host.events) == ("", [])


@pytest.mark.parametrize(("size", "rotated"), [(10240, True), (10239, False), (9216, False)])
def test_large_log_starts_anew(
    sinks: Sinks, monkeypatch: pytest.MonkeyPatch, size: int, rotated: bool
) -> None:
    monkeypatch.setattr(logbook, "LARGEST_LOG", 10240)
    assert sinks.root is not None
    log = sinks.root / "googet.log"
    log.write_text("x" * size)
    sinks.configure()
    old = log.with_name("googet.log.old")
    assert old.exists() is rotated
    assert log.stat().st_size == (0 if rotated else size)


def test_log_is_ten_mebibytes_at_most() -> None:
    assert logbook.LARGEST_LOG == 10 * 1024 * 1024


def test_second_run_appends(sinks: Sinks) -> None:
    for text in ("one", "two"):
        sinks.configure()
        LOG.info(text)
        sinks.close()
    assert [line.rpartition(": ")[2] for line in sinks.file()] == ["one", "two"]


@pytest.mark.skipif(sys.platform == "win32", reason="modes exist on Linux")
def test_others_cannot_read_the_log(sinks: Sinks) -> None:
    sinks.configure()
    assert sinks.root is not None
    assert (sinks.root / "googet.log").stat().st_mode & 0o007 == 0


def test_log_that_cannot_be_written_is_told_and_does_not_matter(sinks: Sinks) -> None:
    assert sinks.root is not None
    (sinks.root / "googet.log").mkdir()
    sinks.configure()
    LOG.error("still here")
    assert "googet.log cannot be written" in sinks.err.getvalue()
    assert sinks.lines(sinks.err) == ["still here"]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("GET https://user:secret@h/repo/index", "secret"),
        ("GET oauth-https://me:secret@h/x", "secret"),
        ("Authorization: Bearer ya29.secret", "ya29.secret"),
        ("GET https://h/x?X-Goog-Signature=secret", "secret"),
    ],
)
def test_secrets_are_hidden_everywhere(sinks: Sinks, text: str, hidden: str) -> None:
    sinks.configure(verbose=True)
    LOG.error("failed: %s", text)
    everything = "".join(sinks.file()) + sinks.out.getvalue() + sinks.err.getvalue()
    everything += str(sinks.host.events)
    assert hidden not in everything
    assert "failed: " in everything


def test_trace_of_our_own_mistake_is_logged(sinks: Sinks) -> None:
    sinks.configure()
    try:
        raise KeyError("mistake")
    except KeyError:
        LOG.exception("it broke")
    assert any("KeyError: 'mistake'" in line for line in sinks.file())
