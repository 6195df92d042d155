"""image-clean: what of an instance does not belong into an image, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.trees import inputs, place, tree

from google_guest import image_clean
from google_guest.changes import apply_all
from google_guest.changes.accounts import WriteAuthorizedKeys
from google_guest.managed_users import ManagedUser
from google_guest.records import replace
from google_guest.system import System

OURS = (
    "/etc/google_instance_id",
    "/var/lib/google-guest-agent/first-boot.json",
    "/var/lib/google-guest-agent/deeper/state.json",
    "/var/lib/google/google_users",
    "/var/lib/google/managed_users.json",
    "/etc/oslogin_passwd.cache",
    "/etc/oslogin_group.cache",
    "/etc/oslogin/identity.v1.cache",
    "/var/google-users.d/ada_example_com",
    "/var/google-sudoers.d/ada_example_com",
    "/run/google-guest-agent/status.json",
)
FOREIGN = (
    "/etc/boto.cfg",
    "/etc/hosts",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssh/ssh_host_rsa_key.pub",
    "/etc/ssh/sshd_config",
    "/etc/default/instance_configs.cfg",
    "/var/google-users.d/README",
    "/var/lib/google/other",
    "/home/ada/notes",
)


def cleaned(root: Path, *, host_keys: bool = False) -> list[str]:
    system = tree(root)
    changes = image_clean.plan(system, inputs(system).config, host_keys=host_keys)
    assert apply_all(changes, system).ok
    return [change.describe().split(" ", 1)[1] for change in changes]


def test_only_our_own_files_are_removed(tmp_path: Path) -> None:
    tree(tmp_path, dict.fromkeys((*OURS, *FOREIGN), "x"))
    assert sorted(cleaned(tmp_path)) == sorted(OURS)
    assert not any((tmp_path / path[1:]).exists() for path in OURS)
    assert all((tmp_path / path[1:]).exists() for path in FOREIGN)


def test_empty_tree_has_nothing_to_remove(tmp_path: Path) -> None:
    assert cleaned(tmp_path) == []


def test_second_run_has_nothing_to_remove(tmp_path: Path) -> None:
    tree(tmp_path, dict.fromkeys(OURS, "x"))
    cleaned(tmp_path)
    assert cleaned(tmp_path) == []


def test_host_keys_go_on_request(tmp_path: Path) -> None:
    tree(tmp_path, dict.fromkeys(FOREIGN, "x"))
    assert cleaned(tmp_path, host_keys=True) == [
        "/etc/ssh/ssh_host_rsa_key",
        "/etc/ssh/ssh_host_rsa_key.pub",
    ]


@pytest.mark.parametrize(
    "path", ["/etc/google_instance_id/google_instance_id", "/opt/id/google_instance_id"]
)
def test_marker_is_found_in_each_of_its_forms(tmp_path: Path, path: str) -> None:
    place(tmp_path, path, "7\n")
    place(tmp_path, "/etc/default/instance_configs.cfg", "[Instance]\ninstance_id_dir = /opt/id\n")
    assert cleaned(tmp_path) == [path]


MARK = "# Added by Google\n"
MANAGED = '{"instance": "6", "users": {"ada": {"keys_written": true, "file_created": true}}}'


def with_user(root: Path, keys: str, *, managed: str = MANAGED) -> Path:
    """A tree in which the agent answers for user ada, whose authorized_keys are these."""
    user, group = os.getuid(), os.getgid()
    place(root, "/etc/passwd", f"ada:x:{user}:{group}::/home/ada:/bin/sh\n")
    place(root, "/etc/group", f"ada:x:{group}:\n")
    place(root, "/var/lib/google/managed_users.json", managed)
    return place(root, "/home/ada/.ssh/authorized_keys", keys, mode=0o600)


def test_keys_that_the_agent_wrote_are_withdrawn(tmp_path: Path) -> None:
    keys = with_user(tmp_path, f"ssh-rsa AAAA mine\n{MARK}ssh-rsa BBBB builder\n")
    cleaned(tmp_path)
    assert keys.read_text() == "ssh-rsa AAAA mine\n"
    assert keys.stat().st_mode & 0o777 == 0o600


def test_file_that_only_held_keys_of_the_agent_goes(tmp_path: Path) -> None:
    keys = with_user(tmp_path, f"{MARK}ssh-rsa BBBB builder\n")
    cleaned(tmp_path)
    assert not keys.exists()


def test_users_that_another_agent_listed_lose_its_keys(tmp_path: Path) -> None:
    keys = with_user(tmp_path, f"{MARK}ssh-rsa BBBB builder\n", managed="{}")
    place(tmp_path, "/var/lib/google/google_users", "ada\n")
    cleaned(tmp_path)
    assert keys.read_text() == ""


def test_keys_of_other_users_are_not_looked_at(tmp_path: Path) -> None:
    text = f"{MARK}ssh-rsa BBBB builder\n"
    keys = with_user(tmp_path, text, managed='{"users": {}}')
    cleaned(tmp_path)
    assert keys.read_text() == text


def test_users_without_keys_of_the_agent_are_left_alone(tmp_path: Path) -> None:
    with_user(tmp_path, "ssh-rsa AAAA mine\n")
    assert cleaned(tmp_path) == ["/var/lib/google/managed_users.json"]


def test_on_the_running_machine_keys_are_withdrawn_as_the_user(tmp_path: Path) -> None:
    with_user(tmp_path, f"{MARK}ssh-rsa BBBB builder\n")

    class Live(System):
        is_live = True

    account = tree(tmp_path).accounts.local().users["ada"]
    home = replace(account, home=str(tmp_path / "home/ada"))
    changes = list(
        image_clean.withdrawn_keys_of(Live(), ManagedUser("ada", keys_written=True), home)
    )
    assert [type(change) for change in changes] == [WriteAuthorizedKeys]


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    place(tmp_path, "/home/ada/notes", "x")
    (tmp_path / "var/lib/google-guest-agent").mkdir(parents=True)
    (tmp_path / "var/lib/google-guest-agent/link").symlink_to("/home/ada")
    assert cleaned(tmp_path) == ["/var/lib/google-guest-agent/link"]
    assert (tmp_path / "home/ada/notes").exists()
