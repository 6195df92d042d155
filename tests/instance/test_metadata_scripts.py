"""Startup and shutdown scripts in booted instances: real units, real journal, real shutdowns."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import artifact_table
import pytest
from support.bed import Bed, Stop
from support.debs import GuestDebs
from support.documents import instance_document

STARTUP = "google-startup-scripts.service"
SHUTDOWN = "google-shutdown-scripts.service"
CONFIG = "/etc/default/instance_configs.cfg"
RESULT = "/run/google-guest-agent/scripts/startup.json"
ORDER = "/usr/lib/systemd/system/google-startup-scripts.service.d/10-ubuntu.conf"
ORDER_TEXT = (artifact_table.TOP / f"config/ubuntu{ORDER}").read_text()
SKIPPED = "system is not shutting down, skipping shutdown scripts"

Boot = Callable[..., Bed]


@pytest.fixture
def boot(bed: Boot, guest_debs: GuestDebs) -> Boot:
    """Boot an instance with the agent and these attributes."""

    def booted(attributes: Mapping[str, str], *, config: str = "", **description: Any) -> Bed:
        files = {CONFIG: config, **description.pop("files", {})}
        document = instance_document(attributes=attributes)
        return bed(debs=guest_debs, metadata=document, files=files, **description)

    return booted


def lines(guest: Bed, unit: str = STARTUP, *, boot: str = "0") -> list[str]:
    return guest.journal(unit, boot=boot).splitlines()


def output(guest: Bed, key: str = "startup-script") -> list[str]:
    return [line[len(key) + 2 :] for line in lines(guest) if line.startswith(f"{key}: ")]


def run_again(guest: Bed, script: str, *, wait: bool = True) -> None:
    """Start the startup unit by hand with another script."""
    guest.mds.set("instance/attributes/startup-script", script)
    guest.run(["systemctl", "start", *([] if wait else ["--no-block"]), STARTUP])


def await_line(guest: Bed, text: str, unit: str = STARTUP) -> None:
    guest.wait_until(lambda: text in lines(guest, unit), 10, f"{text!r} in the journal of {unit}")


def test_script_runs_at_boot_and_each_line_is_once_in_the_journal_and_on_the_console(
    boot: Boot,
) -> None:
    guest = boot({"startup-script": "echo only-once; echo to-stderr >&2; exit 3"})
    told = lines(guest)
    at = told.index("Found startup-script in metadata.")
    assert told[at : at + 6] == [
        "Found startup-script in metadata.",
        "startup-script: only-once",
        "startup-script: to-stderr",
        'Script "startup-script" failed with error: exit status 3',
        "startup-script exit status 3",
        "Finished running startup scripts.",
    ]
    console = guest.wait_until(
        lambda: guest.console() if "Finished running startup" in guest.console() else "",
        what="the end of the run on the console",
    )
    assert guest.journal().count("startup-script: only-once") == 1
    assert console.count("startup-script: only-once") == 1
    assert console.count('Script "startup-script" failed') == 1
    assert "<4>" not in console


def test_journal_knows_program_and_severity(boot: Boot) -> None:
    guest = boot({"startup-script": "exit 3"})
    entries = [json.loads(line) for line in guest.journal(STARTUP, output="json").splitlines()]
    failed = next(entry for entry in entries if "failed with error" in entry["MESSAGE"])
    told = next(entry for entry in entries if entry["MESSAGE"].startswith("Found"))
    assert (failed["PRIORITY"], told["PRIORITY"]) == ("4", "6")
    assert failed["SYSLOG_IDENTIFIER"] == "google_metadata_script_runner"


def test_failed_script_is_no_failed_unit(boot: Boot) -> None:
    guest = boot({"startup-script": "exit 3"})
    assert guest.unit_property(STARTUP, "Result") == "success"
    assert STARTUP not in guest.failed_units()


def test_disabled_scripts_are_no_failed_unit(boot: Boot) -> None:
    guest = boot({"startup-script": "echo never"}, config="[MetadataScripts]\nstartup = false\n")
    assert "startup scripts disabled in instance config" in lines(guest)
    assert output(guest) == []
    assert guest.unit_property(STARTUP, "Result") == "success"


def test_environment_is_that_of_an_administrator_and_not_of_the_service(boot: Boot) -> None:
    guest = boot({"startup-script": "#!/bin/sh\nexec env"})
    told = dict(line.split("=", 1) for line in output(guest))
    assert {name: told.get(name) for name in ("HOME", "USER", "LOGNAME", "SHELL")} == {
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash",
    }
    assert told["PWD"] == "/"
    assert not {"NOTIFY_SOCKET", "JOURNAL_STREAM", "LC_CTYPE", "PYTHONPATH"} & set(told)


def test_exit_status_reaches_file_and_guest_attribute(boot: Boot) -> None:
    guest = boot(
        {"startup-script": "exit 3", "enable-guest-attributes": "TRUE"},
        config="[MetadataScripts]\nreport_exit_status = true\n",
    )
    result = json.loads(guest.run(["cat", RESULT]).stdout)
    assert (result["state"], result["scripts"][0]["exit_status"]) == ("finished", 3)
    assert result["boot_id"] == guest.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()
    published = guest.mds.guest_attributes()["guest-scripts"]["startup-script"]
    assert json.loads(published)["exit_status"] == 3


def test_background_process_survives_and_its_output_is_kept(boot: Boot) -> None:
    guest = boot({})
    guest.run(["mkfifo", "/root/go"])
    began = time.monotonic()
    run_again(guest, "sleep 600 &\n(read x </root/go; echo later) &\necho now")
    assert time.monotonic() - began < 5
    assert guest.unit_property(STARTUP, "ActiveState") == "inactive"
    assert guest.run("pgrep -x sleep -a").stdout.split(" ", 1)[1] == "sleep 600\n"
    guest.run("echo >/root/go")
    await_line(guest, "startup-script: later")


def test_daemon_that_detached_survives(boot: Boot) -> None:
    guest = boot({"startup-script": "nohup sleep 600 >/dev/null 2>&1 &"})
    assert guest.run("pgrep -x sleep").stdout


def test_stopping_the_unit_removes_the_file_and_keeps_the_script_and_its_output(
    boot: Boot,
) -> None:
    guest = boot({})
    guest.run(["mkfifo", "/root/go"])
    run_again(guest, "echo began; read x </root/go; echo went on", wait=False)
    await_line(guest, "startup-script: began")
    assert guest.run("ls -d /tmp/metadata-scripts*").stdout
    guest.run(["systemctl", "stop", STARTUP], check=False)
    assert guest.run("ls -d /tmp/metadata-scripts*", check=False).stdout == ""
    guest.run("echo >/root/go")
    await_line(guest, "startup-script: went on")


NOEXEC = "mount -t tmpfs -o noexec,mode={mode} none {path}"
SCRIPTS = {
    "bash": ("a=(x ran); echo ${a[1]}", "ran"),
    "python": ("#!/usr/bin/env python3\nprint('ran')", "ran"),
    "CRLF": ("#!/bin/bash\r\nif true; then\r\necho ran\r\nfi\r\n", "ran"),
}


@pytest.mark.parametrize("everywhere", [False, True], ids=["usual", "everywhere"])
def test_scripts_run_where_temporary_directories_forbid_programs(
    boot: Boot, everywhere: bool
) -> None:
    guest = boot({})
    paths = {"/tmp": "1777", "/var/tmp": "1777"}
    if everywhere:
        paths.update({"/var/lib/google-guest-agent": "755", "/root": "700"})
    for path, mode in paths.items():
        guest.run(NOEXEC.format(path=path, mode=mode))
    guest.run("mount -o remount,noexec /run")
    for name, (script, told) in SCRIPTS.items():
        run_again(guest, script)
        assert output(guest)[-1] == told, name
    assert lines(guest).count("startup-script exit status 0") == len(SCRIPTS)


def test_megabyte_line_arrives_complete(boot: Boot) -> None:
    guest = boot({"startup-script": "head -c 1048576 /dev/zero | tr '\\0' x; echo; echo done"})
    told = [line for line in lines(guest) if line.startswith("startup-script")]
    assert sum(line.count("x") for line in told if "xxx" in line) == 1 << 20
    assert all(line.startswith(("startup-script: ", "startup-script[+]: ")) for line in told[:-1])
    assert output(guest)[-1] == "done"


def test_megabyte_line_costs_the_runner_no_memory(boot: Boot) -> None:
    facts = "tr '\\0' ' ' </proc/$PPID/cmdline; grep VmHWM /proc/$PPID/status"
    guest = boot({"startup-script": f"head -c 1048576 /dev/zero | tr '\\0' x; echo; {facts}"})
    runner, peak, unit = output(guest)[-1].rsplit(maxsplit=2)
    assert "google_metadata_script_runner" in runner
    assert unit == "kB" and int(peak) < 64 << 10


def test_runner_that_is_killed_leaves_no_script_behind_at_the_next_run(boot: Boot) -> None:
    guest = boot({})
    run_again(guest, "echo began; sleep 600", wait=False)
    await_line(guest, "startup-script: began")
    guest.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", STARTUP])
    guest.wait_until(
        lambda: guest.unit_property(STARTUP, "ActiveState") != "activating", what="it has ended"
    )
    guest.run("pkill -x sleep; systemctl reset-failed", check=False)
    run_again(guest, "echo again")
    await_line(guest, "startup-script: again")
    assert guest.run("ls -d /tmp/metadata-scripts*", check=False).stdout == ""


@pytest.mark.parametrize("command", ["restart", "stop"])
def test_shutdown_unit_that_is_only_restarted_runs_nothing(boot: Boot, command: str) -> None:
    guest = boot({"shutdown-script": "echo ran >>/var/lib/ran"})
    guest.run(["systemctl", command, SHUTDOWN])
    assert SKIPPED in lines(guest, SHUTDOWN)
    assert not guest.path("/var/lib/ran").exists()


FETCH = (
    "curl -sf -H 'Metadata-Flavor: Google'"
    " http://169.254.169.254/computeMetadata/v1/instance/id >/var/lib/id; echo ran >>/var/lib/ran"
)


@pytest.mark.parametrize("command", ["reboot", "poweroff"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "during the startup script"])
def test_shutdown_script_runs_when_the_system_goes_down(
    boot: Boot, command: str, busy: bool
) -> None:
    guest = boot({"shutdown-script": FETCH + "; echo said"})
    if busy:
        run_again(guest, "echo busy; sleep 600", wait=False)
        await_line(guest, "startup-script: busy")
    guest.run(["systemctl", command], check=False)
    assert guest.wait_stopped() is (Stop.REBOOT if command == "reboot" else Stop.POWEROFF)
    assert guest.path("/var/lib/ran").read_text() == "ran\n"
    assert guest.path("/var/lib/id").read_text().isdigit()
    if busy:
        guest.mds.delete("instance/attributes/startup-script")
    guest.boot()
    told = lines(guest, SHUTDOWN, boot="-1")
    assert "shutdown-script: said" in told
    assert told.count("shutdown-script exit status 0") == 1


def test_silent_metadata_server_holds_a_shutdown_up_for_15_seconds_at_most(boot: Boot) -> None:
    guest = boot({"shutdown-script": "echo never"})
    guest.drop_metadata_packets()
    began = time.monotonic()
    guest.run(["systemctl", "poweroff"], check=False)
    guest.wait_stopped()
    assert time.monotonic() - began < 15


def test_run_by_hand_runs_the_scripts_again(boot: Boot) -> None:
    guest = boot({"startup-script": "echo ran >>/var/lib/ran"})
    done = guest.run(["google_metadata_script_runner", "startup"])
    assert guest.path("/var/lib/ran").read_text() == "ran\nran\n"
    assert done.stdout.splitlines()[-1] == "Finished running startup scripts."


def test_startup_script_starts_after_the_agent_is_ready(boot: Boot) -> None:
    guest = boot({"startup-script": "systemctl is-active google-guest-agent"})
    assert output(guest) == ["active"]


def test_ubuntus_startup_script_finds_snaps_and_cloud_inits_configuration_there(boot: Boot) -> None:
    slow = (
        "[Unit]\nAfter=network-online.target {after}\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        "ExecStart=/bin/sh -c 'sleep 1; touch /var/lib/%p'\n"
    )
    guest = boot(
        {"startup-script": "cd /var/lib && ls snapd.seeded cloud-config"},
        files={
            ORDER: ORDER_TEXT,
            "/etc/systemd/system/snapd.seeded.service": slow.format(after=""),
            "/etc/systemd/system/cloud-config.service": slow.format(after="snapd.seeded.service"),
            "/etc/systemd/system/multi-user.target.d/wants.conf": (
                "[Unit]\nWants=cloud-config.service snapd.seeded.service\n"
            ),
        },
    )
    guest.wait_until(lambda: len(output(guest)) == 2, 20, "both files are shown")
    assert output(guest) == ["cloud-config", "snapd.seeded"]
    assert "ordering cycle" not in guest.journal()


def test_ubuntus_order_starts_nothing_that_is_not_there(boot: Boot) -> None:
    guest = boot({"startup-script": "echo ran"}, files={ORDER: ORDER_TEXT})
    assert output(guest) == ["ran"]
