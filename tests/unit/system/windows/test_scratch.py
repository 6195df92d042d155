"""Private directories on Windows: where they are made, whose leftovers are removed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.errors import GuestError
from google_guest.system.windows.files import WindowsFiles
from google_guest.system.windows.scratch import (
    PREFIX,
    is_private_descriptor,
    make_scratch,
    remove_leftovers,
)

SYSTEM_ONLY = "(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
USER = "S-1-5-21-1-2-3-1001"


@pytest.fixture
def files(tmp_path: Path) -> WindowsFiles:
    (tmp_path / "C/Temp").mkdir(parents=True)
    return WindowsFiles(tmp_path)


def test_directory_holds_what_is_written_and_is_gone_afterwards(files: WindowsFiles) -> None:
    with make_scratch(files, [r"C:\Temp"]) as scratch:
        assert Path(scratch.path).parent.name == "Temp"
        path = scratch.write("a.part", b"data\r\n")
        path = scratch.rename("a.part", "a.cmd")
        assert Path(path).read_bytes() == b"data\r\n"
    assert not os.path.lexists(scratch.path)


def test_file_that_exists_is_not_written_to(files: WindowsFiles) -> None:
    with make_scratch(files, [r"C:\Temp"]) as scratch:
        scratch.write("a.cmd", b"")
        with pytest.raises(FileExistsError):
            scratch.write("a.cmd", b"")


def test_missing_base_is_made(files: WindowsFiles, tmp_path: Path) -> None:
    with make_scratch(files, [r"C:\one\two"]) as scratch:
        assert Path(scratch.path).parent == tmp_path / "C/one/two"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own")
def test_base_that_is_a_link_is_refused(files: WindowsFiles, tmp_path: Path) -> None:
    (tmp_path / "C/link").symlink_to(tmp_path / "C/Temp")
    with pytest.raises(GuestError, match="it is a link or junction"):
        make_scratch(files, [r"C:\link"])
    with make_scratch(files, [r"C:\link", r"C:\Temp"]) as scratch:
        assert Path(scratch.path).parent.name == "Temp"


def test_every_complaint_is_told(files: WindowsFiles, tmp_path: Path) -> None:
    (tmp_path / "C/file").write_text("")
    with pytest.raises(GuestError, match=r"C:\\file\\x: .*; C:\\file\\y: "):
        make_scratch(files, [r"C:\file\x", r"C:\file\y"])


def leftover(tmp_path: Path, *, locked: bool = True, age: float = 0) -> Path:
    path = tmp_path / "C/Temp" / f"{PREFIX}left"
    path.mkdir(mode=0o700)
    (path / "script.cmd").write_text("")
    if locked:
        (path / ".lock").write_text("")
    os.utime(path, (1000 - age, 1000 - age))
    return path


def test_leftover_whose_maker_is_gone_is_removed(files: WindowsFiles, tmp_path: Path) -> None:
    path = leftover(tmp_path)
    remove_leftovers(files, [r"C:\Temp"], is_private=lambda path: True)
    assert not path.exists()


def test_directory_in_use_stays(files: WindowsFiles, tmp_path: Path) -> None:
    path = leftover(tmp_path)

    def in_use(lock: str) -> None:
        raise PermissionError(32, "used by another process", lock)

    remove_leftovers(files, [r"C:\Temp"], is_private=lambda path: True, unlink=in_use)
    assert (path / "script.cmd").exists()


def test_directory_that_others_can_write_to_stays(files: WindowsFiles, tmp_path: Path) -> None:
    path = leftover(tmp_path)
    remove_leftovers(files, [r"C:\Temp"], is_private=lambda path: False)
    assert (path / ".lock").exists()


@pytest.mark.parametrize(("age", "stays"), [(10, False), (-10, True)])
def test_directory_without_a_lock_is_removed_if_it_is_older_than_the_boot(
    files: WindowsFiles, tmp_path: Path, age: float, stays: bool
) -> None:
    path = leftover(tmp_path, locked=False, age=age)
    remove_leftovers(files, [r"C:\Temp"], is_private=lambda path: True, booted_at=1000)
    assert path.exists() is stays


def test_other_folders_and_missing_bases_are_left_alone(
    files: WindowsFiles, tmp_path: Path
) -> None:
    other = tmp_path / "C/Temp/other"
    other.mkdir()
    remove_leftovers(files, [r"C:\none", r"C:\Temp"], is_private=lambda path: True)
    assert other.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
@pytest.mark.parametrize(("mode", "stays"), [(0o700, False), (0o755, True)])
def test_mode_tells_elsewhere_who_can_write(
    files: WindowsFiles, tmp_path: Path, mode: int, stays: bool
) -> None:
    path = leftover(tmp_path)
    path.chmod(mode)
    remove_leftovers(files, [r"C:\Temp"])
    assert path.exists() is stays


@pytest.mark.parametrize(
    ("sddl", "private"),
    [
        (f"O:BAD:P{SYSTEM_ONLY}", True),
        (f"O:SYD:{SYSTEM_ONLY}", True),
        (f"O:BAD:PAI{SYSTEM_ONLY}", True),
        (f"O:{USER}D:P{SYSTEM_ONLY}", True),
        (f"O:{USER}D:(A;OICI;FA;;;SY)(A;OICI;FA;;;{USER})", True),
        (f"O:S-1-5-18D:P{SYSTEM_ONLY}", True),
        (f"O:S-1-5-21-1-2-3-1002D:P{SYSTEM_ONLY}", False),
        (f"O:BAD:P{SYSTEM_ONLY}(A;OICI;0x1200a9;;;BU)", False),
        (f"O:BAD:P{SYSTEM_ONLY}(A;OICIIO;FA;;;CO)", False),
        (f"O:BAD:P{SYSTEM_ONLY}(XA;;FA;;;BA;(1))", False),
        ("O:BAD:NO_ACCESS_CONTROL", False),
        ("O:BAD:", False),
        ("O:BA", False),
        (f"D:P{SYSTEM_ONLY}", False),
        ("", False),
    ],
)
def test_rights_of_others_are_found(sddl: str, private: bool) -> None:
    assert is_private_descriptor(sddl, USER) is private


@given(st.text(alphabet="OD:PAI();FSYBU-1", max_size=60))
def test_strange_descriptors_are_private_only_without_strangers(sddl: str) -> None:
    if is_private_descriptor(sddl, USER):
        assert "BU" not in sddl
