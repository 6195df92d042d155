"""``GCEAuthorizedKeysCommand``: whose keys it prints, and when it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.windows_machines import Machine

from google_guest.cli.authorized_keys import main
from metadata_server import Emulator

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0"


@pytest.fixture
def mds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator(profile="windows") as emulator:
        monkeypatch.setenv("GCE_METADATA_HOST", emulator.host)
        emulator.set("instance/attributes/enable-windows-ssh", "true")
        emulator.set("instance/attributes/ssh-keys", f"ana:{KEY} 1\neva:{KEY}\nana:{KEY} 2")
        yield emulator


@pytest.mark.parametrize("words", [["ana"], ["Ana"], ["eva", "-f", "ana"]])
def test_only_the_users_keys_are_printed_one_a_line(
    tmp_path: Path, mds: Emulator, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(words, system=Machine(tmp_path)) == 0
    assert capsys.readouterr().out == f"{KEY} 1\n{KEY} 2\n"


def test_user_without_keys_is_no_failure(
    tmp_path: Path, mds: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ida"], system=Machine(tmp_path)) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("enable-windows-ssh", "false", "enable-windows-ssh is false"),
        ("enable-windows-ssh", "", "enable-windows-ssh is not set"),
        ("disable-account-manager", "true", "disable-account-manager is true"),
    ],
)
def test_where_ssh_is_off_nothing_is_printed_and_the_status_is_1(
    tmp_path: Path,
    mds: Emulator,
    capsys: pytest.CaptureFixture[str],
    attribute: str,
    value: str,
    reason: str,
) -> None:
    mds.set(f"instance/attributes/{attribute}", value)
    assert main(["ana"], system=Machine(tmp_path)) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert reason in shown.err
