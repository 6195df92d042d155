"""Files of a Windows guest: its paths, below a root or on Windows itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.system import System
from google_guest.system.windows.files import WindowsFiles
from google_guest.system.windows.memory import MemoryWindows

FOLDER = r"C:\ProgramData\Google\x"


@pytest.fixture
def files(tmp_path: Path) -> WindowsFiles:
    return WindowsFiles(tmp_path)


def test_drive_is_a_folder_below_the_root(files: WindowsFiles, tmp_path: Path) -> None:
    files.write_atomic(rf"{FOLDER}\a.json", b"1")
    assert (tmp_path / "C/ProgramData/Google/x/a.json").read_bytes() == b"1"


@pytest.mark.parametrize("path", [r"c:\a\b", "C:/a/b", r"C:\a/b"])
def test_slashes_and_the_drives_case_do_not_matter(files: WindowsFiles, path: str) -> None:
    files.write_atomic(r"C:\a\b", b"1")
    assert files.read_bytes(path) == b"1"
    assert files.exists(path)


@pytest.mark.parametrize("path", ["a", "/etc/hosts", r"\a", "C", "C:a", r"\\server\share", ""])
def test_path_without_a_drive_is_refused(files: WindowsFiles, path: str) -> None:
    with pytest.raises(OSError, match="no absolute Windows path"):
        files.read_bytes(path)


def test_parents_do_not_leave_the_root(files: WindowsFiles, tmp_path: Path) -> None:
    files.write_atomic(r"C:\..\..\..\a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"


def test_replaced_file_has_the_new_content_and_no_remains(
    files: WindowsFiles, tmp_path: Path
) -> None:
    files.write_atomic(rf"{FOLDER}\a", b"old")
    (tmp_path / "C/ProgramData/Google/x/.a.google-0123").write_bytes(b"left over")
    files.write_atomic(rf"{FOLDER}\a", b"new", mode=0o600)
    assert files.list_directory(FOLDER) == ("a",)
    assert files.read_text(rf"{FOLDER}\a") == "new"


def test_failed_write_leaves_the_old_file(
    files: WindowsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_atomic(rf"{FOLDER}\a", b"old")

    def refuse(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr("google_guest.system.windows.files._replace", refuse)
    with pytest.raises(OSError, match="no"):
        files.write_atomic(rf"{FOLDER}\a", b"new")
    assert files.list_directory(FOLDER) == ("a",)
    assert files.read_bytes(rf"{FOLDER}\a") == b"old"


def in_use(code: int = 32) -> PermissionError:
    error = PermissionError(13, "in use")
    error.winerror = code  # type: ignore[attr-defined]
    return error


def test_file_that_is_in_use_for_a_moment_is_replaced(
    files: WindowsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [in_use(32), in_use(5)]

    def replace(source: str, target: str) -> None:
        if left:
            raise left.pop()
        os.replace(source, target)

    monkeypatch.setattr("google_guest.system.windows.files._replace", replace)
    files.write_atomic(rf"{FOLDER}\a", b"1")
    assert files.read_bytes(rf"{FOLDER}\a") == b"1"


def test_file_that_stays_in_use_is_an_error(
    files: WindowsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("google_guest.system.windows.files._PATIENCE", 0.05)

    def replace(source: str, target: str) -> None:
        raise in_use()

    monkeypatch.setattr("google_guest.system.windows.files._replace", replace)
    with pytest.raises(PermissionError):
        files.write_atomic(rf"{FOLDER}\a", b"1")
    assert files.list_directory(FOLDER) == ()


def test_missing_file_is_none_and_removing_it_is_false(files: WindowsFiles) -> None:
    assert files.read_bytes(rf"{FOLDER}\a") is None
    assert files.remove(rf"{FOLDER}\a") is False
    assert files.list_directory(FOLDER) == ()


def test_rename_replaces_what_is_there(files: WindowsFiles) -> None:
    files.write_atomic(rf"{FOLDER}\a", b"new")
    files.write_atomic(rf"{FOLDER}\b", b"old")
    files.rename(rf"{FOLDER}\a", rf"{FOLDER}\b")
    assert files.list_directory(FOLDER) == ("b",)
    assert files.read_bytes(rf"{FOLDER}\b") == b"new"


def test_secured_folder_exists_whether_it_did_before_or_not(files: WindowsFiles) -> None:
    files.secure_directory(FOLDER)
    files.secure_directory(FOLDER)
    assert files.list_directory(r"C:\ProgramData\Google") == ("x",)


@given(st.lists(st.sampled_from(["..", ".", "a", "b c", "ä"]), max_size=8))
def test_any_path_stays_below_the_root(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    root = tmp_path_factory.mktemp("root")
    path = "\\".join(["C:", *parts])
    host = WindowsFiles(root).host_path(path)
    assert os.path.commonpath([os.path.normpath(host), str(root)]) == str(root)


def test_system_of_windows_has_windows_paths(tmp_path: Path) -> None:
    system = System(tmp_path, windows=MemoryWindows())
    assert system.places.state == r"C:\ProgramData\Google\Compute Engine\google-guest-agent"
    assert system.places.in_run("a.json").endswith(r"\run\a.json")
    assert isinstance(system.files, WindowsFiles)


@pytest.mark.skipif(sys.platform != "win32", reason="needs the rights of Windows' own files")
def test_private_file_is_written_and_replaced_on_windows(tmp_path: Path) -> None:
    files = WindowsFiles()
    path = str(tmp_path / "folder" / "secret")
    files.make_directory(str(tmp_path / "folder"), mode=0o700)
    files.write_atomic(path, b"1", mode=0o600)
    files.write_atomic(path, b"2", mode=0o600)
    assert files.read_bytes(path) == b"2"
    assert files.list_directory(str(tmp_path / "folder")) == ("secret",)


@pytest.mark.skipif(sys.platform != "win32", reason="needs files of Windows itself")
def test_file_that_is_open_elsewhere_is_replaced_once_it_is_closed(tmp_path: Path) -> None:
    import threading

    path = str(tmp_path / "a")
    files = WindowsFiles()
    files.write_atomic(path, b"1")
    reader = open(path, "rb")  # noqa: SIM115 - a timer closes it
    threading.Timer(0.3, reader.close).start()
    files.write_atomic(path, b"2")
    assert files.read_bytes(path) == b"2"
