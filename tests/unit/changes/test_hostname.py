"""The host name is set and told to others, /etc/hosts is replaced: each only when it changes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.trees import Answer, Commands, place, succeed

from google_guest.changes.hostname import (
    EditHosts,
    SetHostname,
    hostname_changes,
    hosts_changes,
    static_hostname,
)
from google_guest.errors import GuestError
from google_guest.hostname import METADATA_LINE, host_line
from google_guest.system import System
from google_guest.system.commands import CommandError, CommandMissing, Completed

LINE = host_line("10.0.0.2", ("vm.example", "vm"))
FOREIGN = "127.0.0.1 localhost\n"
WANTED = f"{FOREIGN}{LINE}\n{METADATA_LINE}\n"
RSYSLOG = ("systemctl", "--no-block", "try-restart", "rsyslog*.service")


class Machine(System):
    """A tree that is treated as the running machine; its kernel's name is a file."""

    is_live = True

    def set_hostname(self, name: str) -> None:  # type: ignore[override]
        place(self.root, "/proc/sys/kernel/hostname", f"{name}\n")


def machine(root: Path, *programs: str, answer: Answer = succeed) -> tuple[Machine, Commands]:
    commands = Commands(answer)
    place(root, "/proc/sys/kernel/hostname", "old\n")
    for name in programs:
        place(root, f"/usr/bin/{name}", "", mode=0o755)
    return Machine(root=root, runner=commands), commands


def failing(*programs: str, status: int = 1) -> Answer:
    def answer(argv: Sequence[str]) -> Completed:
        if " ".join(argv).startswith(programs):
            raise CommandError(argv, status, "no")
        return succeed(argv)

    return answer


def kernel_name(root: Path) -> str:
    return (root / "proc/sys/kernel/hostname").read_text().strip()


# The name.


def test_everybody_who_keeps_a_name_is_told(tmp_path: Path) -> None:
    system, commands = machine(tmp_path, "nmcli", "hostnamectl", "systemctl")
    SetHostname("vm", "old").apply(system)
    assert kernel_name(tmp_path) == "vm"
    assert commands.argvs == [
        ("nmcli", "general", "hostname", "vm"),
        ("hostnamectl", "hostname", "vm"),
        RSYSLOG,
    ]


def test_only_what_is_installed_is_told(tmp_path: Path) -> None:
    system, commands = machine(tmp_path)
    SetHostname("vm", "old").apply(system)
    assert (kernel_name(tmp_path), commands.argvs) == ("vm", [])


def test_a_name_in_force_restarts_nothing(tmp_path: Path) -> None:
    system, commands = machine(tmp_path, "nmcli", "hostnamectl", "systemctl")
    SetHostname("old", "older").apply(system)
    assert commands.argvs == []
    assert hostname_changes(system, "old") == ()


def test_hostnamectl_before_systemd_249_has_the_command_under_its_old_name(tmp_path: Path) -> None:
    system, commands = machine(
        tmp_path, "hostnamectl", "systemctl", answer=failing("hostnamectl hostname")
    )
    SetHostname("vm", "old").apply(system)
    assert commands.argvs == [
        ("hostnamectl", "hostname", "vm"),
        ("hostnamectl", "set-hostname", "vm"),
        RSYSLOG,
    ]


def test_failures_of_those_who_are_told_are_only_logged(tmp_path: Path) -> None:
    system, commands = machine(
        tmp_path, "nmcli", "hostnamectl", "systemctl", answer=failing("nmcli", "host", "systemctl")
    )
    SetHostname("vm", "old").apply(system)
    assert kernel_name(tmp_path) == "vm"
    assert commands.argvs[-1] == RSYSLOG


def test_a_hostnamed_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    def silent(argv: Sequence[str]) -> Completed:
        raise CommandError(argv, None, "no end within 10 s")

    system, commands = machine(tmp_path, "hostnamectl", answer=silent)
    SetHostname("vm", "old").apply(system)
    assert commands.argvs == [("hostnamectl", "hostname", "vm")]
    assert (tmp_path / "etc/hostname").read_text() == "vm\n"


def test_before_hostnamed_can_be_asked_the_name_is_kept_for_the_next_boot(tmp_path: Path) -> None:
    system, _ = machine(tmp_path, "hostnamectl", answer=failing("hostnamectl"))
    kept = place(tmp_path, "/etc/hostname", "old\n", mode=0o640)
    SetHostname("vm", "old").apply(system)
    assert kept.read_text() == "vm\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640


@pytest.mark.parametrize("programs", [("hostnamectl",), ()])
def test_else_the_static_name_is_not_ours_to_write(
    tmp_path: Path, programs: tuple[str, ...]
) -> None:
    system, _ = machine(tmp_path, *programs)
    kept = place(tmp_path, "/etc/hostname", "old\n")
    SetHostname("vm", "old").apply(system)
    assert kept.read_text() == "old\n"


def test_without_systemd_syslogd_gets_a_hangup(tmp_path: Path) -> None:
    system, commands = machine(tmp_path, "pkill")
    SetHostname("vm", "old").apply(system)
    assert commands.argvs == [("pkill", "-HUP", "syslogd")]


def test_without_systemd_a_missing_syslogd_is_no_failure(tmp_path: Path) -> None:
    system, _ = machine(tmp_path, "pkill", answer=failing("pkill", status=1))
    SetHostname("vm", "old").apply(system)


def test_without_systemd_a_failed_hangup_is_a_failure(tmp_path: Path) -> None:
    system, _ = machine(tmp_path, "pkill", answer=failing("pkill", status=3))
    with pytest.raises(CommandError):
        SetHostname("vm", "old").apply(system)


def test_a_kernel_that_refuses_tells_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, commands = machine(tmp_path, "nmcli", "hostnamectl", "systemctl")

    def refuse(name: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(system, "set_hostname", refuse)
    with pytest.raises(PermissionError):
        SetHostname("vm", "old").apply(system)
    assert commands.argvs == []


def test_the_name_is_shown_with_the_old_one(tmp_path: Path) -> None:
    system, _ = machine(tmp_path)
    (change,) = hostname_changes(system, "vm")
    assert (change.describe(), change.diff()) == ("set the host name to vm", ("-old", "+vm"))


def test_an_unreadable_static_name_is_none(tmp_path: Path) -> None:
    system, _ = machine(tmp_path)
    (tmp_path / "etc/hostname").mkdir(parents=True)
    assert static_hostname(system) == ""


# The file.


def hosts(root: Path) -> Path:
    return root / "etc/hosts"


def edit(system: System) -> EditHosts:
    (change,) = hosts_changes(system, [LINE])
    return change


def test_hosts_gets_its_lines_and_keeps_its_mode(tmp_path: Path) -> None:
    system, _ = machine(tmp_path)
    place(tmp_path, "/etc/hosts", FOREIGN, mode=0o640)
    change = edit(system)
    assert change.diff() == (" 127.0.0.1 localhost", f"+{LINE}", f"+{METADATA_LINE}")
    change.apply(system)
    assert hosts(tmp_path).read_text() == WANTED
    assert stat.S_IMODE(hosts(tmp_path).stat().st_mode) == 0o640
    assert os.listdir(tmp_path / "etc") == ["hosts"]


def test_right_lines_are_no_change_and_applying_again_writes_nothing(tmp_path: Path) -> None:
    system, _ = machine(tmp_path)
    place(tmp_path, "/etc/hosts", FOREIGN)
    change = edit(system)
    change.apply(system)
    before = hosts(tmp_path).stat()
    assert hosts_changes(system, [LINE]) == ()
    change.apply(system)
    after = hosts(tmp_path).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_missing_hosts_is_created(tmp_path: Path) -> None:
    system, _ = machine(tmp_path)
    change = edit(system)
    assert change.describe() == "create /etc/hosts"
    change.apply(system)
    assert hosts(tmp_path).read_text() == f"{LINE}\n{METADATA_LINE}\n"
    assert stat.S_IMODE(hosts(tmp_path).stat().st_mode) == 0o644


def test_a_link_at_its_place_stays(tmp_path: Path) -> None:
    system, _ = machine(tmp_path)
    place(tmp_path, "/run/hosts", FOREIGN)
    (tmp_path / "etc").mkdir()
    hosts(tmp_path).symlink_to("/run/hosts")
    edit(system).apply(system)
    assert hosts(tmp_path).is_symlink()
    assert (tmp_path / "run/hosts").read_text() == WANTED


def test_hosts_that_somebody_changed_since_the_plan_is_left_alone(tmp_path: Path) -> None:
    system, _ = machine(tmp_path)
    place(tmp_path, "/etc/hosts", FOREIGN)
    change = edit(system)
    place(tmp_path, "/etc/hosts", "10.1.1.1 mine\n")
    with pytest.raises(GuestError, match="meanwhile"):
        change.apply(system)
    assert hosts(tmp_path).read_text() == "10.1.1.1 mine\n"


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EROFS])
def test_hosts_that_cannot_be_replaced_is_rewritten_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    system, _ = machine(tmp_path)
    place(tmp_path, "/etc/hosts", FOREIGN + "10.9.9.9 old  # Added by Google\n" * 9)
    change = edit(system)
    before = hosts(tmp_path).stat().st_ino

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "rename", refuse)
    change.apply(system)
    assert hosts(tmp_path).read_text() == WANTED
    assert hosts(tmp_path).stat().st_ino == before


def test_hosts_on_a_read_only_file_system_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, _ = machine(tmp_path)
    place(tmp_path, "/etc/hosts", FOREIGN)
    change = edit(system)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(system.files, "rewrite", refuse)
    monkeypatch.setattr(system.files, "overwrite", refuse)
    with pytest.raises(OSError) as refused:
        change.apply(system)
    # What the agent's status shows as skipped, not as failed.
    assert refused.value.errno == errno.EROFS


def test_a_full_disk_is_no_reason_to_write_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, _ = machine(tmp_path)
    place(tmp_path, "/etc/hosts", FOREIGN)
    change = edit(system)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="No space"):
        change.apply(system)
    assert hosts(tmp_path).read_text() == FOREIGN


def test_hosts_of_a_tree_that_does_not_run_can_be_edited_and_the_name_cannot() -> None:
    assert (EditHosts.needs_live_system, SetHostname.needs_live_system) == (False, True)


def test_a_program_that_vanished_is_no_failure(tmp_path: Path) -> None:
    def gone(argv: Sequence[str]) -> Completed:
        raise CommandMissing(argv[0])

    system, _ = machine(tmp_path, "nmcli", "hostnamectl", "systemctl", answer=gone)
    SetHostname("vm", "old").apply(system)
    assert kernel_name(tmp_path) == "vm"
