"""Users and groups as the metadata server tells of them, and what of that is believed.

``parse_profile``, ``parse_user`` and ``parse_group`` take decoded JSON of any shape and return a
valid record or raise ``InvalidIdentity``; nothing else leaves them. What they let through can be
written into any database of accounts: no name breaks a line of passwd(5), no number is that of a
system account, and an answer is about the user that was asked for or it is refused.

The rules differ from the reference's where those were holes: numbers are never cut to 32 bits, a
primary group below 1000 (27 is ``sudo``) is never taken over, an account without a gid gets one,
and groups whose name alone gives root to their members are left out.

Source: guest-oslogin ``src/oslogin_utils.cc`` (shapes and defaults); CVE-2020-8903, -8907, -8933
(what a group may cost).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from google_guest.errors import GuestError
from google_guest.records import field, record
from google_guest.ssh_keys import KeyLine, parse_key_line

NAME = re.compile(r"[a-zA-Z0-9._][a-zA-Z0-9._-]{0,31}")
"""What a login name looks like; ``is_login_name`` also excludes two names of folders."""
GROUP_NAME = re.compile(r"[a-zA-Z0-9._][a-zA-Z0-9._-]{0,63}")

LOWEST_ID = 1000
HIGHEST_ID = 4294967294
"""The number after it is -1, which setuid(2) takes for "no change"."""
UID_RANGE = range(LOWEST_ID, HIGHEST_ID + 1)
GID_RANGE = UID_RANGE
RESERVED_UIDS = frozenset({65534, 65535})
"""``nobody``, and the -1 of programs that know 16 bits."""

DEFAULT_SHELL = "/bin/sh" if sys.platform.startswith("freebsd") else "/bin/bash"
LONGEST_FIELD = 255
"""Bytes of a home directory or shell."""

ROOT_EQUIVALENT_GROUPS = frozenset(
    {"adm", "admin", "disk", "docker", "google-sudoers", "kmem", "libvirt", "lxc", "lxd"}
    | {"root", "shadow", "sudo", "wheel"}
)
"""Groups that give root, or the way to it, by name: sudo, polkit and services look at names."""

_DIGITS = re.compile(r"[0-9]{1,10}")
_SIGNED = re.compile(r"-?[0-9]{1,20}")
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST_EMAIL = 512


class InvalidIdentity(GuestError):
    """What the metadata server says about a user or group cannot be true, or is not to be used."""


class User(NamedTuple):
    """An account. A tuple and no record: a refresh holds fifty thousand of them."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    gecos: str = ""


@record
class Group:
    """A group; ``members`` are login names."""

    name: str
    gid: int
    members: tuple[str, ...] = ()


@record
class Key:
    """An SSH key: one authorized_keys line, and when it ends (microseconds since 1970)."""

    line: str = field(repr=False)
    expires_usec: Optional[int] = None
    """None: never."""

    def is_expired(self, now_usec: int) -> bool:
        """Whether the key's life ended before ``now_usec``."""
        return self.expires_usec is not None and now_usec > self.expires_usec


@record
class Profile:
    """One login profile: the account, under which address policies know it, and its keys."""

    user: User
    email: str
    """Empty if the answer has none; nobody can be authorised without."""
    keys: tuple[Key, ...] = ()
    """All well-formed ones: whether one has expired is decided when it is used."""
    security_keys: tuple[str, ...] = ()


def is_login_name(text: str) -> bool:
    """Return whether ``text`` can be the name of an OS Login user."""
    return NAME.fullmatch(text) is not None and text not in (".", "..")


def is_group_name(text: str) -> bool:
    """Return whether ``text`` can be the name of an OS Login group."""
    return GROUP_NAME.fullmatch(text) is not None and text not in (".", "..")


def is_uid(number: int) -> bool:
    """Return whether ``number`` can be the uid of an OS Login user."""
    return number in UID_RANGE and number not in RESERVED_UIDS


def is_gid(number: int) -> bool:
    """Return whether ``number`` can be the gid of an OS Login user or group."""
    return number in GID_RANGE


def parse_profile(
    document: object,
    *,
    name: Optional[str] = None,
    uid: Optional[int] = None,
    cloud_run: bool = False,
) -> Profile:
    """Return the profile of an answer to a lookup of ``name`` or ``uid``.

    ``document`` is ``{"loginProfiles": [PROFILE]}``, or the profile itself. Raises
    ``InvalidIdentity``, also when the answer is about somebody else.
    """
    profile = document
    if isinstance(document, Mapping) and "loginProfiles" in document:
        profiles = document["loginProfiles"]
        if not isinstance(profiles, list) or not profiles:
            raise InvalidIdentity("the answer has no login profile")
        profile = profiles[0]
    user = parse_user(profile, cloud_run=cloud_run)
    if name is not None and user.name != name:
        raise InvalidIdentity(f"asked for user {name}, the answer is about {user.name}")
    if uid is not None and user.uid != uid and not cloud_run:
        raise InvalidIdentity(f"asked for uid {uid}, the answer is about {user.uid}")
    assert isinstance(profile, Mapping)
    return Profile(
        user=user,
        email=_email(profile.get("name")),
        keys=_keys(profile.get("sshPublicKeys")),
        security_keys=_security_keys(profile.get("securityKeys")),
    )


def parse_user(profile: object, *, cloud_run: bool = False) -> User:
    """Return the account of one login profile; raise ``InvalidIdentity``.

    ``cloud_run``: every user is root there, with ``/`` as home.
    """
    account = _account(profile)
    name = account.get("username")
    if not isinstance(name, str) or not is_login_name(name):
        raise InvalidIdentity("an account has no name that could be a login name")
    home = _path(account, "homeDirectory", f"/home/{name}", name)
    # One text for all that have the same shell: a refresh holds everybody.
    shell = sys.intern(_path(account, "shell", DEFAULT_SHELL, name))
    if cloud_run:
        return User(name, 0, 0, "/", shell)
    uid = _number(account.get("uid"))
    if uid is None or not is_uid(uid):
        raise InvalidIdentity(f"user {name} has no usable uid")
    gid = _number(account.get("gid"))
    if gid is None or not is_gid(gid):
        gid = uid
    return User(name, uid, gid, home, shell)


def parse_group(entry: object, *, name: Optional[str] = None, gid: Optional[int] = None) -> Group:
    """Return the group of one entry of ``posixGroups``, without members.

    Raises ``InvalidIdentity``, also when it is not the group of this ``name`` or ``gid``.
    """
    if not isinstance(entry, Mapping):
        raise InvalidIdentity("a group is no object")
    found = entry.get("name")
    if not isinstance(found, str) or not is_group_name(found):
        raise InvalidIdentity("a group has no name that could be one")
    number = _number(entry.get("gid"))
    if number is None or not is_gid(number):
        raise InvalidIdentity(f"group {found} has no usable gid")
    if found in ROOT_EQUIVALENT_GROUPS:
        raise InvalidIdentity(f"group {found} is left out: its name gives its members root")
    if name is not None and found != name:
        raise InvalidIdentity(f"asked for group {name}, the answer is about {found}")
    if gid is not None and number != gid:
        raise InvalidIdentity(f"asked for gid {gid}, the answer is about {number}")
    return Group(found, number)


def self_group(user: User) -> Optional[Group]:
    """Return the group that a user has for itself, if its gid says so."""
    return Group(user.name, user.gid, (user.name,)) if user.gid == user.uid else None


def _account(profile: object) -> Mapping[str, object]:
    """Return the primary account, or the first."""
    accounts = profile.get("posixAccounts") if isinstance(profile, Mapping) else None
    if not isinstance(accounts, list) or not accounts:
        raise InvalidIdentity("a login profile has no account")
    for account in accounts:
        if isinstance(account, Mapping) and account.get("primary") is True:
            return account
    if not isinstance(accounts[0], Mapping):
        raise InvalidIdentity("an account is no object")
    return accounts[0]


def _number(value: object) -> Optional[int]:
    """Return a number or decimal string as it is, or None; 1337.0 and true are none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    return None


def _path(account: Mapping[str, object], key: str, default: str, name: str) -> str:
    if key not in account:
        return default
    value = account[key]
    if not isinstance(value, str):
        raise InvalidIdentity(f"user {name}: {key} is no text")
    size = _size(value)
    usable = value.startswith("/") and ":" not in value and not _CONTROL.search(value)
    return value if usable and size is not None and size <= LONGEST_FIELD else default


def _size(text: str) -> Optional[int]:
    """Return the bytes of ``text``; None if it holds halves of characters."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def _email(value: object) -> str:
    if not isinstance(value, str) or _CONTROL.search(value):
        return ""
    size = _size(value)
    return value if size is not None and size <= _LONGEST_EMAIL else ""


def _is_key(line: object) -> bool:
    # The parser wants the user of a metadata line in front.
    return isinstance(line, str) and isinstance(parse_key_line(f"user:{line}"), KeyLine)


def _keys(value: object) -> tuple[Key, ...]:
    if not isinstance(value, Mapping):
        return ()
    found = []
    for entry in value.values():
        line = entry.get("key") if isinstance(entry, Mapping) else None
        if isinstance(line, str) and _is_key(line):
            found.append(Key(line.strip(), _expiry(entry)))
    return tuple(found)


def _expiry(entry: Mapping[str, object]) -> Optional[int]:
    """Return when a key ends; whatever is no number has ended in 1970."""
    if "expirationTimeUsec" not in entry:
        return None
    value = entry["expirationTimeUsec"]
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and abs(value) < 2.0**63:
        return int(value)
    if isinstance(value, str) and _SIGNED.fullmatch(value):
        return int(value)
    return 0


def _security_keys(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    found = []
    for entry in value:
        line = entry.get("publicKey") if isinstance(entry, Mapping) else None
        if not isinstance(line, str):
            # A broken element ends the list, as in the reference: what follows is not trusted.
            break
        if _is_key(line):
            found.append(line.strip())
    return tuple(found)
