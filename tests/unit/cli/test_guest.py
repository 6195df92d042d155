"""The command google-guest on a tree of files, with a document in place of a server."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from google_guest.catalog import platform_features
from google_guest.cli import guest
from google_guest.places import LINUX
from google_guest.state import STATUS_NAME
from google_guest.version import version

DOCUMENT = {
    "instance": {
        "id": 4711,
        "machineType": "projects/1/machineTypes/e2-small",
        "attributes": {"ssh-keys": "ada:ssh-ed25519 not-base64 x"},
    },
    "project": {"projectId": "sample", "attributes": {}},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/ssh").mkdir()
    return root


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(DOCUMENT))
    return path


def _tree(root: Path) -> str:
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = Path(folder) / name
            digest.update(f"{path}{path.lstat().st_mode}".encode() + path.read_bytes())
        digest.update(folder.encode())
    return digest.hexdigest()


def _json(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    status = guest.main([*argv, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_plan_prints_what_would_change_and_changes_nothing(
    root: Path, document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _tree(root)
    assert guest.main(["plan", "--root", str(root), "--metadata", str(document)]) == 0
    output = capsys.readouterr().out
    assert "nothing was changed" in output
    assert "google_instance_id" in output
    assert _tree(root) == before


def test_plan_names_every_feature_with_its_decision(
    root: Path, document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, shown = _json(capsys, "plan", "--root", str(root), "--metadata", str(document))
    assert status == 0
    assert [row["name"] for row in shown["features"]] == [row.name for row in platform_features()]
    assert all(row["reason"] and row["layer"] for row in shown["features"])


def test_dry_run_of_apply_is_the_plan(
    root: Path, document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _tree(root)
    arguments = ["--root", str(root), "--metadata", str(document)]
    assert guest.main(["apply", "--dry-run", *arguments]) == 0
    shown = capsys.readouterr().out
    assert guest.main(["plan", *arguments]) == 0
    assert capsys.readouterr().out == shown
    assert _tree(root) == before


def test_unknown_feature_is_one_clear_error(
    root: Path, document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--root", str(root), "--metadata", str(document), "--feature", "flux"]
    assert guest.main(["plan", *arguments]) == 1
    error = capsys.readouterr().err
    assert "there is no feature 'flux'" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("content", ["{", "", "\xff", "[" * 100_000])
def test_broken_document_is_one_clear_error(
    root: Path, document: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document.write_bytes(content.encode("latin-1"))
    assert guest.main(["plan", "--root", str(root), "--metadata", str(document)]) == 1
    assert str(document) in capsys.readouterr().err


def test_missing_root_is_one_clear_error(
    tmp_path: Path, document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", "--root", str(tmp_path / "none"), "--metadata", str(document)]
    assert guest.main(arguments) == 1
    assert "is no directory" in capsys.readouterr().err


def test_config_names_the_layer_of_each_value(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "etc/default").mkdir()
    (root / "etc/default/instance_configs.cfg").write_text("[Accounts]\ngroups = x\n")
    status, shown = _json(capsys, "config", "--root", str(root))
    origins = {(row["section"], row["key"]): row["origin"] for row in shown["settings"]}
    assert status == 0
    assert origins["Accounts", "groups"] == "/etc/default/instance_configs.cfg"
    assert origins["Accounts", "reuse_homedir"] == "built-in"


def test_status_without_an_agent_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert guest.main(["status", "--root", str(root)]) == 1
    assert "the agent has not run" in capsys.readouterr().err


def test_status_shows_what_the_agent_wrote(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / LINUX.in_run(STATUS_NAME).lstrip("/")
    path.parent.mkdir(parents=True)
    row = {
        "on": True, "reason": "default", "layer": "built-in", "changes": ["create user ada"],
        "changes_count": 3, "last_change": 1.0, "last_pass": 1.0, "error": "", "notes": [],
    }  # fmt: skip
    document = {"version": "1", "pid": 0, "state": "running", "features": {"accounts": row}}
    path.write_text(json.dumps(document))
    assert guest.main(["status", "--root", str(root)]) == 0
    output = capsys.readouterr().out
    assert "stopped" in output
    assert "accounts\ton\tbuilt-in: default\tcreate user ada (+2 more)" in output


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, "waiting"),
        ({"on": True}, "on"),
        ({"on": False}, "off"),
        ({"on": True, "error": "disk is full"}, "failing"),
        ({"on": True, "error": "", "skipped": "read-only file system"}, "skipped"),
    ],
)
def test_status_names_the_state_of_a_feature(
    root: Path, capsys: pytest.CaptureFixture[str], facts: dict[str, object], state: str
) -> None:
    path = root / LINUX.in_run(STATUS_NAME).lstrip("/")
    path.parent.mkdir(parents=True)
    document = {"version": "1", "pid": 0, "state": "running", "features": {"clock": facts}}
    path.write_text(json.dumps(document))
    _, shown = _json(capsys, "status", "--root", str(root))
    assert shown["features"]["clock"]["state"] == state


def test_keys_tells_what_becomes_of_each_key(
    root: Path, document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, shown = _json(capsys, "keys", "--root", str(root), "--metadata", str(document))
    assert status == 0
    assert [row["user"] for row in shown["keys"]] == ["ada"]
    assert not shown["keys"][0]["accepted"]


def test_image_clean_lists_only_with_dry_run(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = root / "etc/google_instance_id"
    marker.write_text("1")
    assert guest.main(["image-clean", "--dry-run", "--root", str(root)]) == 0
    assert "remove /etc/google_instance_id" in capsys.readouterr().out
    assert marker.exists()
    assert guest.main(["image-clean", "--root", str(root)]) == 0
    assert not marker.exists()


def test_version_is_the_projects(capsys: pytest.CaptureFixture[str]) -> None:
    assert guest.main(["version"]) == 0
    assert capsys.readouterr().out == version() + "\n"


@pytest.mark.parametrize("argv", [[], ["flux"], ["plan", "--flux"]])
def test_wrong_arguments_end_with_status_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        guest.main(argv)
    assert caught.value.code == 2
