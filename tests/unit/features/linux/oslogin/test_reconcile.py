"""From switches to files: set up, set back, left alone, on a tree."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Optional

import pytest

from google_guest.changes.oslogin import EditFiles
from google_guest.config import Config, DaemonsSection, OsLoginSection
from google_guest.features import Inputs, Plan
from google_guest.features.linux import oslogin
from google_guest.features.linux.oslogin import reconcile
from google_guest.metadata.tree import parse_metadata
from google_guest.reconcile import plan_feature, run_pass
from google_guest.system import System

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
NOW = 1_900_000_000.0
FILES = {
    "etc/ssh/sshd_config": "# top\nInclude /etc/ssh/sshd_config.d/*.conf\nMatch User bob\n X no\n",
    "etc/nsswitch.conf": "passwd: files systemd # note\ngroup:  files systemd\nhosts: dns\n",
    "etc/pam.d/sshd": "@include common-auth\n",
    "etc/pam.d/su": "auth sufficient pam_rootok.so\n",
    "etc/security/group.conf": "# none\n",
}
PARTS = (
    "usr/bin/google_authorized_keys",
    "usr/bin/google_authorized_keys_sk",
    "usr/bin/google_authorized_principals",
    "usr/lib/x86_64-linux-gnu/security/pam_oslogin_login.so",
    "usr/lib/x86_64-linux-gnu/security/pam_oslogin_admin.so",
    "usr/lib/x86_64-linux-gnu/libnss_oslogin.so.2",
    "usr/lib/x86_64-linux-gnu/libnss_cache_oslogin.so.2",
)
ON = {"enable-oslogin": "true"}


class Channel:
    def oslogin_certificates(self) -> object:
        return {"trustedCertificateAuthorities": [{"publicKey": KEY}]}


@pytest.fixture
def system(tmp_path: Path) -> System:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for path in PARTS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch(mode=0o755)
    (tmp_path / "etc/sudoers.d").mkdir()
    found = System(root=tmp_path)
    found.channel = Channel()  # type: ignore[assignment]
    return found


def inputs(
    system: System, attributes: Optional[dict[str, str]] = None, config: Optional[Config] = None
) -> Inputs:
    document = {"instance": {"id": 1, "attributes": attributes or {}}, "project": {}}
    return Inputs(parse_metadata(document), config or Config(), system, NOW)


def run(system: System, attributes: Optional[dict[str, str]] = None) -> Plan:
    result = run_pass(oslogin.FEATURE, inputs(system, attributes))
    assert result.errors == ()
    return result.plan


def text(system: System, path: str) -> str:
    return (system.root / path).read_text()


def snapshot(system: System) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(system.root)): (path.read_bytes(), path.stat().st_ino)
        for path in system.root.rglob("*")
        if path.is_file()
    }


def test_enabling_edits_every_file(system: System) -> None:
    run(system, ON)
    sshd = text(system, "etc/ssh/sshd_config")
    assert "AuthorizedKeysCommand /usr/bin/google_authorized_keys\n" in sshd
    assert sshd.index("AuthorizedPrincipalsCommand ") < sshd.index("AuthorizedKeysCommand ")
    assert "Include /var/google-users.d/*" in sshd
    names = text(system, "etc/nsswitch.conf")
    assert "passwd: files systemd cache_oslogin oslogin # note\n" in names
    assert "group:  files systemd cache_oslogin oslogin\n" in names
    assert "pam_mkhomedir.so" in text(system, "etc/pam.d/sshd")
    assert "sshd;*;*;Al0000-2400;video" in text(system, "etc/security/group.conf")
    assert text(system, "etc/ssh/oslogin_trustedca.pub") == f"{KEY}\n"


def test_a_second_pass_changes_nothing(system: System) -> None:
    run(system, ON)
    before = snapshot(system)
    assert run(system, ON).changes == ()
    assert snapshot(system) == before


@pytest.mark.parametrize(
    "switches",
    [
        ON,
        {**ON, "enable-oslogin-2fa": "true"},
        {**ON, "enable-oslogin-sk": "true"},
        {**ON, "enable-oslogin-certificates": "true"},
    ],
)
def test_disabling_gives_back_every_byte(system: System, switches: dict[str, str]) -> None:
    run(system, switches)
    run(system)
    assert {path: text(system, path) for path in FILES} == FILES
    assert not (system.root / "etc/ssh/oslogin_trustedca.pub").exists()
    assert not (system.root / "etc/sudoers.d/google-oslogin").exists()


def test_switching_a_second_factor_on_and_off_ends_where_it_began(system: System) -> None:
    run(system, ON)
    before = {path: text(system, path) for path in FILES}
    run(system, {**ON, "enable-oslogin-2fa": "true"})
    login = text(system, "etc/pam.d/sshd")
    assert login.index("pam_group.so") < login.index("pam_oslogin_login.so")
    run(system, ON)
    assert {path: text(system, path) for path in FILES} == before


def test_security_keys_leave_no_way_round_for_certificates(system: System) -> None:
    run(system, {**ON, "enable-oslogin-sk": "true", "enable-oslogin-certificates": "true"})
    sshd = text(system, "etc/ssh/sshd_config")
    assert "google_authorized_keys_sk" in sshd and "TrustedUserCAKeys" not in sshd
    assert not (system.root / "etc/ssh/oslogin_trustedca.pub").exists()


def test_required_certificates_leave_no_keys_command(system: System) -> None:
    run(system, {**ON, "enable-oslogin-certificates": "true"})
    assert "AuthorizedKeysCommand" not in text(system, "etc/ssh/sshd_config")


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_leaves_every_file(system: System, part: str) -> None:
    (system.root / part).unlink()
    (system.root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\n")
    plan = run(system, ON)
    assert plan.changes == ()
    assert len(plan.notes) == 1 and plan.notes[0].startswith("OS Login not installed")


def test_leftovers_go_when_a_part_is_missing(system: System) -> None:
    run(system, ON)
    (system.root / PARTS[0]).unlink()
    run(system, ON)
    assert text(system, "etc/ssh/sshd_config") == FILES["etc/ssh/sshd_config"]


def test_without_our_module_systemds_user_database_will_do(system: System) -> None:
    (system.root / PARTS[-1]).unlink()
    run(system, ON)
    assert "google_authorized_keys" in text(system, "etc/ssh/sshd_config")
    assert text(system, "etc/nsswitch.conf") == FILES["etc/nsswitch.conf"]


def test_an_unknown_userdb_setting_is_told(system: System) -> None:
    config = Config(os_login=OsLoginSection(userdb_provider="perhaps"))
    assert "userdb_provider" in oslogin.plan(inputs(system, ON, config)).warnings[0]


def test_somebody_elses_keys_command_wins(system: System) -> None:
    drop_in = system.root / "etc/ssh/sshd_config.d/50-ours.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("AuthorizedKeysCommand /opt/x %u\nAuthorizedKeysCommandUser nobody\n")
    plan = run(system, ON)
    assert len(plan.warnings) == 1 and "/opt/x" in plan.warnings[0]
    assert "google_authorized_keys" not in text(system, "etc/ssh/sshd_config")
    assert "google_authorized_principals" in text(system, "etc/ssh/sshd_config")


@pytest.mark.parametrize(
    "line",
    [
        "AuthorizedKeysCommand none\n",
        "AuthorizedKeysCommand /usr/bin/userdbctl ssh-authorized-keys %u\n",
        "Match User bob\n AuthorizedKeysCommand /opt/x\n",
        "# AuthorizedKeysCommand /opt/x\n",
    ],
)
def test_what_is_no_rival_is_no_conflict(system: System, line: str) -> None:
    (system.root / "etc/ssh/sshd_config.d").mkdir()
    (system.root / "etc/ssh/sshd_config.d/20-x.conf").write_text(line)
    assert run(system, ON).warnings == ()


def test_directories_and_drop_in_come_before_the_files(system: System) -> None:
    kinds = [type(change).__name__ for change in oslogin.plan(inputs(system, ON)).changes]
    assert kinds.index("EnsureDirectory") < kinds.index("WriteFile") < kinds.index("EditFiles")
    run(system, ON)
    for path in ("var/google-users.d", "var/google-sudoers.d"):
        assert stat.S_IMODE((system.root / path).stat().st_mode) == 0o750
    drop_in = system.root / "etc/sudoers.d/google-oslogin"
    assert stat.S_IMODE(drop_in.stat().st_mode) == 0o440


def test_the_other_agents_drop_in_goes_only_when_it_is_theirs(system: System) -> None:
    other = system.root / "etc/sudoers.d/google-sudoers"
    other.write_text("# mine\n")
    run(system, ON)
    assert other.exists()
    other.write_text("#includedir /var/google-sudoers.d\n")
    run(system, ON)
    assert not other.exists()


def test_the_four_files_are_one_change(system: System) -> None:
    changes = oslogin.plan(inputs(system, ON)).changes
    (edit,) = [change for change in changes if isinstance(change, EditFiles)]
    assert len(edit.edits) == 4 and any(line.startswith("+") for line in edit.diff())


def test_a_missing_sshd_config_leaves_everything(system: System) -> None:
    (system.root / "etc/ssh/sshd_config").unlink()
    plan = run(system, ON)
    assert plan.changes == () and "sshd_config" in plan.warnings[0]


def test_sles_16_gets_copies_to_edit(system: System) -> None:
    (system.root / "etc/os-release").write_text('ID="sles"\nVERSION_ID="16.0"\n')
    for path in FILES:
        if path != "etc/pam.d/su":
            (system.root / path).unlink()
    (system.root / "usr/etc/ssh").mkdir(parents=True)
    (system.root / "usr/etc/ssh/sshd_config").write_text("Port 22\n")
    (system.root / "usr/etc/nsswitch.conf").write_text("passwd: files\n")
    run(system, ON)
    assert "Port 22\n" in text(system, "etc/ssh/sshd_config")
    assert "passwd: files cache_oslogin oslogin\n" in text(system, "etc/nsswitch.conf")


def test_the_line_that_broke_su_goes(system: System) -> None:
    su = system.root / "etc/pam.d/su"
    su.write_text(
        FILES["etc/pam.d/su"] + "account    [success=bad ignore=ignore] pam_oslogin_login.so\n"
    )
    run(system)
    assert su.read_text() == FILES["etc/pam.d/su"]


def test_off_without_traces_plans_nothing(system: System) -> None:
    assert oslogin.plan_off(inputs(system)) == Plan()


def test_the_configurations_no_keeps_everything_as_it_is(system: System) -> None:
    run(system, ON)
    config = Config(daemons=DaemonsSection(oslogin_daemon=False))
    decision, plan = plan_feature(oslogin.FEATURE, inputs(system, ON, config))
    assert not decision.on and plan == Plan()


def test_every_cache_goes_with_os_login(system: System) -> None:
    cache = system.root / "etc/oslogin/identity.v1.cache"
    cache.parent.mkdir()
    cache.touch()
    run(system)
    assert not cache.exists()


def test_bytes_that_are_no_text_survive(system: System) -> None:
    path = system.root / "etc/pam.d/sshd"
    path.write_bytes(b"# caf\xe9\n")
    run(system, ON)
    run(system)
    assert path.read_bytes() == b"# caf\xe9\n"


def test_a_changed_switch_asks_for_a_pass() -> None:
    first = parse_metadata({"instance": {"attributes": ON}})
    second = parse_metadata({"instance": {"attributes": {**ON, "enable-oslogin-2fa": "true"}}})
    assert oslogin.inputs_of(first) != oslogin.inputs_of(second)


def test_thorough_cleaning_takes_the_grants(system: System) -> None:
    run(system, ON)
    (system.root / "var/google-sudoers.d/ada").touch()
    for change in reconcile.plan_off(system, thorough=True).changes:
        change.apply(system)
    assert not (system.root / "var/google-sudoers.d").exists()
    assert not os.path.lexists(system.root / "var/google-users.d")
