"""authorized_keys files: taken apart, put together, and written below hostile homes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.system import home_writer
from google_guest.system.commands import program_argv
from google_guest.system.home_writer import (
    LARGEST_FILE,
    LEFTOVER_PREFIX,
    MARKER,
    REMOVED,
    UNCHANGED,
    WRITTEN,
    KeyFile,
    Refused,
    merge_keys,
    parse_key_file,
    read_key_file,
    unterminated_mark,
    update_key_file,
    without_added_lf,
)

M = MARKER + b"\n"
UID = os.geteuid()
SCRATCH_UID = 54321
as_root = pytest.mark.skipif(UID != 0, reason="needs root")


# The file.


@pytest.mark.parametrize(
    ("content", "own", "google"),
    [
        (b"", b"", ()),
        (b"a\n", b"a\n", ()),
        (M + b"k\n", b"", (b"k",)),
        (b"a\n" + M + b"k\n" + b"b\n", b"a\nb\n", (b"k",)),
        (b"\n# c\n\n" + M + b"k\n", b"\n# c\n\n", (b"k",)),
        (M + b"k", b"", (b"k",)),
        (M, b"", ()),
        (MARKER, b"", ()),
        (M + b"\nuser\n", b"\nuser\n", ()),
        (M + b"  \nuser\n", b"  \nuser\n", ()),
        (M + M + b"k\n", b"", (b"k",)),
        (MARKER + b" x\nuser\n", MARKER + b" x\nuser\n", ()),
        (b" " + M + b"user\n", b" " + M + b"user\n", ()),
        (MARKER + b"\r\nuser\r\n", MARKER + b"\r\nuser\r\n", ()),
        (b"a\rb\n" + M + b"k\n", b"a\rb\n", (b"k",)),
    ],
)
def test_only_marked_lines_are_ours(content: bytes, own: bytes, google: tuple[bytes, ...]) -> None:
    parsed = parse_key_file(content)
    assert (parsed.own, parsed.google) == (own, google)


def test_keys_come_behind_the_user_s_lines_with_a_marker_each() -> None:
    assert merge_keys(b"a\n", (b"k", b"l")) == b"a\n" + M + b"k\n" + M + b"l\n"


def test_a_missing_final_line_feed_is_added_before_keys() -> None:
    assert merge_keys(b"a", (b"k",)) == b"a\n" + M + b"k\n"


def test_order_does_not_matter_but_number_does() -> None:
    parsed = KeyFile(b"", (b"k", b"l"), 2)
    assert parsed.holds((b"l", b"k"))
    assert not parsed.holds((b"k",))
    assert not parsed.holds((b"k", b"l", b"l"))


def test_a_stray_marker_is_a_difference() -> None:
    assert not parse_key_file(M + b"\n" + M + b"k\n").holds((b"k",))


_LINES = st.binary(min_size=1, max_size=20).filter(
    lambda line: b"\n" not in line and line.strip() and line != MARKER
)


@given(st.binary(max_size=200), st.lists(_LINES, min_size=1, max_size=4).map(tuple))
def test_adding_and_removing_keys_gives_back_the_user_s_bytes(
    content: bytes, keys: tuple[bytes, ...]
) -> None:
    own = parse_key_file(content).own
    mark = unterminated_mark(own)
    with_keys = parse_key_file(merge_keys(own, keys))
    assert with_keys.google == keys
    assert without_added_lf(with_keys.own, mark) == own


def test_a_line_that_the_user_added_meanwhile_keeps_its_line_feed() -> None:
    mark = unterminated_mark(b"a")
    assert without_added_lf(b"a\nb\n", mark) == b"a\nb\n"


# The home of whoever runs this.


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o750)
    return home


def keys_of(home: Path) -> Path:
    return home / ".ssh/authorized_keys"


def prepared(home: Path, content: bytes, *, mode: int = 0o600) -> Path:
    (home / ".ssh").mkdir(mode=0o700)
    path = keys_of(home)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_first_key_makes_directory_and_file(home: Path) -> None:
    assert update_key_file(str(home), UID, (b"k",)) == WRITTEN
    assert keys_of(home).read_bytes() == M + b"k\n"
    assert stat.S_IMODE(keys_of(home).stat().st_mode) == 0o600
    assert stat.S_IMODE((home / ".ssh").stat().st_mode) == 0o700


def test_a_file_that_holds_the_keys_in_another_order_is_not_written(home: Path) -> None:
    path = prepared(home, b"own\n" + M + b"l\n" + M + b"k\n")
    before = path.stat()
    assert update_key_file(str(home), UID, (b"k", b"l")) == UNCHANGED
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_no_keys_and_no_directory_make_none(home: Path) -> None:
    assert update_key_file(str(home), UID, ()) == UNCHANGED
    assert os.listdir(home) == []


def test_the_last_key_leaves_the_user_s_lines(home: Path) -> None:
    path = prepared(home, b"\n# mine\nown\n" + M + b"k\n")
    assert update_key_file(str(home), UID, (), may_unlink=True) == WRITTEN
    assert path.read_bytes() == b"\n# mine\nown\n"


def test_an_empty_file_of_ours_is_removed(home: Path) -> None:
    path = prepared(home, M + b"k\n")
    assert update_key_file(str(home), UID, (), may_unlink=True) == REMOVED
    assert not path.exists()


def test_an_empty_file_of_the_user_stays(home: Path) -> None:
    path = prepared(home, M + b"k\n")
    assert update_key_file(str(home), UID, ()) == WRITTEN
    assert path.read_bytes() == b""


def test_a_file_without_final_line_feed_is_given_back_as_it_was(home: Path) -> None:
    path = prepared(home, b"# c\n own  key")
    mark = unterminated_mark(b"# c\n own  key")
    update_key_file(str(home), UID, (b"k",))
    update_key_file(str(home), UID, (), unterminated=mark)
    assert path.read_bytes() == b"# c\n own  key"


@pytest.mark.parametrize(
    ("before", "after"), [(0o600, 0o600), (0o644, 0o644), (0o666, 0o600), (0o400, 0o600)]
)
def test_a_mode_that_sshd_accepts_stays(home: Path, before: int, after: int) -> None:
    path = prepared(home, b"own\n", mode=before)
    update_key_file(str(home), UID, (b"k",))
    assert stat.S_IMODE(path.stat().st_mode) == after


def test_a_directory_that_others_can_write_is_closed(home: Path) -> None:
    prepared(home, b"")
    (home / ".ssh").chmod(0o777)
    update_key_file(str(home), UID, (b"k",))
    assert stat.S_IMODE((home / ".ssh").stat().st_mode) == 0o755


def test_leftovers_of_an_interrupted_write_are_removed(home: Path) -> None:
    prepared(home, b"own\n")
    (home / ".ssh" / f"{LEFTOVER_PREFIX}0123").write_bytes(b"half")
    (home / ".ssh" / f"{LEFTOVER_PREFIX}link").symlink_to("/etc/passwd")
    (home / ".ssh" / f"{LEFTOVER_PREFIX}directory").mkdir()
    update_key_file(str(home), UID, (b"k",))
    assert sorted(os.listdir(home / ".ssh")) == [f"{LEFTOVER_PREFIX}directory", "authorized_keys"]


def link_home(home: Path, elsewhere: Path) -> None:
    home.rmdir()
    home.symlink_to(elsewhere)


def link_home_directory(home: Path, elsewhere: Path) -> None:
    (home / ".ssh").symlink_to(elsewhere)


def plant_file_for_directory(home: Path, elsewhere: Path) -> None:
    (home / ".ssh").write_text("")


def link_file(home: Path, elsewhere: Path) -> None:
    (home / ".ssh").mkdir()
    keys_of(home).symlink_to(elsewhere / "authorized_keys")


def link_dangling(home: Path, elsewhere: Path) -> None:
    (home / ".ssh").mkdir()
    keys_of(home).symlink_to(elsewhere / "none")


def plant_fifo(home: Path, elsewhere: Path) -> None:
    (home / ".ssh").mkdir()
    os.mkfifo(keys_of(home))


def plant_directory(home: Path, elsewhere: Path) -> None:
    keys_of(home).mkdir(parents=True)


def plant_large_file(home: Path, elsewhere: Path) -> None:
    with prepared(home, b"").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)


TRAPS: list[Callable[[Path, Path], None]] = [
    link_home,
    link_home_directory,
    plant_file_for_directory,
    link_file,
    link_dangling,
    plant_fifo,
    plant_directory,
    plant_large_file,
]


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
@pytest.mark.parametrize("keys", [(b"k",), ()], ids=["write", "withdraw"])
def test_what_is_no_plain_file_of_the_user_is_refused_and_left(
    home: Path, tmp_path: Path, trap: Callable[[Path, Path], None], keys: tuple[bytes, ...]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "authorized_keys").write_text("precious\n")
    trap(home, elsewhere)
    with pytest.raises(Refused):
        update_key_file(f"{home}/", UID, keys)
    with pytest.raises(Refused):
        read_key_file(f"{home}/.", UID)
    assert os.listdir(elsewhere) == ["authorized_keys"]
    assert (elsewhere / "authorized_keys").read_text() == "precious\n"


def test_a_missing_home_is_told_apart(home: Path) -> None:
    home.rmdir()
    with pytest.raises(FileNotFoundError):
        update_key_file(str(home), UID, (b"k",))


def test_a_full_disk_leaves_the_old_file_and_no_temporary(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = prepared(home, b"own\n")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(home_writer.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        update_key_file(str(home), UID, (b"k",))
    assert path.read_bytes() == b"own\n"
    assert os.listdir(home / ".ssh") == ["authorized_keys"]


def test_death_before_the_rename_leaves_the_old_file_and_the_next_write_cleans_up(
    home: Path,
) -> None:
    path = prepared(home, b"own\n")
    child = os.fork()
    if child == 0:
        home_writer.os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        update_key_file(str(home), UID, (b"k",))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_bytes() == b"own\n"
    assert len(os.listdir(home / ".ssh")) == 2
    assert update_key_file(str(home), UID, (b"k",)) == WRITTEN
    assert os.listdir(home / ".ssh") == ["authorized_keys"]


# The program.


def run_program(action: str, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    done = subprocess.run(
        program_argv(home_writer.__file__),
        input=json.dumps({"action": action, "tasks": tasks}),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def task(home: Path, *, name: str = "ada", uid: int = UID, **more: Any) -> dict[str, Any]:
    gid = os.getegid() if uid == UID else uid
    return {"name": name, "uid": uid, "gid": gid, "home": str(home), "keys": ["k"], **more}


def test_the_program_answers_for_every_user(home: Path, tmp_path: Path) -> None:
    answers = run_program("write", task(tmp_path / "none"), task(home, name="bob"))
    assert [(answer["name"], answer["status"]) for answer in answers] == [
        ("ada", "failed"),
        ("bob", "written"),
    ]
    assert "No such file" in answers[0]["error"]


def test_the_program_reads_for_users_whose_files_are_theirs_alone(home: Path) -> None:
    prepared(home, b"own\n")
    (answer,) = run_program("read", task(home))
    assert answer["content"] == "b3duCg=="


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """The home of a user without any rights, on a way that it may walk."""
    for directory in (tmp_path, *tmp_path.parents):
        if stat.S_IMODE(directory.stat().st_mode) & 0o011 == 0:
            directory.chmod(0o711)
    home = tmp_path / "scratch"
    home.mkdir(mode=0o750)
    os.chown(home, SCRATCH_UID, SCRATCH_UID)
    return home


def in_scratch(path: Path, *, uid: int = SCRATCH_UID) -> Path:
    os.chown(path, uid, uid, follow_symlinks=False)
    return path


@as_root
def test_directory_and_file_belong_to_the_user(scratch: Path) -> None:
    assert run_program("write", task(scratch, uid=SCRATCH_UID))[0]["status"] == WRITTEN
    for path in (scratch / ".ssh", keys_of(scratch)):
        assert (path.stat().st_uid, path.stat().st_gid) == (SCRATCH_UID, SCRATCH_UID)


@as_root
def test_a_directory_of_somebody_else_is_refused(scratch: Path) -> None:
    (scratch / ".ssh").mkdir(mode=0o777)
    answer = run_program("write", task(scratch, uid=SCRATCH_UID))[0]
    assert answer["status"] == "failed" and "belongs to uid 0" in answer["error"]
    assert os.listdir(scratch / ".ssh") == []


@as_root
def test_a_home_of_somebody_else_is_named_as_the_cause(scratch: Path) -> None:
    os.chown(scratch, 1234, 1234)
    scratch.chmod(0o755)
    answer = run_program("write", task(scratch, uid=SCRATCH_UID))[0]
    assert "the home belongs to uid 1234" in answer["error"]


@as_root
def test_a_hard_link_to_another_user_s_file_is_refused(scratch: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious\n")
    precious.chmod(0o644)
    os.chown(precious, 1234, 1234)
    (scratch / ".ssh").mkdir()
    in_scratch(scratch / ".ssh")
    os.link(precious, keys_of(scratch))
    answer = run_program("write", task(scratch, uid=SCRATCH_UID))[0]
    assert answer["status"] == "failed" and "belongs to uid 1234" in answer["error"]
    assert (precious.read_text(), precious.stat().st_uid) == ("precious\n", 1234)


@as_root
def test_a_hard_link_to_a_secret_of_root_is_not_readable_to_the_user(
    scratch: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "shadow"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    (scratch / ".ssh").mkdir()
    in_scratch(scratch / ".ssh")
    os.link(secret, keys_of(scratch))
    answer = run_program("write", task(scratch, uid=SCRATCH_UID))[0]
    assert answer["status"] == "failed" and answer["errno"] == 13
    assert (secret.read_text(), secret.stat().st_uid) == ("secret\n", 0)


@as_root
def test_planted_temporary_names_change_nothing_outside(scratch: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious\n")
    (scratch / ".ssh").mkdir()
    in_scratch(scratch / ".ssh")
    for name in ("authorized_keys.google", f"{LEFTOVER_PREFIX}00", "authorized_keys.tmp"):
        (scratch / ".ssh" / name).symlink_to(precious)
        in_scratch(scratch / ".ssh" / name)
    assert run_program("write", task(scratch, uid=SCRATCH_UID))[0]["status"] == WRITTEN
    facts = precious.stat()
    assert (precious.read_text(), facts.st_uid) == ("precious\n", 0)


@as_root
def test_directories_that_are_swapped_during_the_write_lead_nowhere(
    scratch: Path, tmp_path: Path
) -> None:
    """A user who swaps .ssh and a link to a directory of root as fast as it can."""
    target = tmp_path / "root-ssh"
    target.mkdir(mode=0o755)
    (target / "authorized_keys").write_text("precious\n")
    ssh, parked, link = scratch / ".ssh", scratch / "parked", scratch / "link"
    ssh.mkdir()
    in_scratch(ssh)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                os.rename(ssh, parked)
                os.symlink(target, ssh)
                os.rename(ssh, link)
                os.rename(parked, ssh)
                os.unlink(link)
            except OSError:
                continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        tasks = [task(scratch, uid=SCRATCH_UID, keys=[f"k{number}"]) for number in range(150)]
        answers = run_program("write", *tasks)
    finally:
        stop.set()
        thread.join()
    assert len(answers) == 150
    assert os.listdir(target) == ["authorized_keys"]
    assert (target / "authorized_keys").read_text() == "precious\n"
    assert (target / "authorized_keys").stat().st_uid == 0


@as_root
def test_a_missing_home_is_made_with_the_skeleton(scratch: Path, tmp_path: Path) -> None:
    home = tmp_path / "homes" / "new"
    home.parent.mkdir()
    (answer,) = run_program("write", task(home, uid=SCRATCH_UID, make_home=True))
    assert answer["status"] == WRITTEN
    facts = home.stat()
    assert (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (SCRATCH_UID, 0o750)
    skeleton = Path(home_writer.SKELETON)
    for entry in skeleton.iterdir() if skeleton.is_dir() else ():
        assert (home / entry.name).lstat().st_uid == SCRATCH_UID


@as_root
def test_no_home_is_made_where_others_can_write(scratch: Path) -> None:
    (answer,) = run_program("write", task(scratch / "new", uid=SCRATCH_UID, make_home=True))
    assert answer["status"] == "failed"
    assert os.listdir(scratch) == []


@as_root
def test_the_rights_of_root_are_gone_for_good() -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import home_writer as writer\n"
        f"writer.become({SCRATCH_UID}, {SCRATCH_UID})\n"
        f"assert os.getresuid() == ({SCRATCH_UID},) * 3 and os.getgroups() == [{SCRATCH_UID}]\n"
        "try:\n os.setresuid(0, 0, 0)\nexcept PermissionError:\n print('gone')\n"
    )
    folder = str(Path(home_writer.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code, folder], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "gone\n", done.stderr


@as_root
def test_a_user_who_hangs_does_not_stop_the_others(scratch: Path, home: Path) -> None:
    """The second user's writer is stopped by that user; it counts as failed after its time."""
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1]); import home_writer as writer\n"
        "writer.USER_TIME_LIMIT = 0.3\n"
        "plain = writer.become\n"
        "def become(uid, gid):\n"
        " plain(uid, gid)\n"
        " if uid: os.kill(os.getpid(), signal.SIGSTOP)\n"
        "writer.become = become\n"
        "writer.main()\n"
    )
    request = {"action": "write", "tasks": [task(scratch, uid=SCRATCH_UID), task(home, name="b")]}
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code, str(Path(home_writer.__file__).parent)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=30,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["status"] for answer in answers] == ["failed", WRITTEN], done.stderr
    assert "no answer" in answers[0]["error"]


def test_the_answer_of_a_killed_process_is_a_failure(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> Optional[str]:
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    monkeypatch.setattr(home_writer, "update_key_file", die)
    answer = home_writer._in_child("write", task(home))
    assert answer["status"] == "failed"
