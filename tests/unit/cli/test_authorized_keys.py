"""``google_metadata_authorized_keys``: arguments, output and exit status."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.trees import place, tree

from google_guest.cli.authorized_keys import main
from metadata_server import Emulator


def key(seed: int) -> str:
    name = b"ssh-ed25519"
    blob = struct.pack(">I", len(name)) + name + struct.pack(">I", 32) + bytes([seed]) * 32
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


PAST = 'google-ssh {"userName":"a","expireOn":"2000-01-01T00:00:00+0000"}'
FUTURE = 'google-ssh {"userName":"a","expireOn":"2090-01-01T00:00:00+0000"}'


@pytest.fixture
def mds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator(profile="linux") as emulator:
        monkeypatch.setenv("GCE_METADATA_HOST", emulator.host)
        emulator.set("instance/attributes/enable-oslogin", "FALSE")
        emulator.set("project/attributes/ssh-keys", f"bob:{key(3)}")
        emulator.set(
            "instance/attributes/ssh-keys",
            f"# bob:{key(9)}\nbob:{key(1)} {FUTURE}\nada:{key(2)}\nbob:{key(4)} {PAST}\nbob:x",
        )
        yield emulator


BOB = [f"{key(1)} {FUTURE}", key(3)]


@pytest.mark.parametrize("words", [["bob"], ["-x", "bob"], ["bob", "-x"], ["ada", "bob"]])
def test_the_last_plain_argument_is_the_user(
    tmp_path: Path, mds: Emulator, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(words, system=tree(tmp_path)) == 0
    assert capsys.readouterr().out == "".join(f"{line}\n" for line in BOB)


def test_a_user_without_keys_is_no_failure(
    tmp_path: Path, mds: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nobody"], system=tree(tmp_path)) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("words", [[], ["-x"]])
def test_without_a_user_there_is_a_usage_line_and_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(words, system=tree(tmp_path)) == 1
    assert capsys.readouterr().out == ""


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-version"]) == 0
    assert capsys.readouterr().out.startswith("google_metadata_authorized_keys ")


def test_no_key_is_served_while_oslogin_is_on(
    tmp_path: Path, mds: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    mds.set("instance/attributes/enable-oslogin", "yes")
    assert main(["bob"], system=tree(tmp_path)) == 0
    assert capsys.readouterr().out == ""


def test_obsolete_instance_keys_count_and_block_the_project(
    tmp_path: Path, mds: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    mds.set("instance/attributes/sshKeys", f"bob:{key(7)}")
    assert main(["bob"], system=tree(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines() == [BOB[0], key(7)]


def test_a_denied_user_gets_nothing(
    tmp_path: Path, mds: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    place(tmp_path, "/etc/default/instance_configs.cfg", "[Accounts]\ndeny_users = bob\n")
    assert main(["bob"], system=tree(tmp_path)) == 0
    assert capsys.readouterr().out == ""


def test_a_silent_metadata_server_is_given_five_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("google_guest.cli.authorized_keys.DEADLINE", 0.3)
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    before = time.monotonic()
    assert main(["bob"], system=tree(tmp_path)) == 1
    assert time.monotonic() - before < 3
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("google_metadata_authorized_keys: ")


def test_a_machine_that_is_no_instance_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    assert main(["bob"], system=tree(tmp_path)) == 0
    assert capsys.readouterr().out == ""
