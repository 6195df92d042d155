"""From pages to the identity cache: what is published, what stays, what is removed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from google_guest.metadata.client import MetadataClient
from google_guest.metadata.errors import ServerError
from google_guest.metadata.exchange import Response
from google_guest.system.commands import Completed
from metadata_server import Emulator
from oslogin.directory import Directory
from oslogin.grants import Grants
from oslogin.identities import User
from oslogin.identity_cache import Reader
from oslogin.refresh import Refresh


class Failing:
    """A client whose requests fail at the server where ``fails`` says so of their query."""

    def __init__(self, client: MetadataClient, fails: Callable[[dict[str, str]], bool]) -> None:
        self._client = client
        self._fails = fails
        self.sleep = client.sleep

    def request(self, method: str, path: str, **options: Any) -> Response:
        if self._fails(dict(options["query"])):
            raise ServerError("status 503")
        return self._client.request(method, path, **options)


@pytest.fixture
def mds() -> Iterator[Emulator]:
    with Emulator(profile="linux") as emulator:
        emulator.oslogin.enabled = True
        emulator.oslogin.add_user("ada", 20001)
        emulator.oslogin.add_user("bob", 20002)
        emulator.oslogin.add_group("team", 30000, ["ada"])
        yield emulator


@pytest.fixture
def make(tmp_path: Path, mds: Emulator) -> Iterator[Callable[..., Refresh]]:
    with MetadataClient(mds.host, environ={}) as client:

        def make_refresh(**options: Any) -> Refresh:
            settings: dict[str, Any] = {
                "path": str(tmp_path / "cache"),
                "former": (),
                "nscd_socket": str(tmp_path / "nscd"),
                **options,
            }
            fails = settings.pop("fails", lambda query: False)
            return Refresh(Directory(Failing(client, fails)), **settings)

        yield make_refresh


def read(folder: Path) -> Reader:
    return Reader(str(folder / "cache"), owner=os.geteuid())


def names(folder: Path) -> set[str]:
    return {user.name for user in read(folder).users()}


def test_users_and_groups_are_published(tmp_path: Path, make: Callable[..., Refresh]) -> None:
    outcome = make().run()
    assert (outcome.users, outcome.groups, outcome.changed) == (2, 1, True)
    reader = read(tmp_path)
    assert reader.gids_of("ada") == (30000,)
    assert reader.group_by_gid(20001) is not None


def test_unchanged_content_is_not_written(tmp_path: Path, make: Callable[..., Refresh]) -> None:
    make().run()
    before = os.stat(tmp_path / "cache")
    assert not make(wall_clock=lambda: 4e9).run().changed
    after = os.stat(tmp_path / "cache")
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_failure_on_page_two_keeps_the_file(
    tmp_path: Path, mds: Emulator, make: Callable[..., Refresh]
) -> None:
    make().run()
    before = (tmp_path / "cache").read_bytes()
    mds.oslogin.add_user("cyd", 20003)
    outcome = make(fails=lambda query: "pagetoken" in query).run()
    assert outcome.failure
    assert (tmp_path / "cache").read_bytes() == before


def test_groups_that_fail_leave_users_and_former_groups(
    tmp_path: Path, mds: Emulator, make: Callable[..., Refresh]
) -> None:
    make().run()
    mds.oslogin.add_user("cyd", 20003)
    mds.fault("oslogin/groups", "status", status=500)
    outcome = make().run()
    assert outcome.groups_failed and not outcome.failure
    assert names(tmp_path) == {"ada", "bob", "cyd"}
    team = read(tmp_path).group_by_name("team")
    assert team is not None and team.members == ("ada",)


def test_off_deletes_the_file(tmp_path: Path, mds: Emulator, make: Callable[..., Refresh]) -> None:
    make().run()
    mds.oslogin.enabled = False
    assert make().run().disabled
    assert not (tmp_path / "cache").exists()


def test_bad_names_of_a_page_leave_a_good_file(
    tmp_path: Path, mds: Emulator, make: Callable[..., Refresh]
) -> None:
    for number, name in enumerate(("a:b", "x\ny")):
        account = {"username": name, "uid": 21000 + number}
        mds.oslogin.add_user(f"p{number}", 21000, profile={"posixAccounts": [account]})
    make().run()
    read(tmp_path).verify()
    assert names(tmp_path) == {"ada", "bob"}


def test_rewrite_adds_whom_the_file_lacks(tmp_path: Path, make: Callable[..., Refresh]) -> None:
    refresh = make()
    refresh.run()
    zoe = User("zoe", 20009, 20009, "/home/zoe", "/bin/sh")
    assert refresh.rewrite([zoe])
    assert not refresh.rewrite([zoe])
    assert names(tmp_path) == {"ada", "bob", "zoe"}
    assert read(tmp_path).gids_of("ada") == (30000,)


def test_user_beyond_the_pages_stays_while_the_server_knows_it(
    tmp_path: Path, mds: Emulator, make: Callable[..., Refresh]
) -> None:
    refresh = make()
    refresh.run()
    refresh.rewrite([User("zoe", 20009, 20009, "/home/zoe", "/bin/sh")])
    assert refresh.run().changed
    assert names(tmp_path) == {"ada", "bob"}


def test_files_of_departed_users_go_and_of_unknown_fate_stay(
    tmp_path: Path, make: Callable[..., Refresh], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users").mkdir()
    grants = Grants(users=str(tmp_path / "users"), sudoers=(str(tmp_path / "sudoers"),))
    for name in ("ada", "gone", "unsure"):
        grants.admit(name)
    monkeypatch.setattr("oslogin.refresh._ASK_TIME", 0.3)
    make(sweep=grants.sweep, fails=lambda query: query.get("username") == "unsure").run()
    assert grants.names() == {"ada", "unsure"}


def test_name_service_cache_is_told_of_changes(
    tmp_path: Path, make: Callable[..., Refresh]
) -> None:
    told: list[list[str]] = []

    def runner(argv: Any, **_: Any) -> Completed:
        told.append(list(argv))
        return Completed(tuple(argv), 0, "", "")

    make(runner=runner).run()
    assert told == []
    (tmp_path / "cache").unlink()
    (tmp_path / "nscd").touch()
    for _ in range(2):
        make(runner=runner).run()
    assert told == [["nscd", "-i", "passwd"], ["nscd", "-i", "group"]]


def test_former_caches_go_once_ours_exists(
    tmp_path: Path, mds: Emulator, make: Callable[..., Refresh]
) -> None:
    former = tmp_path / "oslogin_passwd.cache"
    former.touch()
    mds.fault("oslogin/", "status", status=503)
    make(former=(str(former),)).run()
    assert former.exists()
    mds.clear_faults()
    make(former=(str(former),)).run()
    assert not former.exists()


def test_damaged_file_is_noticed(tmp_path: Path, make: Callable[..., Refresh]) -> None:
    refresh = make()
    assert not refresh.check()
    refresh.run()
    assert refresh.check()
    data = bytearray((tmp_path / "cache").read_bytes())
    data[-5] ^= 1
    (tmp_path / "cache").write_bytes(data)
    assert not refresh.check()
