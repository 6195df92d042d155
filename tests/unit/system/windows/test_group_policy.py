"""The local group policy: merging shutdown scripts into what is there, and taking them out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.system.files import Files
from google_guest.system.windows.files import WindowsFiles
from google_guest.system.windows.group_policy import (
    SCRIPTS_EXTENSION,
    SCRIPTS_TOOL,
    add_shutdown_script,
    policy_files,
    remove_shutdown_script,
    with_raised_version,
    with_scripts_extension,
    with_shutdown_script,
    without_scripts_extension,
    without_shutdown_script,
)

COMMAND = r"C:\Program Files\Google\Compute Engine\metadata_scripts\run_shutdown_scripts.cmd"
GROUP_POLICY = r"C:\Windows\System32\GroupPolicy"
OURS = f"[Shutdown]\r\n0CmdLine={COMMAND}\r\n0Parameters=\r\n"
PAIR = f"[{SCRIPTS_EXTENSION}{SCRIPTS_TOOL}]"
HEAD = f"[General]\r\ngPCMachineExtensionNames={PAIR}\r\nVersion=1\r\n"
REGISTRY_PAIR = "[{35378EAC-683F-11D2-A89A-00C04FBBCFA2}{D02B1F72-3407-48AE-BA88-E8213C6761F1}]"
SECURITY_PAIR = "[{827D319E-6EAC-11D2-A4EA-00C04F79F83A}{803E14A0-B4FB-11D0-A0D0-00A0C90F574B}]"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return WindowsFiles(tmp_path)


def content(files: Files, path: str) -> str:
    data = files.read_bytes(path)
    assert data is not None
    return data.decode("latin-1")


def put(files: Files, scripts: str | bytes = b"", gpt: str | bytes = b"") -> None:
    places = policy_files()
    for path, data in ((places.scripts, scripts), (places.gpt, gpt)):
        if data:
            files.write_atomic(path, data if isinstance(data, bytes) else data.encode("latin-1"))


def test_machine_without_policy_gets_both_files(files: Files) -> None:
    assert add_shutdown_script(files, COMMAND)
    assert content(files, policy_files().scripts) == OURS
    assert content(files, policy_files().gpt) == HEAD


def test_second_installation_changes_nothing(files: Files) -> None:
    add_shutdown_script(files, COMMAND)
    assert not add_shutdown_script(files, COMMAND)
    assert content(files, policy_files().scripts) == OURS
    assert content(files, policy_files().gpt) == HEAD


def test_removal_leaves_no_file_of_ours(files: Files) -> None:
    add_shutdown_script(files, COMMAND)
    assert remove_shutdown_script(files, COMMAND)
    assert files.exists(GROUP_POLICY)
    assert files.list_directory(GROUP_POLICY) == ()


def test_folders_with_files_of_others_stay(files: Files) -> None:
    add_shutdown_script(files, COMMAND)
    files.write_atomic(rf"{GROUP_POLICY}\Machine\Registry.pol", b"x")
    remove_shutdown_script(files, COMMAND)
    assert files.list_directory(GROUP_POLICY) == ("Machine",)
    assert files.list_directory(rf"{GROUP_POLICY}\Machine") == ("Registry.pol",)


def test_entry_becomes_the_next_of_existing_ones(files: Files) -> None:
    put(files, "[Shutdown]\r\n0CmdLine=C:\\a.cmd\r\n0Parameters=-x\r\n", HEAD)
    add_shutdown_script(files, COMMAND)
    assert content(files, policy_files().scripts) == (
        f"[Shutdown]\r\n0CmdLine=C:\\a.cmd\r\n0Parameters=-x\r\n1CmdLine={COMMAND}\r\n1Parameters=\r\n"
    )
    assert "Version=2\r\n" in content(files, policy_files().gpt)


def test_entries_behind_ours_move_up_when_it_goes(files: Files) -> None:
    theirs = "0CmdLine=C:\\a.cmd\r\n0Parameters=-x\r\n"
    later = "2CmdLine=C:\\c.cmd\r\n2Parameters=\r\n"
    ours = f"1CmdLine={COMMAND}\r\n1Parameters=\r\n"
    put(files, f"[Shutdown]\r\n{theirs}{ours}{later}", HEAD)
    remove_shutdown_script(files, COMMAND)
    assert content(files, policy_files().scripts) == (
        f"[Shutdown]\r\n{theirs}{later.replace('2', '1')}"
    )
    assert content(files, policy_files().gpt) == HEAD.replace("Version=1", "Version=2")


def test_startup_scripts_of_others_stay_when_ours_goes(files: Files) -> None:
    startup = "[Startup]\r\n0CmdLine=C:\\s.cmd\r\n0Parameters=\r\n"
    put(files, startup, HEAD)
    add_shutdown_script(files, COMMAND)
    remove_shutdown_script(files, COMMAND)
    assert content(files, policy_files().scripts) == startup
    assert PAIR in content(files, policy_files().gpt)


def test_policy_of_others_keeps_its_extensions_when_ours_goes(files: Files) -> None:
    before = f"[General]\r\ngPCMachineExtensionNames={REGISTRY_PAIR}\r\nVersion=65541\r\n"
    put(files, gpt=before)
    add_shutdown_script(files, COMMAND)
    remove_shutdown_script(files, COMMAND)
    assert content(files, policy_files().gpt) == before.replace("65541", "65543")


def test_files_in_utf_16_stay_so(files: Files) -> None:
    text = "[Shutdown]\r\n0CmdLine=C:\\Übung.cmd\r\n0Parameters=\r\n"
    put(files, b"\xff\xfe" + text.encode("utf-16-le"), HEAD)
    add_shutdown_script(files, COMMAND)
    data = files.read_bytes(policy_files().scripts)
    assert data is not None and data.startswith(b"\xff\xfe")
    assert data[2:].decode("utf-16-le") == (f"{text}1CmdLine={COMMAND}\r\n1Parameters=\r\n")


def test_bytes_of_an_old_code_page_stay_as_they_are(files: Files) -> None:
    text = b"[Shutdown]\r\n0CmdLine=C:\\\x85\xdc.cmd\r\n0Parameters=\r\n"
    put(files, text, HEAD)
    add_shutdown_script(files, COMMAND)
    data = files.read_bytes(policy_files().scripts)
    assert data is not None and data.startswith(text)


def test_removal_of_what_is_not_there_writes_nothing(files: Files) -> None:
    put(files, "[Shutdown]\n0CmdLine=C:\\a.cmd\n0Parameters=\n", HEAD)
    assert not remove_shutdown_script(files, COMMAND)
    assert content(files, policy_files().gpt) == HEAD
    assert content(files, policy_files().scripts).count("\r") == 0


@pytest.mark.parametrize("spelling", [COMMAND.upper(), f'"{COMMAND}"', f" {COMMAND} "])
def test_entry_in_another_spelling_is_ours(spelling: str) -> None:
    text = f"[shutdown]\r\n0cmdline={spelling}\r\n0parameters=\r\n"
    assert with_shutdown_script(text, COMMAND) == text
    assert without_shutdown_script(text, COMMAND) == ""


def test_entry_of_another_section_is_not_ours() -> None:
    text = f"[Startup]\r\n0CmdLine={COMMAND}\r\n0Parameters=\r\n"
    assert without_shutdown_script(text, COMMAND) == text
    assert with_shutdown_script(text, COMMAND) == text + OURS


def test_gap_in_the_indexes_is_filled() -> None:
    text = "[Shutdown]\r\n1CmdLine=b\r\n1Parameters=\r\n"
    assert f"0CmdLine={COMMAND}\r\n" in with_shutdown_script(text, COMMAND)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("", f"[General]\r\ngPCMachineExtensionNames={PAIR}\r\n", id="empty"),
        pytest.param(
            f"[General]\r\ngPCMachineExtensionNames={SECURITY_PAIR}\r\n",
            f"[General]\r\ngPCMachineExtensionNames={PAIR}{SECURITY_PAIR}\r\n",
            id="sorted before",
        ),
        pytest.param(
            f"[General]\r\ngPCMachineExtensionNames={REGISTRY_PAIR}\r\n",
            f"[General]\r\ngPCMachineExtensionNames={REGISTRY_PAIR}{PAIR}\r\n",
            id="sorted behind",
        ),
        pytest.param(
            f"[General]\r\ngPCMachineExtensionNames=[{SCRIPTS_EXTENSION}]\r\n",
            f"[General]\r\ngPCMachineExtensionNames={PAIR}\r\n",
            id="without the editor's part",
        ),
        pytest.param(HEAD, HEAD, id="there already"),
        pytest.param(
            "[General]\r\nVersion=3\r\ngPCUserExtensionNames=[x]\r\n",
            "[General]\r\nVersion=3\r\ngPCUserExtensionNames=[x]\r\n"
            f"gPCMachineExtensionNames={PAIR}\r\n",
            id="users' extensions stay",
        ),
    ],
)
def test_scripts_extension_is_among_the_machines(before: str, after: str) -> None:
    assert with_scripts_extension(before) == after


def test_extension_is_taken_out_alone() -> None:
    text = f"[General]\r\ngPCMachineExtensionNames={REGISTRY_PAIR}{PAIR}{SECURITY_PAIR}\r\n"
    assert without_scripts_extension(text) == text.replace(PAIR, "")


@pytest.mark.parametrize(
    ("version", "raised"),
    [
        ("0", "1"),
        ("1", "2"),
        ("65536", "65537"),
        ("131073", "131074"),
        ("65535", "1"),
        ("131071", "65537"),
        ("junk", "1"),
        ("", "1"),
    ],
)
def test_machines_half_of_the_version_is_raised(version: str, raised: str) -> None:
    assert with_raised_version(f"[General]\r\nVersion={version}\r\n") == (
        f"[General]\r\nVersion={raised}\r\n"
    )


def policy(startup: list[str], shutdown: list[str]) -> str:
    """A list of scripts as the policy editor writes it."""
    lines = []
    for section, commands in (("Startup", startup), ("Shutdown", shutdown)):
        lines += [f"[{section}]"] if commands else []
        for index, command in enumerate(commands):
            lines += [f"{index}CmdLine={command}", f"{index}Parameters=-{index}"]
    return "".join(f"{line}\r\n" for line in lines)


_COMMANDS = st.lists(st.sampled_from(("a.cmd", r"C:\b c.exe", "d.ps1")), max_size=4)


@given(_COMMANDS, _COMMANDS)
def test_any_list_is_the_former_one_after_removal(startup: list[str], shutdown: list[str]) -> None:
    text = policy(startup, shutdown)
    added = with_shutdown_script(text, COMMAND)
    assert f"{len(shutdown)}CmdLine={COMMAND}\r\n" in added
    assert with_shutdown_script(added, COMMAND) == added
    assert without_shutdown_script(added, COMMAND) == text


@given(st.text(max_size=200))
def test_any_text_is_taken(text: str) -> None:
    added = with_shutdown_script(text, COMMAND)
    assert COMMAND in added
    without_shutdown_script(added, COMMAND)
    assert PAIR in with_scripts_extension(with_raised_version(text))
