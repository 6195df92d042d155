"""Changes to local accounts: users, groups, the rule for sudo, and the users' keys.

Accounts are made and changed by the platform's own tools (useradd and its family), because they
know the corner cases; which command does what comes from ``[Accounts]`` of the configuration. Keys
are written by ``system.homes`` as the user.

Source: guest-agent ``google_guest_agent/accounts_unix.go`` for commands and the sudo rule;
useradd(8), groupadd(8) and userdel(8) for exit statuses.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import ClassVar, Optional

from google_guest.changes import Change
from google_guest.errors import GuestError
from google_guest.records import field, record
from google_guest.system import System
from google_guest.system.accounts import Account, LocalAccounts
from google_guest.system.commands import CommandError, CommandMissing
from google_guest.system.homes import HomeTask, account_problem, home_problem, update_homes

log = logging.getLogger(__name__)

SUDOERS_GROUP = "google-sudoers"
SUDOERS_FILE = "/etc/sudoers.d/google_sudoers"
SUDOERS_RULE = "%" + SUDOERS_GROUP + " ALL=(ALL:ALL) NOPASSWD:ALL\n"
FIRST_ORDINARY_UID = 1000
"""Accounts below belong to the system: they are never deleted and their groups never change."""

_INVALID_ARGUMENT = 3
"""useradd's status for a name that its distribution does not like."""
_NAME_IN_USE = 9
"""useradd's status for a user, or a group of that name, that exists."""
_PIPE = re.compile(r"\s\|\s")


@record
class AccountCommand:
    """A command from a template, ready to run."""

    argv: tuple[str, ...]
    input: Optional[str] = field(default=None, repr=False)

    def run(self, system: System) -> None:
        """Run it; raises ``CommandError`` or ``CommandMissing``."""
        system.run(self.argv, input=self.input)

    def __str__(self) -> str:
        return " ".join(self.argv)


def fill_template(template: str, *extra: str, **values: str) -> Optional[AccountCommand]:
    """Return the command that ``template`` describes, with ``extra`` arguments behind it.

    The template is split at white space first and ``{user}``, ``{group}``, ``{groups}`` are filled
    in afterwards, so a value can never become two arguments. No shell is involved: quotes, ``*``
    and ``;`` are plain characters. ``TEXT | COMMAND`` sends TEXT to the standard input of COMMAND.
    Returns None for a template without a command.
    """
    text, command = "", template
    pieces = _PIPE.split(template, maxsplit=1)
    if len(pieces) == 2:
        text, command = pieces[0].strip(), pieces[1]
    argv = tuple(_filled(token, values) for token in command.split())
    if not argv:
        return None
    return AccountCommand((*argv, *extra), _filled(text, values) if len(pieces) == 2 else None)


@record
class CreateGroup(Change):
    """Make a group; one that appeared meanwhile is fine."""

    group: str
    command: AccountCommand

    @property
    def subject(self) -> str:
        """The group."""
        return f"group {self.group}"

    def describe(self) -> str:
        """Return the group's name."""
        return f"create group {self.group}"

    def apply(self, system: System) -> None:
        """Run the command."""
        try:
            self.command.run(system)
        except CommandError as error:
            if self.group not in system.accounts.local().groups:
                raise GuestError(f"group {self.group} cannot be created: {error}") from error


@record
class InstallSudoersRule(Change):
    """Let the members of google-sudoers use sudo; a file that is there is never rewritten."""

    path: str = SUDOERS_FILE

    @property
    def subject(self) -> str:
        """The rule."""
        return f"file {self.path}"

    def describe(self) -> str:
        """Return the path."""
        return f"create {self.path}"

    def diff(self) -> tuple[str, ...]:
        """Return the rule."""
        return (f"+{SUDOERS_RULE.rstrip()}",)

    def apply(self, system: System) -> None:
        """Have sudo check the rule, then put it in place with its mode from the first byte."""
        if system.files.exists(self.path):
            return
        try:
            system.run(["visudo", "-c", "-q", "-f", "-"], input=SUDOERS_RULE)
        except CommandMissing:
            log.debug("visudo is not installed; %s is written unchecked", self.path)
        directory = self.path.rpartition("/")[0]
        system.files.make_directory(directory, mode=0o750)
        system.files.write_atomic(self.path, SUDOERS_RULE.encode(), mode=0o440)


@record
class CreateUser(Change):
    """Make an account and put it into its groups."""

    user: str
    command: AccountCommand
    second_try: Optional[AccountCommand] = None
    """For a name that the first command refuses."""
    before: Optional[AccountCommand] = None
    """Makes the user's own group with a given number."""
    afterwards: tuple[AccountCommand, ...] = ()
    """Groups, when the command itself does not put the user into them."""

    @property
    def subject(self) -> str:
        """The user."""
        return f"user {self.user}"

    def describe(self) -> str:
        """Return the user's name."""
        return f"create user {self.user}"

    def diff(self) -> tuple[str, ...]:
        """Return the commands."""
        first = () if self.before is None else (self.before,)
        return tuple(f"+{command}" for command in (*first, self.command, *self.afterwards))

    def apply(self, system: System) -> None:
        """Run the commands; a group that cannot be joined does not undo the account."""
        try:
            if self.before is not None:
                self.before.run(system)
            self._create(system)
        except (CommandError, CommandMissing) as error:
            raise GuestError(f"user {self.user} cannot be created: {error}") from error
        for command in self.afterwards:
            try:
                command.run(system)
            except (CommandError, CommandMissing) as error:
                log.warning("user %s: a group could not be joined: %s", self.user, error)

    def _create(self, system: System) -> None:
        try:
            self.command.run(system)
        except CommandError as first:
            if first.status == _NAME_IN_USE and self.user in system.accounts.local().users:
                return
            if first.status != _INVALID_ARGUMENT or self.second_try is None:
                raise
            try:
                self.second_try.run(system)
            except CommandError:
                # The refusal says more than the complaint about an option that is too new.
                raise first from None


@record
class _Membership(Change):
    """An existing user's membership of one group; nothing else of the account changes."""

    user: str
    group: str
    command: AccountCommand

    @property
    def subject(self) -> str:
        """The membership: without it the user's keys are still worth writing."""
        return f"membership of user {self.user}"


@record
class JoinGroup(_Membership):
    """Make the user a member."""

    def describe(self) -> str:
        """Return user and group."""
        return f"add user {self.user} to group {self.group}"

    def apply(self, system: System) -> None:
        """Run the command; a user who is a member all the same is none of its failures."""
        try:
            self.command.run(system)
        except CommandError as error:
            if not system.accounts.local().is_member(self.user, self.group):
                raise GuestError(f"user {self.user} cannot join {self.group}: {error}") from error


@record
class LeaveGroup(_Membership):
    """End the user's membership."""

    def describe(self) -> str:
        """Return user and group."""
        return f"remove user {self.user} from group {self.group}"

    def apply(self, system: System) -> None:
        """Run the command; a user who is no member any more is none of its failures."""
        try:
            self.command.run(system)
        except CommandError as error:
            if system.accounts.local().is_listed(self.user, self.group):
                raise GuestError(f"user {self.user} cannot leave {self.group}: {error}") from error


@record
class WriteAuthorizedKeys(Change):
    """Give a user's authorized_keys exactly these keys of ours, and leave the user's own alone."""

    batched: ClassVar[bool] = True

    user: str
    keys: tuple[str, ...] = field(repr=False)
    account: Optional[Account] = None
    """The account as the plan saw it; None for one that is created before."""
    difference: tuple[str, ...] = ()
    """For people: type and last characters of the keys that come and go."""
    make_home: bool = False
    may_unlink: bool = False
    unterminated: Optional[int] = None

    @property
    def subject(self) -> str:
        """The user."""
        return f"user {self.user}"

    def describe(self) -> str:
        """Return the user and the number of keys, never a key."""
        if not self.keys:
            return f"remove the metadata keys of user {self.user}"
        plural = "" if len(self.keys) == 1 else "s"
        return f"write {len(self.keys)} metadata key{plural} for user {self.user}"

    def diff(self) -> tuple[str, ...]:
        """Return a line for each key that comes or goes."""
        return self.difference

    def apply(self, system: System) -> None:
        """Write the keys of this one user."""
        error = self.apply_batch([self], system)[0]
        if error is not None:
            raise error

    @classmethod
    def apply_batch(
        cls, changes: Sequence[Change], system: System
    ) -> Sequence[Optional[Exception]]:
        """Write the keys of all these users with one process."""
        writes = [change for change in changes if isinstance(change, WriteAuthorizedKeys)]
        errors: dict[str, Optional[Exception]] = {}
        tasks = []
        try:
            local = system.accounts.local()
        except OSError as error:
            return [error] * len(changes)
        for write in writes:
            try:
                tasks.append(write._task(local))
            except GuestError as error:
                errors[write.user] = error
        errors.update(update_homes(system, tasks))
        return [errors.get(write.user) for write in writes]

    def _task(self, local: LocalAccounts) -> HomeTask:
        account = local.users.get(self.user, self.account)
        if account is None:
            raise GuestError(f"user {self.user} does not exist")
        problem = account_problem(account) if self.keys else home_problem(account.home)
        if problem:
            raise GuestError(f"user {self.user} gets no keys: {problem}")
        return HomeTask(
            self.user,
            account.uid,
            account.gid,
            account.home,
            self.keys,
            make_home=self.make_home,
            may_unlink=self.may_unlink,
            unterminated=self.unterminated,
        )


@record
class DeleteUser(Change):
    """Delete an account that the agent created, and no other."""

    user: str
    uid: int
    command: AccountCommand

    @property
    def subject(self) -> str:
        """The account: its keys and memberships are withdrawn in any case."""
        return f"account of user {self.user}"

    def describe(self) -> str:
        """Return the user's name."""
        return f"delete user {self.user}"

    def diff(self) -> tuple[str, ...]:
        """Return the command."""
        return (f"-{self.command}",)

    def apply(self, system: System) -> None:
        """Run the command, unless the name means another account by now."""
        account = system.accounts.local().users.get(self.user)
        if account is None:
            return
        if account.uid != self.uid or account.uid < FIRST_ORDINARY_UID:
            raise GuestError(
                f"user {self.user} is not deleted: uid {account.uid} is not the account"
                f" that was created (uid {self.uid})"
            )
        try:
            self.command.run(system)
        except (CommandError, CommandMissing) as error:
            if self.user in system.accounts.local().users:
                raise GuestError(f"user {self.user} cannot be deleted: {error}") from error
            log.warning("user %s is deleted, with remains: %s", self.user, error)


def _filled(token: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(user|groups?)\}", lambda match: values.get(match[1], match[0]), token)
