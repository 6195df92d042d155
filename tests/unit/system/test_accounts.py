"""passwd, group and the name service."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import Commands, tree

from google_guest.system import name_lookup
from google_guest.system.accounts import (
    Account,
    Accounts,
    Group,
    LookupFailed,
    parse_group,
    parse_passwd,
)
from google_guest.system.commands import CommandError, Completed, program_argv
from google_guest.system.files import Files

PASSWD = "root:x:0:0:root:/root:/bin/bash\nada:*:1001:1002:,,,:/home/ada:/bin/sh\n"
GROUP = "root:x:0:\nadm:x:4:ada,bob\nada:x:1002:\n"


def live(tmp_path: Path, runner: Commands) -> Accounts:
    tree(tmp_path, {"/etc/passwd": PASSWD, "/etc/group": GROUP})
    return Accounts(Files(tmp_path), runner, live=True)


def test_entries_are_read_by_name(tmp_path: Path) -> None:
    local = tree(tmp_path, {"/etc/passwd": PASSWD, "/etc/group": GROUP}).accounts.local()
    assert local.users["ada"] == Account("ada", 1001, 1002, "/home/ada", "/bin/sh")
    assert local.groups["adm"] == Group("adm", 4, frozenset({"ada", "bob"}))


def test_missing_files_are_empty(tmp_path: Path) -> None:
    local = tree(tmp_path).accounts.local()
    assert (dict(local.users), dict(local.groups)) == ({}, {})


def test_membership_is_by_list_or_by_primary_group(tmp_path: Path) -> None:
    local = tree(tmp_path, {"/etc/passwd": PASSWD, "/etc/group": GROUP}).accounts.local()
    assert local.is_member("ada", "adm") and local.is_member("ada", "ada")
    assert not local.is_member("root", "adm") and not local.is_member("ada", "none")
    assert local.is_listed("ada", "adm") and not local.is_listed("ada", "ada")


@pytest.mark.parametrize(
    "line", ["", "# c", "+::::::", "-ada::::::", "ada:x:1", "ada:x:one:2:::", ":x:1:1:::"]
)
def test_lines_that_are_no_entries_are_left_out(line: str) -> None:
    assert list(parse_passwd(f"{line}\n{PASSWD}")) == ["root", "ada"]
    assert "ada" not in parse_group(line)


def test_of_two_entries_the_first_counts() -> None:
    assert parse_passwd("a:x:1:1::/a:/sh\na:x:2:2::/b:/sh")["a"].uid == 1


@given(st.text(max_size=200))
def test_no_database_raises(text: str) -> None:
    parse_passwd(text)
    parse_group(text)


def test_a_tree_has_no_name_service(tmp_path: Path) -> None:
    runner = Commands()
    system = tree(tmp_path, runner=runner)
    assert system.accounts.find_users(["ada"]) == {"ada": None}
    assert system.accounts.find_group("adm") is None
    assert runner.argvs == []


def test_local_users_are_found_without_a_command(tmp_path: Path) -> None:
    runner = Commands()
    found = live(tmp_path, runner).find_user("ada")
    assert found is not None and found.uid == 1001
    assert runner.argvs == []


def answering(*rows: dict[str, object], rest: str = "") -> Commands:
    def answer(argv: Sequence[str]) -> Completed:
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        return Completed(tuple(argv), 0, lines + rest, "")

    return Commands(answer)


def test_the_name_service_is_asked_once_for_all_names(tmp_path: Path) -> None:
    row = {"name": "ldap", "found": True, "uid": 5000, "gid": 5000, "home": "/h", "shell": "/sh"}
    runner = answering(row, {"name": "none", "found": False}, {"name": "err", "error": "I/O"})
    answers = live(tmp_path, runner).find_users(["ldap", "none", "err"])
    assert answers["ldap"] == Account("ldap", 5000, 5000, "/h", "/sh")
    assert answers["none"] is None
    assert isinstance(answers["err"], LookupFailed) and "I/O" in str(answers["err"])
    assert len(runner.argvs) == 1


def test_a_name_without_an_answer_is_not_absent(tmp_path: Path) -> None:
    runner = answering({"name": "first", "found": False}, rest='{"name": "sec')
    answers = live(tmp_path, runner).find_users(["first", "second"])
    assert answers["first"] is None and isinstance(answers["second"], LookupFailed)


def test_a_lookup_that_ends_at_its_time_limit_is_not_absence(tmp_path: Path) -> None:
    def fail(argv: Sequence[str]) -> Completed:
        raise CommandError(argv, None, "no end within 20 s")

    accounts = live(tmp_path, Commands(fail))
    with pytest.raises(LookupFailed, match="no end within"):
        accounts.find_user("carol")


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [(0, "sudoers:x:77:a,b\n", Group("sudoers", 77, frozenset("ab"))), (2, "", None)],
)
def test_a_group_is_found_or_absent(
    tmp_path: Path, status: int, output: str, expected: object
) -> None:
    runner = Commands(lambda argv: Completed(tuple(argv), status, output, ""))
    assert live(tmp_path, runner).find_group("sudoers") == expected


def test_another_status_of_getent_is_a_failed_lookup(tmp_path: Path) -> None:
    runner = Commands(lambda argv: Completed(tuple(argv), 3, "", ""))
    with pytest.raises(LookupFailed):
        live(tmp_path, runner).find_group("sudoers")


def test_the_lookup_program_finds_root_and_not_a_number() -> None:
    done = subprocess.run(
        program_argv(name_lookup.__file__, "root", "0", "no-such-user"),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    root, number, absent = (json.loads(line) for line in done.stdout.splitlines())
    assert (root["found"], root["uid"], root["gid"]) == (True, 0, 0)
    assert number["found"] is absent["found"] is False
