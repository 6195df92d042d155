"""The commands that make an account, from the templates of ``[Accounts]``.

With the built-in templates one useradd makes the account and puts it into all its groups, which is
five times faster than a gpasswd for each group. Changed templates are followed as they are.
"""

from __future__ import annotations

from typing import Optional

from google_guest.changes.accounts import (
    FIRST_ORDINARY_UID,
    SUDOERS_GROUP,
    AccountCommand,
    CreateUser,
    fill_template,
)
from google_guest.config import AccountsSection
from google_guest.records import record
from google_guest.system import System
from google_guest.system.accounts import LocalAccounts

_BUILT_IN = AccountsSection()


@record
class Creation:
    """How a user is made, or why it cannot be."""

    change: Optional[CreateUser] = None
    problem: str = ""


@record
class _Ids:
    """Numbers that the account must get."""

    options: tuple[str, ...] = ()
    before: Optional[AccountCommand] = None
    problem: str = ""


def create_user(
    system: System,
    section: AccountsSection,
    local: LocalAccounts,
    user: str,
    *,
    with_sudo: bool,
) -> Creation:
    """Return the change that makes ``user``; ``with_sudo``: google-sudoers can be joined."""
    plain = fill_template(section.useradd_cmd, user=user)
    if plain is None:
        return Creation(problem="[Accounts] useradd_cmd is empty")
    ids = _ids(system, section, local, user)
    if ids.problem:
        return Creation(problem=ids.problem)
    groups = existing_groups(section, local)
    if with_sudo:
        groups = (*groups, SUDOERS_GROUP)
    if not _is_built_in(section, "useradd_cmd"):
        command = AccountCommand((*plain.argv, *ids.options), plain.input)
        afterwards = _joining(section, user, groups)
        return Creation(CreateUser(user, command, before=ids.before, afterwards=afterwards))
    options = ids.options
    if not options and user in local.groups:
        # useradd refuses to make a user's own group a second time.
        options = ("-g", user)
    afterwards = ()
    if _is_built_in(section, "gpasswd_add_cmd") and not section.usermod_cmd.split():
        options = ("-G", ",".join(groups), *options) if groups else options
    else:
        afterwards = _joining(section, user, groups)
    argv = (*plain.argv[:-1], *options, plain.argv[-1])
    return Creation(
        CreateUser(
            user,
            AccountCommand(argv),
            second_try=AccountCommand((argv[0], "--badname", *argv[1:])),
            before=ids.before,
            afterwards=afterwards,
        )
    )


def existing_groups(section: AccountsSection, local: LocalAccounts) -> tuple[str, ...]:
    """Return the configured groups that exist; the others are none of our business."""
    names = (name.strip() for name in section.groups.split(","))
    wanted = dict.fromkeys(name for name in names if name and name != SUDOERS_GROUP)
    return tuple(name for name in wanted if name in local.groups)


def _joining(
    section: AccountsSection, user: str, groups: tuple[str, ...]
) -> tuple[AccountCommand, ...]:
    """Return the commands that put an account into groups after it was made."""
    commands: list[Optional[AccountCommand]] = []
    if section.usermod_cmd.split():
        plain = tuple(group for group in groups if group != SUDOERS_GROUP)
        if plain:
            commands.append(fill_template(section.usermod_cmd, user=user, groups=",".join(plain)))
        groups = tuple(group for group in groups if group == SUDOERS_GROUP)
    elif groups and _is_built_in(section, "gpasswd_add_cmd"):
        return (AccountCommand(("usermod", "-aG", ",".join(groups), user)),)
    for group in groups:
        commands.append(fill_template(section.gpasswd_add_cmd, user=user, group=group))
    return tuple(command for command in commands if command is not None)


def _ids(system: System, section: AccountsSection, local: LocalAccounts, user: str) -> _Ids:
    """Return the owner of a home that outlived its account (``reuse_homedir``)."""
    if not section.reuse_homedir:
        return _Ids()
    home = f"/home/{user}"
    facts = system.files.stat(home)
    if facts is None or min(facts.st_uid, facts.st_gid) < FIRST_ORDINARY_UID:
        return _Ids()
    uid, gid = facts.st_uid, facts.st_gid
    for account in local.users.values():
        if account.uid == uid:
            return _Ids(problem=f"{home} belongs to uid {uid}, which is user {account.name}")
    before = None
    if local.group_of_gid(gid) is None:
        own = local.groups.get(user)
        if own is None:
            before = fill_template(section.groupadd_cmd, "-g", str(gid), group=user)
        else:
            gid = own.gid
    return _Ids(("-u", str(uid), "-g", str(gid)), before)


def _is_built_in(section: AccountsSection, key: str) -> bool:
    return str(getattr(section, key)).split() == str(getattr(_BUILT_IN, key)).split()
