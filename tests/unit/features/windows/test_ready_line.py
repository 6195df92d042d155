"""The line that tells clients of password resets that the agent listens."""

from __future__ import annotations

from pathlib import Path

from support.windows_machines import Machine, windows_inputs

from google_guest.features import Frequency, Stage
from google_guest.features.windows import ready_line as feature
from google_guest.reconcile import run_pass
from google_guest.version import version


def test_start_writes_one_line_to_com4(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert run_pass(feature.FEATURE, windows_inputs(machine)).ok
    line = f'{{"ready":true,"version":"{version()}"}}\n'
    assert machine.memory.written == [("COM4", line.encode())]


def test_it_waits_for_no_metadata_and_comes_once_a_start() -> None:
    assert feature.FEATURE.stage is Stage.EARLY
    assert feature.FEATURE.frequency is Frequency.ONCE_PER_START


def test_port_that_takes_nothing_is_a_failure_to_be_tried_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.memory.serial_failures = 1
    assert not run_pass(feature.FEATURE, windows_inputs(machine)).ok
