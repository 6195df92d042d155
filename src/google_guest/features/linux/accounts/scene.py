"""What is there: accounts, groups and key files, read once for a pass."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from google_guest.changes.accounts import SUDOERS_GROUP
from google_guest.config import Config
from google_guest.records import record
from google_guest.system import System
from google_guest.system.accounts import Account, LocalAccounts, LookupFailed
from google_guest.system.homes import Look, home_problem, look_as_users, look_at

SSHD_CONFIG = "/etc/ssh/sshd_config"
SSHD_DROP_INS = "/etc/ssh/sshd_config.d"
KEYS_COMMAND = "google_metadata_authorized_keys"

_ASKS_COMMAND = re.compile(
    rf"^\s*AuthorizedKeysCommand\s*[\s=]\s*\"?\S*/{KEYS_COMMAND}\b", re.IGNORECASE | re.MULTILINE
)


class SudoGroup(enum.Enum):
    """Where google-sudoers is."""

    LOCAL = "local"
    ABSENT = "absent"
    ELSEWHERE = "in a directory, so that nobody can be added to it here"
    UNKNOWN = "not looked up: the name service does not answer"


@record
class Scene:
    """The machine as one pass sees it."""

    system: System
    config: Config
    local: LocalAccounts
    accounts: Mapping[str, Account]
    """Every account of interest that exists."""
    unknown: Mapping[str, str]
    """Names about which the name service gave no answer, and what it said."""
    looks: Mapping[str, Look]
    """The key files of ``accounts``, except where a home is nobody's."""
    etc_is_writable: bool
    via_command: bool
    """Whether sshd asks a command for the keys, so that none belong into homes."""
    notes: tuple[str, ...] = ()

    @cached_property
    def sudo_group(self) -> SudoGroup:
        """Where google-sudoers is; asked of the name service only if the local file lacks it."""
        if SUDOERS_GROUP in self.local.groups:
            return SudoGroup.LOCAL
        if not self.etc_is_writable:
            return SudoGroup.ABSENT
        try:
            found = self.system.accounts.find_group(SUDOERS_GROUP)
        except LookupFailed:
            return SudoGroup.UNKNOWN
        return SudoGroup.ABSENT if found is None else SudoGroup.ELSEWHERE

    @property
    def can_join_sudo(self) -> bool:
        """Whether the platform's tools can add members to google-sudoers, once it is made."""
        return self.sudo_group in (SudoGroup.LOCAL, SudoGroup.ABSENT)

    def lacks_sudo(self, name: str) -> bool:
        """Return whether ``name`` has to be added to google-sudoers, and can be."""
        return not self.local.is_member(name, SUDOERS_GROUP) and self.can_join_sudo


def look_around(system: System, config: Config, names: Iterable[str]) -> Scene:
    """Read what a pass about ``names`` needs; nothing is started when all of them are local.

    Raises:
        OSError: the user or group file cannot be read.
    """
    local = system.accounts.local()
    accounts: dict[str, Account] = {}
    unknown: dict[str, str] = {}
    elsewhere = []
    for name in names:
        account = local.users.get(name)
        if account is None:
            elsewhere.append(name)
        else:
            accounts[name] = account
    answers = system.accounts.find_users(sorted(elsewhere)) if elsewhere else {}
    for name, answer in answers.items():
        if isinstance(answer, LookupFailed):
            unknown[name] = str(answer)
        elif answer is not None:
            accounts[name] = answer
    notes: list[str] = []
    return Scene(
        system=system,
        config=config,
        local=local,
        accounts=accounts,
        unknown=unknown,
        looks=_looks(system, accounts),
        etc_is_writable=system.accounts.are_writable(),
        via_command=_is_via_command(system, config, notes),
        notes=tuple(notes),
    )


def _looks(system: System, accounts: Mapping[str, Account]) -> Mapping[str, Look]:
    looks: dict[str, Look] = {}
    ask = []
    for name, account in accounts.items():
        if home_problem(account.home):
            continue
        looks[name] = look_at(system, account)
        if looks[name].needs_user:
            ask.append(account)
    if ask and system.is_live and os.geteuid() == 0:
        looks.update(look_as_users(system, ask))
    return looks


def _is_via_command(system: System, config: Config, notes: list[str]) -> bool:
    """Return whether keys are served by a command; only if sshd is set up to ask it."""
    if not config.accounts.keys_via_command:
        return False
    names = system.files.list_directory(SSHD_DROP_INS)
    paths = [f"{SSHD_DROP_INS}/{name}" for name in names if name.endswith(".conf")]
    for path in (*paths, SSHD_CONFIG):
        try:
            text = system.files.read_text(path)
        except OSError:
            continue
        if text is not None and _ASKS_COMMAND.search(text):
            return True
    notes.append(
        "[Accounts] keys_via_command has no effect: sshd_config has no"
        f" 'AuthorizedKeysCommand .../{KEYS_COMMAND} %u', so keys stay in the homes"
    )
    return False
