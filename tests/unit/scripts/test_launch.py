"""Starting a file where the kernel refuses to execute it, as on a file system mounted noexec."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from google_guest.scripts import launch
from google_guest.scripts.launch import NotStarted, start_script
from google_guest.system.children import Child, spawn

SHELL = "/bin/bash"
ENVIRONMENT = {"PATH": os.environ["PATH"]}


@pytest.fixture
def noexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which nothing can be executed (mounting needs root)."""

    def refusing(argv: Sequence[str], *, environment: Mapping[str, str]) -> Child:
        if argv[0].startswith(str(tmp_path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), argv[0])
        return spawn(argv, environment=environment)

    monkeypatch.setattr(launch, "spawn", refusing)
    return tmp_path


def output_of(folder: Path, data: bytes, *, shell: str = SHELL) -> bytes:
    path = folder / "startup-script"
    path.write_bytes(data)
    path.chmod(0o700)
    child = start_script(str(path), default_shell=shell, environment=ENVIRONMENT)
    with open(child.output, "rb", closefd=False) as file:
        told = file.read()
    os.waitpid(child.pid, 0)
    child.close()
    return told


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"#!/bin/sh\necho $0 $#", b"{} 0\n"),
        (b"#!/bin/sh -e\necho $-", b"e\n"),
        (b"#!/usr/bin/env python3\nimport sys\nprint(*sys.argv)", b"{}\n"),
        (b"a=(x y); echo ${a[1]} $0", b"y {}\n"),
        (b"", b""),
    ],
)
def test_script_runs_through_its_interpreter(noexec: Path, data: bytes, told: bytes) -> None:
    wanted = told.replace(b"{}", os.fsencode(noexec / "startup-script"))
    assert output_of(noexec, data) == wanted


def test_program_cannot_run_and_the_message_names_the_setting(noexec: Path) -> None:
    with pytest.raises(NotStarted, match="run_dir") as refused:
        output_of(noexec, b"\x7fELF\2\1\1")
    assert refused.value.exit_status == 126


def test_missing_interpreter_is_127(noexec: Path) -> None:
    with pytest.raises(NotStarted, match="/no/such: bad interpreter") as refused:
        output_of(noexec, b"#!/no/such\n")
    assert refused.value.exit_status == 127


def test_interpreter_that_is_no_program_is_126(noexec: Path) -> None:
    with pytest.raises(NotStarted, match="bad interpreter: Permission denied") as refused:
        output_of(noexec, b"#!/etc/passwd\n")
    assert refused.value.exit_status == 126


def test_default_shell_may_be_a_bare_name(tmp_path: Path) -> None:
    assert output_of(tmp_path, b"echo ${BASH_VERSION:+bash}", shell="bash") == b"bash\n"


def test_carriage_return_in_a_downloaded_first_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match="/bin/sh\r: bad interpreter"):
        output_of(tmp_path, b"#!/bin/sh\r\necho\r\n")
