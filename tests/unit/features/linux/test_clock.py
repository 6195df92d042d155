"""Clock: when it is touched, by what, and when not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import Commands, inputs, metadata, tree

from google_guest.changes.platform import RunCommand
from google_guest.features import Plan
from google_guest.features.linux import clock
from google_guest.state import Remember
from google_guest.system import System
from google_guest.system.commands import CommandMissing, Completed

ON = "[Daemons]\nclock_skew_daemon = true\n"
HWCLOCK = ("hwclock", "--hctosys", "-u", "--noadjfile")
UTC = "0.0 0 0.0\n0\nUTC\n"
LOCAL = "0.0 0 0.0\n0\nLOCAL\n"
SEEN = '{"drift_token": "5"}'
RTC = {"/dev/rtc0": ""}
CHRONYD = {"/run/chrony/chronyd.pid": "41\n", "/proc/41/comm": "chronyd\n"}


def machine(
    root: Path,
    files: Optional[Mapping[str, str]] = None,
    *,
    programs: Sequence[str] = ("hwclock",),
    uptime: float = 86400.0,
    runner: Optional[Commands] = None,
) -> System:
    texts = {**RTC, "/proc/uptime": f"{uptime:.2f} 1.0\n", **(files or {})}
    return tree(root, texts, programs=programs, runner=runner)


def plan(system: System, token: Optional[str] = "6") -> Plan:
    known = metadata({"virtualClock": {"driftToken": token}} if token else {})
    return clock.plan(inputs(system, known, config=ON))


def commands(result: Plan) -> list[tuple[str, ...]]:
    return [change.argv for change in result.changes if isinstance(change, RunCommand)]


def test_new_token_sets_the_clock_from_the_hardware_clock_once(tmp_path: Path) -> None:
    system = machine(tmp_path, {"/etc/adjtime": UTC, clock.MEMORY: SEEN})
    result = plan(system)
    assert commands(result) == [HWCLOCK]
    for change in result.changes:
        change.apply(system)
    assert plan(system) == Plan()


def test_known_token_changes_nothing(tmp_path: Path) -> None:
    assert plan(machine(tmp_path, {clock.MEMORY: SEEN}), "5") == Plan()


def test_hardware_clock_in_local_time_is_never_used(tmp_path: Path) -> None:
    result = plan(machine(tmp_path, {"/etc/adjtime": LOCAL, clock.MEMORY: SEEN}))
    assert result.changes == ()
    assert result.notes == ("the clock is left alone: the hardware clock does not keep UTC",)


def test_agent_that_starts_with_the_machine_sets_the_clock(tmp_path: Path) -> None:
    assert commands(plan(machine(tmp_path, {"/etc/adjtime": UTC}, uptime=20))) == [HWCLOCK]


def test_installing_the_package_does_not_touch_the_clock(tmp_path: Path) -> None:
    result = plan(machine(tmp_path, {"/etc/adjtime": UTC}))
    assert [type(change) for change in result.changes] == [Remember]


def test_failed_correction_is_not_remembered(tmp_path: Path) -> None:
    result = plan(machine(tmp_path, {"/etc/adjtime": UTC, clock.MEMORY: SEEN}))
    assert len({change.subject for change in result.changes}) == 1
    assert isinstance(result.changes[-1], Remember)


def test_running_chronyd_is_asked_to_step(tmp_path: Path) -> None:
    files = {**CHRONYD, "/etc/adjtime": UTC, clock.MEMORY: SEEN}
    system = machine(tmp_path, files, programs=("hwclock", "chronyc"))
    assert commands(plan(system)) == [("chronyc", "makestep")]


@pytest.mark.parametrize(
    "files",
    [
        {"/run/chrony/chronyd.pid": "41\n"},
        {"/run/chrony/chronyd.pid": "41\n", "/proc/41/comm": "sshd\n"},
        {"/run/chrony/chronyd.pid": "../1\n"},
        {"/run/chrony/chronyd.pid": ""},
    ],
)
def test_pid_file_of_a_dead_chronyd_is_not_believed(
    tmp_path: Path, files: Mapping[str, str]
) -> None:
    assert not clock.chronyd_runs(tree(tmp_path, files))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("               RTC time: Tue\n        RTC in local TZ: no\n", True),
        ("        RTC in local TZ: yes\n", False),
        ("nothing of the kind\n", False),
    ],
)
def test_without_adjtime_timedatectl_knows(tmp_path: Path, said: str, expected: bool) -> None:
    runner = Commands(lambda argv: Completed(tuple(argv), 0, said, ""))
    assert clock.rtc_keeps_utc(tree(tmp_path, runner=runner)) is expected


def test_without_adjtime_and_timedatectl_the_clock_is_left_alone(tmp_path: Path) -> None:
    def missing(argv: Sequence[str]) -> Completed:
        raise CommandMissing(argv[0])

    assert not clock.rtc_keeps_utc(tree(tmp_path, runner=Commands(missing)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (UTC, True),
        ("a\nb\nutc", True),
        ("a\nb\n UTC \nmore\n", True),
        (LOCAL, False),
        ("UTC\n", False),
        ("a\nUTC\n", False),
        ("", False),
        ("a\nb\nUTCX\n", False),
    ],
)
def test_third_line_of_adjtime_decides(text: str, expected: bool) -> None:
    assert clock.adjtime_says_utc(text) is expected


@given(st.text())
def test_any_adjtime_is_read(text: str) -> None:
    assert clock.adjtime_says_utc(text) == (
        text.split("\n")[2:3] != [] and text.split("\n")[2].strip().upper() == "UTC"
    )


@given(st.text(alphabet="0123456789. -+eE\n"))
def test_any_uptime_is_read(text: str) -> None:
    class Files:
        def read_text(self, path: str, *, limit: int) -> str:
            return text

    class Machine:
        files = Files()

    assert clock.uptime(Machine()) >= 0.0  # type: ignore[arg-type]


def test_off_by_default(tmp_path: Path) -> None:
    decision = clock.enabled(inputs(machine(tmp_path), metadata()))
    assert (decision.on, decision.layer) == (False, "built-in")


@pytest.mark.parametrize(
    ("files", "programs", "reason"),
    [
        (RTC, (), "hwclock is not installed"),
        ({}, ("hwclock",), "there is no /dev/rtc0"),
    ],
)
def test_off_where_there_is_nothing_to_set_the_clock_by(
    tmp_path: Path, files: Mapping[str, str], programs: Sequence[str], reason: str
) -> None:
    decision = clock.enabled(inputs(tree(tmp_path, files, programs=programs), config=ON))
    assert (decision.on, decision.reason) == (False, reason)


def test_chronyd_needs_no_hardware_clock(tmp_path: Path) -> None:
    assert clock.enabled(inputs(tree(tmp_path, CHRONYD), config=ON)).on


def test_instance_without_token_is_left_alone(tmp_path: Path) -> None:
    assert plan(machine(tmp_path, {"/etc/adjtime": UTC}, uptime=20), None) == Plan()
