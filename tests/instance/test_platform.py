"""Kernel settings, platform scripts, clock, telemetry, workload certificates and a read-only /etc,
in booted instances with the packages installed.

The beds share the host's kernel: writes below /sys are captured, and programs that would touch the
clock are stand-ins that note how they were called.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.bed import Bed, Sysfs
from support.documents import instance_document

if TYPE_CHECKING:
    from support.debs import GuestDebs

AGENT = "google-guest-agent.service"
REFRESH = "gce-workload-cert-refresh.service"
CONFIG = "/etc/default/instance_configs.cfg"
STATUS = "/run/google-guest-agent/status.json"
CALLS = "/var/tmp/calls"
CLOCK_ON = "[Daemons]\nclock_skew_daemon = true\n"
UTC = "0.0 0 0.0\n0\nUTC\n"
LOCAL = "0.0 0 0.0\n0\nLOCAL\n"
CREDENTIALS = "/run/secrets/workload-spiffe-credentials"

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 ada"

Boot = Callable[..., Bed]


@pytest.fixture
def boot(bed: Boot, guest_debs: GuestDebs) -> Boot:
    """Boot an instance with the agent, some metadata and these lines of configuration."""

    def booted(*, config: str = "", **description: Any) -> Bed:
        files = {CONFIG: config, **description.pop("files", {})}
        document = description.pop("document", instance_document())
        return bed(debs=guest_debs, metadata=document, files=files, **description)

    return booted


def note_calls(guest: Bed, path: str) -> None:
    """Put a program that only notes its arguments at `path`."""
    guest.write(path, f'#!/bin/sh\necho "$(basename $0) $*" >>{CALLS}\n', mode=0o755)


def calls(guest: Bed) -> list[str]:
    path = guest.path(CALLS)
    return path.read_text().splitlines() if path.exists() else []


def feature(guest: Bed, name: str) -> dict[str, Any]:
    document = json.loads(guest.path(STATUS).read_text())
    row: dict[str, Any] = document["features"].get(name, {})
    return row if document["pid"] == int(guest.unit_property(AGENT, "MainPID")) else {}


def await_pass(guest: Bed, name: str, *, after: float = 0.0) -> dict[str, Any]:
    """Wait for a pass of the running agent that ended after a moment; its row of the status."""
    return guest.wait_until(
        lambda: row if (row := feature(guest, name)).get("last_pass", 0.0) > after else {},
        what=f"a pass of {name}",
    )


def restart(guest: Bed) -> None:
    guest.run(["systemctl", "restart", AGENT])


# Kernel settings and platform scripts.


DISK = "/sys/block/test0"
"""A device with several queues beside those of the host, which may have none."""
OVERCOMMIT = "/proc/sys/vm/overcommit_memory"


def test_io_scheduler_of_a_disk_is_none(boot: Boot) -> None:
    guest = boot(sysfs=Sysfs.CAPTURED)
    await_pass(guest, "io-scheduler")
    guest.run(["systemctl", "stop", AGENT])
    guest.run(f"rm {STATUS}; mkdir -p {DISK}/mq {DISK}/queue")
    guest.run(f"echo '[mq-deadline] none' >{DISK}/queue/scheduler")
    guest.run(["systemctl", "start", AGENT])
    await_pass(guest, "io-scheduler")
    assert guest.run(["cat", f"{DISK}/queue/scheduler"]).stdout.startswith("none")
    for path in guest.run("ls -d /sys/block/*/mq").stdout.split():
        scheduler = guest.run(["cat", path.replace("/mq", "/queue/scheduler")]).stdout
        assert scheduler.startswith(("none", "[none]"))


def overcommit_machine(boot: Boot, *, config: str = "") -> Bed:
    """An instance of a machine type with overcommit, whose kernel setting is a file of its own."""
    guest = boot(config=config)
    guest.run(["systemctl", "stop", AGENT])
    guest.run(f"echo 0 >/run/overcommit; mount --bind /run/overcommit {OVERCOMMIT}")
    guest.run(["systemctl", "start", AGENT])
    await_pass(guest, "overcommit")
    return guest


def test_overcommit_is_on_and_what_somebody_set_is_repaired_by_the_next_start(boot: Boot) -> None:
    guest = overcommit_machine(boot)
    assert guest.path("/run/overcommit").read_text().startswith("1")
    guest.run("echo 2 >/run/overcommit")
    restart(guest)
    await_pass(guest, "overcommit")
    assert guest.path("/run/overcommit").read_text().startswith("1")


def test_overcommit_that_is_switched_off_is_left_alone(boot: Boot) -> None:
    guest = overcommit_machine(boot, config="[InstanceSetup]\nset_overcommit = false\n")
    assert guest.path("/run/overcommit").read_text() == "0\n"


def test_platform_scripts_run_once_per_boot(boot: Boot) -> None:
    guest = boot()
    for name in ("google_set_multiqueue", "google_optimize_local_ssd"):
        note_calls(guest, f"/usr/bin/{name}")
    guest.reboot()
    await_pass(guest, "multiqueue")
    await_pass(guest, "local-ssd")
    restart(guest)
    await_pass(guest, "telemetry")
    assert sorted(calls(guest)) == ["google_optimize_local_ssd ", "google_set_multiqueue "]


def test_failing_platform_script_holds_up_nothing(boot: Boot) -> None:
    guest = boot()
    guest.write("/usr/bin/google_set_multiqueue", "#!/bin/sh\nexit 3\n", mode=0o755)
    note_calls(guest, "/usr/bin/google_optimize_local_ssd")
    guest.reboot()
    assert guest.unit_property(AGENT, "ActiveState") == "active"
    assert "status 3" in await_pass(guest, "multiqueue")["error"]
    assert calls(guest) == ["google_optimize_local_ssd "]


# The clock.


def clock_machine(boot: Boot, adjtime: str) -> Bed:
    """An instance that seems to have a hardware clock, with a stand-in for hwclock."""
    guest = boot(config=CLOCK_ON, files={"/etc/adjtime": adjtime})
    note_calls(guest, "/usr/local/sbin/hwclock")
    guest.run(["touch", "/dev/rtc0"])
    restart(guest)
    await_pass(guest, "clock")
    return guest


def migrate(guest: Bed, token: str) -> None:
    """Move the instance to another host, as far as it can tell."""
    guest.mds.set("instance/virtual-clock/drift-token", token)
    memory = guest.path("/run/google-guest-agent/clock.json")
    guest.wait_until(
        lambda: token in memory.read_text() or "does not keep UTC" in guest.journal(AGENT),
        what=f"drift token {token} is dealt with",
    )


def test_new_drift_token_sets_the_clock_once(boot: Boot) -> None:
    guest = clock_machine(boot, UTC)
    before = len(calls(guest))
    migrate(guest, "41")
    restart(guest)
    await_pass(guest, "clock")
    assert calls(guest)[before:] == ["hwclock --hctosys -u --noadjfile"]


def test_clock_is_left_alone_while_the_hardware_clock_keeps_local_time(boot: Boot) -> None:
    guest = clock_machine(boot, LOCAL)
    migrate(guest, "41")
    assert calls(guest) == []


def test_clock_is_left_alone_by_default(boot: Boot) -> None:
    guest = boot(files={"/etc/adjtime": UTC})
    await_pass(guest, "clock")
    assert feature(guest, "clock")["reason"] == "[Daemons] clock_skew_daemon = false"


# Telemetry.


def telemetry_requests(guest: Bed) -> list[Any]:
    return [request for request in guest.mds.requests() if "X-Google-Guest-OS" in request.headers]


def test_telemetry_is_one_request_at_start_with_both_headers(boot: Boot) -> None:
    guest = boot()
    await_pass(guest, "telemetry")
    (request,) = telemetry_requests(guest)
    assert request.path == ""
    agent = base64.b64decode(request.headers["X-Google-Guest-Agent"])
    system = base64.b64decode(request.headers["X-Google-Guest-OS"])
    assert b"GCEGuestAgent" in agent
    assert b"\x1a\x05amd64" in agent or b"\x1a\x05arm64" in agent
    assert b"Debian GNU/Linux 12 (bookworm)" in system


def test_project_switches_telemetry_off(boot: Boot) -> None:
    project = {"disable-guest-telemetry": "true"}
    guest = boot(document=instance_document(project_attributes=project))
    row = await_pass(guest, "telemetry")
    assert (row["on"], row["layer"]) == (False, "project metadata")
    assert telemetry_requests(guest) == []


# A system whose configuration cannot be written.


def test_read_only_etc_costs_one_line_and_keeps_the_host_keys(boot: Boot) -> None:
    guest = boot()
    await_pass(guest, "first-boot")
    keys = guest.run("sha256sum /etc/ssh/ssh_host_*").stdout
    guest.run("mount --bind /etc /etc && mount -o remount,bind,ro /etc")
    guest.mds.set("instance/id", 99)
    row = guest.wait_until(
        lambda: row if (row := feature(guest, "first-boot")).get("skipped") else {},
        what="the first boot is skipped",
    )
    assert (row["error"], row["skipped"][:21]) == ("", "read-only file system")
    assert guest.unit_property(AGENT, "ActiveState") == "active"
    lines = [line for line in guest.journal(AGENT).splitlines() if "first-boot: skipped" in line]
    assert len(lines) == 1
    assert guest.run("sha256sum /etc/ssh/ssh_host_*").stdout == keys
    assert guest.run("cat /etc/google_instance_id").stdout.strip() != "99"


# Workload certificates.


def configure_certificates(guest: Bed, number: int) -> None:
    folder = "instance/gce-workload-certificates"
    entry = {"certificatePem": f"CERT {number}\n", "privateKeyPem": "KEY\n"}
    with guest.mds.batch():
        guest.mds.set("instance/attributes/enable-workload-certificate", "TRUE")
        guest.mds.set(f"{folder}/config-status", '{"status": "OK"}')
        guest.mds.set(
            f"{folder}/workload-identities",
            json.dumps({"workloadCredentials": {"spiffe://pool.example/ns/n/sa/s": entry}}),
        )
        guest.mds.set(
            f"{folder}/trust-anchors",
            json.dumps({"trustAnchors": {"pool.example": {"trustAnchorsPem": "ROOT\n"}}}),
        )


def test_workload_certificates_are_put_in_force_and_rotated(boot: Boot) -> None:
    guest = boot()
    for number in (1, 2):
        configure_certificates(guest, number)
        guest.run(["systemctl", "start", REFRESH])
        shown = guest.run(f"cd {CREDENTIALS} && cat certificates.pem ca_certificates.pem").stdout
        assert shown == f"CERT {number}\nROOT\n"


def test_unconfigured_workload_certificates_fail_no_unit_and_keep_the_old_ones(
    boot: Boot,
) -> None:
    guest = boot()
    configure_certificates(guest, 1)
    guest.run(["systemctl", "start", REFRESH])
    guest.mds.delete("instance/gce-workload-certificates/config-status")
    guest.run(["systemctl", "start", REFRESH])
    assert guest.unit_property(REFRESH, "Result") == "success"
    assert guest.run(["cat", f"{CREDENTIALS}/certificates.pem"]).stdout == "CERT 1\n"


@pytest.mark.parametrize("unit", ["google-startup-scripts.service", REFRESH])
def test_a_service_that_waits_for_a_silent_metadata_server_stops_within_five_seconds(
    boot: Boot, unit: str
) -> None:
    guest = boot()
    guest.drop_metadata_packets()
    guest.run(["systemctl", "start", "--no-block", unit])
    guest.wait_until(
        lambda: guest.unit_property(unit, "ActiveState") == "activating", what="it waits"
    )
    guest.wait_until(lambda: guest.unit_property(unit, "MainPID") != "0", what="it runs")
    began = time.monotonic()
    guest.run(["systemctl", "stop", unit])
    assert time.monotonic() - began < 5
    assert guest.unit_property(unit, "ActiveState") in ("inactive", "failed")


@pytest.fixture(scope="module")
def quiet(guest_debs: GuestDebs) -> Iterator[Bed]:
    """An instance in which no program of ours runs by itself."""
    attributes = {"ssh-keys": f"ada:{KEY}"}
    with Bed(debs=guest_debs, metadata=instance_document(attributes=attributes)) as guest:
        guest.run(["systemctl", "stop", AGENT, "gce-workload-cert-refresh.timer", REFRESH])
        yield guest


@pytest.mark.parametrize(
    "program",
    [
        "google_guest_agent --once",
        "google-guest plan",
        "google-guest keys",
        "google-guest apply",
        "google_metadata_authorized_keys ada",
        "google_metadata_script_runner startup",
        "gce_workload_cert_refresh",
    ],
)
def test_every_program_asks_the_server_that_the_environment_names(quiet: Bed, program: str) -> None:
    before = quiet.mds.request_count
    quiet.run(f"GCE_METADATA_HOST=metadata.google.internal {program}")
    hosts = {
        request.headers.get("Host") for request in quiet.mds.requests() if request.number > before
    }
    assert hosts == {"metadata.google.internal"}
