"""The programs of OS Login in a booted instance: sshd's helpers, refresh, systemd's user database.

One instance for all, with OS Login on and a directory of a few users; the programs are run as sshd
and administrators run them.
"""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import Iterator

import pytest
from support import agent_service
from support.agent_service import SETTLED
from support.bed import Bed
from support.debs import OSLOGIN, GuestDebs
from support.documents import instance_document

KEYS = "/usr/bin/google_authorized_keys"
SECURITY_KEYS = "/usr/bin/google_authorized_keys_sk"
PRINCIPALS = "/usr/bin/google_authorized_principals"
NSS_CACHE = "/usr/bin/google_oslogin_nss_cache"
CACHE = "/etc/oslogin/identity.v1.cache"
AUTH_SOCKET = "/run/google-oslogin/auth.sock"
SOCKETS = ("google-oslogind-auth.socket", "google-oslogind-nss.socket")
SERVICE = "google-oslogind.service"
SWITCH = "instance/attributes/enable-oslogin"
FINGERPRINT = "b86d3f0a-1d1f-4b0a-8d3f-2f6f0b1c9a77"
PLAIN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f plain"
SECOND = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgEA second"


def string(data: bytes) -> bytes:
    """A string of the SSH protocol."""
    return struct.pack(">I", len(data)) + data


def hardware_key(comment: str) -> str:
    kind = b"sk-ssh-ed25519@openssh.com"
    blob = string(kind) + string(b"k" * 32) + string(b"ssh:")
    return f"{kind.decode()} {base64.b64encode(blob).decode()} {comment}"


def certificate(principal: str, *, kind: str = "ssh-ed25519", extension: str = "") -> str:
    """A certificate as the helper sees it; sshd has checked its signature before."""
    name = extension or f"fingerprint@google.com={FINGERPRINT}"
    body = string(f"{kind}-cert-v01@openssh.com".encode()) + string(b"n" * 32) + string(b"k" * 32)
    body += struct.pack(">QI", 1, 1) + string(b"id") + string(string(principal.encode()))
    body += struct.pack(">QQ", 0, 2**64 - 1) + string(b"") + string(string(name.encode()) * 2)
    body += string(b"") + string(b"authority") + string(b"signature")
    return base64.b64encode(body).decode()


HARDWARE = hardware_key("first")
CONFIG = "[OSLogin]\nuserdb_provider = true\n"
USERS: list[dict[str, object]] = [
    {"username": "ada", "uid": 5001, "keys": [PLAIN, SECOND], "fingerprints": [FINGERPRINT]},
    {"username": "hw", "uid": 5002, "keys": [PLAIN], "security_keys": [HARDWARE]},
    {"username": "sa_robot", "uid": 5003, "keys": [PLAIN]},
    {"username": "denied", "uid": 5004, "keys": [PLAIN], "login": False},
]


@pytest.fixture(scope="module")
def booted(guest_debs: GuestDebs) -> Iterator[Bed]:
    debs = guest_debs.with_packages(OSLOGIN)
    files = {**SETTLED}
    path = "/etc/default/instance_configs.cfg"
    files[path] = files.get(path, "") + CONFIG
    with Bed(
        debs=debs, packages=("systemd-userdbd",), metadata=instance_document(), files=files
    ) as guest:
        agent_service.await_first_passes(guest)
        guest.mds.set_oslogin({"users": USERS})
        guest.mds.set(SWITCH, "TRUE")
        guest.wait_until(
            lambda: guest.path(AUTH_SOCKET).exists() and guest.path(CACHE).exists(),
            what="OS Login is on and its cache is there",
        )
        yield guest


@pytest.fixture
def guest(booted: Bed) -> Iterator[Bed]:
    """The instance with all users and sockets."""
    yield booted
    booted.mds.clear_faults()
    booted.mds.set_oslogin({"users": USERS})
    booted.run(["systemctl", "start", *SOCKETS])


def stop_daemon(guest: Bed) -> None:
    guest.run(["systemctl", "stop", *SOCKETS, "google-oslogind-userdb.socket", SERVICE])


def test_keys_of_a_user_are_printed(guest: Bed) -> None:
    assert guest.run([KEYS, "ada"]).stdout == f"{PLAIN}\n{SECOND}\n"


@pytest.mark.parametrize("arguments", [(), ("ada", "hw")])
def test_wrong_number_of_arguments_is_status_1(guest: Bed, arguments: tuple[str, ...]) -> None:
    done = guest.run([KEYS, *arguments], check=False)
    assert (done.status, done.stdout) == (1, "")


@pytest.mark.parametrize("name", ["nobody-there", "denied", "root", "../../etc/shadow", "a b", ""])
def test_who_may_not_log_in_gets_no_output_and_status_0(guest: Bed, name: str) -> None:
    done = guest.run([KEYS, name])
    assert (done.status, done.stdout) == (0, "")


def test_expired_key_is_not_printed(guest: Bed) -> None:
    now = int(time.time() * 1_000_000)
    keys = [
        {"key": PLAIN, "expires": now - 1},
        {"key": SECOND, "expires": now + 600_000_000},
    ]
    guest.mds.oslogin_user("ada", keys=keys)
    assert guest.run([KEYS, "ada"]).stdout == f"{SECOND}\n"


def test_reader_that_closes_early_is_no_error(guest: Bed) -> None:
    keys = [f"{PLAIN}{number}" for number in range(2000)]
    guest.mds.oslogin_user("ada", keys=keys)
    script = f"set -o pipefail; {KEYS} ada | head -n 1; echo ${{PIPESTATUS[0]}}"
    assert guest.run(["bash", "-c", script]).stdout == f"{PLAIN}0\n0\n"


def test_security_keys_are_for_people_and_plain_keys_for_service_accounts(guest: Bed) -> None:
    assert guest.run([SECURITY_KEYS, "hw"]).stdout == f"{HARDWARE}\n"
    assert guest.run([SECURITY_KEYS, "sa_robot"]).stdout == f"{PLAIN}\n"
    assert guest.run([SECURITY_KEYS, "ada"]).stdout == ""


def test_principal_is_the_user_whom_the_certificate_is_for(guest: Bed) -> None:
    assert guest.run([PRINCIPALS, "ada", certificate("ada")]).stdout == "ada\n"
    assert guest.run([PRINCIPALS, "hw", certificate("ada")]).stdout == ""


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(certificate("ada", kind="ssh-unknown"), id="unknown type"),
        pytest.param(certificate("ada", extension="permit-pty"), id="no fingerprint"),
        pytest.param("%%%", id="no base64"),
        pytest.param("", id="empty"),
    ],
)
def test_what_is_no_certificate_of_ours_is_status_1(guest: Bed, text: str) -> None:
    done = guest.run([PRINCIPALS, "ada", text], check=False)
    assert (done.status, done.stdout, done.stderr) == (1, "", "")


def test_certificate_cut_off_anywhere_is_status_1_and_no_crash(guest: Bed) -> None:
    text = certificate("ada")
    script = (
        f'text={text}; length=0; while [ "$length" -lt {len(text)} ]; do '
        f'out=$({PRINCIPALS} ada "${{text:0:length}}" 2>&1); echo "$?$out"; '
        "length=$((length + 1)); done | sort | uniq -c"
    )
    assert guest.run(["bash", "-c", script], timeout=300.0).stdout.split() == [str(len(text)), "1"]


def test_daemon_that_does_not_run_denies_with_a_line_in_the_log(guest: Bed) -> None:
    stop_daemon(guest)
    done = guest.run([KEYS, "ada"])
    assert (done.status, done.stdout, done.stderr) == (0, "", "")
    logged = guest.run(["journalctl", "-t", "sshd", "-o", "cat", "-n", "1"]).stdout
    assert logged.startswith("google_authorized_keys: user ada: denied: the OS Login daemon")


def test_proxy_of_the_caller_is_not_asked(guest: Bed) -> None:
    names = ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY")
    proxies = [f"{name}=http://127.0.0.1:9/" for name in names]
    assert guest.run(["env", *proxies, KEYS, "ada"]).stdout == f"{PLAIN}\n{SECOND}\n"
    stop_daemon(guest)
    before = len(guest.mds.requests("oslogin/users"))
    assert guest.run(["env", *proxies, NSS_CACHE]).status == 0
    assert len(guest.mds.requests("oslogin/users")) > before


def test_refresh_by_the_daemon_finds_a_new_user(guest: Bed) -> None:
    guest.mds.oslogin_user("newcomer", uid=5010)
    assert guest.run([NSS_CACHE]).status == 0
    assert b"newcomer" in guest.path(CACHE).read_bytes()


def test_refresh_without_the_daemon_finds_a_new_user(guest: Bed) -> None:
    stop_daemon(guest)
    guest.mds.oslogin_user("late", uid=5011)
    assert guest.run([NSS_CACHE]).status == 0
    assert b"late" in guest.path(CACHE).read_bytes()
    assert guest.unit_property(SERVICE, "ActiveState") == "inactive"


@pytest.mark.parametrize("daemon", [True, False])
def test_refresh_that_fails_leaves_the_cache(guest: Bed, daemon: bool) -> None:
    if not daemon:
        stop_daemon(guest)
    before = guest.path(CACHE).read_bytes()
    guest.mds.fault("oslogin/users", "status", status=503)
    assert guest.run([NSS_CACHE]).status == 0
    assert guest.path(CACHE).read_bytes() == before


@pytest.mark.parametrize("daemon", [True, False])
def test_refresh_of_switched_off_oslogin_removes_the_cache(guest: Bed, daemon: bool) -> None:
    if not daemon:
        stop_daemon(guest)
    guest.mds.oslogin_enabled(False)
    assert guest.run([NSS_CACHE]).status == 0
    assert not guest.path(CACHE).exists()
    guest.mds.oslogin_enabled(None)
    assert guest.run([NSS_CACHE]).status == 0
    assert guest.path(CACHE).exists()


def test_wrong_argument_of_the_refresh_is_status_1(guest: Bed) -> None:
    assert guest.run([NSS_CACHE, "--other"], check=False).status == 1


def userdbctl(guest: Bed, *arguments: str) -> str:
    return guest.run(["userdbctl", "--json=short", *arguments], check=False).stdout


def test_userdbctl_shows_a_user_and_the_source(guest: Bed) -> None:
    guest.run(["systemctl", "start", "google-oslogind-userdb.socket"])
    record = json.loads(userdbctl(guest, "user", "ada", "--with-nss=no"))
    assert (record["userName"], record["uid"]) == ("ada", 5001)
    assert record["service"] == "com.google.OSLogin"
    group = json.loads(userdbctl(guest, "group", "ada", "--with-nss=no"))
    assert (group["gid"], group["members"]) == (5001, ["ada"])


def test_unknown_user_costs_the_metadata_server_one_request(guest: Bed) -> None:
    guest.run(["systemctl", "start", "google-oslogind-userdb.socket"])
    assert userdbctl(guest, "user", "stranger") == ""
    asked = [
        request for request in guest.mds.requests("oslogin/users") if "stranger" in str(request)
    ]
    assert len(asked) == 1


def test_question_for_another_service_is_refused(guest: Bed) -> None:
    guest.run(["systemctl", "start", "google-oslogind-userdb.socket"])
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX); "
        "s.connect('/run/systemd/userdb/com.google.OSLogin'); "
        's.sendall(b\'{"method":"io.systemd.UserDatabase.GetUserRecord",'
        '"parameters":{"userName":"ada","service":"io.systemd.NameServiceSwitch"}}\\0\'); '
        "print(s.recv(4096).decode())"
    )
    assert "io.systemd.UserDatabase.BadService" in guest.run(["python3", "-c", script]).stdout


def test_helper_starts_hardly_slower_than_the_interpreter(guest: Bed) -> None:
    script = """
import os, subprocess, time
def best(*argv):
    times = []
    for _ in range(20):
        start = time.monotonic()
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - start)
    return min(times)
bare = best("/usr/bin/python3", "-IS", "-c", "pass")
print(best("/usr/bin/google_authorized_keys", "x y") - bare)
"""
    # An answer from the daemon that needs no metadata server is part of it.
    assert float(guest.run(["python3", "-c", script]).stdout) < 0.013
