"""Cache files as the format says, written a second time: independent of the project's writer."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

HEADER = 192
MAGIC = b"GOSLIDC1"


class CachedUser(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str
    shell: str = "/bin/bash"
    gecos: str = ""
    gids: Sequence[int] = ()


class CachedGroup(NamedTuple):
    name: str
    gid: int
    members: Sequence[str] = ()


def user(name: str, uid: int, gids: Sequence[int] = ()) -> CachedUser:
    return CachedUser(name, uid, uid, f"/home/{name}", gids=gids)


class _Strings:
    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._known: dict[bytes, int] = {b"": 0}

    def add(self, text: str) -> tuple[int, int]:
        raw = text.encode()
        if raw not in self._known:
            self._known[raw] = len(self.data)
            self.data += raw + b"\0"
        return self._known[raw], len(raw)


def cache_file(
    users: Iterable[CachedUser],
    groups: Iterable[CachedGroup] = (),
    *,
    flags: int = 7,
    major: int = 1,
) -> bytes:
    """The bytes of a cache file; self-groups have to be among the groups."""
    strings = _Strings()
    users = sorted(users, key=lambda one: one.name.encode())
    groups = sorted(groups, key=lambda one: one.name.encode())
    gids = bytearray()
    user_records = bytearray()
    for one in users:
        texts = [strings.add(text) for text in (one.name, one.home, one.shell, one.gecos)]
        own = b"".join(struct.pack("<I", gid) for gid in one.gids)
        record = struct.pack("<6I", one.uid, one.gid, *(offset for offset, _ in texts))
        record += struct.pack("<4H", *(length for _, length in texts))
        record += struct.pack("<3I", len(gids) // 4, len(one.gids), int(one.uid == one.gid))
        covered = b"".join(
            text.encode() + b"\0" for text in (one.name, one.home, one.shell, one.gecos)
        )
        user_records += record + struct.pack("<I", zlib.crc32(record + covered + own))
        gids += own
    members = bytearray()
    group_records = bytearray()
    for group in groups:
        offset, length = strings.add(group.name)
        covered = b"".join(name.encode() + b"\0" for name in group.members)
        record = struct.pack("<IIHH", group.gid, offset, length, 0)
        record += struct.pack("<4I", len(members) // 8, len(group.members), len(covered), 0)
        whole = record + group.name.encode() + b"\0" + covered
        group_records += record + struct.pack("<I", zlib.crc32(whole))
        for name in group.members:
            members += struct.pack("<II", *strings.add(name))
    sections = (
        bytes(user_records),
        _index([one.uid for one in users]),
        bytes(group_records),
        _index([group.gid for group in groups]),
        bytes(members),
        bytes(gids),
        bytes(strings.data),
    )
    counts = (len(users), len(groups), len(members) // 8, len(gids) // 4)
    return _file(sections, counts, flags, major)


def _index(ids: Sequence[int]) -> bytes:
    order = sorted(range(len(ids)), key=lambda number: ids[number])
    return b"".join(struct.pack("<I", number) for number in order)


def _file(sections: Sequence[bytes], counts: Sequence[int], flags: int, major: int) -> bytes:
    body = b""
    places = []
    for section in sections:
        places.append((HEADER + len(body), len(section)))
        body += section + bytes(-len(section) % 8)
    header = MAGIC + struct.pack("<HHIQQqq", major, 0, HEADER, HEADER + len(body), 1, 1700000000, 0)
    header += struct.pack("<5I", flags, *counts) + struct.pack("<I", zlib.crc32(body))
    header += b"".join(struct.pack("<II", *place) for place in places) + bytes(60)
    return header + struct.pack("<I", zlib.crc32(header)) + body


def with_header_crc(data: bytes) -> bytes:
    """The file with a header checksum that fits."""
    return data[:188] + struct.pack("<I", zlib.crc32(data[:188])) + data[192:]


def self_groups(users: Iterable[CachedUser]) -> list[CachedGroup]:
    return [CachedGroup(one.name, one.gid, (one.name,)) for one in users if one.uid == one.gid]


def fields(*pairs: tuple[int, bytes]) -> bytes:
    """TLVs of the protocol."""
    return b"".join(struct.pack("<HH", tag, len(value)) + value for tag, value in pairs)


def number(value: int) -> bytes:
    return struct.pack("<I", value)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def user_payload(name: str = "alice", uid: int = 2000, **changed: bytes) -> bytes:
    values: Mapping[str, bytes] = {
        "name": text(name),
        "id": number(uid),
        "gid": number(uid),
        "gecos": text(""),
        "home": text(f"/home/{name}"),
        "shell": text("/bin/bash"),
        **changed,
    }
    tags = ("name", "id", "gid", "gecos", "home", "shell")
    return fields(*((tag, values[key]) for tag, key in enumerate(tags, 1)))


def group_payload(name: str, gid: int, members: Sequence[str]) -> bytes:
    return fields(
        (1, text(name)),
        (2, number(gid)),
        (7, number(len(members))),
        *((8, text(member)) for member in members),
    )
