"""From who is wanted and what is there to the changes that are due."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Optional

from google_guest.changes import Change
from google_guest.changes.accounts import (
    FIRST_ORDINARY_UID,
    SUDOERS_FILE,
    SUDOERS_GROUP,
    CreateGroup,
    CreateUser,
    DeleteUser,
    InstallSudoersRule,
    JoinGroup,
    LeaveGroup,
    WriteAuthorizedKeys,
    fill_template,
)
from google_guest.features import Decision, Inputs, Plan
from google_guest.features.linux.accounts.creation import create_user
from google_guest.features.linux.accounts.scene import Scene, SudoGroup, look_around
from google_guest.features.linux.accounts.sshd import start_sshd
from google_guest.features.linux.accounts.wanted import (
    OSLOGIN_SWITCH,
    denied_names,
    is_oslogin_on,
    wanted_users,
)
from google_guest.managed_users import (
    DIRECTORY,
    Leaving,
    ManagedUser,
    ManagedUsers,
    NoteIntent,
    SettleUsers,
    encode_users,
    list_of,
    read_managed_users,
)
from google_guest.metadata.tree import Metadata
from google_guest.records import record, replace
from google_guest.ssh_keys import KeyLine, parse_key_line
from google_guest.system import System
from google_guest.system.homes import account_problem, home_problem, is_read_only, unterminated_mark

LOOKUP_RETRY = 60.0
"""Seconds until a user is looked up again that the name service gave no answer about."""

_SKELETON_FILE = "/etc/skel/.ssh/authorized_keys"
_NAMES_SHOWN = 5
_ATTRIBUTES = ("ssh-keys", "sshKeys", "block-project-ssh-keys", OSLOGIN_SWITCH)


def enabled(inputs: Inputs) -> Decision:
    """Off only by ``[Daemons] accounts_daemon``: while OS Login is on there is cleaning to do."""
    config = inputs.config
    if not config.daemons.accounts_daemon:
        layer = config.origin("daemons", "accounts_daemon")
        return Decision(False, "[Daemons] accounts_daemon = false", layer)
    switch = None if inputs.metadata is None else inputs.metadata.switch(OSLOGIN_SWITCH)
    if switch is not None and switch[0]:
        if config.daemons.oslogin_daemon:
            return Decision(True, "OS Login is on: keys in metadata do not count", switch[1])
        layer = config.origin("daemons", "oslogin_daemon")
        return Decision(True, "[Daemons] oslogin_daemon = false keeps OS Login off", layer)
    return Decision(True, "on by default")


def inputs_of(metadata: Metadata) -> Hashable:
    """Return the parts of the metadata that decide who may log in."""
    instance, project = metadata.instance.attributes, metadata.project.attributes
    return (
        metadata.instance.id,
        tuple(instance.get(key) for key in _ATTRIBUTES),
        tuple(project.get(key) for key in _ATTRIBUTES),
    )


def plan_off(inputs: Inputs) -> Plan:
    """Return nothing: who switches the feature off keeps everything as it is."""
    return Plan()


def plan(inputs: Inputs) -> Plan:
    """Return what brings accounts and keys in line with metadata."""
    metadata, system, config = inputs.metadata, inputs.system, inputs.config
    if metadata is None or not config.daemons.accounts_daemon:
        return Plan()
    wanted = wanted_users(metadata, config, inputs.now)
    managed = read_managed_users(system, metadata.instance.id)
    notes = list(wanted.notes)
    if managed.foreign_instance:
        notes.append(
            f"users that instance {managed.foreign_instance} managed are left alone:"
            " this disk was made from its image"
        )
    expected_by_sshd = bool(wanted.users) or is_oslogin_on(metadata, config)
    changes: list[Change] = []
    recheck_at = None if wanted.next_expiry is None else wanted.next_expiry + 1.0
    if wanted.users or managed.users or managed.foreign_instance:
        try:
            scene = look_around(system, config, {*wanted.users, *managed.users})
        except OSError as error:
            notes.append(f"accounts cannot be read, all are left alone: {error}")
            return Plan(recheck_at=inputs.now + LOOKUP_RETRY, notes=tuple(notes))
        notes += scene.notes
        changes += _reconcile(scene, wanted.users, managed, notes)
        if scene.unknown:
            retry_at = inputs.now + LOOKUP_RETRY
            recheck_at = retry_at if recheck_at is None else min(recheck_at, retry_at)
    if expected_by_sshd:
        changes += start_sshd(system)
    return Plan(tuple(changes), recheck_at, tuple(dict.fromkeys(notes)))


@record
class _Part:
    """What is due for one user."""

    create: Optional[CreateUser] = None
    join: Optional[JoinGroup] = None
    write: Optional[WriteAuthorizedKeys] = None
    leave: Optional[LeaveGroup] = None
    delete: Optional[DeleteUser] = None
    record: Optional[ManagedUser] = None
    """What will be remembered; None: nothing."""
    leaving: Optional[Leaving] = None
    needs_sudo: bool = False
    note: str = ""


def _reconcile(
    scene: Scene,
    wanted: Mapping[str, tuple[str, ...]],
    managed: ManagedUsers,
    notes: list[str],
) -> Sequence[Change]:
    config = scene.config
    denied = denied_names(config)
    parts = [
        _for_wanted(scene, name, keys, managed.users.get(name)) for name, keys in wanted.items()
    ]
    parts += [
        _for_leaving(scene, user, may_delete=name not in denied)
        for name, user in managed.users.items()
        if name not in wanted
    ]
    parts = _without_writes_to_read_only(scene, parts, notes)
    notes += [part.note for part in parts if part.note]
    changes: list[Change] = []
    if any(part.needs_sudo for part in parts):
        changes += _sudo(scene, notes)
    creations = [part.create for part in parts if part.create]
    changes += creations
    changes += [part.join for part in parts if part.join]
    changes += [part.write for part in parts if part.write]
    changes += [part.leave for part in parts if part.leave]
    changes += [part.delete for part in parts if part.delete]
    return _with_record(scene.system, changes, parts, managed, notes)


def _for_wanted(
    scene: Scene, name: str, keys: tuple[str, ...], previous: Optional[ManagedUser]
) -> _Part:
    if name in scene.unknown:
        return _Part(record=previous, note=scene.unknown[name])
    if name not in scene.accounts:
        return _for_new(scene, name, () if scene.via_command else keys)
    account = scene.accounts[name]
    problem = account_problem(account)
    note = f"user {name} gets no keys: {problem}" if problem else ""
    join = None
    is_ordinary = account.uid >= FIRST_ORDINARY_UID
    if is_ordinary and not problem and scene.lacks_sudo(name):
        command = fill_template(
            scene.config.accounts.gpasswd_add_cmd, user=name, group=SUDOERS_GROUP
        )
        if command is None:
            note = note or f"user {name} gets no sudo: [Accounts] gpasswd_add_cmd is empty"
        else:
            join = JoinGroup(name, SUDOERS_GROUP, command)
    part = _Part(join=join, record=previous, needs_sudo=is_ordinary and not problem, note=note)
    if home_problem(account.home):
        return part
    target = () if problem or scene.via_command else keys
    return _with_keys(scene, name, target, previous, part)


def _with_keys(
    scene: Scene,
    name: str,
    target: tuple[str, ...],
    previous: Optional[ManagedUser],
    part: _Part,
) -> _Part:
    """Return ``part`` with what is due for the keys of an existing account."""
    account, look = scene.accounts[name], scene.looks[name]
    is_own = previous is not None and previous.is_own_account(account)
    make_home = look.is_home_missing and is_own and bool(target)
    if look.problem and not make_home:
        if look.is_home_missing and not target:
            return part
        return replace(part, note=f"keys of user {name} are left as they are: {look.problem}")
    old = look.keys
    earlier = previous or ManagedUser(name)
    may_unlink = look.content is None if target else earlier.file_created
    file_created = may_unlink or (earlier.file_created and look.content is not None)
    unterminated = earlier.unterminated
    if not old.markers:
        unterminated = unterminated_mark(old.own) if target else None
    write = None
    if not old.holds(tuple(key.encode() for key in target)):
        write = WriteAuthorizedKeys(
            name,
            target,
            account=account,
            difference=_difference(old.google, target),
            make_home=make_home,
            may_unlink=may_unlink,
            unterminated=unterminated,
        )
    if previous is None and not target and write is None and not scene.via_command:
        return part
    record = ManagedUser(
        name,
        created_by_agent=is_own,
        keys_written=bool(target),
        uid=account.uid,
        home=account.home,
        file_created=file_created,
        unterminated=unterminated,
    )
    return replace(part, write=write, record=record)


def _for_new(scene: Scene, name: str, keys: tuple[str, ...]) -> _Part:
    creation = create_user(
        scene.system,
        scene.config.accounts,
        scene.local,
        name,
        with_sudo=scene.can_join_sudo,
    )
    if creation.change is None:
        return _Part(note=f"user {name} is not created: {creation.problem}")
    write = None
    file_created = False
    if keys:
        file_created = not scene.system.files.exists(_SKELETON_FILE)
        write = WriteAuthorizedKeys(
            name, keys, difference=_difference((), keys), may_unlink=file_created
        )
    record = ManagedUser(name, creating=True, keys_written=bool(keys), file_created=file_created)
    return _Part(create=creation.change, write=write, record=record, needs_sudo=True)


def _for_leaving(scene: Scene, user: ManagedUser, *, may_delete: bool) -> _Part:
    name, section = user.name, scene.config.accounts
    if name in scene.unknown:
        return _Part(record=user, note=scene.unknown[name])
    account = scene.accounts.get(name)
    if account is None:
        return _Part(leaving=Leaving(user))
    note, write, leave, delete = "", None, None, None
    look = scene.looks.get(name)
    is_clean = True
    if look is not None and look.problem and not look.is_home_missing:
        note = f"keys of user {name} cannot be withdrawn: {look.problem}"
        is_clean = False
    elif look is not None and not look.keys.holds(()):
        write = WriteAuthorizedKeys(
            name,
            (),
            account=account,
            difference=_difference(look.keys.google, ()),
            may_unlink=user.file_created,
            unterminated=user.unterminated,
        )
    if scene.local.is_listed(name, SUDOERS_GROUP):
        command = fill_template(section.gpasswd_remove_cmd, user=name, group=SUDOERS_GROUP)
        leave = None if command is None else LeaveGroup(name, SUDOERS_GROUP, command)
    is_ours = user.is_own_account(account) and account.uid >= FIRST_ORDINARY_UID
    if section.deprovision_remove and may_delete and is_ours and name in scene.local.users:
        command = fill_template(section.userdel_cmd, user=name)
        delete = None if command is None else DeleteUser(name, account.uid, command)
    leaving = Leaving(user, account, delete=delete is not None)
    kept = None if is_clean or delete is not None else user
    return _Part(write=write, leave=leave, delete=delete, record=kept, leaving=leaving, note=note)


def _without_writes_to_read_only(
    scene: Scene, parts: Iterable[_Part], notes: list[str]
) -> list[_Part]:
    """Return the parts without what a read-only file system would refuse; one note for each."""
    kept = []
    accounts: list[str] = []
    homes: list[str] = []
    for part in parts:
        if not scene.etc_is_writable:
            for change in (part.create, part.join, part.leave, part.delete):
                if change is not None:
                    accounts.append(change.user)
            part = _without_account_changes(part)
        account = None if part.write is None else part.write.account
        if account is not None and is_read_only(scene.system, account.home):
            homes.append(account.name)
            part = replace(part, write=None, record=_kept(part))
        kept.append(part)
    if accounts:
        notes.append(f"/etc is read-only: no account changes for {_some(accounts)}")
    if homes:
        notes.append(f"homes are read-only: no change to the keys of {_some(homes)}")
    return kept


def _without_account_changes(part: _Part) -> _Part:
    if part.create is not None:
        return _Part()
    record = part.record
    if part.leave is not None or part.delete is not None:
        record = _kept(part)
    return replace(part, join=None, leave=None, delete=None, needs_sudo=False, record=record)


def _kept(part: _Part) -> Optional[ManagedUser]:
    """Return the record of a user whose changes cannot be made now."""
    return part.leaving.user if part.leaving is not None else part.record


def _some(names: Iterable[str]) -> str:
    unique = sorted(set(names))
    shown = ", ".join(unique[:_NAMES_SHOWN])
    more = len(unique) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _sudo(scene: Scene, notes: list[str]) -> Sequence[Change]:
    """Return what gives the members of google-sudoers their rights."""
    changes: list[Change] = []
    if not scene.can_join_sudo:
        notes.append(f"group {SUDOERS_GROUP} is {scene.sudo_group.value}")
    if scene.sudo_group is SudoGroup.ABSENT:
        command = fill_template(scene.config.accounts.groupadd_cmd, group=SUDOERS_GROUP)
        if command is not None:
            changes.append(CreateGroup(SUDOERS_GROUP, command))
    if not scene.system.files.exists(SUDOERS_FILE):
        changes.append(InstallSudoersRule())
    return changes


def _with_record(
    system: System,
    changes: list[Change],
    parts: Iterable[_Part],
    managed: ManagedUsers,
    notes: list[str],
) -> Sequence[Change]:
    """Return ``changes`` between the note of what is intended and the look at what came of it."""
    parts = tuple(parts)
    records = {part.record.name: part.record for part in parts if part.record is not None}
    leaving = tuple(part.leaving for part in parts if part.leaving is not None)
    # A user who is leaving stays noted until nothing is left to clean.
    staying = {
        name: user
        for name, user in records.items()
        if name not in {entry.user.name for entry in leaving}
    }
    expected = encode_users(records.values(), managed.instance_id)
    is_settled = managed.document == expected or (managed.document is None and not records)
    is_settled = is_settled and (managed.listed or ()) == list_of(records.values())
    if is_settled and not managed.foreign_instance and not changes:
        return changes
    if is_read_only(system, DIRECTORY.rpartition("/")[0]):
        notes.append(f"{DIRECTORY} is read-only: it is not remembered which users are managed")
        return changes
    intended = {**managed.users, **records}
    before: list[Change] = []
    if changes and encode_users(intended.values(), managed.instance_id) != managed.document:
        before = [NoteIntent(tuple(intended.values()), managed.instance_id)]
    settle = SettleUsers(tuple(staying.values()), leaving, SUDOERS_GROUP, managed.instance_id)
    return [*before, *changes, settle]


def _difference(old: Iterable[bytes], new: Iterable[str]) -> tuple[str, ...]:
    """Return a line for each key that goes or comes, without the keys."""
    before = [line.decode("utf-8", "replace") for line in old]
    after = list(new)
    return (
        *(f"-{_label(line)}" for line in before if line not in after),
        *(f"+{_label(line)}" for line in after if line not in before),
    )


def _label(text: str) -> str:
    line = parse_key_line(f"user:{text}")
    if not isinstance(line, KeyLine):
        return "a line that is no key of metadata"
    return f"{line.key_type} ...{line.tail}"
