"""First boot: which instances are new, and what a new one gets."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.trees import Commands, inputs, metadata, place, tree

from google_guest.changes import Change, Outcome, apply_all
from google_guest.changes.files import RemoveFile, WriteFile
from google_guest.changes.first_boot import GenerateHostKey, RecordInstance
from google_guest.features import Plan
from google_guest.features.linux import first_boot
from google_guest.system import System
from google_guest.system.commands import CommandError, Completed

MARKER = "/etc/google_instance_id"
KEYGEN = ("ssh-keygen",)
NO_BOTO = "[InstanceSetup]\nset_boto_config = false\n"


class Live(System):
    """A tree that is treated as the running machine."""

    is_live = True


def live(system: System) -> System:
    return Live(root=system.root, runner=system.runner, channel=system.channel)


def fake_keygen(argv: Sequence[str]) -> Completed:
    """Write a key pair where ssh-keygen would; every call makes another one."""
    if argv[0] == "ssh-keygen":
        path = Path(argv[argv.index("-f") + 1])
        assert not path.exists(), "ssh-keygen would ask before it replaces a file"
        token = os.urandom(6).hex()
        path.write_text(f"private {token}\n")
        Path(f"{path}.pub").write_text(f"ssh-{argv[2]} {token} root@test\n")
    return Completed(tuple(argv), 0, "", "")


def failing_keygen(argv: Sequence[str]) -> Completed:
    if argv[0] == "ssh-keygen":
        raise CommandError(argv, 1, "no entropy")
    return Completed(tuple(argv), 0, "", "")


def plan(system: System, instance_id: object = 7, *, config: str = "") -> Plan:
    return first_boot.plan(inputs(system, metadata({"id": instance_id}), config=config))


def run(system: System, instance_id: object = 7, *, config: str = "") -> Outcome:
    return apply_all(plan(system, instance_id, config=config).changes, live(system))


def kinds(changes: Sequence[Change]) -> list[type[Change]]:
    return [type(change) for change in changes]


def key_types(changes: Sequence[Change]) -> list[str]:
    return [change.key_type for change in changes if isinstance(change, GenerateHostKey)]


def text(system: System, path: str) -> str:
    return (system.root / path.lstrip("/")).read_text()


# Whether the instance is new.


def test_instance_without_marker_is_new(tmp_path: Path) -> None:
    assert RecordInstance in kinds(plan(tree(tmp_path)).changes)


@pytest.mark.parametrize("content", ["7", "7\n", " 7 \r\n"])
def test_marker_of_this_instance_means_nothing_to_do(tmp_path: Path, content: str) -> None:
    assert plan(tree(tmp_path, {MARKER: content}, programs=KEYGEN)).changes == ()


def test_marker_of_another_instance_means_first_boot(tmp_path: Path) -> None:
    system = tree(tmp_path, {MARKER: "6\n"}, programs=KEYGEN)
    assert key_types(plan(system).changes) == ["ecdsa", "ed25519", "rsa"]


def test_nothing_happens_without_an_instance_id(tmp_path: Path) -> None:
    result = plan(tree(tmp_path, {MARKER: "6\n"}, programs=KEYGEN), None)
    assert result.changes == ()
    assert result.notes


def test_unreadable_marker_means_nothing_is_touched(tmp_path: Path) -> None:
    os.mkfifo(place(tmp_path, "/etc/x", "").parent / "google_instance_id")
    result = plan(tree(tmp_path, programs=KEYGEN))
    assert result.changes == ()
    assert "cannot be read" in result.notes[0]


def test_number_kept_by_an_older_agent_keeps_the_keys(tmp_path: Path) -> None:
    result = plan(tree(tmp_path, programs=KEYGEN), config="[Instance]\ninstance_id = 7\n")
    assert kinds(result.changes) == [RecordInstance]


def test_empty_marker_counts_as_none(tmp_path: Path) -> None:
    system = tree(tmp_path, {MARKER: "\n"}, programs=KEYGEN)
    assert kinds(plan(system, config="[Instance]\ninstance_id = 7\n").changes) == [RecordInstance]


def test_number_kept_by_an_older_agent_does_not_beat_the_marker(tmp_path: Path) -> None:
    system = tree(tmp_path, {MARKER: "6\n"}, programs=KEYGEN)
    assert key_types(plan(system, config="[Instance]\ninstance_id = 7\n").changes)


@pytest.mark.parametrize(
    ("configured", "present", "marker"),
    [
        ("/etc/google_instance_id", (), "/etc/google_instance_id"),
        (
            "/etc/google_instance_id",
            ("/etc/google_instance_id/x",),
            "/etc/google_instance_id/google_instance_id",
        ),
        ("/etc", ("/etc/x",), "/etc/google_instance_id"),
        ("/var/lib/marker", ("/var/lib/marker",), "/var/lib/marker"),
        ("/var/lib/none", (), "/var/lib/none/google_instance_id"),
        ("/", (), "/google_instance_id"),
    ],
)
def test_configured_place_is_a_file_or_its_directory(
    tmp_path: Path, configured: str, present: tuple[str, ...], marker: str
) -> None:
    system = tree(tmp_path, dict.fromkeys(present, ""))
    config = inputs(system, config=f"[Instance]\ninstance_id_dir = {configured}\n").config
    assert first_boot.marker_path(system, config) == marker


# What it gets.


def test_marker_is_planned_after_everything_that_must_succeed(tmp_path: Path) -> None:
    system = tree(tmp_path, programs=("ssh-keygen", "restorecon"))
    assert kinds(plan(system).changes)[-2:] == [RecordInstance, RemoveFile]


def test_first_boot_makes_every_configured_type_and_records_the_instance(tmp_path: Path) -> None:
    system = tree(tmp_path, programs=KEYGEN, runner=Commands(fake_keygen))
    assert run(system).ok
    assert text(system, MARKER) == "7\n"
    for key_type in ("ecdsa", "ed25519", "rsa"):
        private = tmp_path / f"etc/ssh/ssh_host_{key_type}_key"
        assert private.stat().st_mode & 0o777 == 0o600
        assert private.with_suffix(".pub").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "etc/google_instance_id").stat().st_mode & 0o777 == 0o644


def test_second_start_changes_nothing(tmp_path: Path) -> None:
    system = tree(tmp_path, programs=KEYGEN, runner=Commands(fake_keygen))
    run(system)
    assert plan(system) == Plan()


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    system = tree(
        tmp_path,
        {"/etc/ssh/ssh_host_rsa_key.temp": "", "/etc/ssh/ssh_host_rsa_key.temp.pub": ""},
        programs=KEYGEN,
        runner=Commands(fake_keygen),
    )
    run(system)
    names = sorted(path.name for path in (tmp_path / "etc/ssh").iterdir())
    assert names == sorted(
        f"ssh_host_{kind}_key{suffix}"
        for kind in ("ecdsa", "ed25519", "rsa")
        for suffix in ("", ".pub")
    )


def test_types_on_disk_are_replaced_although_not_configured(tmp_path: Path) -> None:
    files = {MARKER: "6", "/etc/ssh/ssh_host_dsa_key": "", "/etc/ssh/ssh_host_dsa_key.pub": "old"}
    system = tree(tmp_path, files, programs=KEYGEN)
    config = "[InstanceSetup]\nhost_key_types = ed25519 , ed25519\n"
    assert key_types(plan(system, config=config).changes) == ["ed25519", "dsa"]


def test_type_that_is_no_name_is_left_out(tmp_path: Path) -> None:
    config = "[InstanceSetup]\nhost_key_types = ../../x,rsa,,\n"
    result = plan(tree(tmp_path, programs=KEYGEN), config=config)
    assert key_types(result.changes) == ["rsa"]
    assert "'../../x' is no key type" in result.notes[0]


def test_switch_keeps_the_host_keys_and_still_records_the_instance(tmp_path: Path) -> None:
    system = tree(tmp_path, {MARKER: "6"}, programs=KEYGEN)
    changes = plan(system, config="[InstanceSetup]\nset_host_keys = false\n").changes
    assert key_types(changes) == []
    assert kinds(changes) == [WriteFile, RecordInstance]


def test_set_up_from_metadata_can_be_switched_off(tmp_path: Path) -> None:
    decision = first_boot.enabled(
        inputs(tree(tmp_path), metadata(), config="[InstanceSetup]\nnetwork_enabled = no\n")
    )
    assert not decision.on
    assert decision.layer == "/etc/default/instance_configs.cfg"


def test_machine_without_ssh_keygen_has_no_keys_to_make(tmp_path: Path) -> None:
    result = plan(tree(tmp_path), config=NO_BOTO)
    assert kinds(result.changes) == [RecordInstance]
    assert result.notes == ("no host keys are made: ssh-keygen is not installed",)


def test_labels_are_restored_and_sshd_reloaded_after_the_keys(tmp_path: Path) -> None:
    runner = Commands(fake_keygen)
    files = {"/run/systemd/system/x": "", "/lib/systemd/system/sshd.service": ""}
    run(tree(tmp_path, files, programs=("ssh-keygen", "restorecon"), runner=runner))
    assert runner.programs() == ["ssh-keygen"] * 3 + ["restorecon", "systemctl"]
    assert runner.argvs[-2] == ("restorecon", "-FR", "/etc/ssh")
    assert runner.argvs[-1] == (
        "systemctl",
        "--no-block",
        "try-reload-or-restart",
        "sshd.service",
    )


def test_sshd_is_not_reloaded_when_no_key_is_new(tmp_path: Path) -> None:
    runner = Commands(failing_keygen)
    files = {"/run/systemd/system/x": "", "/lib/systemd/system/ssh.service": ""}
    run(tree(tmp_path, files, programs=("ssh-keygen", "restorecon"), runner=runner))
    assert runner.programs() == ["ssh-keygen"] * 3


def test_failing_restorecon_does_not_hold_up_the_first_boot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def no_labels(argv: Sequence[str]) -> Completed:
        if argv[0] == "restorecon":
            raise CommandError(argv, 255, "no such policy")
        return fake_keygen(argv)

    system = tree(tmp_path, programs=("ssh-keygen", "restorecon"), runner=Commands(no_labels))
    assert run(system).ok
    assert text(system, MARKER) == "7\n"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_machine_without_systemd_has_nothing_to_reload(tmp_path: Path) -> None:
    runner = Commands(fake_keygen)
    run(tree(tmp_path, {"/lib/systemd/system/ssh.service": ""}, programs=KEYGEN, runner=runner))
    assert "systemctl" not in runner.programs()


# When something fails.


def test_ssh_keygen_failing_for_all_types_leaves_no_marker_and_the_old_keys(
    tmp_path: Path,
) -> None:
    old = "ssh-rsa old\n"
    files = {"/etc/ssh/ssh_host_rsa_key": "old", "/etc/ssh/ssh_host_rsa_key.pub": old}
    system = tree(tmp_path, files, programs=KEYGEN, runner=Commands(failing_keygen))
    outcome = run(system)
    assert len(outcome.failed) == 3
    assert not (tmp_path / "etc/google_instance_id").exists()
    assert text(system, "/etc/ssh/ssh_host_rsa_key") == "old"


def test_failed_first_boot_is_tried_again(tmp_path: Path) -> None:
    run(tree(tmp_path, programs=KEYGEN, runner=Commands(failing_keygen)))
    system = tree(tmp_path, programs=KEYGEN, runner=Commands(fake_keygen))
    assert run(system).ok
    assert text(system, MARKER) == "7\n"


def test_one_type_that_works_is_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fips(argv: Sequence[str]) -> Completed:
        if "ed25519" in argv:
            raise CommandError(argv, 255, "ED25519 keys are not allowed in FIPS mode\r\n")
        return fake_keygen(argv)

    caplog.set_level("INFO")
    system = tree(tmp_path, programs=KEYGEN, runner=Commands(fips))
    assert run(system).ok
    assert text(system, MARKER) == "7\n"
    assert not (tmp_path / "etc/ssh/ssh_host_ed25519_key").exists()
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_type_that_fails_for_another_reason_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def flaky(argv: Sequence[str]) -> Completed:
        return failing_keygen(argv) if "rsa" in argv else fake_keygen(argv)

    run(tree(tmp_path, programs=KEYGEN, runner=Commands(flaky)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_later_failure_does_not_cost_the_new_keys(tmp_path: Path) -> None:
    system = tree(tmp_path, programs=KEYGEN, runner=Commands(fake_keygen))
    changes = plan(system).changes
    place(tmp_path, "/etc/boto.cfg/in-the-way", "")
    assert not apply_all(changes, live(system)).ok
    made = text(system, "/etc/ssh/ssh_host_rsa_key")
    shutil.rmtree(tmp_path / "etc/boto.cfg")
    assert run(system).ok
    assert text(system, "/etc/ssh/ssh_host_rsa_key") == made
    assert text(system, MARKER) == "7\n"
    assert not (tmp_path / first_boot.PROGRESS.lstrip("/")).exists()


def test_keys_of_an_unfinished_first_boot_do_not_count_on_another_instance(
    tmp_path: Path,
) -> None:
    progress = '{"host_keys": true, "instance": "6"}'
    system = tree(tmp_path, {first_boot.PROGRESS: progress}, programs=KEYGEN)
    assert key_types(plan(system).changes) == ["ecdsa", "ed25519", "rsa"]


def test_keys_stay_when_the_marker_could_not_be_written(tmp_path: Path) -> None:
    system = tree(tmp_path, {"/etc/ssh/ssh_host_rsa_key": "old"}, programs=KEYGEN)
    place(tmp_path, "/readonly", "")
    change = GenerateHostKey("rsa", "/etc/ssh", "/readonly/google_instance_id")
    with pytest.raises(OSError):
        change.apply(system)
    assert text(system, "/etc/ssh/ssh_host_rsa_key") == "old"
    assert not (tmp_path / "etc/ssh/ssh_host_rsa_key.pub").exists()


def test_applying_the_same_plan_twice_keeps_the_first_keys(tmp_path: Path) -> None:
    system = tree(tmp_path, programs=KEYGEN, runner=Commands(fake_keygen))
    changes = plan(system).changes
    apply_all(changes, live(system))
    made = text(system, "/etc/ssh/ssh_host_rsa_key")
    apply_all(changes, live(system))
    assert text(system, "/etc/ssh/ssh_host_rsa_key") == made


def test_nothing_but_files_is_touched_in_a_tree(tmp_path: Path) -> None:
    runner = Commands()
    system = tree(tmp_path, programs=KEYGEN, runner=runner)
    apply_all(plan(system).changes, system)
    assert runner.argvs == []
    assert not (tmp_path / "etc/google_instance_id").exists()


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")
def test_keys_of_the_real_ssh_keygen_are_pairs(tmp_path: Path) -> None:
    from google_guest.system.commands import run_command

    system = System(root=tmp_path, runner=run_command)
    place(tmp_path, "/usr/bin/ssh-keygen", "", mode=0o755)
    place(tmp_path, "/etc/ssh/ssh_host_ed25519_key.temp", "stale")
    config = NO_BOTO + "host_key_types = ed25519,nonsense\n"
    assert run(system, config=config).ok
    key = tmp_path / "etc/ssh/ssh_host_ed25519_key"
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(key)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[:2] == key.with_suffix(".pub").read_text().split()[:2]


# boto.


def test_boto_gets_the_project_and_keeps_what_the_administrator_wrote(tmp_path: Path) -> None:
    files = {
        "/etc/boto.cfg": "# mine\n[GSUtil]\nparallel_thread_count = 3\n",
        "/etc/boto.cfg.template": "[Boto]\nca_certificates_file = system\n",
    }
    system = tree(tmp_path, files)
    run(system)
    assert text(system, "/etc/boto.cfg") == (
        "# mine\n[GSUtil]\nparallel_thread_count = 3\n"
        "default_project_id = sample-proj\ndefault_api_version = 2\n\n"
        "[Boto]\nca_certificates_file = system\n\n[GoogleCompute]\nservice_account = default\n"
    )


def test_boto_keeps_its_mode(tmp_path: Path) -> None:
    system = tree(tmp_path)
    place(tmp_path, "/etc/boto.cfg", "", mode=0o600)
    run(system)
    assert (tmp_path / "etc/boto.cfg").stat().st_mode & 0o777 == 0o600


def test_boto_switch(tmp_path: Path) -> None:
    run(tree(tmp_path), config=NO_BOTO)
    assert not (tmp_path / "etc/boto.cfg").exists()


def test_project_name_that_is_none_is_not_written(tmp_path: Path) -> None:
    system = tree(tmp_path)
    hostile = metadata({"id": 7}, project={"projectId": "x\n[Credentials]\na = b"})
    apply_all(first_boot.plan(inputs(system, hostile)).changes, live(system))
    assert "Credentials" not in text(system, "/etc/boto.cfg")


def test_content_of_the_administrators_boto_file_is_not_shown(tmp_path: Path) -> None:
    system = tree(tmp_path, {"/etc/boto.cfg": "[Credentials]\nkey = secret\n"})
    shown = [line for change in plan(system).changes for line in change.diff()]
    assert not any("secret" in line for line in shown)
