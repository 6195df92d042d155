"""The identity cache: what is written is read, and damage is found and answers nothing wrong."""

from __future__ import annotations

import os
import struct
import threading
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oslogin import identity_cache
from oslogin.identities import Group, User
from oslogin.identity_cache import CLOUD_RUN, CacheError, Reader, build, publish


def user(name: str, uid: int, gid: int = 0) -> User:
    return User(name, uid, gid or uid, f"/home/{name}", "/bin/bash")


USERS = (user("bob", 2002), user("alice", 2001), user("carol", 2003, 3000))
GROUPS = (Group("staff", 3000, ("alice", "carol")), Group("ops", 3001, ("bob", "alice")))


def made(
    users: tuple[User, ...] = USERS, groups: tuple[Group, ...] = GROUPS, **options: int
) -> bytes:
    return build(users, groups, **{"generation": 1, "built_at": 1_700_000_000, **options})


def test_users_are_found_by_name_and_number() -> None:
    reader = Reader(made())
    assert reader.user_by_name("alice") == USERS[1]
    assert reader.user_by_uid(2003) == USERS[2]
    assert reader.user_by_name("alic") is None
    assert reader.user_by_uid(2004) is None


def test_groups_are_found_with_their_members_in_order() -> None:
    reader = Reader(made())
    assert reader.group_by_gid(3001) == ("ops", 3001, ("bob", "alice"))
    assert reader.group_by_name("staff") == ("staff", 3000, ("alice", "carol"))


def test_further_groups_follow_from_the_members() -> None:
    assert Reader(made()).gids_of("alice") == (3000, 3001)


def test_further_groups_can_be_given() -> None:
    data = build(USERS, GROUPS, {"bob": (3000, 3000, 27)}, generation=1, built_at=1)
    assert Reader(data).gids_of("bob") == (3000,)


def test_user_has_a_group_of_its_own() -> None:
    assert Reader(made()).group_by_gid(2001) == ("alice", 2001, ("alice",))


def test_real_group_of_the_number_comes_before_the_users_own() -> None:
    reader = Reader(made(groups=(Group("team", 2001, ()),)))
    assert reader.group_by_gid(2001) == ("team", 2001, ())
    assert reader.group_by_name("alice") is None


def test_real_group_of_the_name_comes_before_the_users_own() -> None:
    reader = Reader(made(groups=(Group("alice", 5000, ()),)))
    assert reader.group_by_name("alice") == ("alice", 5000, ())
    assert reader.group_by_gid(2001) is None


def test_user_with_another_primary_group_has_none_of_its_own() -> None:
    assert Reader(made()).group_by_name("carol") is None


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(user("alice", 2999), id="name"),
        pytest.param(user("dave", 2001), id="uid"),
        pytest.param(user("a:b", 2999), id="colon"),
        pytest.param(user("dave", 999), id="low uid"),
        pytest.param(user("dave", 2999, 27), id="low gid"),
        pytest.param(User("dave", 2999, 2999, "/home/x\ny", "/bin/sh"), id="line feed"),
        pytest.param(User("dave", 2999, 2999, "/" + "h" * 255, "/bin/sh"), id="long home"),
    ],
)
def test_duplicate_or_impossible_user_is_left_out_with_a_note(extra: User) -> None:
    notes: list[str] = []
    data = build((*USERS, extra), GROUPS, generation=1, built_at=1, note=notes.append)
    assert list(Reader(data).users()) == sorted(USERS)
    assert len(notes) == 1


def test_duplicate_group_is_left_out_with_a_note() -> None:
    notes: list[str] = []
    groups = (*GROUPS, Group("other", 3000, ()), Group("staff", 3002, ()))
    data = build(USERS, groups, generation=1, built_at=1, note=notes.append)
    assert Reader(data).group_by_gid(3000) == ("staff", 3000, ("alice", "carol"))
    assert len(notes) == 2


def test_cloud_run_users_are_all_root() -> None:
    users = tuple(User(name, 0, 0, "/", "/bin/sh") for name in ("b", "a"))
    reader = Reader(made(users, (), flags=CLOUD_RUN))
    reader.verify()
    assert [entry.name for entry in reader.users()] == ["a", "b"]
    assert reader.group_by_gid(0) is None


def test_members_beyond_what_a_group_can_have_are_cut_with_a_note() -> None:
    notes: list[str] = []
    group = Group("big", 3000, tuple(f"u{i}" for i in range(65536)))
    data = build((), (group,), generation=1, built_at=1, note=notes.append)
    found = Reader(data).group_by_gid(3000)
    assert found is not None
    assert len(found.members) == 65535
    assert len(notes) == 1


def test_layout_is_the_one_that_c_reads() -> None:
    data = made((user("al", 1000),), ())
    assert data[:8] == b"GOSLIDC1"
    assert struct.unpack_from("<HHIQQq", data, 8) == (1, 0, 192, len(data), 1, 1_700_000_000)
    users_at = struct.unpack_from("<I", data, 72)[0]
    assert users_at == 192
    row = struct.unpack_from("<6I4H4I", data, users_at)
    assert row[:2] == (1000, 1000)
    assert row[6:10] == (2, 8, 9, 0)
    texts = b"al\0/home/al\0/bin/bash\0\0"
    assert row[13] == zlib.crc32(data[192:236] + texts)
    assert struct.unpack_from("<I", data, 188)[0] == zlib.crc32(data[:188])
    assert struct.unpack_from("<I", data, 68)[0] == zlib.crc32(data[192:])


def test_empty_cache_answers_nobody() -> None:
    reader = Reader(made((), ()))
    reader.verify()
    assert reader.user_by_name("alice") is None
    assert reader.group_by_gid(3000) is None


def test_prefixes_are_names_of_their_own() -> None:
    names = ("a", "b", "bar", "bart", "baz", "foo")
    reader = Reader(made(tuple(user(name, 2000 + i) for i, name in enumerate(names)), ()))
    assert all(reader.user_by_name(name) for name in names)
    assert not any(map(reader.user_by_name, ("ba", "bartender", "fo", "foobar")))


def test_2001_users_in_any_order_are_all_found() -> None:
    users = tuple(user(f"user{i * 7919 % 2001}", 10000 + i) for i in range(2001))
    reader = Reader(made(users, ()))
    assert reader.user_count == 2001
    assert all(reader.user_by_name(u.name) == u == reader.user_by_uid(u.uid) for u in users)


def test_memory_for_building_allows_for_50000_users() -> None:
    count = 5000
    users = [user(f"user_{i}_example_com", 10000 + i) for i in range(count)]
    tracemalloc.start()
    try:
        build(users, (), generation=1, built_at=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / count < (60 << 20) / 50000


# Damage

SAMPLE = made()


def _lookups(reader: Reader) -> list[object]:
    asked = (
        [lambda name=name: reader.user_by_name(name) for name in ("alice", "bob", "carol", "eve")]
        + [lambda uid=uid: reader.user_by_uid(uid) for uid in (2001, 2002, 2003, 2004)]
        + [lambda name=name: reader.group_by_name(name) for name in ("staff", "ops", "alice")]
        + [lambda gid=gid: reader.group_by_gid(gid) for gid in (3000, 3001, 2001, 2002)]
        + [lambda: reader.gids_of("alice")]
    )
    answers: list[object] = []
    for ask in asked:
        try:
            answers.append(ask())
        except CacheError:
            answers.append(None)
    return answers


TRUTH = _lookups(Reader(SAMPLE))


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_flipped_byte_is_found_by_verify_wherever_it_is(mask: int) -> None:
    for place in range(len(SAMPLE)):
        data = bytearray(SAMPLE)
        data[place] ^= mask
        with pytest.raises(CacheError):
            Reader(bytes(data)).verify()


def test_flipped_byte_never_gives_a_wrong_record() -> None:
    for place in range(192, len(SAMPLE)):
        data = bytearray(SAMPLE)
        data[place] ^= 0x41
        answers = _lookups(Reader(bytes(data)))
        assert all(found in (None, true) for found, true in zip(answers, TRUTH)), place


def test_file_that_is_cut_off_anywhere_is_refused() -> None:
    for length in range(len(SAMPLE)):
        with pytest.raises(CacheError):
            Reader(SAMPLE[:length])


@settings(max_examples=300)
@given(st.binary(max_size=192), st.integers(0, 400))
def test_garbage_behind_valid_checksums_of_the_header_raises_cache_errors_only(
    noise: bytes, place: int
) -> None:
    data = bytearray(SAMPLE)
    data[72 + place : 72 + place + len(noise)] = noise
    del data[len(SAMPLE) :]
    struct.pack_into("<I", data, 68, zlib.crc32(data[192:]))
    struct.pack_into("<I", data, 188, zlib.crc32(data[:188]))
    try:
        reader = Reader(bytes(data))
        _lookups(reader)
        reader.verify()
    except CacheError:
        return


NAMES = st.from_regex(r"[a-zA-Z0-9._][a-zA-Z0-9._-]{0,31}", fullmatch=True).filter(
    lambda name: name not in (".", "..")
)
IDS = st.integers(1000, 65533)
PATHS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), max_size=60).map(
    lambda text: "/" + text.replace(":", "")
)
PEOPLE = st.lists(
    st.builds(User, NAMES, IDS, IDS, PATHS, PATHS, st.just("")),
    max_size=20,
    unique_by=(lambda u: u.name, lambda u: u.uid),
)
TEAMS = st.lists(
    st.builds(Group, NAMES, IDS, st.lists(NAMES, max_size=5, unique=True).map(tuple)),
    max_size=8,
    unique_by=(lambda g: g.name, lambda g: g.gid),
)


@settings(deadline=None)
@given(PEOPLE, TEAMS)
def test_what_is_built_reads_as_it_was(people: list[User], teams: list[Group]) -> None:
    reader = Reader(build(people, teams, generation=1, built_at=1))
    reader.verify()
    assert list(reader.users()) == sorted(people, key=lambda u: u.name.encode())
    for team in teams:
        assert reader.group_by_gid(team.gid) == (team.name, team.gid, team.members)
    for entry in people:
        assert reader.user_by_uid(entry.uid) == entry


# Publishing


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "oslogin" / "identity.v1.cache")


def test_published_file_is_readable_by_all_and_writable_by_its_owner(path: str) -> None:
    assert publish(path, SAMPLE)
    assert os.stat(path).st_mode & 0o7777 == 0o644
    assert Reader(path, owner=os.geteuid()).data == SAMPLE
    assert os.listdir(os.path.dirname(path)) == ["identity.v1.cache"]


def test_file_that_differs_in_time_and_generation_alone_is_left_alone(path: str) -> None:
    publish(path, SAMPLE)
    before = os.stat(path).st_ino
    assert not publish(path, made(generation=2, built_at=1_800_000_000))
    assert os.stat(path).st_ino == before


def test_change_is_a_new_file_and_readers_of_the_old_one_are_undisturbed(path: str) -> None:
    publish(path, SAMPLE)
    with open(path, "rb") as reading:
        assert publish(path, made(USERS[:1], generation=2))
        assert reading.read() == SAMPLE


def test_damaged_bytes_are_not_published(path: str) -> None:
    publish(path, SAMPLE)
    with pytest.raises(CacheError):
        publish(path, SAMPLE[:-1])
    assert Path(path).read_bytes() == SAMPLE


def test_file_of_before_stays_when_the_disk_is_full(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(path, SAMPLE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match="No space left"):
        publish(path, made(USERS[:1], generation=2))
    assert Path(path).read_bytes() == SAMPLE
    assert os.listdir(os.path.dirname(path)) == ["identity.v1.cache"]


def test_leftover_of_a_killed_writer_is_removed(path: str) -> None:
    folder = Path(path).parent
    folder.mkdir()
    leftover = folder / f".tmp-{2**22 + 1}"
    leftover.write_bytes(b"x")
    publish(path, SAMPLE)
    assert not leftover.exists()


def test_damaged_file_is_replaced_by_an_equal_good_one(path: str) -> None:
    publish(path, SAMPLE)
    Path(path).write_bytes(SAMPLE[:-1])
    assert publish(path, SAMPLE)


@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_file_that_others_can_write_is_not_believed(path: str, mode: int) -> None:
    publish(path, SAMPLE)
    os.chmod(path, mode)
    with pytest.raises(CacheError):
        Reader(path, owner=os.geteuid())


def test_file_of_another_owner_is_not_believed(path: str) -> None:
    publish(path, SAMPLE)
    with pytest.raises(CacheError):
        Reader(path, owner=os.geteuid() + 1)


def test_symbolic_link_is_not_followed(path: str) -> None:
    publish(path, SAMPLE)
    os.symlink(path, path + ".link")
    with pytest.raises(CacheError):
        Reader(path + ".link", owner=os.geteuid())


def test_pipe_is_not_waited_for(path: str) -> None:
    os.mkdir(os.path.dirname(path))
    os.mkfifo(path)
    with pytest.raises(CacheError):
        Reader(path, owner=os.geteuid())


def test_generation_grows_and_starts_at_one(path: str) -> None:
    assert identity_cache.next_generation(path) == 1
    publish(path, made(generation=41))
    assert identity_cache.next_generation(path) == 42


def test_deleting_tells_whether_there_was_a_file(path: str) -> None:
    publish(path, SAMPLE)
    assert identity_cache.delete(path)
    assert not identity_cache.delete(path)


def test_readers_see_one_file_or_the_other_while_they_are_replaced(path: str) -> None:
    files = (SAMPLE, made(USERS[:2], generation=2))
    publish(path, files[0])
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            try:
                reader = Reader(path, owner=os.geteuid())
                reader.verify()
                found: object = reader.user_by_name("alice")
            except CacheError as error:
                found = error
            if found != USERS[1]:
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for thread in readers:
        thread.start()
    for turn in range(60):
        assert publish(path, files[(turn + 1) % 2])
    stop.set()
    for thread in readers:
        thread.join(30)
    assert wrong == []
