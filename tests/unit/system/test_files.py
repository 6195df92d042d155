"""Files below a root: replaced atomically, read with limits, links resolved inside the root."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.system.files import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_written_file_has_exactly_the_content_and_mode(files: Files, tmp_path: Path) -> None:
    files.write_atomic("/etc/x/y.conf", b"one\n", mode=0o640)
    target = tmp_path / "etc/x/y.conf"
    assert target.read_bytes() == b"one\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_file_is_never_wider_than_its_mode_while_it_is_written(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    real = os.open

    def recording(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        if flags & os.O_CREAT:
            modes.append(mode)
        return real(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", recording)
    files.write_atomic("/secret", b"x", mode=0o600)
    assert modes == [0o600]


def test_overwritten_file_stays_the_same_file(files: Files, tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"a longer text")
    target.chmod(0o604)
    (tmp_path / "link").symlink_to("/f")
    before = target.stat()
    files.overwrite("/link", b"short")
    after = target.stat()
    assert target.read_bytes() == b"short"
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert sorted(os.listdir(tmp_path)) == ["f", "link"]


def test_missing_file_is_not_made_by_overwriting(files: Files, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.overwrite("/f", b"x")
    assert os.listdir(tmp_path) == []


def test_failed_write_leaves_the_old_file_and_no_leftover(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_atomic("/f", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic("/f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_leftover_of_a_crash_is_removed_by_the_next_write(files: Files, tmp_path: Path) -> None:
    (tmp_path / ".f.google-0123").write_bytes(b"half")
    (tmp_path / ".other.google-0123").write_bytes(b"not ours to judge")
    files.write_atomic("/f", b"new")
    assert sorted(os.listdir(tmp_path)) == [".other.google-0123", "f"]


def test_reader_sees_the_old_or_the_new_content_only(files: Files, tmp_path: Path) -> None:
    contents = (b"a" * 50_000, b"b" * 50_000)
    files.write_atomic("/f", contents[0])
    seen = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(files.read_bytes("/f"))

    reader = threading.Thread(target=read)
    reader.start()
    for round_number in range(40):
        files.write_atomic("/f", contents[round_number % 2])
    done.set()
    reader.join()
    assert seen <= set(contents)


def test_link_at_the_target_is_replaced_and_not_followed(files: Files, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "f").symlink_to("victim")
    files.write_atomic("/f", b"new")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "f").is_symlink()


@pytest.mark.parametrize("target", ["/etc/real", "../../../../etc/real", "real"])
def test_links_are_resolved_inside_the_root(files: Files, tmp_path: Path, target: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/real").write_bytes(b"inside")
    (tmp_path / "etc/link").symlink_to(target)
    assert files.read_bytes("/etc/link") == b"inside"


def test_directory_link_that_leaves_the_root_stays_inside(files: Files, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/../../..")
    files.write_atomic("/out/etc/f", b"x")
    assert (tmp_path / "etc/f").read_bytes() == b"x"


def test_endless_links_are_an_error(files: Files, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError) as caught:
        files.read_bytes("/loop/x")
    assert caught.value.errno == errno.ELOOP


def test_missing_file_reads_as_none(files: Files) -> None:
    assert files.read_bytes("/no/such/file") is None


def test_fifo_is_refused_without_hanging(files: Files, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        files.read_bytes("/pipe")


def test_file_over_the_limit_is_refused(files: Files, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 11)
    assert files.read_bytes("/big", limit=11) == b"x" * 11
    with pytest.raises(OSError, match="larger than 10 bytes"):
        files.read_bytes("/big", limit=10)


def test_existing_directory_keeps_its_mode(files: Files, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    files.make_directory("/d", mode=0o755)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700


@given(
    st.lists(st.sampled_from(["a", "b", "..", ".", "c"]), max_size=8),
    st.lists(st.sampled_from(["/", "/a", "..", "../..", "b", "a/../c"]), max_size=3),
)
def test_no_path_resolves_outside_the_root(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], links: list[str]
) -> None:
    root = tmp_path_factory.mktemp("root")
    for number, target in enumerate(links):
        (root / f"l{number}").symlink_to(target)
    names = [f"l{number}" for number in range(len(links))]
    resolved = Files(root).resolved("/" + "/".join([*names, *parts, *names]))
    assert os.path.commonpath([resolved, str(root)]) == str(root)
