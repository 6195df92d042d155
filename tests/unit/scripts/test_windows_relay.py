"""The relay's command: what it finds and where it lies."""

from __future__ import annotations

import subprocess
import sys

import pytest

from google_guest.scripts.windows_relay import relay_argv


@pytest.mark.parametrize(("continued", "word"), [(True, "continued"), (False, "new")])
def test_relay_knows_its_script_and_whether_it_goes_on_in_a_line(
    continued: bool, word: str
) -> None:
    argv = relay_argv("windows-startup-script-cmd", continued=continued)
    assert argv[0] == sys.executable
    assert argv[-2:] == ["windows-startup-script-cmd", word]


@pytest.mark.skipif(sys.platform == "win32", reason="there it reads a pipe")
def test_relay_finds_the_library_without_any_environment() -> None:
    argv = relay_argv("windows-startup-script-cmd", continued=False)
    done = subprocess.run(argv, env={}, cwd="/", stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
