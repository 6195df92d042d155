"""Tests under Wine may not take the exit code of an empty program as a proof."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.wine_lint import empty_proofs, empty_proofs_below

TESTS = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "source",
    [
        "assert wine.run(['netsh', 'interface', 'show']).status == 0",
        "wine.run(['icacls.exe', path, '/grant', 'x'])",
        "wine.cmd('dism /online /enable-feature')",
        'wine.cmd("cd C:\\\\ && certutil -addstore Root a.cer")',
        "wine.run(f'powershell -File {script}')",
        "wine.run([r'C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\PowerShell.exe', '-File'])",
        "wine.begin(['shutdown', '/r'])",
        "argv = ['netsh', 'a']\nwine.run(argv)",
        "wine.py(\"import subprocess; subprocess.check_call(['netsh', 'a'])\")",
    ],
)
def test_empty_program_is_found(source: str) -> None:
    (line,) = empty_proofs(source, "test_x.py")
    assert line.startswith("test_x.py:") and "is no proof" in line


@pytest.mark.parametrize(
    "source",
    [
        "wine.cmd('sc query GCEAgent')",
        "wine.run(['msiexec', '/i', 'a.msi'])",
        "assert planned == [('netsh', 'interface')]",
        "lacking('PowerShell')",
        "wine.cmd('type dismissed.txt')",
        "wine.write('C:\\\\a.cmd', 'netsh')",
    ],
)
def test_other_programs_and_mere_words_are_not_found(source: str) -> None:
    assert list(empty_proofs(source, "test_x.py")) == []


def test_no_test_under_wine_takes_an_empty_program_as_a_proof() -> None:
    assert empty_proofs_below(TESTS / "windows") == []
