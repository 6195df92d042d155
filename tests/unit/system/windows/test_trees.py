"""Removing folders with everything in them."""

from __future__ import annotations

from pathlib import Path

from google_guest.system.windows.files import WindowsFiles
from google_guest.system.windows.trees import remove_tree


def test_folder_goes_with_everything_in_it(tmp_path: Path) -> None:
    files = WindowsFiles(tmp_path)
    files.write_atomic(r"C:\a\b\c.txt", b"x")
    assert remove_tree(files, r"C:\a")
    assert not files.exists(r"C:\a")


def test_link_inside_goes_and_its_target_stays(tmp_path: Path) -> None:
    files = WindowsFiles(tmp_path)
    files.write_atomic(r"C:\outside\kept.txt", b"x")
    files.make_directory(r"C:\a")
    (tmp_path / "C" / "a" / "link").symlink_to(tmp_path / "C" / "outside")
    remove_tree(files, r"C:\a")
    assert files.read_bytes(r"C:\outside\kept.txt") == b"x"


def test_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert not remove_tree(WindowsFiles(tmp_path), r"C:\a")
