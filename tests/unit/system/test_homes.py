"""The agent's side of users' homes: looking, asking the writer, what its answers mean."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import Commands, tree

from google_guest.system import System
from google_guest.system.accounts import Account
from google_guest.system.commands import CommandError, Completed
from google_guest.system.homes import (
    HomeTask,
    account_problem,
    home_problem,
    look_as_users,
    look_at,
    update_homes,
)

UID, GID = os.geteuid(), os.getegid()


def account(name: str = "ada", *, home: str = "", shell: str = "/bin/bash") -> Account:
    return Account(name, UID, GID, home or f"/home/{name}", shell)


def home(root: Path, name: str = "ada", keys: str = "own\n") -> Path:
    path = root / f"home/{name}/.ssh/authorized_keys"
    path.parent.mkdir(parents=True)
    path.write_text(keys)
    return path


@pytest.mark.parametrize("path", ["/home/ada", "/root", "/var/lib/x", "/procfs", "/home/ada/"])
def test_usual_homes_are_fine(path: str) -> None:
    assert home_problem(path) == ""


@pytest.mark.parametrize(
    "path", ["", "relative", "/", "///", "/.", "/dev/null", "/proc/1", "/var/empty/", "/a/../b"]
)
def test_homes_of_nobody_are_refused(path: str) -> None:
    assert home_problem(path)


@given(st.text(max_size=40))
def test_no_home_raises(path: str) -> None:
    home_problem(path)


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "nologin", "/bin/false"])
def test_shells_that_refuse_logins_get_no_keys(shell: str) -> None:
    assert account_problem(account(shell=shell)) == f"its shell is {shell}"


def test_a_file_is_read_below_the_root(tmp_path: Path) -> None:
    home(tmp_path)
    assert look_at(tree(tmp_path), account()).content == b"own\n"


def test_a_link_on_the_way_to_the_home_is_followed_inside_the_root(tmp_path: Path) -> None:
    home(tmp_path / "var")
    (tmp_path / "home").symlink_to("/var/home")
    assert look_at(tree(tmp_path), account()).content == b"own\n"


def test_a_missing_file_is_no_problem_and_a_missing_home_is(tmp_path: Path) -> None:
    (tmp_path / "home/ada").mkdir(parents=True)
    assert look_at(tree(tmp_path), account()).problem == ""
    look = look_at(tree(tmp_path), account("bob"))
    assert look.is_home_missing and look.problem


def test_what_only_the_user_may_read_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("google_guest.system.homes.home_writer.read_key_file", refuse)
    look = look_at(tree(tmp_path), account())
    assert look.needs_user and look.problem == "Permission denied"


def test_users_are_asked_for_their_files_by_one_process(tmp_path: Path) -> None:
    rows = [
        {"name": "ada", "status": "unchanged", "content": "b3duCg=="},
        {"name": "bob", "status": "unchanged", "content": None},
        {"name": "eve", "status": "failed", "error": "a link"},
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    runner = Commands(lambda argv: Completed(tuple(argv), 0, text, ""))
    looks = look_as_users(
        tree(tmp_path, runner=runner), [account(n) for n in ("ada", "bob", "eve")]
    )
    assert (looks["ada"].content, looks["bob"].content) == (b"own\n", None)
    assert looks["eve"].problem == "a link"
    assert len(runner.argvs) == 1


def test_nobody_to_ask_starts_nothing(tmp_path: Path) -> None:
    runner = Commands()
    assert look_as_users(tree(tmp_path, runner=runner), []) == {}
    assert update_homes(tree(tmp_path, runner=runner), []) == {}
    assert runner.argvs == []


def test_the_writer_really_writes(tmp_path: Path) -> None:
    path = home(tmp_path)
    system = System(root=tmp_path)
    assert update_homes(system, [HomeTask("ada", UID, GID, "/home/ada", ("k",))]) == {"ada": None}
    assert path.read_text() == "own\n# Added by Google\nk\n"
    assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0


@pytest.mark.parametrize("text", ["", "{", '{"name": "other", "status": "written"}\n'])
def test_a_user_without_an_answer_failed(tmp_path: Path, text: str) -> None:
    runner = Commands(lambda argv: Completed(tuple(argv), 1, text, ""))
    task = HomeTask("ada", UID, GID, "/home/ada", ("k",))
    assert "gave no answer" in str(update_homes(tree(tmp_path, runner=runner), [task])["ada"])


def test_a_writer_at_its_time_limit_failed(tmp_path: Path) -> None:
    def late(argv: Sequence[str]) -> Completed:
        raise CommandError(argv, None, "no end within 60 s")

    task = HomeTask("ada", UID, GID, "/home/ada", ("k",))
    error = update_homes(tree(tmp_path, runner=Commands(late)), [task])["ada"]
    assert "no end within 60 s" in str(error)
