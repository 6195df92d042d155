"""Users and keys: from metadata, configuration and what is there to a plan."""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from support.trees import Commands, inputs, place, tree
from support.trees import metadata as instance_metadata

from google_guest.changes import Change, apply_all
from google_guest.changes.accounts import (
    SUDOERS_FILE,
    CreateGroup,
    CreateUser,
    DeleteUser,
    InstallSudoersRule,
    JoinGroup,
    LeaveGroup,
    WriteAuthorizedKeys,
)
from google_guest.changes.platform import RunCommand
from google_guest.features import Plan
from google_guest.features.linux import accounts
from google_guest.managed_users import DOCUMENT, USER_LIST, NoteIntent, SettleUsers
from google_guest.metadata.tree import Metadata
from google_guest.state import Remember
from google_guest.system import System
from google_guest.system.commands import CommandError, Completed
from google_guest.system.home_writer import MARKER

UID = os.geteuid() if os.geteuid() >= 1000 else 1001
NOW = 1_800_000_000.0
FUTURE, PAST = "2090-01-01T00:00:00+0000", "2000-01-01T00:00:00+0000"
GROUP = "adm:x:4:\nvideo:x:44:\n"
SUDO = "google-sudoers:x:998:ada,bob\n"


def key(seed: int = 1) -> str:
    name = b"ssh-ed25519"
    blob = struct.pack(">I", len(name)) + name + struct.pack(">I", 32) + bytes([seed]) * 32
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


KEY = key()


def metadata(
    *,
    project: Optional[dict[str, str]] = None,
    instance_id: Optional[int] = 7,
    **instance: str,
) -> Metadata:
    attributes = {name.replace("_", "-"): value for name, value in instance.items()}
    return instance_metadata(
        {"id": instance_id, "attributes": attributes}, project={"attributes": project or {}}
    )


class Live(System):
    """A tree that is treated as the running machine."""

    is_live = True


class Machine:
    """A file tree with users whose homes are in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands = Commands()
        self.system = tree(root, {"/etc/group": GROUP, "/etc/passwd": ""}, runner=self.commands)
        self.passwd = "root:x:0:0:root:/root:/bin/bash\n"
        self.config = ""
        place(root, "/etc/passwd", self.passwd)

    def live(self) -> None:
        self.system = Live(root=self.root, runner=self.commands)

    def user(
        self,
        name: str,
        keys: Optional[str] = None,
        *,
        uid: int = UID,
        home: str = "",
        shell: str = "/bin/bash",
    ) -> Path:
        """Add an account with a home and, unless None, this authorized_keys."""
        home = home or f"/home/{name}"
        self.passwd += f"{name}:*:{uid}:{uid}::{home}:{shell}\n"
        place(self.root, "/etc/passwd", self.passwd)
        directory = self.root / home.lstrip("/")
        path = directory / ".ssh/authorized_keys"
        (path.parent if keys is not None else directory).mkdir(parents=True, exist_ok=True)
        if keys is not None:
            path.write_text(keys)
        if os.geteuid() == 0:
            for entry in (directory, path.parent, path):
                if entry.exists():
                    os.chown(entry, uid, uid)
        return path

    def sudo(self) -> None:
        place(self.root, "/etc/group", GROUP + SUDO)
        place(self.root, SUDOERS_FILE, "# any\n")

    def remember(self, instance: str = "7", **users: dict[str, Any]) -> None:
        place(self.root, DOCUMENT, json.dumps({"instance": instance, "users": users}))
        names = "".join(f"{name}\n" for name, row in users.items() if row.get("keys_written"))
        place(self.root, USER_LIST, names)

    def plan(self, known: Metadata, *, now: float = NOW) -> Plan:
        return accounts.plan(inputs(self.system, known, config=self.config, now=now))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def ours(*keys: str) -> str:
    return "".join(f"{MARKER.decode()}\n{text}\n" for text in keys)


def of_kind(plan: Plan, kind: type[Change]) -> list[Any]:
    return [change for change in plan.changes if type(change) is kind]


def kinds(plan: Plan) -> list[str]:
    return [type(change).__name__ for change in plan.changes]


def remembered(name: str, **more: Any) -> dict[str, Any]:
    return {"keys_written": True, "uid": UID, "home": f"/home/{name}", **more}


def settled(plan: Plan) -> dict[str, Any]:
    (change,) = of_kind(plan, SettleUsers)
    return {user.name: user for user in change.staying}


# Switches.


def test_the_switch_in_the_configuration_stops_everything(machine: Machine) -> None:
    machine.user("bob", ours(KEY))
    machine.remember(bob=remembered("bob"))
    machine.config = "[Daemons]\naccounts_daemon = false\n"
    decided = accounts.enabled(inputs(machine.system, metadata(), config=machine.config))
    assert not decided.on and decided.layer.endswith("instance_configs.cfg")
    assert accounts.plan_off(inputs(machine.system, metadata(), config=machine.config)) == Plan()
    assert machine.plan(metadata(ssh_keys=f"bob:{KEY}")) == Plan()


def test_without_metadata_nothing_is_planned(machine: Machine) -> None:
    assert accounts.plan(inputs(machine.system, None)) == Plan()


def test_oslogin_withdraws_keys_and_sudo_from_the_state_on_disk(machine: Machine) -> None:
    """Also on the first pass after it was switched on while the machine was off."""
    machine.user("bob", f"own\n{ours(KEY)}")
    machine.sudo()
    machine.remember(bob=remembered("bob"))
    known = metadata(enable_oslogin="yes", ssh_keys=f"bob:{KEY}")
    plan = machine.plan(known)
    (write,) = of_kind(plan, WriteAuthorizedKeys)
    assert (write.user, write.keys) == ("bob", ())
    assert [change.user for change in of_kind(plan, LeaveGroup)] == ["bob"]
    decision = accounts.enabled(inputs(machine.system, known))
    assert decision.on and decision.layer == "instance metadata"


def test_an_unreadable_switch_leaves_the_word_to_the_project(machine: Machine) -> None:
    lines = {"ssh-keys": f"bob:{KEY}"}
    on = metadata(enable_oslogin="maybe", project={"enable-oslogin": "TRUE", **lines})
    off = metadata(enable_oslogin="maybe", project={"enable-oslogin": "FALSE", **lines})
    assert of_kind(machine.plan(on), CreateUser) == []
    assert len(of_kind(machine.plan(off), CreateUser)) == 1


def test_oslogin_stays_off_when_its_daemon_is_off(machine: Machine) -> None:
    machine.config = "[Daemons]\noslogin_daemon = false\n"
    known = metadata(enable_oslogin="true", ssh_keys=f"bob:{KEY}")
    assert len(of_kind(machine.plan(known), CreateUser)) == 1
    decision = accounts.enabled(inputs(machine.system, known, config=machine.config))
    assert "oslogin_daemon" in decision.reason


def test_only_the_parts_that_decide_about_users_trigger_a_pass() -> None:
    base = metadata(ssh_keys=f"bob:{KEY}")
    assert accounts.inputs_of(base) == accounts.inputs_of(
        metadata(ssh_keys=f"bob:{KEY}", startup_script="x")
    )
    for other in (
        metadata(ssh_keys="x"),
        metadata(ssh_keys=f"bob:{KEY}", enable_oslogin="1"),
        metadata(ssh_keys=f"bob:{KEY}", block_project_ssh_keys="1"),
        metadata(ssh_keys=f"bob:{KEY}", project={"sshKeys": "x"}),
        metadata(ssh_keys=f"bob:{KEY}", instance_id=8),
    ):
        assert accounts.inputs_of(base) != accounts.inputs_of(other)


# New users.


def test_a_new_user_is_made_in_order(machine: Machine) -> None:
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY} c"))
    assert kinds(plan) == [
        "NoteIntent",
        "CreateGroup",
        "InstallSudoersRule",
        "CreateUser",
        "WriteAuthorizedKeys",
        "SettleUsers",
    ]


def test_one_useradd_does_it_all(machine: Machine) -> None:
    (create,) = of_kind(machine.plan(metadata(ssh_keys=f"bob:{KEY}")), CreateUser)
    assert create.command.argv == (
        *("useradd", "-m", "-s", "/bin/bash", "-p", "*"),
        *("-G", "adm,video,google-sudoers", "bob"),
    )
    assert create.second_try is not None and create.second_try.argv[:2] == ("useradd", "--badname")
    assert create.before is None and create.afterwards == ()


def test_groups_that_do_not_exist_are_neither_joined_nor_made(machine: Machine) -> None:
    machine.config = "[Accounts]\ngroups = adm, nosuch,adm ,\n"
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    (create,) = of_kind(plan, CreateUser)
    assert "adm,google-sudoers" in create.command.argv
    assert [change.group for change in of_kind(plan, CreateGroup)] == ["google-sudoers"]


def test_an_existing_group_of_the_user_s_name_becomes_its_group(machine: Machine) -> None:
    place(machine.root, "/etc/group", GROUP + "admin:x:116:\n")
    (create,) = of_kind(machine.plan(metadata(ssh_keys=f"admin:{KEY}")), CreateUser)
    argv = create.command.argv
    assert argv[argv.index("-g") + 1] == "admin"


def templates(machine: Machine, **values: str) -> CreateUser:
    lines = "".join(f"{name} = {value}\n" for name, value in values.items())
    machine.config = f"[Accounts]\n{lines}"
    (create,) = of_kind(machine.plan(metadata(ssh_keys=f"bob:{KEY}")), CreateUser)
    assert isinstance(create, CreateUser)
    return create


def test_a_changed_useradd_template_is_followed_as_it_is(machine: Machine) -> None:
    create = templates(machine, useradd_cmd="mk {user} x")
    assert create.command.argv == ("mk", "bob", "x")
    assert create.second_try is None
    assert [command.argv for command in create.afterwards] == [
        ("usermod", "-aG", "adm,video,google-sudoers", "bob")
    ]


def test_a_changed_gpasswd_template_is_run_for_each_group(machine: Machine) -> None:
    create = templates(machine, gpasswd_add_cmd="join {user} {group}")
    assert "-G" not in create.command.argv
    assert [command.argv for command in create.afterwards] == [
        ("join", "bob", group) for group in ("adm", "video", "google-sudoers")
    ]


def test_usermod_is_used_when_it_is_configured(machine: Machine) -> None:
    create = templates(machine, usermod_cmd="usermod -G {groups} {user}")
    assert [command.argv for command in create.afterwards] == [
        ("usermod", "-G", "adm,video", "bob"),
        ("gpasswd", "-a", "bob", "google-sudoers"),
    ]


def test_an_empty_template_is_a_note_and_no_failure(machine: Machine) -> None:
    machine.config = "[Accounts]\nuseradd_cmd =\n"
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    assert of_kind(plan, CreateUser) == []
    assert any("useradd_cmd is empty" in note for note in plan.notes)


class Owner:
    """Facts of a home that belongs to somebody."""

    def __init__(self, uid: int, gid: int) -> None:
        self.st_uid, self.st_gid = uid, gid


def reuse(machine: Machine, monkeypatch: pytest.MonkeyPatch, *, uid: int, gid: int) -> Plan:
    machine.config = "[Accounts]\nreuse_homedir = true\n"
    monkeypatch.setattr(machine.system.files, "stat", lambda path: Owner(uid, gid))
    return machine.plan(metadata(ssh_keys=f"bob:{KEY}"))


def test_a_home_that_outlived_its_account_gives_the_ids(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (create,) = of_kind(reuse(machine, monkeypatch, uid=1234, gid=1234), CreateUser)
    assert create.before is not None
    assert create.before.argv == ("groupadd", "bob", "-g", "1234")
    assert create.command.argv[-5:] == ("-u", "1234", "-g", "1234", "bob")


def test_a_group_with_the_home_s_number_is_used(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(machine.root, "/etc/group", GROUP + "staff:x:1234:\n")
    (create,) = of_kind(reuse(machine, monkeypatch, uid=1234, gid=1234), CreateUser)
    assert create.before is None and "1234" in create.command.argv


def test_a_home_of_the_system_gives_no_ids(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (create,) = of_kind(reuse(machine, monkeypatch, uid=0, gid=1234), CreateUser)
    assert "-u" not in create.command.argv


def test_a_home_of_another_user_is_named_as_the_cause(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.user("eve", uid=1234)
    plan = reuse(machine, monkeypatch, uid=1234, gid=1234)
    assert of_kind(plan, CreateUser) == []
    assert any("which is user eve" in note for note in plan.notes)


@pytest.mark.parametrize(
    "line", ["#bob:{}", "-x:{}", "a b:{}", "..:{}", "123:{}", ":{}", "root2 :{}"]
)
def test_lines_with_bad_names_lead_to_nothing(machine: Machine, line: str) -> None:
    assert machine.plan(metadata(ssh_keys=line.format(KEY))).changes == ()


def test_bad_lines_are_noted_without_their_keys_and_within_bounds(machine: Machine) -> None:
    lines = "\n".join(f"user{n}:ssh-foo {KEY.split()[1]}" for n in range(500))
    notes = machine.plan(metadata(ssh_keys=lines)).notes
    assert len(notes) == 21 and "480 more" in notes[-1]
    assert KEY.split()[1] not in "".join(notes)


def test_without_users_neither_group_nor_rule_nor_record_is_made(machine: Machine) -> None:
    assert machine.plan(metadata()) == Plan()


def test_a_user_whom_the_configuration_denies_is_left_alone(machine: Machine) -> None:
    machine.config = "[Accounts]\ndeny_users = eve, bob\n"
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    assert plan.changes == ()
    assert any("deny_users" in note for note in plan.notes)


# Existing users.


def test_nothing_is_planned_when_everything_is_in_place(machine: Machine) -> None:
    machine.user("bob", f"# mine\n\nown\n{ours(KEY)}")
    machine.sudo()
    machine.remember(bob=remembered("bob"))
    machine.live()
    assert machine.plan(metadata(ssh_keys=f"bob:{KEY}")) == Plan()
    assert machine.commands.argvs == []


def test_other_order_and_duplicates_are_no_difference(machine: Machine) -> None:
    machine.user("bob", ours(key(1), key(2)))
    machine.sudo()
    machine.remember(bob=remembered("bob"))
    lines = f"bob:{key(2)}\nbob:{key(1)}\nbob:{key(2)}"
    plan = machine.plan(metadata(ssh_keys=lines, project={"ssh-keys": f"bob:{key(1)}"}))
    assert plan.changes == ()


def test_a_new_key_for_an_existing_user_changes_its_file_and_its_membership_only(
    machine: Machine,
) -> None:
    machine.user("ubuntu", "own\n")
    plan = machine.plan(metadata(ssh_keys=f"ubuntu:{KEY}"))
    assert kinds(plan) == [
        "NoteIntent",
        "CreateGroup",
        "InstallSudoersRule",
        "JoinGroup",
        "WriteAuthorizedKeys",
        "SettleUsers",
    ]
    (join,) = of_kind(plan, JoinGroup)
    assert join.command.argv == ("gpasswd", "-a", "ubuntu", "google-sudoers")
    assert settled(plan)["ubuntu"].created_by_agent is False


def test_the_difference_shows_types_and_ends_of_keys_only(machine: Machine) -> None:
    machine.user("bob", ours(key(1)))
    (write,) = of_kind(machine.plan(metadata(ssh_keys=f"bob:{key(2)}")), WriteAuthorizedKeys)
    tails = [key(seed).split()[1][-12:] for seed in (1, 2)]
    assert write.diff() == (f"-ssh-ed25519 ...{tails[0]}", f"+ssh-ed25519 ...{tails[1]}")


def test_a_system_account_gets_keys_and_nothing_else(machine: Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to own the home of a system account")
    machine.user("core", uid=500)
    plan = machine.plan(metadata(ssh_keys=f"core:{KEY}"))
    assert kinds(plan) == ["NoteIntent", "WriteAuthorizedKeys", "SettleUsers"]


@pytest.mark.parametrize("shell", ["/sbin/nologin", "/usr/sbin/nologin", "/bin/false"])
def test_an_account_that_may_not_log_in_gets_nothing(machine: Machine, shell: str) -> None:
    machine.user("bob", shell=shell)
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    assert plan.changes == ()
    assert plan.notes == (f"user bob gets no keys: its shell is {shell}",)


@pytest.mark.parametrize(
    "home",
    [
        "/nonexistent",
        "/nonexistent/",
        "/",
        "//",
        "/dev/null",
        "/var/empty",
        "/var/empty/sshd",
        "/proc",
        "relative",
        "/home/../etc",
    ],
)
def test_a_home_that_belongs_to_nobody_is_refused(machine: Machine, home: str) -> None:
    machine.passwd += f"bob:*:{UID}:{UID}::{home}:/bin/bash\n"
    place(machine.root, "/etc/passwd", machine.passwd)
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    assert plan.changes == () and len(plan.notes) == 1


def test_a_home_that_is_a_link_is_refused(machine: Machine) -> None:
    path = machine.user("bob", "own\n")
    path.parent.parent.rename(machine.root / "elsewhere")
    (machine.root / "home/bob").symlink_to("/elsewhere")
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    assert of_kind(plan, WriteAuthorizedKeys) == []
    assert any("symbolic link" in note for note in plan.notes)


def test_a_linked_directory_costs_that_user_only(machine: Machine) -> None:
    machine.user("bob")
    (machine.root / "home/bob/.ssh").symlink_to("/root/.ssh")
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}\neve:{KEY}"))
    assert [change.user for change in of_kind(plan, WriteAuthorizedKeys)] == ["eve"]
    assert any("~/.ssh is a symbolic link" in note for note in plan.notes)


def test_a_missing_home_is_made_for_users_of_ours_only(machine: Machine) -> None:
    for name in ("bob", "eve"):
        machine.user(name)
        (machine.root / "home" / name).rmdir()
    machine.sudo()
    machine.remember(bob=remembered("bob", created_by_agent=True))
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}\neve:{KEY}"))
    (write,) = of_kind(plan, WriteAuthorizedKeys)
    assert (write.user, write.make_home) == ("bob", True)
    assert any("eve" in note and "does not exist" in note for note in plan.notes)


def test_a_missing_final_line_feed_is_remembered(machine: Machine) -> None:
    machine.user("bob", "own")
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    (write,) = of_kind(plan, WriteAuthorizedKeys)
    assert write.unterminated is not None
    assert settled(plan)["bob"].unterminated == write.unterminated


def test_a_file_is_ours_to_remove_only_if_there_was_none(machine: Machine) -> None:
    machine.user("bob")
    machine.user("eve", "")
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}\neve:{KEY}"))
    assert {user.name: user.file_created for user in settled(plan).values()} == {
        "bob": True,
        "eve": False,
    }


def test_the_expiry_option_is_written_in_local_time_on_request(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.user("bob")
    machine.config = "[Accounts]\nwrite_expiry_option = true\n"
    comment = f'google-ssh {{"userName":"b","expireOn":"{FUTURE}"}}'
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY} {comment}\nbob:{key(2)}"))
    (write,) = of_kind(plan, WriteAuthorizedKeys)
    assert write.keys[0].startswith('expiry-time="') and write.keys[0].endswith(comment)
    assert write.keys[1] == key(2)


# Expiry.


def expiring(when: str, seed: int = 1) -> str:
    return f'bob:{key(seed)} google-ssh {{"userName":"b","expireOn":"{when}"}}'


def test_the_plan_is_looked_at_again_a_second_after_the_first_expiry(machine: Machine) -> None:
    lines = f"{expiring('2031-01-01T00:00:01Z')}\n{expiring('2031-01-01T00:00:00Z', 2)}"
    assert machine.plan(metadata(ssh_keys=lines)).recheck_at == 1_924_992_001.0


def test_an_expired_key_is_removed_without_metadata_change(machine: Machine) -> None:
    known = metadata(ssh_keys=f"{expiring('2031-01-01T00:00:00Z')}\nbob:{key(2)}")
    machine.user("bob", ours(expiring("2031-01-01T00:00:00Z").partition(":")[2], key(2)))
    machine.sudo()
    machine.remember(bob=remembered("bob"))
    assert machine.plan(known).changes == ()
    (write,) = of_kind(machine.plan(known, now=1_924_992_001.5), WriteAuthorizedKeys)
    assert write.keys == (key(2),)


def test_a_user_whose_last_key_expired_leaves(machine: Machine) -> None:
    machine.user("bob", ours(expiring(PAST).partition(":")[2]))
    machine.sudo()
    machine.remember(bob=remembered("bob"))
    plan = machine.plan(metadata(ssh_keys=expiring(PAST)))
    assert kinds(plan) == ["WriteAuthorizedKeys", "LeaveGroup", "SettleUsers"]
    assert settled(plan) == {}


# Users who leave.


def test_an_existing_user_who_leaves_keeps_account_and_own_lines(machine: Machine) -> None:
    machine.config = "[Accounts]\ndeprovision_remove = true\n"
    machine.user("bob", f"own\n{ours(KEY)}")
    machine.sudo()
    machine.remember(bob=remembered("bob"))
    plan = machine.plan(metadata())
    assert kinds(plan) == ["WriteAuthorizedKeys", "LeaveGroup", "SettleUsers"]


def test_an_account_of_ours_stays_unless_configured(machine: Machine) -> None:
    machine.user("bob", ours(KEY))
    machine.sudo()
    machine.remember(bob=remembered("bob", created_by_agent=True))
    assert of_kind(machine.plan(metadata()), DeleteUser) == []


def test_an_account_of_ours_is_cleaned_and_deleted_on_request(machine: Machine) -> None:
    machine.config = "[Accounts]\ndeprovision_remove = true\n"
    machine.user("bob", ours(KEY))
    machine.sudo()
    machine.remember(bob=remembered("bob", created_by_agent=True))
    plan = machine.plan(metadata())
    assert kinds(plan) == ["WriteAuthorizedKeys", "LeaveGroup", "DeleteUser", "SettleUsers"]


@pytest.mark.parametrize(
    ("name", "uid", "row"),
    [
        ("bob", UID, {"created_by_agent": True, "uid": UID + 1}),
        ("bob", UID, {"created_by_agent": False, "uid": UID}),
        ("svc", 500, {"created_by_agent": True, "uid": 500}),
    ],
    ids=["other uid", "not created", "system account"],
)
def test_other_accounts_are_never_deleted(
    machine: Machine, name: str, uid: int, row: dict[str, Any]
) -> None:
    machine.config = "[Accounts]\ndeprovision_remove = true\n"
    machine.user(name, uid=uid)
    machine.remember(**{name: {**row, "keys_written": True, "home": f"/home/{name}"}})
    assert of_kind(machine.plan(metadata()), DeleteUser) == []


def test_root_is_never_deleted(machine: Machine) -> None:
    machine.config = "[Accounts]\ndeprovision_remove = true\n"
    machine.remember(root={"keys_written": True, "created_by_agent": True, "uid": 0})
    assert of_kind(machine.plan(metadata()), DeleteUser) == []


def test_a_denied_user_of_ours_is_cleaned_but_not_deleted(machine: Machine) -> None:
    machine.config = "[Accounts]\ndeprovision_remove = true\ndeny_users = bob\n"
    machine.user("bob", ours(KEY))
    machine.remember(bob=remembered("bob", created_by_agent=True))
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    assert kinds(plan) == ["WriteAuthorizedKeys", "SettleUsers"]


def test_an_account_that_is_gone_is_forgotten(machine: Machine) -> None:
    machine.remember(bob=remembered("bob"))
    plan = machine.plan(metadata())
    assert kinds(plan) == ["SettleUsers"] and settled(plan) == {}


def test_keys_that_cannot_be_withdrawn_stay_on_the_list(machine: Machine) -> None:
    machine.user("bob")
    (machine.root / "home/bob/.ssh").symlink_to("elsewhere")
    machine.remember(bob=remembered("bob"))
    plan = machine.plan(metadata())
    assert plan.changes == ()
    assert any("cannot be withdrawn" in note for note in plan.notes)


# What is remembered.


def test_users_of_another_instance_are_left_alone(machine: Machine) -> None:
    machine.config = "[Accounts]\ndeprovision_remove = true\n"
    path = machine.user("bob", ours(KEY))
    machine.sudo()
    machine.remember("6", bob=remembered("bob", created_by_agent=True))
    plan = machine.plan(metadata())
    assert kinds(plan) == ["SettleUsers"] and settled(plan) == {}
    assert sum("instance 6" in note for note in plan.notes) == 1
    assert path.read_text() == ours(KEY)


def test_names_that_only_the_old_list_has_are_cleaned_and_not_deleted(machine: Machine) -> None:
    machine.config = "[Accounts]\ndeprovision_remove = true\n"
    machine.user("bob", ours(KEY))
    machine.sudo()
    place(machine.root, USER_LIST, "bob\n\n../etc\n-x\n")
    plan = machine.plan(metadata())
    assert kinds(plan) == ["NoteIntent", "WriteAuthorizedKeys", "LeaveGroup", "SettleUsers"]


def test_a_crash_after_the_creation_does_not_lose_who_made_the_account(machine: Machine) -> None:
    machine.user("bob")
    machine.sudo()
    machine.remember(bob={"creating": True, "keys_written": True, "uid": None})
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    assert settled(plan)["bob"].created_by_agent is True
    assert settled(plan)["bob"].uid == UID


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"users": []}', '{"users": {"bob": 1, "-x": {}}}']
)
def test_a_damaged_record_is_replaced(machine: Machine, text: str) -> None:
    machine.user("bob", ours(KEY))
    machine.sudo()
    place(machine.root, DOCUMENT, text)
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    assert kinds(plan) == ["SettleUsers"] and list(settled(plan)) == ["bob"]


def test_an_instance_without_an_id_keeps_the_binding_of_its_record(machine: Machine) -> None:
    machine.user("bob", ours(KEY))
    machine.sudo()
    machine.remember("7", bob=remembered("bob"))
    plan = machine.plan(metadata(instance_id=None, ssh_keys=f"bob:{KEY}"))
    assert plan.changes == ()


class Adding(Commands):
    """useradd as far as passwd is concerned; fails for some names."""

    def __init__(self, machine: Machine, *, fails: Sequence[str] = ()) -> None:
        super().__init__(self._answer)
        self.machine, self.fails = machine, fails

    def _answer(self, argv: Sequence[str]) -> Completed:
        if argv[0] == "useradd":
            if argv[-1] in self.fails:
                raise CommandError(argv, 1, "no luck")
            self.machine.user(argv[-1])
        lines = ""
        if "-IS" in argv:
            rows = ({"name": name, "found": False} for name in argv[4:])
            lines = "".join(f"{json.dumps(row)}\n" for row in rows)
            if len(argv) == 4:
                rows = ({"name": name, "status": "written"} for name in ("bob", "eve"))
                lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        status = 2 if argv[0] == "getent" else 0
        return Completed(tuple(argv), status, lines, "")


def apply(machine: Machine, known: Metadata) -> Any:
    return apply_all(machine.plan(known).changes, machine.system)


def test_an_account_that_could_not_be_made_is_not_remembered(machine: Machine) -> None:
    machine.commands = Adding(machine, fails=["eve"])
    machine.live()
    outcome = apply(machine, metadata(ssh_keys=f"eve:{KEY}\nbob:{KEY}"))
    assert [change.subject for change, _ in outcome.failed] == ["user eve"]
    document = json.loads((machine.root / DOCUMENT.lstrip("/")).read_text())
    assert list(document["users"]) == ["bob"] and document["instance"] == "7"
    assert document["users"]["bob"]["created_by_agent"] is True
    assert (machine.root / USER_LIST.lstrip("/")).read_text() == "bob\n"
    assert (machine.root / DOCUMENT.lstrip("/")).stat().st_mode & 0o777 == 0o600


def test_an_account_that_somebody_else_makes_after_a_stop_is_not_ours(machine: Machine) -> None:
    machine.commands = Adding(machine)
    machine.live()
    known = metadata(ssh_keys=f"bob:{KEY}\neve:{KEY}")
    outcome = apply_all(
        machine.plan(known).changes,
        machine.system,
        stopping=lambda: "useradd" in machine.commands.programs(),
    )
    assert "create user eve" in [change.describe() for change in outcome.left_out]
    machine.user("eve")
    assert settled(machine.plan(known))["bob"].created_by_agent is True
    assert settled(machine.plan(known))["eve"].created_by_agent is False


def test_a_user_who_could_not_be_cleaned_is_not_forgotten(machine: Machine) -> None:
    machine.user("bob", ours(KEY))
    machine.remember(bob=remembered("bob"))
    machine.live()
    machine.commands.answer = lambda argv: Completed(tuple(argv), 0, "", "")
    outcome = apply(machine, metadata())
    assert len(outcome.failed) == 1
    document = json.loads((machine.root / DOCUMENT.lstrip("/")).read_text())
    assert list(document["users"]) == ["bob"]


def test_intent_is_noted_before_anything_happens(machine: Machine) -> None:
    machine.commands = Adding(machine)
    machine.live()
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    apply_all(plan.changes[:1], machine.system)
    assert type(plan.changes[0]) is NoteIntent
    document = json.loads((machine.root / DOCUMENT.lstrip("/")).read_text())
    assert document["users"]["bob"]["creating"] is True


# The name service.


def name_service(rows: list[dict[str, Any]]) -> Callable[[Sequence[str]], Completed]:
    def answer(argv: Sequence[str]) -> Completed:
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        return Completed(tuple(argv), 2 if argv[0] == "getent" else 0, text, "")

    return answer


def test_an_error_of_the_name_service_is_not_absence(machine: Machine) -> None:
    machine.live()
    machine.commands.answer = name_service([{"name": "carol", "error": "I/O error"}])
    plan = machine.plan(metadata(ssh_keys=f"carol:{KEY}"))
    assert plan.changes == ()
    assert plan.recheck_at == NOW + 60
    assert any("carol" in note and "I/O error" in note for note in plan.notes)


def test_a_user_of_a_directory_is_not_created(machine: Machine) -> None:
    machine.live()
    row = {"name": "carol", "found": True, "uid": UID, "gid": UID, "home": "/home/carol"}
    machine.commands.answer = name_service([{**row, "shell": "/bin/sh"}])
    (machine.root / "home/carol").mkdir(parents=True)
    plan = machine.plan(metadata(ssh_keys=f"carol:{KEY}"))
    assert of_kind(plan, CreateUser) == []
    assert [change.user for change in of_kind(plan, JoinGroup)] == ["carol"]
    assert [change.user for change in of_kind(plan, WriteAuthorizedKeys)] == ["carol"]


def test_a_managed_user_of_a_silent_directory_stays_on_the_list(machine: Machine) -> None:
    machine.live()
    machine.remember(carol=remembered("carol"))
    machine.commands.answer = name_service([{"name": "carol", "error": "timeout"}])
    assert machine.plan(metadata()).changes == ()


def test_a_group_that_a_directory_has_is_not_made(machine: Machine) -> None:
    machine.live()

    def answer(argv: Sequence[str]) -> Completed:
        return Completed(tuple(argv), 0, "google-sudoers:x:5000:\n", "")

    machine.user("bob")
    machine.commands.answer = answer
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    assert of_kind(plan, CreateGroup) == of_kind(plan, JoinGroup) == []
    assert any("in a directory" in note for note in plan.notes)


# Read-only systems.


def test_a_read_only_etc_is_one_note_and_keys_are_still_written(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.user("eve")
    monkeypatch.setattr(machine.system.accounts, "are_writable", lambda: False)
    lines = "\n".join(f"{name}:{KEY}" for name in ("eve", *(f"new{n}" for n in range(9))))
    plan = machine.plan(metadata(ssh_keys=lines))
    assert kinds(plan) == ["NoteIntent", "WriteAuthorizedKeys", "SettleUsers"]
    assert plan.notes == (
        "/etc is read-only: no account changes for eve, new0, new1, new2, new3 and 5 more",
    )


# sshd.


def sshd_machine(machine: Machine, *blocks: str) -> None:
    machine.user("bob", ours(KEY))
    machine.sudo()
    machine.remember(bob=remembered("bob"))
    (machine.root / "run/systemd/system").mkdir(parents=True)
    machine.live()
    text = "\n\n".join(blocks) + "\n"
    machine.commands.answer = lambda argv: Completed(tuple(argv), 0, text, "")


ABSENT = "LoadState=not-found\nActiveState=inactive\nJob="
MASKED = "LoadState=masked\nActiveState=inactive\nJob="
INACTIVE = "LoadState=loaded\nActiveState=inactive\nJob="
ACTIVE = "LoadState=loaded\nActiveState=active\nJob="
QUEUED = f"{INACTIVE}12"


@pytest.mark.parametrize(
    ("blocks", "started"),
    [
        ((INACTIVE, INACTIVE, ABSENT, ABSENT), "ssh.service"),
        ((ABSENT, INACTIVE, ABSENT, ABSENT), "sshd.service"),
        ((MASKED, ABSENT, ABSENT, ABSENT), None),
        ((INACTIVE, ABSENT, ACTIVE, ABSENT), None),
        ((ACTIVE, ACTIVE, ABSENT, ABSENT), None),
        ((QUEUED, QUEUED, ABSENT, ABSENT), None),
        (("what", "else"), None),
    ],
)
def test_sshd_is_started_unless_it_runs_or_is_masked(
    machine: Machine, blocks: tuple[str, ...], started: Optional[str]
) -> None:
    sshd_machine(machine, *blocks)
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    expected = [] if started is None else [("systemctl", "start", "--no-block", started)]
    assert [change.argv for change in of_kind(plan, RunCommand)] == expected


def test_a_running_sshd_is_seen_without_a_command(machine: Machine) -> None:
    sshd_machine(machine)
    (machine.root / "sys/fs/cgroup/system.slice/ssh.service").mkdir(parents=True)
    assert machine.plan(metadata(ssh_keys=f"bob:{KEY}")).changes == ()
    assert machine.commands.argvs == []


def test_sshd_is_looked_at_once_a_boot(machine: Machine) -> None:
    sshd_machine(machine, INACTIVE, INACTIVE, ABSENT, ABSENT)
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    apply_all(of_kind(plan, Remember), machine.system)
    machine.commands.argvs.clear()
    assert machine.plan(metadata(ssh_keys=f"bob:{KEY}")).changes == ()
    assert machine.commands.argvs == []


def test_sshd_is_not_started_for_nobody(machine: Machine) -> None:
    (machine.root / "run/systemd/system").mkdir(parents=True)
    machine.live()
    assert machine.plan(metadata()).changes == ()
    assert machine.commands.argvs == []


# Keys by command.

DROP_IN = "/etc/ssh/sshd_config.d/50-keys.conf"
ASKS = "AuthorizedKeysCommand /usr/bin/google_metadata_authorized_keys %u\n"


def test_keys_leave_the_homes_when_sshd_asks_the_command(machine: Machine) -> None:
    machine.config = "[Accounts]\nkeys_via_command = true\n"
    place(machine.root, DROP_IN, f"PasswordAuthentication no\n{ASKS}")
    machine.user("bob", ours(KEY))
    machine.sudo()
    machine.remember(bob=remembered("bob"))
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}\nnew:{KEY}"))
    assert [(write.user, write.keys) for write in of_kind(plan, WriteAuthorizedKeys)] == [
        ("bob", ())
    ]
    assert [change.user for change in of_kind(plan, CreateUser)] == ["new"]
    assert set(settled(plan)) == {"bob", "new"}


@pytest.mark.parametrize("text", ["", f"#{ASKS}", "AuthorizedKeysCommand /opt/x\n"])
def test_keys_stay_in_the_homes_until_sshd_asks_the_command(machine: Machine, text: str) -> None:
    machine.config = "[Accounts]\nkeys_via_command = true\n"
    place(machine.root, "/etc/ssh/sshd_config", text)
    machine.user("bob", ours(KEY))
    machine.sudo()
    machine.remember(bob=remembered("bob"))
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    assert plan.changes == ()
    assert any("keys_via_command has no effect" in note for note in plan.notes)


# Explanations.


def explained(known: Metadata, machine: Machine) -> list[tuple[str, str, str]]:
    given = inputs(machine.system, known, config=machine.config, now=NOW)
    rows = accounts.explain_keys(known, given.config, NOW)
    return [(row.user, row.level, row.reason) for row in rows]


def test_every_key_is_explained(machine: Machine) -> None:
    machine.config = "[Accounts]\ndeny_users = eve\n"
    known = metadata(
        block_project_ssh_keys="true",
        ssh_keys=f"bob:{KEY} c\neve:{KEY}\nbob:{KEY} c\nbob:x\n{expiring(PAST)}",
        project={"ssh-keys": f"ops:{KEY}"},
    )
    assert explained(known, machine) == [
        ("bob", "instance", "accepted"),
        ("eve", "instance", "unused: [Accounts] deny_users names the user"),
        ("bob", "instance", "duplicate: an equal line stands before it"),
        ("bob", "instance", "rejected: its key type is unknown"),
        ("bob", "instance", "expired: its expireOn has passed"),
        ("ops", "project", "blocked: instance attribute block-project-ssh-keys is true"),
    ]


def test_an_explanation_says_when_oslogin_voids_a_key(machine: Machine) -> None:
    known = metadata(ssh_keys=f"bob:{KEY}", enable_oslogin="1")
    assert explained(known, machine) == [("bob", "instance", "unused: OS Login is on")]


def test_an_explanation_shows_the_end_of_the_key_only(machine: Machine) -> None:
    known = metadata(ssh_keys=expiring("2031-01-01T00:00:00Z"))
    (row,) = accounts.explain_keys(known, inputs(machine.system).config, NOW)
    assert row.cells()[:5] == (
        "bob",
        "instance ssh-keys",
        "ssh-ed25519",
        f"...{KEY[-12:]}",
        "2031-01-01T00:00:00Z",
    )
    assert KEY.split()[1] not in json.dumps(row.as_dict())


def test_many_unchanged_users_start_nothing(machine: Machine) -> None:
    names = [f"u{number}" for number in range(50)]
    machine.passwd += "".join(f"{name}:*:{UID}:{UID}::/home/{name}:/bin/bash\n" for name in names)
    place(machine.root, "/etc/passwd", machine.passwd)
    place(machine.root, "/etc/group", f"{GROUP}google-sudoers:x:998:{','.join(names)}\n")
    place(machine.root, SUDOERS_FILE, "")
    for name in names:
        path = place(machine.root, f"/home/{name}/.ssh/authorized_keys", ours(KEY))
        if os.geteuid() == 0:
            os.chown(path.parent, UID, UID)
            os.chown(path, UID, UID)
    machine.remember(**{name: remembered(name) for name in sorted(names)})
    machine.live()
    known = metadata(ssh_keys="\n".join(f"{name}:{KEY}" for name in names))
    assert machine.plan(known).changes == ()
    assert machine.commands.argvs == []


def test_changes_are_fit_for_json(machine: Machine) -> None:
    plan = machine.plan(metadata(ssh_keys=f"bob:{KEY}"))
    text = json.dumps([change.as_dict() for change in plan.changes])
    assert KEY.split()[1] not in text and "google-sudoers" in text
    assert any(type(change) is InstallSudoersRule for change in plan.changes)
