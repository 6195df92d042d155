"""The users that the accounts feature answers for, remembered across passes and boots.

``/var/lib/google/managed_users.json`` says of each user whether the agent created the account and
what it wrote. ``/var/lib/google/google_users`` (one name a line) is the list of Google's agents; it
is kept up to date, so that going back to one of them loses nobody.

The document belongs to one instance: on a machine that was made from an image of another one it
counts for nothing, and neither does the list beside it. Users that only the list names were written
by another agent: their keys are ours to clean, their accounts are not ours to delete.

Two changes write it. ``NoteIntent`` goes before any account is made or key is written, so that a
crash in between cannot lose what happened. ``SettleUsers`` goes last and looks at what really came
of it: an account that was not made is not noted, a user that could not be cleaned stays noted.

Source: guest-agent ``google_guest_agent/non_windows_accounts.go`` for path and format of the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Optional

from google_guest.changes import Change
from google_guest.records import as_dict, field, record, replace
from google_guest.ssh_keys import is_user_name
from google_guest.state import encode_state, read_state
from google_guest.system import System
from google_guest.system.accounts import Account, LocalAccounts
from google_guest.system.homes import Look, look_as_users, look_at

DIRECTORY = "/var/lib/google"
DOCUMENT = f"{DIRECTORY}/managed_users.json"
USER_LIST = f"{DIRECTORY}/google_users"

_LIMIT = 8 << 20


@record
class ManagedUser:
    """What the agent did for one user."""

    name: str
    created_by_agent: bool = False
    creating: bool = False
    """The account was about to be created when this was written."""
    keys_written: bool = False
    uid: Optional[int] = None
    home: str = ""
    file_created: bool = False
    """There was no authorized_keys before the first key."""
    unterminated: Optional[int] = None
    """See ``home_writer.unterminated_mark``."""

    def is_own_account(self, account: Account) -> bool:
        """Return whether ``account`` is the one that the agent created."""
        if self.creating:
            return True
        return self.created_by_agent and self.uid == account.uid


@record
class ManagedUsers:
    """What is remembered, as far as it concerns this instance."""

    users: Mapping[str, ManagedUser] = field(default_factory=dict)
    document: Optional[bytes] = None
    """The document on disk, as it would be written now; None: there is none of this instance."""
    listed: Optional[tuple[str, ...]] = None
    """The names in the list; None: there is no list."""
    instance_id: Optional[int] = None
    """Whose document is to be written; the one on disk says it when metadata does not."""
    foreign_instance: str = ""
    """The instance that the document on disk belongs to, if it is another one."""


def read_managed_users(system: System, instance_id: Optional[int]) -> ManagedUsers:
    """Return what is remembered about this instance's users; damaged parts count as absent."""
    document = read_state(system, DOCUMENT)
    owner = (document or {}).get("instance")
    listed = _read_list(system)
    if instance_id is not None and owner is not None and owner != str(instance_id):
        return ManagedUsers(listed=listed, instance_id=instance_id, foreign_instance=str(owner))
    rows = (document or {}).get("users")
    users = {
        name: _parse_user(name, row)
        for name, row in (rows if isinstance(rows, dict) else {}).items()
        if is_user_name(name) and isinstance(row, dict)
    }
    owner_id = _id_of(owner)
    encoded = None if document is None else encode_users(users.values(), owner_id)
    for name in listed or ():
        users.setdefault(name, ManagedUser(name, keys_written=True))
    return ManagedUsers(
        MappingProxyType(users),
        encoded,
        listed,
        owner_id if instance_id is None else instance_id,
    )


def encode_users(users: Iterable[ManagedUser], instance_id: Optional[int]) -> bytes:
    """Return the document's bytes."""
    rows: dict[str, dict[str, Any]] = {}
    for user in users:
        row = as_dict(user)
        del row["name"]
        rows[user.name] = {key: value for key, value in row.items() if value or key == "uid"}
    return encode_state({"users": rows}, instance_id=instance_id)


@record
class NoteIntent(Change):
    """Remember users before anything is done for them."""

    needs_live_system: ClassVar[bool] = True

    users: tuple[ManagedUser, ...] = field(repr=False)
    instance_id: Optional[int]

    @property
    def subject(self) -> str:
        """The record."""
        return "record of managed users"

    def describe(self) -> str:
        """Say what for."""
        return "note which users are about to change"

    def apply(self, system: System) -> None:
        """Write the document."""
        system.files.write_atomic(DOCUMENT, encode_users(self.users, self.instance_id), mode=0o600)


@record
class Leaving:
    """A user who is no longer wanted."""

    user: ManagedUser
    account: Optional[Account] = None
    """The account as the plan saw it; None: there is none any more."""
    delete: bool = False
    """Whether the account itself has to go."""


@record
class SettleUsers(Change):
    """Remember what became of every user; planned after everything else."""

    needs_live_system: ClassVar[bool] = True
    # Who was to be created and was not, because the agent stopped, may be made by somebody else
    # before it starts again; that account would count as ours.
    notes_outcome: ClassVar[bool] = True

    staying: tuple[ManagedUser, ...] = field(repr=False)
    leaving: tuple[Leaving, ...] = field(repr=False)
    sudoers_group: str
    instance_id: Optional[int]

    @property
    def subject(self) -> str:
        """The record."""
        return "record of managed users"

    def describe(self) -> str:
        """Say how many."""
        return f"remember the managed users ({len(self.staying)})"

    def apply(self, system: System) -> None:
        """Look at the result and write document and list where they differ from it."""
        local = system.accounts.local()
        users = [settled for user in self.staying if (settled := _settled(user, local)) is not None]
        looks = _looks(system, self.leaving, local)
        for leaving in self.leaving:
            if not _is_gone(leaving, local, looks, self.sudoers_group):
                users.append(leaving.user)
        document = encode_users(users, self.instance_id)
        if system.files.read_bytes(DOCUMENT, limit=_LIMIT) != document:
            system.files.write_atomic(DOCUMENT, document, mode=0o600)
        names = list_of(users)
        content = "".join(f"{name}\n" for name in names).encode()
        if system.files.read_bytes(USER_LIST, limit=_LIMIT) != content:
            system.files.write_atomic(USER_LIST, content, mode=0o600)


def list_of(users: Iterable[ManagedUser]) -> tuple[str, ...]:
    """Return the names that belong into the list of Google's agents."""
    return tuple(sorted(user.name for user in users if user.keys_written))


def _settled(user: ManagedUser, local: LocalAccounts) -> Optional[ManagedUser]:
    if not user.creating:
        return user
    account = local.users.get(user.name)
    if account is None:
        return None
    return replace(user, creating=False, created_by_agent=True, uid=account.uid, home=account.home)


def _looks(system: System, leaving: Iterable[Leaving], local: LocalAccounts) -> Mapping[str, Look]:
    """Return what is in the homes of those whose account stays."""
    looks: dict[str, Look] = {}
    ask = []
    for entry in leaving:
        account = local.users.get(entry.user.name, entry.account)
        if account is None or entry.delete:
            continue
        look = look_at(system, account)
        if look.needs_user:
            ask.append(account)
        looks[account.name] = look
    looks.update(look_as_users(system, ask))
    return looks


def _is_gone(
    leaving: Leaving, local: LocalAccounts, looks: Mapping[str, Look], sudoers_group: str
) -> bool:
    """Return whether nothing is left to do for a user."""
    name = leaving.user.name
    if leaving.delete:
        return name not in local.users
    if local.is_listed(name, sudoers_group):
        return False
    look = looks.get(name)
    if look is None or look.is_home_missing:
        return True
    return not look.problem and look.keys.holds(())


def _parse_user(name: str, row: Mapping[str, Any]) -> ManagedUser:
    def flag(key: str) -> bool:
        return row.get(key) is True

    def number(key: str) -> Optional[int]:
        value = row.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    home = row.get("home")
    return ManagedUser(
        name,
        created_by_agent=flag("created_by_agent"),
        creating=flag("creating"),
        keys_written=flag("keys_written"),
        uid=number("uid"),
        home=home if isinstance(home, str) else "",
        file_created=flag("file_created"),
        unterminated=number("unterminated"),
    )


def _read_list(system: System) -> Optional[tuple[str, ...]]:
    try:
        text = system.files.read_text(USER_LIST, limit=_LIMIT)
    except OSError:
        # Unreadable for whoever looks (a plan without root's rights): as if there were none.
        return None
    if text is None:
        return None
    return tuple(name for line in text.splitlines() if is_user_name(name := line.strip()))


def _id_of(owner: object) -> Optional[int]:
    is_id = isinstance(owner, str) and owner.isascii() and owner.isdigit() and len(owner) <= 20
    return int(str(owner)) if is_id else None
