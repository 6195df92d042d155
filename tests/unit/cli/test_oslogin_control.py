"""google_oslogin_control: arguments, statuses, and the same plans as the agent's."""

from __future__ import annotations

from pathlib import Path

import pytest

from google_guest.cli import oslogin_control
from google_guest.cli.oslogin_control import Arguments, main, parse
from google_guest.config import Config
from google_guest.errors import GuestError
from google_guest.features import Inputs
from google_guest.metadata.tree import parse_metadata
from google_guest.system import System

FILES = {
    "etc/ssh/sshd_config": "Port 22\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\n",
    "etc/pam.d/sshd": "@include common-auth\n",
    "etc/security/group.conf": "# none\n",
}
PARTS = (
    "usr/bin/google_authorized_keys",
    "usr/bin/google_authorized_keys_sk",
    "usr/bin/google_authorized_principals",
    "usr/lib/security/pam_oslogin_login.so",
    "usr/lib/security/pam_oslogin_admin.so",
    "usr/lib/libnss_oslogin.so.2",
    "usr/lib/libnss_cache_oslogin.so.2",
)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for path in PARTS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch(mode=0o755)

    def no_answer(*_: object) -> Inputs:
        raise GuestError("the metadata server does not answer")

    monkeypatch.setattr(oslogin_control, "_inputs", no_answer)
    return System(root=tmp_path)


def files(system: System) -> dict[str, str]:
    return {path: (system.root / path).read_text() for path in FILES}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["status"], Arguments("status")),
        (["activate", "--twofactor"], Arguments("activate", two_factor=True)),
        (["--norestartsshd", "deactivate"], Arguments("deactivate", restart_sshd=False)),
        (["activate", "--force"], Arguments("activate", force=True)),
        ([], None),
        (["restart"], None),
        (["status", "status"], None),
        (["status", "--verbose"], None),
    ],
)
def test_arguments(words: list[str], expected: object) -> None:
    assert parse(words) == expected


def test_wrong_arguments_end_with_1_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enable"]) == 1
    assert "usage: google_oslogin_control" in capsys.readouterr().err


def test_activate_without_metadata_wants_force(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["activate"], system=system) == 1
    assert "--force" in capsys.readouterr().err
    assert files(system) == FILES


def test_status_follows_activate_and_deactivate(system: System) -> None:
    assert main(["status"], system=system) == 1
    assert main(["activate", "--force"], system=system) == 0
    assert main(["status"], system=system) == 0
    assert main(["status", "--twofactor"], system=system) == 1
    assert main(["deactivate"], system=system) == 0
    assert files(system) == FILES
    assert main(["status"], system=system) == 1


def test_a_second_factor_shows_in_the_status(system: System) -> None:
    assert main(["activate", "--force", "--twofactor"], system=system) == 0
    assert main(["status", "--twofactor"], system=system) == 0


def test_status_is_a_line_for_each_check(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["status"], system=system)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(line.startswith("no") for line in lines)


def test_status_that_cannot_be_read_ends_with_2(system: System) -> None:
    (system.root / "etc/nsswitch.conf").unlink()
    (system.root / "etc/nsswitch.conf").mkdir()
    assert main(["status"], system=system) == 2


def test_deactivate_needs_no_helpers(system: System) -> None:
    main(["activate", "--force"], system=system)
    for part in PARTS:
        (system.root / part).unlink()
    assert main(["deactivate"], system=system) == 0
    assert files(system) == FILES


def test_deactivate_takes_directories_and_drop_in(system: System) -> None:
    main(["activate", "--force"], system=system)
    (system.root / "var/google-users.d/ada").touch()
    main(["deactivate"], system=system)
    assert not (system.root / "var/google-users.d").exists()
    assert not (system.root / "etc/sudoers.d/google-oslogin").exists()


def test_activate_needs_every_part(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    (system.root / PARTS[0]).unlink()
    assert main(["activate", "--force"], system=system) == 1
    assert "OS Login not installed" in capsys.readouterr().err
    assert files(system) == FILES


def metadata_says(
    system: System, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, str]
) -> None:
    metadata = parse_metadata({"instance": {"id": 1, "attributes": attributes}})
    found = Inputs(metadata, Config(), system, 1.9e9)
    monkeypatch.setattr(oslogin_control, "_inputs", lambda *_: found)


@pytest.mark.parametrize("attributes", [{}, {"enable-oslogin": "false"}])
def test_activate_refuses_what_metadata_does_not_want(
    system: System,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    attributes: dict[str, str],
) -> None:
    metadata_says(system, monkeypatch, attributes)
    assert main(["activate"], system=system) == 1
    assert "enable-oslogin" in capsys.readouterr().err
    assert files(system) == FILES
    assert main(["activate", "--force"], system=system) == 0


def test_activate_follows_the_switches_of_metadata(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata_says(system, monkeypatch, {"enable-oslogin": "true", "enable-oslogin-sk": "true"})
    assert main(["activate"], system=system) == 0
    assert "google_authorized_keys_sk" in files(system)["etc/ssh/sshd_config"]
