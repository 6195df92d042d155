"""Users for ssh on Windows: who is made, who is left alone, and what happens to sshd."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import metadata
from support.windows_machines import Machine, windows_inputs

from google_guest.features.windows import ssh_users as feature
from google_guest.metadata.tree import Metadata
from google_guest.reconcile import Pass, run_pass
from google_guest.system.windows import ADMINISTRATORS, FileVersion, ServiceState, WindowsError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0"
SSHD = r"C:\Windows\System32\OpenSSH\sshd.exe"
SERVICE_KEY = r"SYSTEM\CurrentControlSet\Services\sshd"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.memory.services.add("sshd", ServiceState.RUNNING)
    machine.memory.registry.set_text(SERVICE_KEY, "ImagePath", SSHD)
    machine.memory.versions[SSHD] = FileVersion("9.5.2.1", "OpenSSH_9.5p2")
    return machine


def wanting(*lines: str, on: Optional[str] = "true", **attributes: str) -> Metadata:
    values = {"ssh-keys": "\n".join(lines), **attributes}
    if on is not None:
        values["enable-windows-ssh"] = on
    return metadata({"attributes": values})


def run(machine: Machine, known: Metadata, config: str = "") -> Pass:
    return run_pass(feature.FEATURE, windows_inputs(machine, known, config=config))


def test_user_of_a_key_is_made_once_and_is_an_administrator(machine: Machine) -> None:
    assert run(machine, wanting(f"ana:{KEY} ana@pc")).ok
    assert len(machine.memory.accounts.passwords["ana"]) == 20
    assert machine.memory.accounts.members == {ADMINISTRATORS: {"ana"}}
    assert run(machine, wanting(f"ana:{KEY} ana@pc")).plan.changes == ()


def test_user_stays_when_the_key_is_gone(machine: Machine) -> None:
    run(machine, wanting(f"ana:{KEY}"))
    run(machine, wanting())
    assert list(machine.memory.accounts.passwords) == ["ana"]
    assert machine.memory.accounts.members == {ADMINISTRATORS: {"ana"}}


def test_existing_user_is_left_as_it_is(machine: Machine) -> None:
    machine.memory.accounts.passwords["ana"] = "hers"
    run(machine, wanting(f"ana:{KEY}"))
    assert machine.memory.accounts.passwords == {"ana": "hers"}
    assert machine.memory.accounts.members == {}


def test_user_that_appears_meanwhile_is_left_as_it_is(machine: Machine) -> None:
    machine.memory.accounts.passwords["ana"] = "hers"
    machine.memory.accounts.appears_late = True
    assert run(machine, wanting(f"ana:{KEY}")).ok
    assert machine.memory.accounts.members == {}


def test_no_file_with_keys_is_written(machine: Machine) -> None:
    run(machine, wanting(f"ana:{KEY}"))
    assert not list(machine.root.rglob("*authorized_keys*"))


@pytest.mark.parametrize("on", [None, "false", "maybe"])
def test_without_the_switch_nobody_is_made(machine: Machine, on: Optional[str]) -> None:
    result = run(machine, wanting(f"ana:{KEY}", on=on))
    assert not result.decision.on
    assert machine.memory.accounts.passwords == {}


def test_switched_off_accounts_switch_this_off(machine: Machine) -> None:
    result = run(machine, wanting(f"ana:{KEY}", **{"disable-account-manager": "true"}))
    assert result.decision.reason == "disable-account-manager is true"
    assert machine.memory.accounts.passwords == {}


def test_instance_decides_before_the_project(machine: Machine) -> None:
    known = metadata(
        {"attributes": {"enable-windows-ssh": "false"}},
        project={"attributes": {"enable-windows-ssh": "true", "ssh-keys": f"ana:{KEY}"}},
    )
    assert not run(machine, known).decision.on


@pytest.mark.parametrize(("blocked", "users"), [("true", ["ana"]), ("false", ["ana", "eva"])])
def test_project_keys_count_unless_blocked(
    machine: Machine, blocked: str, users: list[str]
) -> None:
    known = metadata(
        {
            "attributes": {
                "enable-windows-ssh": "true",
                "block-project-ssh-keys": blocked,
                "ssh-keys": f"ana:{KEY}",
            }
        },
        project={"attributes": {"ssh-keys": f"eva:{KEY}"}},
    )
    run(machine, known)
    assert list(machine.memory.accounts.passwords) == users


def test_expired_and_broken_lines_make_nobody(machine: Machine) -> None:
    expired = f'eva:{KEY} google-ssh {{"userName":"e","expireOn":"1960-01-01T00:00:00+0000"}}'
    result = run(machine, wanting(expired, "no key", f"a b:{KEY}", f"ana:{KEY}"))
    assert list(machine.memory.accounts.passwords) == ["ana"]
    assert len(result.plan.warnings) == 2


def test_one_refused_user_does_not_stop_the_others(machine: Machine) -> None:
    accounts = machine.memory.accounts
    accounts.refusals["create"] = WindowsError("NetUserAdd", 2202, "bad name")
    result = run(machine, wanting(f"ana:{KEY}", f"eva:{KEY}"))
    assert len(result.errors) == 2
    assert [call for call in accounts.calls if call[0] == "create"] == [
        ("create", "ana"),
        ("create", "eva"),
    ]


def test_on_a_domain_controller_nobody_is_made(machine: Machine) -> None:
    machine.memory.accounts.domain_controller = True
    result = run(machine, wanting(f"ana:{KEY}"))
    assert machine.memory.accounts.passwords == {}
    assert "this is a domain controller" in result.plan.warnings[0]


def test_on_a_domain_controller_the_configuration_can_ask_for_users(machine: Machine) -> None:
    machine.memory.accounts.domain_controller = True
    run(machine, wanting(f"ana:{KEY}"), config="[accountManager]\ndisable = false\n")
    assert list(machine.memory.accounts.passwords) == ["ana"]


def test_sshd_that_does_not_run_is_started_once(machine: Machine) -> None:
    services = machine.memory.services
    services.states["sshd"] = ServiceState.STOPPED
    run(machine, wanting())
    assert services.states["sshd"] is ServiceState.RUNNING
    services.states["sshd"] = ServiceState.STOPPED
    assert run(machine, wanting()).plan.changes == ()
    assert services.states["sshd"] is ServiceState.STOPPED


def test_switching_off_and_on_again_starts_sshd_again(machine: Machine) -> None:
    run(machine, wanting())
    assert run(machine, wanting(on="false")).ok
    assert run(machine, wanting(on="false")).plan.changes == ()
    machine.memory.services.states["sshd"] = ServiceState.STOPPED
    run(machine, wanting())
    assert machine.memory.services.states["sshd"] is ServiceState.RUNNING


def test_sshd_that_does_not_start_is_tried_again(machine: Machine) -> None:
    services = machine.memory.services
    services.states["sshd"] = ServiceState.STOPPED
    services.disabled.add("sshd")
    result = run(machine, wanting(f"ana:{KEY}"))
    assert "StartService failed with 1058" in result.errors[0]
    assert list(machine.memory.accounts.passwords) == ["ana"]


def test_missing_sshd_is_warned_about_and_users_are_made_all_the_same(machine: Machine) -> None:
    del machine.memory.services.states["sshd"]
    result = run(machine, wanting(f"ana:{KEY}"))
    assert result.plan.warnings == ("sshd is not installed: nobody can log in over ssh",)
    assert list(machine.memory.accounts.passwords) == ["ana"]


@pytest.mark.parametrize(
    ("version", "warning"),
    [
        ("8.6.0.1", ""),
        ("9.5.2.1", ""),
        ("10.0.0.0", ""),
        ("8.1.0.1", "sshd 8.1 is too old for keys in metadata"),
        ("", "the version of sshd is unknown"),
        (None, "the version of sshd is unknown"),
    ],
)
def test_version_of_sshd_is_judged(machine: Machine, version: Optional[str], warning: str) -> None:
    if version is None:
        machine.memory.versions.clear()
    else:
        machine.memory.versions[SSHD] = FileVersion(version, "")
    warnings = run(machine, wanting()).plan.warnings
    assert warnings[0].startswith(warning) if warning else warnings == ()


@pytest.mark.parametrize(
    ("command", "program"),
    [
        (r'"C:\Program Files\OpenSSH\sshd.exe" -f x', r"C:\Program Files\OpenSSH\sshd.exe"),
        (r"C:\Program Files\OpenSSH\sshd.exe -f x", r"C:\Program Files\OpenSSH\sshd.exe"),
        (r"C:\Windows\sshd.EXE", r"C:\Windows\sshd.EXE"),
        ("sshd -D", "sshd"),
        ("", ""),
    ],
)
def test_program_of_a_service_is_found_in_its_command(command: str, program: str) -> None:
    assert feature.program_of(command) == program


def test_environment_variables_of_the_command_are_filled_in(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SystemRoot", r"C:\Windows")
    text = r"%SystemRoot%\System32\OpenSSH\sshd.exe"
    machine.memory.registry.set_text(SERVICE_KEY, "ImagePath", text, expandable=True)
    assert run(machine, wanting()).plan.warnings == ()


@given(st.text(max_size=60))
def test_any_command_and_version_are_read(text: str) -> None:
    assert feature.program_of(text) in text
    version = feature.parse_version(text)
    assert version is None or min(version) >= 0


@pytest.mark.parametrize(
    ("on", "reason"), [("true", "accepted"), ("false", "unused: enable-windows-ssh is false")]
)
def test_every_key_is_explained(machine: Machine, on: str, reason: str) -> None:
    rows = feature.explain_keys(windows_inputs(machine, wanting(f"ana:{KEY}", "ana:x", on=on)))
    assert [row.reason for row in rows] == [reason, "rejected: its key type is unknown"]
