"""Whether the system is going down, as systemd tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

import pytest

from google_guest.scripts.stopping import is_stopping
from google_guest.system import System
from google_guest.system.commands import CommandError, CommandMissing, Completed


class Systemctl:
    def __init__(self, stdout: str = "", status: int = 0, error: Optional[Exception] = None):
        self.answer, self.status, self.error = stdout, status, error

    def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 60,
        input: Optional[str] = None,
        check: bool = True,
        env: Optional[Mapping[str, str]] = None,
    ) -> Completed:
        assert argv[0] == "systemctl" and timeout <= 2
        if self.error is not None:
            raise self.error
        return Completed(tuple(argv), self.status, self.answer, "")


@pytest.mark.parametrize(
    ("stdout", "answer"),
    [
        ("ActiveState=inactive\n", False),
        ("ActiveState=inactive\nJob=\n", False),
        ("ActiveState=inactive\nJob=0\n", False),
        ("ActiveState=inactive\nJob=1234\n", True),
        ("ActiveState=active\n", True),
        ("ActiveState=activating\nJob=7\n", True),
        ("Job=7\n", None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_shutdown_target_tells(tmp_path: Path, stdout: str, answer: Optional[bool]) -> None:
    assert is_stopping(System(tmp_path, runner=Systemctl(stdout))) is answer


@pytest.mark.parametrize(
    "error", [CommandMissing("systemctl"), CommandError(["systemctl"], None, "")]
)
def test_systemd_that_does_not_answer_is_unknown(tmp_path: Path, error: Exception) -> None:
    assert is_stopping(System(tmp_path, runner=Systemctl(error=error))) is None


def test_failed_question_is_unknown(tmp_path: Path) -> None:
    system = System(tmp_path, runner=Systemctl("ActiveState=inactive\n", status=1))
    assert is_stopping(system) is None
