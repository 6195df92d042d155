"""The identity cache: all OS Login users and groups in one file that C can look names up in.

``build`` makes the bytes, ``publish`` puts them in place of the file before, ``Reader`` reads them.
The NSS object (nss/identity_cache.c) reads the same file in every process of the machine, without
the daemon; the file is therefore replaced and never written in place.

All integers are little-endian. A header of 192 bytes names seven sections, each aligned to 8 bytes:
users and groups (records sorted by the bytes of their names), for each of them an index sorted by
id, members of groups, gid lists of users, and strings, of which the first byte is NUL. A checksum
(CRC-32 as zlib has it) ends the header, another one in the header covers everything after it, and
each record has one over itself and its strings, gids or members, so that a lookup need not read the
whole file to know that its answer is whole.

A user whose gid is its uid has a group of its own; where no real group has this name or number, it
is stored as an ordinary group, marked by a flag. The format is this project's own.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Optional, Protocol

from oslogin.identities import is_gid, is_group_name, is_login_name, is_uid
from oslogin.identity_reader import (
    CLOUD_RUN,
    FILE_LIMIT,
    GID_LISTS,
    GROUP_MEMBERS_LIMIT,
    GROUP_ROW,
    GROUPS,
    GROUPS_COMPLETE,
    GROUPS_IN_USE,
    GROUPS_LIMIT,
    HEADER,
    HEADER_CHECKED,
    HEADER_SIZE,
    MAGIC,
    MAJOR,
    MEMBER_ROW,
    MEMBERS,
    MEMBERS_LIMIT,
    NUMBER,
    SELF_GROUP,
    SIZES,
    TEXT_LIMIT,
    USER_GIDS_LIMIT,
    USER_ROW,
    USERS,
    USERS_COMPLETE,
    USERS_LIMIT,
    CachedGroup,
    CachedUser,
    CacheError,
    Reader,
    encoded,
)

__all__ = [
    "CLOUD_RUN",
    "GROUPS_COMPLETE",
    "GROUPS_IN_USE",
    "USERS_COMPLETE",
    "CacheError",
    "CachedGroup",
    "CachedUser",
    "Reader",
    "build",
    "delete",
    "next_generation",
    "publish",
]

# What a rewrite changes even though nothing has: generation and time, and the checksum over them.
_VOLATILE = slice(24, 40)


class UserLike(Protocol):
    """What ``build`` takes for a user."""

    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def home(self) -> str: ...
    @property
    def shell(self) -> str: ...
    @property
    def gecos(self) -> str: ...


class GroupLike(Protocol):
    """What ``build`` takes for a group."""

    @property
    def name(self) -> str: ...
    @property
    def gid(self) -> int: ...
    @property
    def members(self) -> Sequence[str]: ...


def _ignore(_: str) -> None:
    """Take no note."""


class _Builder:
    """The sections while they grow."""

    def __init__(self, note: Callable[[str], None], any_id: bool) -> None:
        self.note = note
        self.any_id = any_id
        self.users = bytearray()
        self.groups = bytearray()
        self.members = bytearray()
        self.gid_lists = bytearray()
        self.strings = bytearray(1)
        self._known: dict[bytes, int] = {b"": 0}

    def string(self, text: bytes, *, shared: bool = True) -> int:
        """Return the offset of a string among the strings; ``shared`` ones are there once."""
        place = self._known.get(text) if shared else None
        if place is None:
            place = len(self.strings)
            self.strings += text
            self.strings.append(0)
            if shared:
                self._known[text] = place
        return place

    def add_user(self, user: UserLike, gids: Sequence[int], flags: int) -> None:
        texts = [encoded(text) for text in (user.name, user.home, user.shell, user.gecos)]
        gid_bytes = struct.pack(f"<{len(gids)}I", *gids)
        record = USER_ROW.pack(
            user.uid,
            user.gid,
            self.string(texts[0]),
            # Hardly two users have one home directory: remembering them costs megabytes.
            self.string(texts[1], shared=len(texts[1]) < 2),
            self.string(texts[2]),
            self.string(texts[3]),
            *map(len, texts),
            len(self.gid_lists) // 4,
            len(gids),
            flags,
            0,
        )[:-4]
        texts.append(gid_bytes)
        self.users += record
        self.users += NUMBER.pack(zlib.crc32(b"\0".join(texts), zlib.crc32(record)))
        self.gid_lists += gid_bytes

    def add_group(self, name: str, gid: int, members: Sequence[str], flags: int) -> None:
        own_name = name.encode("ascii")
        names = [member.encode("ascii") for member in members]
        place = self.string(own_name)
        first = len(self.members) // MEMBER_ROW.size
        for member in names:
            self.members += MEMBER_ROW.pack(self.string(member), len(member))
        total = sum(map(len, names)) + len(names)
        record = GROUP_ROW.pack(gid, place, len(own_name), flags, first, len(names), total, 0, 0)[
            :-4
        ]
        checked = b"\0".join([own_name, *names, b""])
        self.groups += record
        self.groups += NUMBER.pack(zlib.crc32(checked, zlib.crc32(record)))


def build(
    users: Iterable[UserLike],
    groups: Iterable[GroupLike],
    gids_of: Optional[Mapping[str, Sequence[int]]] = None,
    *,
    generation: int,
    built_at: int,
    flags: int = 0,
    note: Callable[[str], None] = _ignore,
) -> bytes:
    """Return the file of these users and groups.

    ``gids_of`` names the further groups of users; without it they follow from the members of
    ``groups``. ``built_at`` is in seconds since 1970. Of several users with one name or uid, and
    groups with one name or gid, the first is taken; what is left out or cut is told to ``note``,
    one line each. Raises ``CacheError`` when the file would exceed a limit.
    """
    any_id = bool(flags & CLOUD_RUN)
    kept = sorted(_distinct_users(users, any_id, note), key=attrgetter("name"))
    real = _distinct_groups(groups, note)
    if len(kept) > USERS_LIMIT or len(real) > GROUPS_LIMIT:
        raise CacheError(f"{len(kept)} users and {len(real)} groups are too many for the cache")
    if gids_of is None:
        gids_of = _memberships(real)
    names, gids = {group[0] for group in real}, {group[1] for group in real}
    builder = _Builder(note, any_id)
    rows: list[tuple[str, int, Optional[tuple[str, ...]]]] = list(real)
    for user in kept:
        own = (
            not any_id and user.gid == user.uid and user.name not in names and user.gid not in gids
        )
        if own:
            rows.append((user.name, user.gid, None))
        builder.add_user(user, _usable_gids(user.name, gids_of, note), SELF_GROUP if own else 0)
    rows.sort(key=itemgetter(0))
    for name, gid, members in rows:
        own = members is None
        builder.add_group(name, gid, members or ((name,) if own else ()), own)
    if len(builder.members) // MEMBER_ROW.size > MEMBERS_LIMIT:
        raise CacheError("the groups have too many members for the cache")
    uid_index = _index(array("I", (user.uid for user in kept)))
    gid_index = _index(array("I", (row[1] for row in rows)))
    del rows, kept
    return _assemble(builder, (uid_index, gid_index), generation, built_at, flags)


def _assemble(
    builder: _Builder, indexes: tuple[bytes, bytes], generation: int, built_at: int, flags: int
) -> bytes:
    sections = (
        builder.users,
        indexes[0],
        builder.groups,
        indexes[1],
        builder.members,
        builder.gid_lists,
        builder.strings,
    )
    data = bytearray(HEADER_SIZE)
    table: list[int] = []
    for section in sections:
        table += (len(data), len(section))
        data += section
        data += bytes(-len(data) % 8)
    if len(data) > FILE_LIMIT:
        raise CacheError(f"the cache would have {len(data)} bytes, which is too much")
    counts = [len(sections[i]) // SIZES[i] for i in (USERS, GROUPS, MEMBERS, GID_LISTS)]
    body = zlib.crc32(memoryview(data)[HEADER_SIZE:])
    HEADER.pack_into(
        data,
        0,
        *(MAGIC, MAJOR, 0, HEADER_SIZE, len(data), generation, built_at, 0, flags),
        *(*counts, body, *table, b"", 0),
    )
    NUMBER.pack_into(data, HEADER_CHECKED, zlib.crc32(memoryview(data)[:HEADER_CHECKED]))
    return bytes(data)


def _index(ids: array[int]) -> bytes:
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return struct.pack(f"<{len(order)}I", *order)


def _is_text(text: str) -> bool:
    try:
        data = encoded(text)
    except UnicodeEncodeError:
        return False
    return len(data) <= TEXT_LIMIT and not any(mark in data for mark in (b"\0", b":", b"\n"))


def _distinct_users(
    users: Iterable[UserLike], any_id: bool, note: Callable[[str], None]
) -> Iterator[UserLike]:
    names: set[str] = set()
    uids: set[int] = set()
    for user in users:
        name, uid, gid = user.name, user.uid, user.gid
        if not is_login_name(name) or not all(map(_is_text, (user.home, user.shell, user.gecos))):
            note(f"user {name!r} is left out of the cache: a field cannot be one")
        elif not (is_uid(uid) and is_gid(gid)) and not (
            any_id and 0 <= uid <= 0xFFFFFFFF and 0 <= gid <= 0xFFFFFFFF
        ):
            note(f"user {name} is left out of the cache: uid {uid} or gid {gid} is out of range")
        elif name in names:
            note(f"user {name} is left out of the cache: the name was there before")
        elif uid in uids and not any_id:
            note(f"user {name} is left out of the cache: another user has uid {uid}")
        else:
            names.add(name)
            uids.add(uid)
            yield user


def _distinct_groups(
    groups: Iterable[GroupLike], note: Callable[[str], None]
) -> list[tuple[str, int, Optional[tuple[str, ...]]]]:
    found: list[tuple[str, int, Optional[tuple[str, ...]]]] = []
    names: set[str] = set()
    gids: set[int] = set()
    for group in groups:
        name, gid = group.name, group.gid
        if not is_group_name(name) or not is_gid(gid):
            note(f"group {name!r} is left out of the cache: name or gid {gid} cannot be one")
        elif name in names or gid in gids:
            note(f"group {name} is left out of the cache: name or gid {gid} was there before")
        else:
            names.add(name)
            gids.add(gid)
            members = tuple(filter(is_login_name, dict.fromkeys(group.members)))
            if len(members) > GROUP_MEMBERS_LIMIT:
                note(f"group {name} has {len(members)} members: {GROUP_MEMBERS_LIMIT} are cached")
            found.append((name, gid, members[:GROUP_MEMBERS_LIMIT]))
    return found


def _memberships(
    groups: Iterable[tuple[str, int, Optional[tuple[str, ...]]]],
) -> Mapping[str, Sequence[int]]:
    found: dict[str, list[int]] = {}
    for _, gid, members in groups:
        for member in members or ():
            found.setdefault(member, []).append(gid)
    return found


def _usable_gids(
    name: str, gids_of: Mapping[str, Sequence[int]], note: Callable[[str], None]
) -> Sequence[int]:
    given = gids_of.get(name, ())
    if not given:
        return ()
    gids = [gid for gid in dict.fromkeys(given) if is_gid(gid)]
    if len(gids) > USER_GIDS_LIMIT:
        note(f"user {name} is in {len(gids)} groups: {USER_GIDS_LIMIT} are cached")
    return gids[:USER_GIDS_LIMIT]


def publish(path: str, data: bytes) -> bool:
    """Make ``data`` the file at ``path``; return False when only its time would have changed.

    The file is written beside the one before, synced, given to root with mode 0644, renamed and
    read again. On any failure the file before stays; raises ``CacheError``.
    """
    Reader(data).verify()
    if _is_unchanged(path, data):
        return False
    folder = os.path.dirname(path) or "."
    temporary = os.path.join(folder, f".tmp-{os.getpid()}")
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        _remove_leftovers(folder)
        try:
            _write(temporary, data)
            with open(temporary, "rb") as stream:
                if stream.read() != data:
                    raise CacheError(f"{temporary} reads otherwise than it was written")
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        _sync_folder(folder)
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error.strerror or error}") from error
    # Equal to what was verified above, so every checksum agrees.
    if Reader(path, owner=os.geteuid()).data != data:
        raise CacheError(f"{path} reads otherwise than it was written")
    return True


def delete(path: str) -> bool:
    """Remove the file, as when OS Login is off; return whether there was one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CacheError(f"cannot remove {path}: {error.strerror or error}") from error
    _sync_folder(os.path.dirname(path) or ".")
    return True


def next_generation(path: str) -> int:
    """Return a generation above that of the file at ``path``: 1 when there is no usable one."""
    try:
        with open(path, "rb") as stream:
            return int(Reader(stream.read(FILE_LIMIT)).generation) + 1
    except (OSError, CacheError):
        return 1


def _is_unchanged(path: str, data: bytes) -> bool:
    try:
        old = Reader(path, owner=os.geteuid()).data
    except CacheError:
        return False
    return _lasting(old) == _lasting(data)


def _lasting(data: bytes) -> tuple[bytes, bytes, bytes]:
    return (
        data[: _VOLATILE.start],
        data[_VOLATILE.stop : HEADER_CHECKED],
        data[HEADER_SIZE:],
    )


def _write(path: str, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)
        os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o644)


def _remove_leftovers(folder: str) -> None:
    """Remove what writers that were killed have left."""
    for name in os.listdir(folder):
        number = name[len(".tmp-") :]
        if name.startswith(".tmp-") and number.isdecimal():
            try:
                os.kill(int(number), 0)
            except (ProcessLookupError, OverflowError):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, name))
            except PermissionError:
                continue


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
