"""The users and sudoers files: names, contents, faults of the disk, links, departed users."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiers import in_ci

from google_guest.errors import GuestError
from oslogin import grants
from oslogin.grants import GrantError, Grants, file_name, sudoers_text, user_of, users_text
from oslogin.identities import NAME, is_login_name

UID = 12345


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    users, disk, memory = (tmp_path / name for name in ("users", "sudoers", "memory"))
    for folder in (users, disk, memory):
        folder.mkdir(mode=0o750)
    return users, disk, memory


@pytest.fixture
def store(folders: tuple[Path, Path, Path]) -> Grants:
    users, disk, memory = folders
    return Grants(users=str(users), sudoers=(str(disk), str(memory)))


def _full(monkeypatch: pytest.MonkeyPatch, *folders: Path, number: int = errno.ENOSPC) -> None:
    """Let writes into the folders fail after their file was made, as on a full disk."""
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if any(path.startswith(f"{folder}/") for folder in folders):
            raise OSError(number, os.strerror(number))
        return real(descriptor, data)

    monkeypatch.setattr(grants.os, "write", write)


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("alice", "alice"),
        ("john.doe", "john+2Edoe"),
        (".hidden", "+2Ehidden"),
        ("README", "+README"),
        ("ALL", "ALL"),
    ],
)
def test_file_names_are_ones_that_sudo_reads(user: str, name: str) -> None:
    assert file_name(user) == name


@given(st.from_regex(NAME, fullmatch=True).filter(is_login_name))
def test_every_user_is_found_again_by_its_file(user: str) -> None:
    name = file_name(user)
    assert user_of(name) == user
    assert "." not in name and not name.endswith("~") and name != "README"


@pytest.mark.parametrize("name", ["README", "a:b", "+", ".new-0123456789abcdef/", "", "-x", ".."])
def test_other_files_belong_to_nobody(name: str) -> None:
    assert user_of(name) is None


def test_the_rule_names_the_user_by_uid() -> None:
    lines = sudoers_text("ALL", UID).splitlines()
    assert lines == ["# OS Login user: ALL", f"#{UID} ALL=(ALL) NOPASSWD: ALL"]


@pytest.mark.parametrize("user", ["alice", "john.doe", "ALL", "README", "_.x"])
def test_visudo_accepts_the_rule(tmp_path: Path, user: str) -> None:
    if shutil.which("visudo") is None:
        (pytest.fail if in_ci() else pytest.skip)("visudo is not installed: package sudo")
    path = tmp_path / "rule"
    path.write_text(sudoers_text(user, UID))
    path.chmod(0o440)
    checked = subprocess.run(
        ["visudo", "-cf", str(path)], capture_output=True, text=True, check=False, timeout=30
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_files_have_their_content_and_mode(store: Grants, folders: tuple[Path, Path, Path]) -> None:
    users, disk, memory = folders
    store.admit("john.doe")
    store.grant_sudo("john.doe", UID)
    user, rule = users / "john+2Edoe", disk / "john+2Edoe"
    assert user.read_text() == "Match User john.doe\n    AuthorizedKeysFile none\n"
    assert rule.read_text() == sudoers_text("john.doe", UID)
    assert stat.S_IMODE(user.stat().st_mode) == 0o640
    assert stat.S_IMODE(rule.stat().st_mode) == 0o440
    assert not list(memory.iterdir())


def test_the_mode_is_right_before_the_first_byte(
    store: Grants, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return real(descriptor, data)

    monkeypatch.setattr(grants.os, "write", write)
    store.grant_sudo("alice", UID)
    assert seen == [0o440]


def test_equal_files_are_not_written_again(store: Grants, folders: tuple[Path, Path, Path]) -> None:
    store.admit("alice")
    store.grant_sudo("alice", UID)
    before = [(folder / "alice").stat().st_ino for folder in folders[:2]]
    store.admit("alice")
    store.grant_sudo("alice", UID)
    assert [(folder / "alice").stat().st_ino for folder in folders[:2]] == before


@pytest.mark.parametrize("content", ["", "alice ALL=(ALL) NOPASSWD: ALL\n", "junk"])
def test_other_content_is_mended(
    store: Grants, folders: tuple[Path, Path, Path], content: str
) -> None:
    (folders[1] / "alice").write_text(content)
    store.grant_sudo("alice", UID)
    assert (folders[1] / "alice").read_text() == sudoers_text("alice", UID)


def test_the_old_name_goes_when_the_new_one_comes(
    store: Grants, folders: tuple[Path, Path, Path]
) -> None:
    (folders[1] / "john.doe").write_text("john.doe ALL=(ALL) NOPASSWD: ALL\n")
    store.grant_sudo("john.doe", UID)
    assert os.listdir(folders[1]) == ["john+2Edoe"]


def test_the_package_s_readme_is_left_alone(
    store: Grants, folders: tuple[Path, Path, Path]
) -> None:
    readme = folders[0] / "README"
    readme.write_text("# comment\n")
    store.migrate()
    store.admit("README")
    store.revoke("README")
    store.sweep(lambda _: True)
    assert readme.read_text() == "# comment\n"
    assert os.listdir(folders[0]) == ["README"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_moves_the_rule_to_memory(
    store: Grants,
    folders: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    _, disk, memory = folders
    _full(monkeypatch, disk, number=number)
    store.grant_sudo("alice", UID)
    assert not list(disk.iterdir())
    assert (memory / "alice").read_text() == sudoers_text("alice", UID)
    assert store.has_sudo("alice")


def test_the_rule_returns_from_memory_when_there_is_room(
    store: Grants, folders: tuple[Path, Path, Path]
) -> None:
    _, disk, memory = folders
    with pytest.MonkeyPatch.context() as patch:
        _full(patch, disk)
        store.grant_sudo("alice", UID)
    store.grant_sudo("alice", UID)
    assert os.listdir(disk) == ["alice"] and not os.listdir(memory)


def test_nothing_empty_remains_when_nothing_can_be_written(
    store: Grants, folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    users, disk, memory = folders
    (disk / "alice").write_text("")
    _full(monkeypatch, *folders)
    with pytest.raises(GrantError, match="No space left"):
        store.grant_sudo("alice", UID)
    with pytest.raises(GrantError):
        store.admit("alice")
    assert not [*users.iterdir(), *disk.iterdir(), *memory.iterdir()]


def test_an_existing_rule_survives_a_full_disk(
    store: Grants, folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.grant_sudo("alice", UID)
    _full(monkeypatch, *folders)
    store.grant_sudo("alice", UID)
    assert (folders[1] / "alice").read_text() == sudoers_text("alice", UID)


def test_revoking_removes_the_rule_in_both_places(
    store: Grants, folders: tuple[Path, Path, Path]
) -> None:
    for folder in folders[1:]:
        (folder / "alice").write_text(sudoers_text("alice", UID))
    assert store.revoke_sudo("alice")
    assert not store.has_sudo("alice")
    assert not store.revoke_sudo("alice")


def test_revoking_removes_all_files_of_a_user(
    store: Grants, folders: tuple[Path, Path, Path]
) -> None:
    (folders[1] / "j.d").write_text("j.d ALL=(ALL) NOPASSWD: ALL\n")
    store.admit("j.d")
    store.revoke("j.d")
    assert not [entry for folder in folders for entry in folder.iterdir()]


def test_a_link_at_the_file_s_name_is_replaced_and_not_followed(
    store: Grants, folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (folders[1] / "alice").symlink_to(victim)
    store.grant_sudo("alice", UID)
    assert victim.read_text() == "precious"
    assert not (folders[1] / "alice").is_symlink()


def test_a_link_with_the_right_content_behind_it_counts_for_nothing(
    store: Grants, folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(users_text("alice"))
    elsewhere.chmod(0o640)
    (folders[0] / "alice").symlink_to(elsewhere)
    assert not store.is_admitted("alice")
    store.admit("alice")
    assert not (folders[0] / "alice").is_symlink()


@pytest.mark.parametrize("action", ["admit", "grant", "revoke", "sweep", "migrate"])
def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path: Path, action: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "alice").write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(outside)
    store = Grants(users=str(link), sudoers=(str(link),))
    actions = {
        "admit": lambda: store.admit("alice"),
        "grant": lambda: store.grant_sudo("alice", UID),
        "revoke": lambda: store.revoke("alice"),
    }
    if action in actions:
        with pytest.raises(GrantError):
            actions[action]()
    elif action == "sweep":
        assert store.sweep(lambda _: True) == ()
    else:
        store.migrate()
    assert [path.name for path in outside.iterdir()] == ["alice"]
    assert (outside / "alice").read_text() == "precious"


def test_missing_folders_are_made(tmp_path: Path) -> None:
    store = Grants(users=str(tmp_path / "u"), sudoers=(str(tmp_path / "s"),))
    store.admit("alice")
    store.grant_sudo("alice", UID)
    assert stat.S_IMODE((tmp_path / "u").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o750


def test_a_wide_folder_is_narrowed(store: Grants, folders: tuple[Path, Path, Path]) -> None:
    folders[1].chmod(0o777)
    store.grant_sudo("alice", UID)
    assert stat.S_IMODE(folders[1].stat().st_mode) == 0o750


@pytest.mark.parametrize("user", ["", "..", "a/b", "../x", "a\nb", "-x", "a" * 33, "a:b", "*"])
def test_names_that_nobody_has_are_refused(store: Grants, user: str) -> None:
    for action in (store.admit, store.revoke, store.revoke_sudo, store.is_admitted):
        with pytest.raises(ValueError, match="no login name"):
            action(user)
    with pytest.raises(ValueError, match="no login name"):
        store.grant_sudo(user, UID)


@pytest.mark.parametrize("uid", [0, 27, 999, -1, 65534, 2**32 - 1, 2**32 + 1000])
def test_system_uids_get_no_rule(store: Grants, folders: tuple[Path, Path, Path], uid: int) -> None:
    with pytest.raises(ValueError, match="no uid"):
        store.grant_sudo("alice", uid)
    assert not list(folders[1].iterdir())


def test_departed_users_lose_their_files(store: Grants, folders: tuple[Path, Path, Path]) -> None:
    for user in ("alice", "bob"):
        store.admit(user)
        store.grant_sudo(user, UID)
    assert store.sweep(lambda user: user == "bob") == ("bob",)
    assert [os.listdir(folder) for folder in folders] == [["alice"], ["alice"], []]


def test_an_outage_removes_nobody_s_files(store: Grants, folders: tuple[Path, Path, Path]) -> None:
    def ask(user: str) -> bool:
        raise GuestError("no answer")

    store.admit("alice")
    assert store.sweep(ask) == ()
    assert os.listdir(folders[0]) == ["alice"]


def test_what_an_interrupted_write_left_is_swept(
    store: Grants, folders: tuple[Path, Path, Path]
) -> None:
    (folders[1] / ".new-0123456789abcdef").write_text("part")
    store.sweep(lambda _: False)
    assert not list(folders[1].iterdir())


@pytest.mark.parametrize(
    ("name", "content", "after"),
    [
        ("alice", "", None),
        ("alice", " \n", None),
        ("ALL", "ALL ALL=(ALL) NOPASSWD: ALL\n", None),
        ("alice", "alice ALL=(ALL) NOPASSWD: ALL\n", "alice"),
        ("j.d", "j.d ALL=(ALL) NOPASSWD: ALL\n", "j+2Ed"),
        ("ALL", sudoers_text("ALL", UID), "ALL"),
    ],
)
def test_old_sudoers_files_are_mended_at_the_start(
    store: Grants,
    folders: tuple[Path, Path, Path],
    name: str,
    content: str,
    after: Optional[str],
) -> None:
    (folders[1] / name).write_text(content)
    store.migrate()
    assert os.listdir(folders[1]) == ([after] if after else [])
    if after:
        assert (folders[1] / after).read_text() == content


@pytest.mark.parametrize("content", ["", "Match User j.d\n    AuthorizedKeysFile /dev/null\n"])
def test_old_users_files_are_rewritten_at_the_start(
    store: Grants, folders: tuple[Path, Path, Path], content: str
) -> None:
    (folders[0] / "j.d").write_text(content)
    store.migrate()
    assert os.listdir(folders[0]) == ["j+2Ed"]
    assert (folders[0] / "j+2Ed").read_text() == users_text("j.d")
