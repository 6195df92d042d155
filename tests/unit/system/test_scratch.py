"""Private directories: where they are made, who may not interfere, who cleans up."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from google_guest.system.files import Files
from google_guest.system.scratch import (
    PREFIX,
    Base,
    NoScratchSpace,
    make_scratch,
    remove_leftovers,
)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    for name in ("a", "b"):
        (tmp_path / name).mkdir(mode=0o755)
    return Files(tmp_path)


def no_execution(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Make file systems look as if they were mounted noexec (mounting needs root)."""

    def statvfs(path: str) -> SimpleNamespace:
        return SimpleNamespace(f_flag=os.ST_NOEXEC if Path(path) in paths else 0)

    monkeypatch.setattr(os, "statvfs", statvfs)


def made_in(files: Files, *bases: Base) -> str:
    with make_scratch(files, bases) as scratch:
        return Path(scratch.path).parent.name


def test_first_base_is_taken(files: Files) -> None:
    assert made_in(files, Base("/a"), Base("/b")) == "a"


def test_base_that_allows_execution_is_preferred(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_execution(monkeypatch, tmp_path / "a")
    assert made_in(files, Base("/a"), Base("/b")) == "b"


def test_base_without_execution_is_better_than_none(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_execution(monkeypatch, tmp_path / "a", tmp_path / "b")
    assert made_in(files, Base("/a"), Base("/b")) == "a"


def test_missing_base_is_created_only_where_asked_for(files: Files, tmp_path: Path) -> None:
    assert made_in(files, Base("/none"), Base("/made/deep", create=True)) == "deep"
    assert (tmp_path / "made/deep").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "none").exists()


def test_symbolic_link_is_refused(files: Files, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(NoScratchSpace, match="/link: it is a symbolic link"):
        make_scratch(files, [Base("/link")])


@pytest.mark.parametrize(("mode", "fit"), [(0o1777, True), (0o777, False), (0o775, True)])
def test_base_that_everybody_can_write_must_be_sticky(
    files: Files, tmp_path: Path, mode: int, fit: bool
) -> None:
    (tmp_path / "a").chmod(mode)
    assert made_in(files, Base("/a"), Base("/b")) == ("a" if fit else "b")


def test_base_of_another_user_is_refused(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(NoScratchSpace, match="another user"):
        make_scratch(files, [Base("/a")])


def test_every_base_has_its_reason_in_the_message(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NoScratchSpace, match="/file: it is no directory; /none: No such file"):
        make_scratch(files, [Base("/file"), Base("/none")])


def test_directory_and_files_are_private(files: Files) -> None:
    before = os.umask(0)
    try:
        with make_scratch(files, [Base("/a")]) as scratch:
            path = scratch.write("script", b"x" * 100000)
            modes = [os.stat(name).st_mode & 0o777 for name in (scratch.path, path)]
            assert Path(path).read_bytes() == b"x" * 100000
    finally:
        os.umask(before)
    assert modes == [0o700, 0o700]


def test_existing_name_is_never_written_to(files: Files, tmp_path: Path) -> None:
    with make_scratch(files, [Base("/a")]) as scratch:
        os.symlink(tmp_path / "victim", os.path.join(scratch.path, "script"))
        with pytest.raises(FileExistsError):
            scratch.write("script", b"")
    assert not (tmp_path / "victim").exists()


def test_it_is_locked_against_ageing(files: Files) -> None:
    with make_scratch(files, [Base("/a")]) as scratch:
        other = os.open(scratch.path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)


def test_it_is_removed_with_everything_in_it(files: Files, tmp_path: Path) -> None:
    with make_scratch(files, [Base("/a")]) as scratch:
        Path(scratch.path, "sub").mkdir()
        Path(scratch.path, "sub/file").write_text("x")
    assert list((tmp_path / "a").iterdir()) == []


def test_it_is_removed_after_an_error(files: Files, tmp_path: Path) -> None:
    with pytest.raises(KeyError), make_scratch(files, [Base("/a")]):
        raise KeyError
    assert list((tmp_path / "a").iterdir()) == []


def leftover(tmp_path: Path, pid: str, *, mode: int = 0o700, name: str = "x") -> Path:
    folder = tmp_path / "a" / f"{PREFIX}{name}"
    folder.mkdir(mode=0o700)
    (folder / "startup-script").write_text("secret")
    if pid:
        (folder / ".pid").write_text(pid)
    folder.chmod(mode)
    return folder


@pytest.mark.parametrize("pid", ["999999999 1\n", "1 1\n", "nonsense"])
def test_leftover_of_a_dead_runner_is_removed(files: Files, tmp_path: Path, pid: str) -> None:
    folder = leftover(tmp_path, pid)
    remove_leftovers(files, [Base("/a"), Base("/none")])
    assert not folder.exists()


def test_leftover_without_a_maker_is_removed_when_older_than_the_boot(
    files: Files, tmp_path: Path
) -> None:
    old, new = leftover(tmp_path, "", name="old"), leftover(tmp_path, "", name="new")
    before_boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 60
    os.utime(old, (before_boot, before_boot))
    remove_leftovers(files, [Base("/a")])
    assert (old.exists(), new.exists()) == (False, True)


def test_directory_in_use_is_kept(files: Files) -> None:
    with make_scratch(files, [Base("/a")]) as scratch:
        remove_leftovers(files, [Base("/a")])
        assert os.path.exists(scratch.path)


def test_directory_of_a_runner_that_lives_is_kept_without_its_lock(
    files: Files, tmp_path: Path
) -> None:
    with make_scratch(files, [Base("/a")]) as scratch:
        maker = Path(scratch.path, ".pid").read_text()
    folder = leftover(tmp_path, maker)
    remove_leftovers(files, [Base("/a")])
    assert folder.exists()


@pytest.mark.parametrize("name", ["link", "file", "open"])
def test_what_is_not_ours_is_kept(files: Files, tmp_path: Path, name: str) -> None:
    path = tmp_path / "a" / f"{PREFIX}-{name}"
    if name == "link":
        path.symlink_to(tmp_path / "b")
    elif name == "file":
        path.write_text("")
    else:
        path.mkdir(mode=0o755)
        (path / ".pid").write_text("999999999 1\n")
    remove_leftovers(files, [Base("/a")])
    assert os.path.lexists(path)
