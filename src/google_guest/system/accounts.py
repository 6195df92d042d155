"""The user and group databases.

``local()`` reads /etc/passwd and /etc/group once and without starting anything; a feature takes
one such snapshot a pass. Accounts that only a directory (LDAP, SSSD, systemd-homed) knows are asked
of the name service by ``find_users`` and ``find_group``: bounded in time, in a process of their own
and only on the running machine. Local files come first, because a snapshot of them costs nothing
and cannot hang.

Source: passwd(5), group(5), getent(1); ``name_lookup`` for why users are not asked of getent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Optional, Union

from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.system.commands import CommandError, CommandMissing, program_argv
from google_guest.system.files import Files

if TYPE_CHECKING:
    from google_guest.system import CommandRunner

PASSWD = "/etc/passwd"
GROUP = "/etc/group"

_LIMIT = 64 << 20
_LOOKUP = str(Path(__file__).with_name("name_lookup.py"))
_LOOKUP_TIME_LIMIT = 20.0
_GROUP_TIME_LIMIT = 5.0
_ABSENT = 2
"""getent's status for a key that no database has."""
_NAMES_AT_ONCE = 200


class LookupFailed(GuestError):
    """The name service answered neither with an entry nor with its absence."""


@record
class Account:
    """A line of passwd(5) without the password field."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


@record
class Group:
    """A line of group(5)."""

    name: str
    gid: int
    members: frozenset[str] = frozenset()


@record
class LocalAccounts:
    """What the local files say at one moment. Of two entries of one name the first counts."""

    users: Mapping[str, Account]
    groups: Mapping[str, Group]

    def is_listed(self, user: str, group: str) -> bool:
        """Return whether ``user`` is one of the group's listed members."""
        entry = self.groups.get(group)
        return entry is not None and user in entry.members

    def is_member(self, user: str, group: str) -> bool:
        """Return whether ``user`` is in ``group``, as a member or by the primary group."""
        entry = self.groups.get(group)
        if entry is None:
            return False
        account = self.users.get(user)
        return user in entry.members or (account is not None and account.gid == entry.gid)

    def group_of_gid(self, gid: int) -> Optional[Group]:
        """Return the group with this number, or None."""
        return next((group for group in self.groups.values() if group.gid == gid), None)


class Accounts:
    """The databases below one root; see ``System.accounts``."""

    def __init__(self, files: Files, runner: CommandRunner, *, live: bool) -> None:
        self._files = files
        self._runner = runner
        self._live = live

    def local(self) -> LocalAccounts:
        """Read the local files; missing ones are empty.

        Raises:
            OSError: a file is there and cannot be read.
        """
        passwd = self._files.read_text(PASSWD, limit=_LIMIT) or ""
        group = self._files.read_text(GROUP, limit=_LIMIT) or ""
        return LocalAccounts(
            users=MappingProxyType(parse_passwd(passwd)),
            groups=MappingProxyType(parse_group(group)),
        )

    def find_users(self, names: Sequence[str]) -> Mapping[str, Union[Account, LookupFailed, None]]:
        """Ask the name service; None means that it knows no such user.

        A name without an answer maps to ``LookupFailed``, which is not absence. In a tree that is
        not the running machine there is no name service and every name maps to None.
        """
        answers: dict[str, Union[Account, LookupFailed, None]] = {}
        if not self._live:
            return dict.fromkeys(names)
        for start in range(0, len(names), _NAMES_AT_ONCE):
            part = names[start : start + _NAMES_AT_ONCE]
            answers.update(self._find_users(part))
        return answers

    def find_user(self, name: str) -> Optional[Account]:
        """Return the account from the local files, else from the name service, else None.

        Raises:
            LookupFailed: the name service did not answer.
        """
        local = self.local().users.get(name)
        if local is not None:
            return local
        answer = self.find_users((name,))[name]
        if isinstance(answer, LookupFailed):
            raise answer
        return answer

    def find_group(self, name: str) -> Optional[Group]:
        """Return the group from the local files, else from the name service, else None.

        Raises:
            LookupFailed: the name service did not answer.
        """
        local = self.local().groups.get(name)
        if local is not None or not self._live:
            return local
        try:
            done = self._runner(["getent", "group", name], timeout=_GROUP_TIME_LIMIT, check=False)
        except CommandMissing:
            return None
        except CommandError as error:
            raise LookupFailed(f"group {name} cannot be looked up: {error}") from error
        if done.status == _ABSENT:
            return None
        group = parse_group(done.stdout).get(name)
        if done.status != 0 or group is None:
            raise LookupFailed(f"group {name} cannot be looked up: getent status {done.status}")
        return group

    def are_writable(self) -> bool:
        """Return whether the local files are on a file system that takes writes."""
        try:
            return not os.statvfs(self._files.resolved("/etc")).f_flag & os.ST_RDONLY
        except OSError:
            return False

    def _find_users(self, names: Sequence[str]) -> Mapping[str, Union[Account, LookupFailed, None]]:
        try:
            done = self._runner(
                program_argv(_LOOKUP, *names), timeout=_LOOKUP_TIME_LIMIT, check=False
            )
            lines, problem = done.stdout.splitlines(), "no answer in time"
        except (CommandError, CommandMissing) as error:
            lines, problem = [], str(error)
        answers: dict[str, Union[Account, LookupFailed, None]] = {
            name: LookupFailed(f"user {name} cannot be looked up: {problem}") for name in names
        }
        for line in lines:
            try:
                name, answer = _parse_answer(line)
            except (ValueError, KeyError, TypeError):
                # The process was ended in the middle of a line.
                continue
            if name in answers:
                answers[name] = answer
        return answers


def parse_passwd(text: str) -> dict[str, Account]:
    """Return the entries of passwd(5) by name; lines that are none (``+::``) are left out."""
    accounts: dict[str, Account] = {}
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) < 7 or not fields[0] or fields[0][0] in "+-#":
            continue
        try:
            uid, gid = int(fields[2]), int(fields[3])
        except ValueError:
            continue
        accounts.setdefault(fields[0], Account(fields[0], uid, gid, fields[5], fields[6]))
    return accounts


def parse_group(text: str) -> dict[str, Group]:
    """Return the entries of group(5) by name; lines that are none (``+::``) are left out."""
    groups: dict[str, Group] = {}
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) < 4 or not fields[0] or fields[0][0] in "+-#":
            continue
        try:
            gid = int(fields[2])
        except ValueError:
            continue
        members = frozenset(name for name in fields[3].split(",") if name)
        groups.setdefault(fields[0], Group(fields[0], gid, members))
    return groups


def _parse_answer(line: str) -> tuple[str, Union[Account, LookupFailed, None]]:
    answer = json.loads(line)
    name = str(answer["name"])
    if "error" in answer:
        return name, LookupFailed(f"user {name} cannot be looked up: {answer['error']}")
    if not answer["found"]:
        return name, None
    return name, Account(
        name, int(answer["uid"]), int(answer["gid"]), answer["home"], answer["shell"]
    )
