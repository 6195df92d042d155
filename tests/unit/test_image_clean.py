"""image-clean: what of an instance does not belong into an image, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.trees import inputs, place, tree

from google_guest import image_clean
from google_guest.changes import apply_all

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


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    place(tmp_path, "/home/ada/notes", "x")
    (tmp_path / "var/lib/google-guest-agent").mkdir(parents=True)
    (tmp_path / "var/lib/google-guest-agent/link").symlink_to("/home/ada")
    assert cleaned(tmp_path) == ["/var/lib/google-guest-agent/link"]
    assert (tmp_path / "home/ada/notes").exists()
