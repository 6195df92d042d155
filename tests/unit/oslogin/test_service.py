"""The whole service on real sockets, with the emulator as metadata server."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.timing import quickest
from unit.oslogin.daemon import Service, ask, random_bytes, receive, running

from google_guest.metadata.client import MetadataClient
from metadata_server import Emulator
from oslogin import protocol
from oslogin.identity_cache import Reader
from oslogin.protocol import string_field


@pytest.fixture
def mds() -> Iterator[Emulator]:
    with Emulator(profile="linux") as emulator:
        emulator.oslogin.enabled = True
        emulator.oslogin.add_user("ada", 20001)
        emulator.oslogin.add_user("bob", 20002, gid=30000)
        emulator.oslogin.add_group("team", 30000, ["ada", "bob"])
        yield emulator


@pytest.fixture
def service(tmp_path: Path, mds: Emulator) -> Iterator[Service]:
    with running(tmp_path, mds) as started:
        yield started


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within its time"
        time.sleep(0.02)


def cached_names(service: Service) -> set[str]:
    if not os.path.exists(service.cache):
        return set()
    return {user.name for user in Reader(service.cache, owner=os.geteuid()).users()}


def test_user_is_found_by_name_and_number(service: Service) -> None:
    for reply in (service.user("ada"), service.uid(20001)):
        assert reply.status == protocol.OK
        assert (reply.text(protocol.NAME), reply.integer(protocol.ID)) == ("ada", 20001)
        assert reply.text(protocol.HOME) == "/home/ada"
        assert (reply.opcode & protocol.REPLY, reply.number) == (protocol.REPLY, 77)


def test_unknown_user_is_not_found(service: Service) -> None:
    assert service.user("nobody-here").status == protocol.NOT_FOUND


@pytest.mark.parametrize("name", ["*", "-x", "a" * 33, "..", "a:b"])
def test_impossible_name_costs_no_request(service: Service, mds: Emulator, name: str) -> None:
    wait_for(lambda: os.path.exists(service.cache))
    before = len(mds.requests("oslogin/users"))
    assert service.user(name).status == protocol.NOT_FOUND
    assert len(mds.requests("oslogin/users")) == before


def test_group_has_its_members(service: Service) -> None:
    reply = service.group("team")
    assert reply.texts(protocol.MEMBER) == ("ada", "bob")
    assert reply.integer(protocol.ID) == 30000


def test_user_has_a_group_of_its_own_where_no_real_one_is(service: Service) -> None:
    reply = service.group("ada")
    assert (reply.integer(protocol.ID), reply.texts(protocol.MEMBER)) == (20001, ("ada",))


def test_groups_of_a_user(service: Service) -> None:
    reply = service.ask(protocol.INITGROUPS, string_field(protocol.NAME, "ada"))
    assert reply.integers(protocol.GIDS) == (30000,)


def test_cache_is_made_at_the_start(service: Service) -> None:
    wait_for(lambda: cached_names(service) == {"ada", "bob"})


def test_refresh_on_request_tells_the_number_of_users(service: Service, mds: Emulator) -> None:
    mds.oslogin.add_user("cyd", 20003)
    reply = service.ask(protocol.REFRESH, on="auth")
    assert (reply.status, reply.integer(protocol.COUNT)) == (protocol.OK, 3)
    assert "cyd" in cached_names(service)


def test_switched_off_removes_the_cache(service: Service, mds: Emulator) -> None:
    wait_for(lambda: os.path.exists(service.cache))
    mds.oslogin.enabled = False
    assert service.ask(protocol.REFRESH, on="auth").status == protocol.DISABLED
    assert not os.path.exists(service.cache)


def test_user_found_by_a_lookup_enters_the_cache(service: Service, mds: Emulator) -> None:
    wait_for(lambda: cached_names(service) == {"ada", "bob"})
    mds.oslogin.add_user("new", 20009)
    assert service.user("new").status == protocol.OK
    wait_for(lambda: "new" in cached_names(service), 30.0)


def test_server_that_fails_is_unavailable(service: Service, mds: Emulator) -> None:
    mds.fault("oslogin/", "status", status=503)
    started = time.monotonic()
    assert service.user("zoe").status == protocol.UNAVAILABLE
    assert time.monotonic() - started < 5.0


def test_known_user_is_answered_while_the_server_fails(service: Service, mds: Emulator) -> None:
    # The refresh of the start forgets what was asked before it.
    assert service.ask(protocol.REFRESH, on="auth").status == protocol.OK
    assert service.user("ada").status == protocol.OK
    mds.fault("oslogin/", "status", status=503)
    assert service.user("ada").status == protocol.OK


def test_silent_client_is_closed_within_a_second(service: Service) -> None:
    with service.connect() as sock:
        started = time.monotonic()
        assert sock.recv(1) == b""
        assert 0.3 < time.monotonic() - started < 1.5


def test_silent_clients_hold_up_nobody(service: Service) -> None:
    def beside_silent_clients() -> float:
        with contextlib.ExitStack() as silent:
            for _ in range(60):
                silent.enter_context(service.connect())
            started = time.monotonic()
            assert service.user("ada").status == protocol.OK
            return time.monotonic() - started

    assert quickest(beside_silent_clients, bound=0.4) < 0.4


def test_auth_connection_carries_several_requests(service: Service) -> None:
    with service.connect("auth") as sock:
        for _ in range(3):
            assert ask(sock, protocol.PING).integer(protocol.PROTOCOL_VERSION) == 1


def test_auth_connection_may_pause_between_requests(service: Service) -> None:
    with service.connect("auth") as sock:
        ask(sock, protocol.PING)
        time.sleep(0.8)
        assert ask(sock, protocol.PING).status == protocol.OK


def test_auth_socket_is_for_root(tmp_path: Path, mds: Emulator) -> None:
    with running(tmp_path, mds, peers={"uid": 1000}) as service, service.connect("auth") as sock:
        assert sock.recv(1) == b""


def test_own_process_is_told_that_nobody_is_there(tmp_path: Path, mds: Emulator) -> None:
    with running(tmp_path, mds, peers={"pid": os.getpid()}) as service:
        assert service.user("ada").status == protocol.NOT_FOUND


def test_ninth_request_of_a_user_is_told_to_come_again(
    tmp_path: Path, mds: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    held: list[str] = []  # append is atomic
    original = MetadataClient.request

    def hold(client: MetadataClient, method: str, path: str, **options: Any) -> Any:
        if "waiting" in str(options.get("query")):
            held.append(path)
            go_on.wait(60.0)
        return original(client, method, path, **options)

    monkeypatch.setattr(MetadataClient, "request", hold)
    with running(tmp_path, mds, peers={"uid": 1000}) as service:
        waiting = [service.connect() for _ in range(8)]
        for number, sock in enumerate(waiting):
            name = string_field(protocol.NAME, f"waiting-{number}")
            sock.sendall(protocol.encode(protocol.Message(protocol.GETPWNAM, [name])))
        wait_for(lambda: len(held) == len(waiting), 60.0)
        try:
            assert service.user("ada").status == protocol.BUSY
        finally:
            go_on.set()
        assert [receive(sock).status for sock in waiting] == [protocol.NOT_FOUND] * len(waiting)
        for sock in waiting:
            sock.close()
        assert service.user("ada").status == protocol.OK


@pytest.mark.parametrize("on", ["nss", "auth"])
def test_garbage_ends_its_own_connection_only(service: Service, on: str) -> None:
    for seed in range(150):
        data = random_bytes(seed, 1 + seed * 7 % 600)
        if seed % 2:
            data = protocol.MAGIC + data
        with service.connect(on) as sock:
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    continue
            except OSError:
                continue
    assert service.user("ada").status == protocol.OK


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GOL2" + bytes(12), protocol.BAD_VERSION),
        (b"HTTP/1.1 200 OK\r\n", protocol.BAD_REQUEST),
        (protocol.encode(protocol.Message(0x8002)), protocol.BAD_REQUEST),
        (protocol.encode(protocol.Message(99)), protocol.BAD_REQUEST),
        (protocol.encode(protocol.Message(protocol.GETPWNAM)), protocol.BAD_REQUEST),
        (protocol.encode(protocol.Message(protocol.GETGRGID)), protocol.BAD_REQUEST),
        (protocol.encode(protocol.Message(protocol.KEYS)), protocol.BAD_REQUEST),
    ],
)
def test_request_that_is_none_is_refused(service: Service, data: bytes, status: int) -> None:
    with service.connect() as sock:
        sock.sendall(data)
        assert receive(sock).status == status


def test_stop_with_requests_in_flight_takes_well_under_a_second(
    tmp_path: Path, mds: Emulator
) -> None:
    folders = (tmp_path / str(number) for number in range(10))

    def stop() -> float:
        folder = next(folders)
        folder.mkdir()
        mds.clear_faults()
        with running(folder, mds) as service:
            service.user("ada")
            mds.fault("oslogin/", "hang")
            with service.connect() as sock:
                request = protocol.Message(protocol.GETPWNAM, [string_field(protocol.NAME, "zoe")])
                sock.sendall(protocol.encode(request))
                time.sleep(0.2)
                started = time.monotonic()
                service.daemon.server.stop()
                service.thread.join(5.0)
                return time.monotonic() - started

    assert quickest(stop, bound=0.8) < 0.8


def test_service_without_work_ends(tmp_path: Path, mds: Emulator) -> None:
    with running(tmp_path, mds, idle=0.5) as service:
        wait_for(lambda: not service.thread.is_alive(), 8.0)
        assert cached_names(service) == {"ada", "bob"}


def test_start_after_an_idle_end_makes_no_new_refresh(tmp_path: Path, mds: Emulator) -> None:
    with running(tmp_path, mds, idle=0.3) as service:
        wait_for(lambda: not service.thread.is_alive(), 8.0)
    for name in ("nss", "auth", "userdb"):
        (tmp_path / f"{name}.sock").unlink()
    pages = len(mds.requests("oslogin/users"))
    with running(tmp_path, mds, idle=0.3) as service:
        wait_for(lambda: not service.thread.is_alive(), 8.0)
    assert len(mds.requests("oslogin/users")) == pages


def test_damaged_cache_is_made_anew_at_the_start(tmp_path: Path, mds: Emulator) -> None:
    (tmp_path / "identity.v1.cache").write_bytes(b"GOSLIDC1" + bytes(400))
    (tmp_path / "refreshed").write_text(f"{time.monotonic():.3f}\n")
    with running(tmp_path, mds) as service:

        def is_good() -> bool:
            try:
                return cached_names(service) == {"ada", "bob"}
            except Exception:
                return False

        wait_for(is_good)


def test_first_lookup_of_a_boot_is_refused_within_a_second(tmp_path: Path, mds: Emulator) -> None:
    mds.fault("oslogin/", "hang")
    folders = (tmp_path / str(number) for number in range(10))

    def first_lookup() -> float:
        folder = next(folders)
        folder.mkdir()
        with running(folder, mds) as service:
            started = time.monotonic()
            assert service.user("ada").status == protocol.UNAVAILABLE
            return time.monotonic() - started

    assert quickest(first_lookup, bound=1.2) < 1.2
