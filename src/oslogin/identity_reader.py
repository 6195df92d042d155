"""How the identity cache is laid out, and its reader; see identity_cache.py, which writes it."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Optional, Union

from google_guest.errors import GuestError
from oslogin.identities import is_gid, is_group_name, is_login_name, is_uid

MAGIC = b"GOSLIDC1"
MAJOR = 1
HEADER_SIZE = 192

USERS_COMPLETE, GROUPS_COMPLETE, GROUPS_IN_USE, CLOUD_RUN = 1, 2, 4, 8
SELF_GROUP = 1
"""Flag of a group that a user has for itself, and of that user."""

FILE_LIMIT = 64 << 20
USERS_LIMIT = 262144
GROUPS_LIMIT = 65536
"""Real groups; those of single users come on top."""
MEMBERS_LIMIT = 4194304
GROUP_MEMBERS_LIMIT = 65535
USER_GIDS_LIMIT = 1024
TEXT_LIMIT = 255
"""Bytes of a home directory, a shell or a gecos field."""

HEADER = struct.Struct("<8sHHIQQqqIIIIII14I60sI")
USER_ROW = struct.Struct("<6I4H4I")
GROUP_ROW = struct.Struct("<IIHHIIIII")
MEMBER_ROW = struct.Struct("<II")
NUMBER = struct.Struct("<I")
SIZES = (USER_ROW.size, 4, GROUP_ROW.size, 4, MEMBER_ROW.size, 4, 1)
HEADER_CHECKED = 188
USERS, UIDS, GROUPS, GIDS, MEMBERS, GID_LISTS, STRINGS = range(7)


class CacheError(GuestError):
    """The identity cache is missing, damaged or not to be trusted, or cannot be written."""


class CachedUser(NamedTuple):
    """A user of the file."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    gecos: str = ""


class CachedGroup(NamedTuple):
    """A group of the file."""

    name: str
    gid: int
    members: tuple[str, ...] = ()


def encoded(text: str) -> bytes:
    """Return the bytes of a string, also of one that was not UTF-8."""
    return text.encode("utf-8", "surrogateescape")


class Reader:
    """A cache file, from its path or its bytes.

    The header is checked at once, a record when a lookup meets it, everything by ``verify``. All
    methods raise ``CacheError`` for what is damaged and nothing else; none returns a wrong record.
    A file must belong to ``owner`` and be writable for nobody else.
    """

    def __init__(self, source: Union[str, bytes], *, owner: int = 0) -> None:
        self.data = source if isinstance(source, bytes) else _contents(source, owner)
        """The bytes of the file."""
        if not HEADER_SIZE <= len(self.data) <= FILE_LIMIT:
            raise CacheError("the identity cache has a size that cannot be")
        fields = HEADER.unpack_from(self.data)
        (self._crc,) = fields[-1:]
        if self._crc != zlib.crc32(self.data[:HEADER_CHECKED]):
            raise CacheError("the header of the identity cache is damaged")
        magic, major, _, header, size, self.generation, self.built_at = fields[:7]
        if magic != MAGIC or major != MAJOR or header != HEADER_SIZE or size != len(self.data):
            raise CacheError("this is no identity cache of a known version")
        self.flags: int = fields[8]
        self._counts = fields[9:13]
        self._body_crc: int = fields[13]
        table = fields[14:28]
        self._offsets, self._bytes = table[::2], table[1::2]
        self._check_sections()

    @property
    def user_count(self) -> int:
        """Number of users."""
        return int(self._counts[0])

    @property
    def group_count(self) -> int:
        """Number of groups, those of single users included."""
        return int(self._counts[1])

    def user_by_name(self, name: str) -> Optional[CachedUser]:
        """Return the user of this name."""
        place = self._search(self.user_count, _escaped(name), self._user_name)
        found = None if place is None else self._user(place)[0]
        return found if found is None or found.name == name else None

    def user_by_uid(self, uid: int) -> Optional[CachedUser]:
        """Return the user of this uid."""
        place = self._search(self.user_count, uid, lambda row: self._id(UIDS, USERS, row))
        found = None if place is None else self._user(self._entry(UIDS, place))[0]
        return found if found is None or found.uid == uid else None

    def group_by_name(self, name: str) -> Optional[CachedGroup]:
        """Return the group of this name."""
        place = self._search(self.group_count, _escaped(name), self._group_name)
        found = None if place is None else self._group(place)
        return found if found is None or found.name == name else None

    def group_by_gid(self, gid: int) -> Optional[CachedGroup]:
        """Return the group of this gid."""
        place = self._search(self.group_count, gid, lambda row: self._id(GIDS, GROUPS, row))
        found = None if place is None else self._group(self._entry(GIDS, place))
        return found if found is None or found.gid == gid else None

    def gids_of(self, name: str) -> Optional[tuple[int, ...]]:
        """Return the further groups of a user; None when there is no such user."""
        place = self._search(self.user_count, _escaped(name), self._user_name)
        return None if place is None else self._user(place)[1]

    def users(self) -> Iterator[CachedUser]:
        """Yield all users, by name."""
        for place in range(self.user_count):
            yield self._user(place)[0]

    def groups(self) -> Iterator[CachedGroup]:
        """Yield all groups, by name."""
        for place in range(self.group_count):
            yield self._group(place)

    def verify(self) -> None:
        """Check every byte of the file; raise ``CacheError`` for the first that cannot be."""
        if zlib.crc32(memoryview(self.data)[HEADER_SIZE:]) != self._body_crc:
            raise CacheError("the identity cache is damaged")
        end = HEADER_SIZE
        for offset, size in sorted(zip(self._offsets, self._bytes)):
            if offset < end:
                raise CacheError("sections of the identity cache overlap")
            end = offset + size
        self._verify_order(self.users(), lambda row: self._id(UIDS, USERS, row), UIDS)
        self._verify_order(self.groups(), lambda row: self._id(GIDS, GROUPS, row), GIDS)

    def _verify_order(
        self,
        rows: Iterator[Union[CachedUser, CachedGroup]],
        id_of: Callable[[int], int],
        index: int,
    ) -> None:
        last, count = "", 0
        for row in rows:
            if row.name <= last:
                raise CacheError("names of the identity cache are not in order")
            last = row.name
            count += 1
        entries = {self._entry(index, place) for place in range(count)}
        if len(entries) != count:
            raise CacheError("an index of the identity cache names a record twice")
        ids = [id_of(place) for place in range(count)]
        shared = bool(self.flags & CLOUD_RUN)
        if any(a > b or (a == b and not shared) for a, b in zip(ids, ids[1:])):
            raise CacheError("numbers of the identity cache are not in order")

    def _check_sections(self) -> None:
        users, groups, members, gids = self._counts
        if users > USERS_LIMIT or groups > GROUPS_LIMIT + users or members > MEMBERS_LIMIT:
            raise CacheError("the identity cache has more records than it may")
        counts = (users, users, groups, groups, members, gids, self._bytes[STRINGS])
        for offset, size, count, unit in zip(self._offsets, self._bytes, counts, SIZES):
            if offset < HEADER_SIZE or offset % 8 or size != count * unit:
                raise CacheError("a section of the identity cache has no valid place")
            if offset + size > len(self.data):
                raise CacheError("a section of the identity cache is outside the file")

    def _search(
        self,
        count: int,
        key: Union[int, bytes],
        key_of: Callable[[int], Union[int, bytes]],
    ) -> Optional[int]:
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            found = key_of(middle)
            if found == key:
                return middle
            if found < key:  # type: ignore[operator]
                low = middle + 1
            else:
                high = middle
        return None

    def _row(self, section: int, place: int, layout: struct.Struct) -> tuple[int, ...]:
        start = place * layout.size
        if not 0 <= start <= self._bytes[section] - layout.size:
            raise CacheError("the identity cache names a record that it does not have")
        return layout.unpack_from(self.data, self._offsets[section] + start)

    def _entry(self, index: int, place: int) -> int:
        entry: int = self._row(index, place, NUMBER)[0]
        return entry

    def _id(self, index: int, records: int, place: int) -> int:
        layout = USER_ROW if records == USERS else GROUP_ROW
        return self._row(records, self._entry(index, place), layout)[0]

    def _user_name(self, place: int) -> bytes:
        row = self._row(USERS, place, USER_ROW)
        return self._string(row[2], row[6])

    def _group_name(self, place: int) -> bytes:
        row = self._row(GROUPS, place, GROUP_ROW)
        return self._string(row[1], row[2])

    def _string(self, offset: int, length: int) -> bytes:
        start = self._offsets[STRINGS] + offset
        if offset + length >= self._bytes[STRINGS] or self.data.find(
            0, start, start + length + 1
        ) != (start + length):
            raise CacheError("a string of the identity cache has no valid place")
        return self.data[start : start + length]

    def _user(self, place: int) -> tuple[CachedUser, tuple[int, ...]]:
        row = self._row(USERS, place, USER_ROW)
        uid, gid, first, count = row[0], row[1], row[10], row[11]
        texts = [self._string(row[2 + i], row[6 + i]) for i in range(4)]
        if max(row[7:10]) > TEXT_LIMIT or count > USER_GIDS_LIMIT:
            raise CacheError("a user of the identity cache exceeds a limit")
        gids = self._slice(GID_LISTS, first, count)
        self._check_crc(USERS, place, USER_ROW, b"\0".join([*texts, gids]), row[13])
        name, home, shell, gecos = (text.decode("utf-8", "surrogateescape") for text in texts)
        if not is_login_name(name):
            raise CacheError("a user of the identity cache has a name that cannot be one")
        if not self.flags & CLOUD_RUN and not (is_uid(uid) and is_gid(gid)):
            raise CacheError("a user of the identity cache has a number that cannot be one")
        user = CachedUser(name, uid, gid, home, shell, gecos)
        return user, struct.unpack(f"<{count}I", gids)

    def _group(self, place: int) -> CachedGroup:
        row = self._row(GROUPS, place, GROUP_ROW)
        gid, first, count, total = row[0], row[4], row[5], row[6]
        name = self._string(row[1], row[2])
        if count > GROUP_MEMBERS_LIMIT:
            raise CacheError("a group of the identity cache exceeds a limit")
        pairs = MEMBER_ROW.iter_unpack(self._slice(MEMBERS, first, count))
        members = [self._string(offset, length) for offset, length in pairs]
        self._check_crc(GROUPS, place, GROUP_ROW, b"\0".join([name, *members, b""]), row[8])
        if total != sum(map(len, members)) + len(members):
            raise CacheError("a group of the identity cache has another size than it says")
        decoded = name.decode("utf-8", "surrogateescape")
        if not is_group_name(decoded) or not is_gid(gid):
            raise CacheError("a group of the identity cache has a name or number that cannot be")
        return CachedGroup(
            decoded, gid, tuple(member.decode("utf-8", "surrogateescape") for member in members)
        )

    def _slice(self, section: int, first: int, count: int) -> bytes:
        unit = SIZES[section]
        if (first + count) * unit > self._bytes[section]:
            raise CacheError("the identity cache names a list that it does not have")
        start = self._offsets[section] + first * unit
        return self.data[start : start + count * unit]

    def _check_crc(
        self, section: int, place: int, layout: struct.Struct, texts: bytes, expected: int
    ) -> None:
        start = self._offsets[section] + place * layout.size
        record = self.data[start : start + layout.size - 4]
        if zlib.crc32(texts, zlib.crc32(record)) != expected:
            raise CacheError("a record of the identity cache is damaged")


def _escaped(name: str) -> bytes:
    try:
        return encoded(name)
    except UnicodeEncodeError:
        return b"\0"


def _contents(path: str, owner: int) -> bytes:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise CacheError(f"cannot read {path}: {error.strerror or error}") from error
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != owner or status.st_mode & 0o022:
            raise CacheError(f"{path} is no file that only its owner, uid {owner}, can write")
        if status.st_size > FILE_LIMIT:
            raise CacheError(f"{path} has a size that cannot be")
        return stream.read(FILE_LIMIT + 1)
