"""OS Login's changes: several files as one, directories, units."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from google_guest.changes import oslogin
from google_guest.changes.oslogin import (
    ControlUnits,
    Edit,
    EditFiles,
    EnsureDirectory,
    RemoveDirectory,
)
from google_guest.errors import GuestError
from google_guest.system import System
from google_guest.system.commands import CommandError

SSHD = "/etc/ssh/sshd_config"
NAMES = "/etc/nsswitch.conf"


@pytest.fixture
def system(tmp_path: Path) -> System:
    (tmp_path / "etc/ssh").mkdir(parents=True)
    (tmp_path / "etc/ssh/sshd_config").write_bytes(b"Port 22\n")
    (tmp_path / "etc/nsswitch.conf").write_bytes(b"passwd: files\n")
    return System(root=tmp_path)


def edits() -> EditFiles:
    return EditFiles(
        (
            Edit(SSHD, b"Port 22\n", b"New\nPort 22\n", is_sshd_config=True),
            Edit(NAMES, b"passwd: files\n", b"passwd: files oslogin\n"),
        ),
        purpose="set up OS Login",
    )


def read(system: System, path: str) -> bytes:
    return (system.root / path.lstrip("/")).read_bytes()


def test_all_files_are_written(system: System) -> None:
    edits().apply(system)
    assert read(system, SSHD) == b"New\nPort 22\n"
    assert read(system, NAMES) == b"passwd: files oslogin\n"


def test_applying_twice_writes_nothing(system: System) -> None:
    edits().apply(system)
    before = os.stat(system.root / "etc/nsswitch.conf")
    edits().apply(system)
    after = os.stat(system.root / "etc/nsswitch.conf")
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_file_changed_since_the_plan_is_left_alone(system: System) -> None:
    (system.root / "etc/nsswitch.conf").write_bytes(b"passwd: files ldap\n")
    with pytest.raises(GuestError, match="changed by somebody else"):
        edits().apply(system)
    assert read(system, SSHD) == b"Port 22\n"
    assert read(system, NAMES) == b"passwd: files ldap\n"


def test_a_refused_candidate_leaves_every_file(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oslogin, "sshd_complaint", lambda system, path: "bad configuration")
    with pytest.raises(GuestError, match="bad configuration"):
        edits().apply(system)
    assert read(system, SSHD) == b"Port 22\n"
    assert read(system, NAMES) == b"passwd: files\n"
    assert os.listdir(system.root / "etc/ssh") == ["sshd_config"]


def test_a_failed_later_file_puts_the_earlier_one_back(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite = system.files.rewrite

    def refuse(path: str, data: bytes, *, mode: int = 0o644) -> None:
        if path == NAMES and b"oslogin" in data:
            raise OSError(28, "No space left on device", path)
        rewrite(path, data, mode=mode)

    monkeypatch.setattr(system.files, "rewrite", refuse)
    with pytest.raises(OSError, match="No space"):
        edits().apply(system)
    assert read(system, SSHD) == b"Port 22\n"


def test_what_sshd_refuses_once_it_is_in_place_is_put_back(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        oslogin, "sshd_complaint", lambda system, path: "broken" if path == SSHD else ""
    )
    with pytest.raises(GuestError, match="broken"):
        edits().apply(system)
    assert read(system, SSHD) == b"Port 22\n"
    assert read(system, NAMES) == b"passwd: files\n"


def test_cleaning_goes_on_where_sshd_refuses_both(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oslogin, "sshd_complaint", lambda system, path: "line 7: bad")
    edit = Edit(SSHD, b"Port 22\n", b"Port 23\n", is_sshd_config=True)
    EditFiles((edit,), purpose="remove OS Login", tolerant=True).apply(system)
    assert read(system, SSHD) == b"Port 23\n"


def test_links_are_followed_and_modes_kept(system: System) -> None:
    (system.root / "etc/authselect").mkdir()
    target = system.root / "etc/authselect/nsswitch.conf"
    target.write_bytes(b"passwd: files\n")
    target.chmod(0o640)
    (system.root / "etc/nsswitch.conf").unlink()
    (system.root / "etc/nsswitch.conf").symlink_to("/etc/authselect/nsswitch.conf")
    edits().apply(system)
    assert (system.root / "etc/nsswitch.conf").is_symlink()
    assert target.read_bytes() == b"passwd: files oslogin\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_extended_attributes_are_kept(system: System) -> None:
    path = system.root / "etc/nsswitch.conf"
    try:
        os.setxattr(path, "user.note", b"mine")
    except OSError:
        pytest.skip("this file system has no user attributes")
    edits().apply(system)
    assert os.getxattr(path, "user.note") == b"mine"


def test_the_difference_names_each_file(system: System) -> None:
    lines = edits().diff()
    assert f" {SSHD}:" in lines and "+New" in lines
    assert "-passwd: files" in lines and "+passwd: files oslogin" in lines


@pytest.mark.parametrize("complaint", ["sshd: no hostkeys available -- exiting.", ""])
def test_complaints_about_the_machine_are_none_about_the_file(complaint: str) -> None:
    assert _complaint(complaint) == ""


def test_complaints_about_the_file_count() -> None:
    assert "Bad configuration option" in _complaint("line 1: Bad configuration option: Bogus")


def _complaint(stderr: str) -> str:
    def run(argv: list[str], **_: object) -> object:
        if stderr:
            raise CommandError(argv, 255, stderr)
        return None

    class Everything:
        def is_executable(self, path: str) -> bool:
            return True

    class Live:
        is_live = True
        files = Everything()

        def run(self, argv: list[str], **options: object) -> object:
            return run(argv, **options)

    return oslogin.sshd_complaint(Live(), "/etc/ssh/sshd_config")  # type: ignore[arg-type]


def test_a_directory_gets_its_mode(system: System) -> None:
    folder = system.root / "var/google-users.d"
    folder.mkdir(parents=True, mode=0o755)
    EnsureDirectory("/var/google-users.d").apply(system)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_a_link_in_a_directorys_place_is_refused(system: System) -> None:
    (system.root / "var").mkdir()
    (system.root / "var/google-users.d").symlink_to("/etc")
    with pytest.raises(GuestError, match="no directory"):
        EnsureDirectory("/var/google-users.d").apply(system)


def test_removing_a_directory_does_not_follow_a_link(system: System) -> None:
    (system.root / "var").mkdir()
    (system.root / "var/google-users.d").symlink_to("/etc")
    RemoveDirectory("/var/google-users.d").apply(system)
    assert read(system, NAMES) == b"passwd: files\n"


@pytest.mark.parametrize("optional", [True, False])
def test_only_an_optional_unit_may_fail(system: System, optional: bool) -> None:
    def fail(argv: list[str], **_: object) -> object:
        raise CommandError(argv, 1, "no")

    system.runner = fail  # type: ignore[assignment]
    change = ControlUnits(("try-restart",), ("nscd.service",), optional=optional)
    if optional:
        change.apply(system)
    else:
        with pytest.raises(GuestError):
            change.apply(system)
