"""Changes to accounts: the commands that they run, and what counts as done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import Commands, place, tree

from google_guest.changes import Change
from google_guest.changes.accounts import (
    SUDOERS_FILE,
    SUDOERS_RULE,
    AccountCommand,
    CreateGroup,
    CreateUser,
    DeleteUser,
    InstallSudoersRule,
    JoinGroup,
    LeaveGroup,
    WriteAuthorizedKeys,
    fill_template,
)
from google_guest.errors import GuestError
from google_guest.system import System
from google_guest.system.accounts import Account
from google_guest.system.commands import CommandError, CommandMissing, Completed

PASSWD = "root:x:0:0::/root:/bin/bash\nada:*:1001:1001::/home/ada:/bin/bash\n"
GROUP = "google-sudoers:x:998:ada\n"


class Failing(Commands):
    """Commands of which some end with a status."""

    def __init__(self, **statuses: Optional[int]) -> None:
        super().__init__()
        self.statuses = statuses

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        completed = super().__call__(argv, **options)
        status = self.statuses.get(argv[0], 0)
        if status is None:
            raise CommandMissing(argv[0])
        if status:
            raise CommandError(argv, status, "words of the program")
        return completed


def system(tmp_path: Path, runner: Commands) -> System:
    return tree(tmp_path, {"/etc/passwd": PASSWD, "/etc/group": GROUP}, runner=runner)


@pytest.mark.parametrize(
    ("template", "argv", "stdin"),
    [
        ("useradd -m -p * {user}", ("useradd", "-m", "-p", "*", "bob"), None),
        ("mk {user} ; x", ("mk", "bob", ";", "x"), None),
        ("  mk   {user}  ", ("mk", "bob"), None),
        ("mk --name={user} {user}", ("mk", "--name=bob", "bob"), None),
        ("mk '{user} x'", ("mk", "'bob", "x'"), None),
        ("secret of {user} | pw useradd {user} -h 0", ("pw", "useradd", "bob", "-h", "0"), None),
        ("mk {group} {other} {}", ("mk", "{group}", "{other}", "{}"), None),
    ],
)
def test_a_template_becomes_an_argument_list(
    template: str, argv: tuple[str, ...], stdin: Optional[str]
) -> None:
    command = fill_template(template, user="bob")
    assert command is not None and command.argv == argv
    assert command.input == ("secret of bob" if "|" in template else stdin)


def test_a_value_never_becomes_two_arguments() -> None:
    command = fill_template("mk {user} {group}", user="a b", group="{user}")
    assert command is not None and command.argv == ("mk", "a b", "{user}")


def test_an_empty_template_is_no_command() -> None:
    assert fill_template("  ", user="bob") is None


@given(st.text(max_size=60), st.text(max_size=10))
def test_no_template_raises(template: str, value: str) -> None:
    fill_template(template, user=value)


def test_a_group_that_appeared_meanwhile_is_fine(tmp_path: Path) -> None:
    change = CreateGroup("google-sudoers", AccountCommand(("groupadd", "google-sudoers")))
    change.apply(system(tmp_path, Failing(groupadd=9)))


def test_a_group_that_cannot_be_made_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="group other cannot be created"):
        CreateGroup("other", AccountCommand(("groupadd", "other"))).apply(
            system(tmp_path, Failing(groupadd=10))
        )


def test_the_sudo_rule_is_checked_and_written_with_its_mode(tmp_path: Path) -> None:
    runner = Commands()
    InstallSudoersRule().apply(system(tmp_path, runner))
    path = tmp_path / SUDOERS_FILE.lstrip("/")
    assert path.read_text() == SUDOERS_RULE
    assert path.stat().st_mode & 0o7777 == 0o440
    assert path.parent.stat().st_mode & 0o7777 == 0o750
    assert runner.programs() == ["visudo"]


def test_the_sudo_rule_is_written_where_there_is_no_visudo(tmp_path: Path) -> None:
    InstallSudoersRule().apply(system(tmp_path, Failing(visudo=None)))
    assert (tmp_path / SUDOERS_FILE.lstrip("/")).exists()


def test_a_rule_that_sudo_refuses_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        InstallSudoersRule().apply(system(tmp_path, Failing(visudo=1)))
    assert not (tmp_path / SUDOERS_FILE.lstrip("/")).exists()


def test_an_edited_sudo_rule_stays(tmp_path: Path) -> None:
    place(tmp_path, SUDOERS_FILE, "# mine\n")
    InstallSudoersRule().apply(system(tmp_path, Commands()))
    assert (tmp_path / SUDOERS_FILE.lstrip("/")).read_text() == "# mine\n"


def create(**more: Any) -> CreateUser:
    return CreateUser("bob", AccountCommand(("useradd", "bob")), **more)


def test_a_failed_creation_names_user_and_cause(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"user bob cannot be created: .*words of the program"):
        create().apply(system(tmp_path, Failing(useradd=1)))


def test_a_name_that_useradd_refuses_is_tried_with_the_flag_for_it(tmp_path: Path) -> None:
    runner = Failing(useradd=3)
    change = create(second_try=AccountCommand(("useradd2", "--badname", "bob")))
    change.apply(system(tmp_path, runner))
    assert runner.programs() == ["useradd", "useradd2"]


def test_the_refusal_is_told_when_the_flag_does_not_help(tmp_path: Path) -> None:
    change = create(second_try=AccountCommand(("useradd2", "--badname", "bob")))
    with pytest.raises(GuestError, match="status 3"):
        change.apply(system(tmp_path, Failing(useradd=3, useradd2=2)))


def test_a_user_that_appeared_meanwhile_is_fine(tmp_path: Path) -> None:
    change = CreateUser("ada", AccountCommand(("useradd", "ada")))
    change.apply(system(tmp_path, Failing(useradd=9)))


def test_a_group_of_that_name_is_no_user_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(GuestError):
        create().apply(system(tmp_path, Failing(useradd=9)))


def test_a_group_that_cannot_be_joined_does_not_undo_the_user(tmp_path: Path) -> None:
    runner = Failing(gpasswd=3)
    joins = tuple(AccountCommand(("gpasswd", "-a", "bob", name)) for name in ("adm", "video"))
    create(afterwards=joins).apply(system(tmp_path, runner))
    assert runner.programs() == ["useradd", "gpasswd", "gpasswd"]


def test_membership_that_is_there_already_is_fine(tmp_path: Path) -> None:
    guest = system(tmp_path, Failing(gpasswd=1))
    JoinGroup("ada", "google-sudoers", AccountCommand(("gpasswd", "-a"))).apply(guest)
    with pytest.raises(GuestError, match="user root cannot join"):
        JoinGroup("root", "google-sudoers", AccountCommand(("gpasswd", "-a"))).apply(guest)


def test_membership_that_is_gone_already_is_fine(tmp_path: Path) -> None:
    guest = system(tmp_path, Failing(gpasswd=3))
    LeaveGroup("root", "google-sudoers", AccountCommand(("gpasswd", "-d"))).apply(guest)
    with pytest.raises(GuestError, match="user ada cannot leave"):
        LeaveGroup("ada", "google-sudoers", AccountCommand(("gpasswd", "-d"))).apply(guest)


def test_a_membership_that_fails_does_not_keep_the_keys_away() -> None:
    join = JoinGroup("ada", "google-sudoers", AccountCommand(("gpasswd",)))
    assert join.subject != WriteAuthorizedKeys("ada", ("k",)).subject
    assert create().subject == WriteAuthorizedKeys("bob", ("k",)).subject


@pytest.mark.parametrize(("user", "uid"), [("ada", 1002), ("root", 0)])
def test_another_account_of_the_name_and_system_accounts_are_never_deleted(
    tmp_path: Path, user: str, uid: int
) -> None:
    runner = Commands()
    with pytest.raises(GuestError, match="is not deleted"):
        DeleteUser(user, uid, AccountCommand(("userdel", user))).apply(system(tmp_path, runner))
    assert runner.argvs == []


def test_a_user_with_sessions_is_a_failure_that_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="user ada cannot be deleted"):
        DeleteUser("ada", 1001, AccountCommand(("userdel", "ada"))).apply(
            system(tmp_path, Failing(userdel=8))
        )


def test_an_account_that_is_gone_needs_no_deletion(tmp_path: Path) -> None:
    runner = Commands()
    DeleteUser("bob", 1002, AccountCommand(("userdel", "bob"))).apply(system(tmp_path, runner))
    assert runner.argvs == []


# Keys.


def test_a_batch_is_one_process_and_one_answer_for_each_user(tmp_path: Path) -> None:
    def answer(argv: Sequence[str]) -> Completed:
        lines = (
            '{"name": "ada", "status": "written"}\n'
            '{"name": "eve", "status": "failed", "error": "no"}\n'
        )
        return Completed(tuple(argv), 0, lines, "")

    runner = Commands(answer)
    eve = Account("eve", 2000, 2000, "/home/eve", "/bin/sh")
    changes: list[Change] = [
        WriteAuthorizedKeys("ada", ("k",)),
        WriteAuthorizedKeys("bob", ("k",)),
        WriteAuthorizedKeys("eve", ("k",), account=eve),
    ]
    errors = WriteAuthorizedKeys.apply_batch(changes, system(tmp_path, runner))
    assert errors[0] is None
    assert "bob does not exist" in str(errors[1])
    assert str(errors[2]) == "the keys of user eve cannot be written: no"
    assert len(runner.argvs) == 1


def test_labels_are_restored_by_one_process_where_selinux_is_on(tmp_path: Path) -> None:
    def answer(argv: Sequence[str]) -> Completed:
        lines = '{"name": "ada", "status": "written"}\n{"name": "root", "status": "unchanged"}\n'
        return Completed(tuple(argv), 0, lines if argv[0] != "restorecon" else "", "")

    runner = Commands(answer)
    place(tmp_path, "/sys/fs/selinux/enforce", "1")
    changes = [WriteAuthorizedKeys("ada", ("k",)), WriteAuthorizedKeys("root", ("k",))]
    assert WriteAuthorizedKeys.apply_batch(changes, system(tmp_path, runner)) == [None, None]
    assert runner.argvs[1:] == [
        ("restorecon", "-i", "/home/ada/.ssh", "/home/ada/.ssh/authorized_keys")
    ]


def test_a_writer_without_an_answer_fails_every_user(tmp_path: Path) -> None:
    runner = Commands(lambda argv: Completed(tuple(argv), 1, "", "Traceback\nMemoryError\n"))
    (error,) = WriteAuthorizedKeys.apply_batch(
        [WriteAuthorizedKeys("ada", ("k",))], system(tmp_path, runner)
    )
    assert error is not None and "MemoryError" in str(error)


def test_an_account_that_may_not_log_in_gets_no_keys_when_it_is_new(tmp_path: Path) -> None:
    guest = system(tmp_path, Commands())
    place(tmp_path, "/etc/passwd", "bob:*:1002:1002::/home/bob:/usr/sbin/nologin\n")
    with pytest.raises(GuestError, match="its shell is"):
        WriteAuthorizedKeys("bob", ("k",)).apply(guest)


def test_neither_description_nor_repr_shows_a_key() -> None:
    change = WriteAuthorizedKeys("ada", ("ssh-rsa AAAASECRET",), difference=("+ssh-rsa ...x",))
    assert "SECRET" not in f"{change!r} {change.describe()} {change.diff()}"
    assert change.describe() == "write 1 metadata key for user ada"
    assert WriteAuthorizedKeys("ada", ()).describe() == "remove the metadata keys of user ada"
