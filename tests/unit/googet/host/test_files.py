"""Files, locks and the machine, on the system of the test."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import pytest

from googet.host import FileInUse, current_host

HOST = current_host()
on_windows = pytest.mark.skipif(sys.platform != "win32", reason="files in use exist on Windows")
on_linux = pytest.mark.skipif(sys.platform == "win32", reason="modes exist on Linux")


def text(path: Path) -> str:
    return HOST.host_path(path)


def test_kinds(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert HOST.kind_of(text(tmp_path)) == "folder"
    assert HOST.kind_of(text(tmp_path / "f")) == "file"
    assert HOST.kind_of(text(tmp_path / "f" / "below")) == ""
    assert HOST.kind_of(text(tmp_path / "no")) == ""


@on_linux
def test_link_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert HOST.kind_of(text(tmp_path / "link")) == "link"
    assert HOST.leads_to_folder(text(tmp_path / "link"))


def test_path_of_any_length_can_be_used(tmp_path: Path) -> None:
    path = text(tmp_path)
    for _ in range(6):
        path = HOST.paths.join(path, "long" * 20)
        HOST.make_folder(path)
    file = HOST.paths.join(path, "file.txt")
    with HOST.open_new(file, 0o600) as opened:
        opened.write(b"x")
    assert len(file) > 400
    assert HOST.kind_of(file) == "file"
    HOST.rename(file, file + "2")
    assert HOST.list_folder(path) == ("file.txt2",)
    HOST.remove_file(file + "2")
    assert HOST.remove_empty_folder(path)


def test_new_file_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(FileExistsError):
        HOST.open_new(text(tmp_path / "f"), 0o600)


@on_linux
def test_new_file_has_its_mode_from_the_start(tmp_path: Path) -> None:
    with HOST.open_new(text(tmp_path / "f"), 0o751):
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o751


def test_folder_with_something_in_it_stays(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").touch()
    assert not HOST.remove_empty_folder(text(tmp_path / "d"))
    (tmp_path / "d" / "f").unlink()
    assert HOST.remove_empty_folder(text(tmp_path / "d"))
    assert HOST.remove_empty_folder(text(tmp_path / "d"))


def test_removing_a_file_that_is_not_there_is_fine(tmp_path: Path) -> None:
    HOST.remove_file(text(tmp_path / "no"))


def test_read_only_file_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "f").chmod(stat.S_IREAD)
    HOST.remove_file(text(tmp_path / "f"))
    assert not (tmp_path / "f").exists()


@on_windows
def test_open_file_can_be_neither_removed_nor_renamed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with open(path, "wb"):
        with pytest.raises(FileInUse, match="in use by another program"):
            HOST.remove_file(text(path))
        with pytest.raises(FileInUse):
            HOST.rename(text(path), text(tmp_path / "g"))
    HOST.remove_file(text(path))


@on_windows
def test_file_that_is_let_go_soon_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    with open(path, "wb") as opened:
        monkeypatch.setattr(HOST, "pause", lambda seconds: opened.close())
        HOST.remove_file(text(path))
    assert not path.exists()


@on_windows
def test_file_in_use_goes_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "f.old"
    path.touch()
    assert HOST.remove_at_restart(text(path))
    import winreg

    with winreg.OpenKey(
        winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\Session Manager"
    ) as key:
        pending = winreg.QueryValueEx(key, "PendingFileRenameOperations")[0]
    assert any(entry.endswith("f.old") for entry in pending)


def test_temporary_folder_is_one() -> None:
    folder = HOST.temporary_folder()
    assert folder is not None and HOST.kind_of(folder) == "folder"


def test_same_volume(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert HOST.is_same_volume(text(tmp_path), text(tmp_path / "d"))
    assert not HOST.is_same_volume(text(tmp_path), text(tmp_path / "no"))


def test_machine_is_a_known_one() -> None:
    assert HOST.native_machine() in ("x86_64", "x86_32", "arm64", "arm")


@on_windows
def test_machine_is_that_of_the_processor() -> None:
    machines = {"AMD64": "x86_64", "ARM64": "arm64", "x86": "x86_32"}
    assert HOST.native_machine() == machines[os.environ["PROCESSOR_ARCHITECTURE"]]


@on_windows
def test_elevation_is_that_of_the_token() -> None:
    import ctypes

    assert HOST.is_elevated() == bool(ctypes.windll.shell32.IsUserAnAdmin())


@on_windows
def test_program_files_is_the_64_bit_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ProgramFiles", "C:\\Program Files (x86)")
    assert HOST.variable("ProgramFiles") == "C:\\Program Files"
    assert HOST.variable("PROGRAMFILES") == "C:\\Program Files"


def test_variable_that_is_not_set_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGET_TEST", "value")
    assert HOST.variable("GOOGET_TEST") == "value"
    assert HOST.variable("GOOGET_NO_TEST") is None


@on_windows
@pytest.mark.parametrize(
    "path",
    [
        "C:\\",
        "D:\\",
        "C:\\windows",
        "c:\\WINDOWS\\System32",
        "C:\\Program Files",
        "C:\\Program Files (x86)",
        "C:\\ProgramData",
    ],
)
def test_folders_of_windows_are_protected(path: str) -> None:
    assert HOST.is_protected(path)


@on_windows
@pytest.mark.parametrize("path", ["C:\\Program Files\\Google", "C:\\ProgramData\\GooGet"])
def test_folders_of_programs_are_not_protected(path: str) -> None:
    assert not HOST.is_protected(path)


def test_more_folders_can_be_protected(tmp_path: Path) -> None:
    assert HOST.is_protected(text(tmp_path), text(tmp_path))


@on_linux
@pytest.mark.parametrize(
    ("mode", "found"), [(0o755, ()), (0o700, ()), (0o775, ()), (0o757, ("everyone",))]
)
def test_others_who_may_write_are_told(tmp_path: Path, mode: int, found: tuple[str, ...]) -> None:
    tmp_path.chmod(mode)
    if os.stat(tmp_path).st_gid != 0:
        found = (f"group {os.stat(tmp_path).st_gid}", *found) if mode & 0o020 else found
    assert HOST.untrusted_writers(tmp_path) == found


@on_linux
def test_folder_of_another_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.stat(tmp_path).st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert HOST.untrusted_writers(tmp_path) == (() if owner == 0 else (f"user {owner}",))


@on_windows
def test_access_list_tells_who_may_write(tmp_path: Path) -> None:
    import win32security

    everyone = win32security.ConvertStringSidToSid("S-1-1-0")
    administrators = win32security.ConvertStringSidToSid("S-1-5-32-544")
    for mask, told in ((0x1200A9, False), (0x1F01FF, True)):
        access_list = win32security.ACL()
        access_list.AddAccessAllowedAce(win32security.ACL_REVISION, 0x1F01FF, administrators)
        access_list.AddAccessAllowedAce(win32security.ACL_REVISION, mask, everyone)
        descriptor = win32security.SECURITY_DESCRIPTOR()
        descriptor.SetSecurityDescriptorDacl(1, access_list, 0)
        win32security.SetFileSecurity(
            str(tmp_path), win32security.DACL_SECURITY_INFORMATION, descriptor
        )
        # Wine adds the user of the Linux process.
        assert ("Everyone" in HOST.untrusted_writers(tmp_path)) is told


def test_folder_that_is_not_there_has_no_writers(tmp_path: Path) -> None:
    assert HOST.untrusted_writers(tmp_path / "no") == ()


class TestLock:
    def test_second_taker_gets_nothing_until_release(self, tmp_path: Path) -> None:
        path = tmp_path / "googet.lock"
        lock = HOST.lock_file(path)
        assert lock is not None
        lock.write(b"12345")
        lock.write(b"678")
        assert path.read_bytes() == b"678"
        assert HOST.lock_file(path) is None
        lock.release()
        assert not path.exists()
        again = HOST.lock_file(path)
        assert again is not None
        again.release()

    @on_linux
    def test_lock_on_a_file_that_is_gone_is_none(self, tmp_path: Path) -> None:
        import fcntl

        path = tmp_path / "googet.lock"
        path.touch()
        with open(path, "rb+") as other:
            fcntl.flock(other, fcntl.LOCK_SH)
            assert HOST.lock_file(path) is None

    @on_windows
    def test_lock_is_where_gos_googet_has_it(self, tmp_path: Path) -> None:
        from googet.host import win32

        path = tmp_path / "googet.lock"
        lock = HOST.lock_file(path)
        assert lock is not None
        handle = win32.create_file(
            str(path), win32.GENERIC_READ, win32.FILE_SHARE_READ_WRITE, win32.OPEN_ALWAYS
        )
        assert not win32.lock(handle)
        lock.release()
        assert win32.lock(handle)
        win32.close_handle(handle)


def test_own_process_is_known() -> None:
    facts = HOST.process(os.getpid())
    assert facts is not None
    assert os.path.samefile(facts.executable, sys.executable) or sys.platform == "win32"
    assert "python" in os.path.basename(facts.executable).lower()
    assert time.time() - 3600 * 24 < facts.started < time.time() + 5


def test_process_that_is_not_there_is_none() -> None:
    assert HOST.process(0x3FFFFFFC) is None


def test_process_is_ended() -> None:
    import subprocess

    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    HOST.end_process(process.pid)
    assert process.wait(10) != 0
    HOST.end_process(process.pid)
