"""What decisions about OS Login logins do to a booted instance: real files, real sudo.

The decision runs in the instance as the daemon runs it, against the metadata server there. The
users are also accounts of the instance, with the uids that the directory has for them, so that
nothing but the grants decides about sudo.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bed import Bed
from support.commands import run_command
from support.guest import Key

MODULES = "/usr/local/lib/oslogin-test"
DECIDE = """
import sys
sys.path.insert(0, "/usr/local/lib/oslogin-test")
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
from google_guest.metadata.client import MetadataClient
from oslogin import paths
from oslogin.authorization import Authorizer
from oslogin.directory import Directory
from oslogin.grants import Grants
grants = Grants(
    users=paths.USERS_FOLDER, sudoers=(paths.SUDOERS_FOLDER, paths.RUNTIME_SUDOERS_FOLDER)
)
decision = Authorizer(Directory(MetadataClient()), grants).authorize(sys.argv[1])
print(decision.verdict.value, decision.reason.value)
"""
SERVICE = "google-oslogind.service"
PROGRAM = """#!/usr/bin/python3 -IBS
import sys
sys.path += ["/usr/local/lib/oslogin-test", "/usr/lib/python3/dist-packages"]
from {module} import {function}
sys.exit({function}())
"""
SSHD = """
AuthorizedKeysCommand /usr/bin/google_authorized_keys
AuthorizedKeysCommandUser root
Include /var/google-users.d/*
Match all
"""
DROP_IN = "#includedir /var/google-sudoers.d\n#includedir /run/google-sudoers.d\n"
PEOPLE = {"alice": 2001, "john.doe": 2002, "ALL": 2003, "README": 2004, "late": 2005}
BYSTANDER = "mallory"
PLENTY = 1 << 30


@pytest.fixture(scope="module")
def booted() -> Iterator[Bed]:
    source = Path(__file__).parents[2] / "src"
    with Bed("bookworm", packages=("sudo",)) as guest:
        for name in ("google_guest", "oslogin"):
            target = guest.path(f"{MODULES}/{name}")
            shutil.copytree(source / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(source.parent / "VERSION", guest.path(f"{MODULES}/google_guest/VERSION"))
        guest.write(f"{MODULES}/decide.py", DECIDE)
        guest.write("/etc/sudoers.d/google-oslogin", DROP_IN, mode=0o440)
        guest.run("mkdir -m 0750 /var/google-sudoers.d /var/google-users.d /run/google-sudoers.d")
        for name, uid in {**PEOPLE, BYSTANDER: 2999}.items():
            guest.run(["useradd", "--badname", "-m", "-u", str(uid), name])
        yield guest


@pytest.fixture
def instance(booted: Bed) -> Iterator[Bed]:
    """With every user an administrator, and no grant."""
    booted.mds.clear_faults()
    booted.mds.set_oslogin(
        {
            "enabled": True,
            "users": [
                {"username": name, "uid": uid, "admin": True} for name, uid in PEOPLE.items()
            ],
        }
    )
    booted.run("rm -rf /var/google-sudoers.d/* /var/google-users.d/* /run/google-sudoers.d/*")
    yield booted


@pytest.fixture(scope="module")
def served(booted: Bed) -> Bed:
    """With the daemon in its sandbox, as the package's units start it, and sshd asking it."""
    for path, module, function in (
        ("/usr/libexec/google-oslogind", "oslogin.service", "main"),
        ("/usr/bin/google_authorized_keys", "oslogin.helpers", "keys"),
    ):
        text = PROGRAM.format(module=module, function=function)
        booted.write(path, text, mode=0o755)
    for path in (Path(__file__).parents[2] / "debian").glob("*.google-oslogind*"):
        name = path.name.partition(".")[2]
        booted.write(f"/etc/systemd/system/{name}", path.read_text())
    config = booted.path("/etc/ssh/sshd_config")
    config.write_text(SSHD.lstrip() + config.read_text())
    booted.run("systemctl daemon-reload && systemctl reload ssh")
    booted.run("systemctl start google-oslogind-nss.socket google-oslogind-auth.socket")
    return booted


def login(guest: Bed, name: str, key: Key, command: str = "true") -> bool:
    return guest.ssh(name, key, command, check=False).status == 0


def test_a_key_login_makes_an_administrator_root(instance: Bed, served: Bed) -> None:
    key = served.new_key()
    served.mds.oslogin_user("alice", keys=[key.public])
    assert login(served, "alice", key, "sudo -n true")
    assert "login of alice allowed, with sudo" in served.journal(SERVICE)


def test_a_withdrawn_login_is_refused_with_its_class(instance: Bed, served: Bed) -> None:
    key = served.new_key()
    served.mds.oslogin_user("john.doe", keys=[key.public])
    assert login(served, "john.doe", key, "sudo -n true")
    served.mds.oslogin_user("john.doe", login=False)
    assert not login(served, "john.doe", key)
    assert files(served) == []
    assert "login of 'john.doe' denied: policy" in served.journal(SERVICE)


def test_a_server_without_an_answer_keeps_sudo_and_refuses_new_logins(
    instance: Bed, served: Bed
) -> None:
    key = served.new_key()
    served.mds.oslogin_user("alice", keys=[key.public])
    assert login(served, "alice", key)
    served.mds.oslogin_answers({"authorize": None})
    assert not login(served, "alice", key)
    assert has_sudo(served, "alice")
    assert "login of 'alice' denied: metadata" in served.journal(SERVICE)


@pytest.mark.parametrize("injected", ["\n{key}", "ssh-rsa AAAA\n{key}", "# {key}", "x {key}"])
def test_a_key_of_more_than_one_line_is_no_key(instance: Bed, served: Bed, injected: str) -> None:
    key = served.new_key()
    served.mds.oslogin_user("alice", keys=[injected.format(key=f"\n{key.public}\n#")])
    assert not login(served, "alice", key)


def decide(guest: Bed, name: str) -> str:
    return guest.run(["python3", "-B", f"{MODULES}/decide.py", name]).stdout.strip()


def has_sudo(guest: Bed, name: str) -> bool:
    done = guest.run(
        [
            "setpriv",
            "--reuid",
            str({**PEOPLE, BYSTANDER: 2999}[name]),
            "--clear-groups",
            "sudo",
            "-n",
            "true",
        ],
        check=False,
    )
    return done.status == 0


def files(guest: Bed) -> list[str]:
    found = guest.run(
        "find /var/google-sudoers.d /var/google-users.d /run/google-sudoers.d -mindepth 1"
    )
    return sorted(found.stdout.split())


@pytest.mark.parametrize("name", ["alice", "john.doe", "ALL", "README"])
def test_an_administrator_of_any_name_becomes_root_and_nobody_else(
    instance: Bed, name: str
) -> None:
    assert decide(instance, name) == "allowed"
    assert has_sudo(instance, name)
    assert not has_sudo(instance, BYSTANDER)
    assert instance.run("visudo -c").status == 0


def test_a_withdrawn_login_takes_both_files(instance: Bed) -> None:
    decide(instance, "john.doe")
    instance.mds.oslogin_user("john.doe", login=False)
    assert decide(instance, "john.doe") == "denied policy"
    assert files(instance) == []
    assert not has_sudo(instance, "john.doe")


def test_a_no_to_administration_takes_sudo_alone(instance: Bed) -> None:
    decide(instance, "alice")
    instance.mds.oslogin_user("alice", admin=False)
    assert decide(instance, "alice") == "allowed"
    assert files(instance) == ["/var/google-users.d/alice"]
    assert not has_sudo(instance, "alice")


def test_an_outage_keeps_sudo_and_lets_nobody_in(instance: Bed) -> None:
    decide(instance, "alice")
    instance.mds.oslogin_answers({"authorize": []})
    assert decide(instance, "alice") == "unavailable metadata"
    assert decide(instance, "late") == "unavailable metadata"
    assert has_sudo(instance, "alice")
    assert not [path for path in files(instance) if "late" in path]


@pytest.mark.parametrize("uid", [0, 27, 999, 4294967295, "2001\n0"])
def test_a_system_uid_in_an_answer_grants_nothing(instance: Bed, uid: object) -> None:
    instance.mds.oslogin_user("alice", uid=uid)
    assert decide(instance, "alice") != "allowed"
    assert files(instance) == []


@pytest.mark.parametrize("success", ["true", 1, "false", {}])
def test_only_true_is_a_yes(instance: Bed, success: object) -> None:
    instance.mds.oslogin_answers({"authorize": {"success": success}})
    assert decide(instance, "alice") == "denied policy"
    assert files(instance) == []


def test_a_planted_link_is_replaced_and_not_followed(instance: Bed) -> None:
    instance.run("echo precious > /root/precious; ln -s /root/precious /var/google-sudoers.d/alice")
    assert decide(instance, "alice") == "allowed"
    assert instance.run("cat /root/precious").stdout == "precious\n"
    assert has_sudo(instance, "alice")


@pytest.mark.parametrize("name", ["john.doe", "ALL", "README"])
def test_sshd_takes_no_keys_from_the_user_s_home(instance: Bed, name: str) -> None:
    decide(instance, name)
    instance.write("/root/sshd_config", "Include /var/google-users.d/*\n")
    shown = {
        user: instance.run(
            f"sshd -T -f /root/sshd_config -C user={user},host=h,addr=192.0.2.1"
        ).stdout.split("\n")
        for user in (name, BYSTANDER)
    }
    assert "authorizedkeysfile none" in shown[name]
    assert "authorizedkeysfile none" not in shown[BYSTANDER]


def test_a_full_disk_keeps_old_grants_and_takes_new_ones_to_memory(instance: Bed) -> None:
    decide(instance, "alice")
    instance.mds.oslogin_user("late", admin=False)
    assert decide(instance, "late") == "allowed"
    facts = os.statvfs(instance.directory)
    resize(instance, (facts.f_blocks - facts.f_bfree) * facts.f_frsize)
    try:
        instance.mds.oslogin_user("late", admin=True)
        assert has_sudo(instance, "alice")
        assert decide(instance, "late") == "allowed"
        assert has_sudo(instance, "late")
        assert "/run/google-sudoers.d/late" in files(instance)
        assert instance.run("find /var/google-sudoers.d /var/google-users.d -empty").stdout == ""
    finally:
        resize(instance, PLENTY)
    assert decide(instance, "late") == "allowed"
    assert "/var/google-sudoers.d/late" in files(instance)
    assert "/run/google-sudoers.d/late" not in files(instance)


def resize(guest: Bed, size: int) -> None:
    """Give the bed's memory file system, on which its root's writes land, another size."""
    options = f"remount,size={size}"
    run_command(["mount", "-o", options, str(guest.directory)], purpose="resize a file system")
