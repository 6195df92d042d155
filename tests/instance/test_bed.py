"""The beds themselves: that they boot, answer, shut down and reboot as instances do, and that
nothing done inside one reaches the host or another bed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable

import pytest
from support import cache, roots, sweep, tiers
from support.bed import Bed, Stop, Sysfs
from support.commands import CommandFailed, CommandTimeout
from support.network import namespaces
from support.timing import quickest, seconds_of

BedFactory = Callable[..., Bed]
"""The `bed` fixture: boots a bed that ends with the test."""

SHUTDOWN_UNIT = """
[Unit]
After=network-online.target
Wants=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
ExecStop=sh -c 'for host in 169.254.169.254 [fd20:ce::254]; do \
  curl -s -o /dev/null -w "%%{http_code}\\n" -H "Metadata-Flavor: Google" \
  http://$$host/computeMetadata/v1/instance/id; done >/var/tmp/answers'
[Install]
WantedBy=multi-user.target
"""

WANTED = "/etc/systemd/system/multi-user.target.wants/"


def need_suite(suite: str) -> None:
    problems = tiers.root_problems(suite)
    if problems:
        pytest.skip("; ".join(problems))


@pytest.mark.parametrize("suite", [*roots.DEBIAN_SUITES, "noble"])
def test_every_suite_reaches_running_in_five_seconds(bed: BedFactory, suite: str) -> None:
    need_suite(suite)
    roots.base(suite)

    def boot() -> float:
        began = time.monotonic()
        guest = bed(suite)
        took = time.monotonic() - began
        assert (guest.failed_units(), guest.system_state()) == ((), "running")
        return took

    assert quickest(boot, bound=5) < 5


@pytest.mark.parametrize("address", ["169.254.169.254", "[fd20:ce::254]"])
def test_metadata_server_answers_and_sees_the_address_of_the_bed(
    bed: BedFactory, address: str
) -> None:
    guest = bed()
    url = f"http://{address}/computeMetadata/v1/instance/id"
    guest.run(["curl", "-sSf", "-H", "Metadata-Flavor: Google", url])
    request = guest.mds.requests()[-1]
    wanted = guest.nics[0].address6 if ":" in address else guest.nics[0].address
    assert (request.path, request.client) == ("instance/id", wanted)


def test_dropped_packets_make_the_metadata_server_silent_until_restored(bed: BedFactory) -> None:
    guest = bed()
    fetch = (
        "curl -s -m 1 -o /dev/null -H 'Metadata-Flavor: Google'"
        " http://169.254.169.254/computeMetadata/v1/instance/id"
    )
    guest.drop_metadata_packets()
    silent = guest.run(fetch, check=False).status
    guest.restore_metadata()
    assert (silent, guest.run(fetch, check=False).status) == (28, 0)


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_ssh_login_from_outside_has_a_session_of_logind(bed: BedFactory, ipv6: bool) -> None:
    guest = bed()
    key = guest.new_key()
    guest.run("useradd --create-home --shell /bin/bash ada")
    guest.run(
        "install -d -o ada -g ada -m 700 /home/ada/.ssh; cat >/home/ada/.ssh/authorized_keys",
        input=key.public + "\n",
    )
    told = guest.ssh("ada", key, "id -un; loginctl list-sessions --no-legend", ipv6=ipv6).stdout
    assert told.splitlines()[0] == "ada"
    assert " ada " in told


def test_ssh_with_a_key_that_was_not_placed_is_refused(bed: BedFactory) -> None:
    guest = bed()
    guest.run("useradd --create-home ada")
    assert guest.ssh("ada", guest.new_key(), check=False).status == 255


@pytest.mark.parametrize(
    "command",
    [
        "date -s '2031-01-01 00:00:00'",
        "timedatectl set-time '2031-01-01 00:00:00'",
        "systemd-run --wait --pipe -q date -s '2031-01-01 00:00:00'",
        "sysctl -w vm.swappiness=1",
        "sysctl -w kernel.panic=77",
        "echo 1 >/sys/kernel/mm/ksm/run",
        "modprobe dummy",
    ],
)
def test_what_would_change_the_host_is_refused(bed: BedFactory, command: str) -> None:
    guest = bed()
    values, offset = _host_values(), time.time() - time.monotonic()
    assert guest.run(command, check=False).status != 0
    assert _host_values() == values
    assert abs(time.time() - time.monotonic() - offset) < 0.5


def test_network_sysctl_changes_the_bed_and_not_the_host(bed: BedFactory) -> None:
    guest = bed()
    host = Path("/proc/sys/net/ipv4/conf/all/rp_filter")
    before = host.read_text()
    wanted = "1" if before.strip() != "1" else "2"
    guest.run(["sysctl", "-w", f"net.ipv4.conf.all.rp_filter={wanted}"])
    inside = guest.run(["sysctl", "-n", "net.ipv4.conf.all.rp_filter"]).stdout.strip()
    assert (inside, host.read_text()) == (wanted, before)


def test_kernel_log_of_the_host_cannot_be_read(bed: BedFactory) -> None:
    assert bed().run("timeout 2 cat /proc/kmsg; ls /dev/kmsg", check=False).stdout == ""


def test_guest_sees_no_mount_of_the_host(bed: BedFactory) -> None:
    sources = bed().run("findmnt -rno TARGET,FSTYPE").stdout.splitlines()
    assert sources[0] == "/ overlay"
    assert not [line for line in sources if line.split()[1] in ("ext4", "xfs", "btrfs", "zfs")]


def test_stop_job_reaches_the_metadata_server_on_both_families(bed: BedFactory) -> None:
    guest = bed()
    guest.write("/etc/systemd/system/stop.service", SHUTDOWN_UNIT)
    guest.run("systemctl daemon-reload; systemctl enable --now stop.service")
    guest.poweroff()
    assert guest.path("/var/tmp/answers").read_text() == "200\n200\n"


@pytest.mark.parametrize(
    ("command", "stop"), [("poweroff", Stop.POWEROFF), ("reboot", Stop.REBOOT)]
)
def test_guest_that_ends_itself_says_how(bed: BedFactory, command: str, stop: Stop) -> None:
    guest = bed()
    guest.run(["systemctl", command], check=False)
    assert guest.wait_stopped() is stop


def test_reboot_keeps_files_and_changes_the_boot_id(bed: BedFactory) -> None:
    guest = bed()
    guest.run("echo kept >/var/lib/kept; touch /run/lost; ip route add 10.9.9.9 dev eth0")
    first = guest.run("cat /proc/sys/kernel/random/boot_id").stdout
    guest.reboot()
    second = guest.run("cat /proc/sys/kernel/random/boot_id").stdout
    assert second != first
    assert guest.run("cat /var/lib/kept; ls /run/lost", check=False).stdout == "kept\n"
    assert "10.9.9.9" not in guest.run("ip route").stdout


def test_journal_of_the_boot_before_can_be_read(bed: BedFactory) -> None:
    guest = bed()
    guest.run(["logger", "-t", "probe", "before the reboot"])
    guest.reboot()
    assert "before the reboot" in guest.journal(boot="-1")
    assert "before the reboot" not in guest.journal()


def test_power_loss_runs_no_stop_job_and_the_next_boot_works(bed: BedFactory) -> None:
    guest = bed()
    guest.write("/etc/systemd/system/stop.service", SHUTDOWN_UNIT)
    guest.run("systemctl daemon-reload; systemctl enable --now stop.service")
    guest.power_loss()
    guest.boot()
    assert guest.system_state() == "running"
    assert not guest.path("/var/tmp/answers").exists()


def test_killed_owner_leaves_no_process_and_the_next_bed_sweeps_the_rest() -> None:
    script = (
        "import signal\n"
        "from support.bed import Bed\n"
        "bed = Bed().start()\n"
        "print(bed.name, bed.pid1, flush=True)\n"
        "signal.pause()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tiers.TESTS)},
    )
    assert owner.stdout is not None
    name, pid1 = owner.stdout.readline().split()
    cgroup = sweep.cgroup_root() / name
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid1}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid1}").exists()
    with Bed() as other:
        assert other.system_state() == "running"
        assert [text for text in sweep.leaks() if name in text] == []
    assert (cgroup.exists(), namespaces(name), sweep.mounts_below(sweep.BEDS / name)) == (
        False,
        (),
        [],
    )


def test_four_beds_run_at_once_and_stopping_one_leaves_the_others() -> None:
    roots.base("bookworm")
    beds = [Bed() for _ in range(4)]
    starters = [threading.Thread(target=guest.start) for guest in beds]
    began = time.monotonic()
    try:
        for starter in starters:
            starter.start()
        for starter in starters:
            starter.join()
        took = time.monotonic() - began
        states = [guest.system_state() for guest in beds]
        beds[0].poweroff()
        active = [guest.run("systemctl is-active ssh").stdout.strip() for guest in beds[1:]]
    finally:
        for guest in beds:
            guest.close()
    assert states == ["running"] * 4
    assert active == ["active"] * 3
    assert took < 10


@pytest.mark.parametrize("client", ["dhclient", "networkd", "NetworkManager"])
def test_dhcp_gives_a_host_mask_the_mtu_and_an_on_link_gateway(
    bed: BedFactory, client: str
) -> None:
    guest = bed(dhcp=client)
    nic = guest.nics[0]

    def has_route() -> bool:
        return "default" in guest.run(["ip", "-4", "route"]).stdout

    guest.wait_until(has_route, 20, "a default route from DHCP")
    link = json.loads(guest.run(["ip", "-json", "address", "show", nic.name]).stdout)[0]
    addresses = [
        (entry["local"], entry["prefixlen"])
        for entry in link["addr_info"]
        if entry["family"] == "inet"
    ]
    assert addresses == [(nic.address, 32)]
    assert link["mtu"] == 1460
    found = guest.run(["ip", "-json", "-4", "route", "show", "default"]).stdout
    assert {route["gateway"] for route in json.loads(found)} == {nic.gateway}
    assert guest.run(["ip", "-4", "route", "show", nic.gateway]).stdout.startswith(nic.gateway)


def test_product_name_is_the_platforms_in_the_bed_only(bed: BedFactory) -> None:
    file = Path("/sys/class/dmi/id/product_name")
    host = file.read_text() if file.exists() else None
    assert bed().run(["cat", str(file)]).stdout == "Google Compute Engine\n"
    assert (file.read_text() if file.exists() else None) == host


def test_bed_without_firmware_data_has_no_product_name(bed: BedFactory) -> None:
    if Path("/sys/class/dmi/id").exists():
        pytest.skip("the host's own firmware data shows through")
    assert bed(dmi=False).run("ls /sys/class/dmi", check=False).status != 0


def test_write_to_a_disks_scheduler_lands_in_the_captured_folder(bed: BedFactory) -> None:
    disks = sorted(Path("/sys/block").glob("*/queue/scheduler"))
    if not disks:
        pytest.skip("the host has no block device with a scheduler")
    host = disks[0].read_text()
    guest = bed(sysfs=Sysfs.CAPTURED)
    guest.run(f"echo captured >$(readlink -f {disks[0]})")
    written = [
        file for file in guest.captured_writes().rglob("scheduler") if file.name == "scheduler"
    ]
    assert [file.read_text() for file in written] == ["captured\n"]
    assert disks[0].read_text() == host


def test_text_written_to_the_serial_port_comes_back(bed: BedFactory) -> None:
    guest = bed()
    guest.run("printf 'line one\\nline two\\n' >/dev/ttyS0")
    guest.wait_until(lambda: "line two\n" in guest.serial(), 10, "both lines have come")
    assert guest.serial() == "line one\nline two\n"


def test_bed_without_serial_port_has_no_device(bed: BedFactory) -> None:
    assert bed(serial=False).run("test -e /dev/ttyS0", check=False).status == 1


def test_console_shows_the_boot(bed: BedFactory) -> None:
    assert "Reached target" in bed().console()


def test_second_nic_has_the_chosen_address_and_is_left_to_the_agent(bed: BedFactory) -> None:
    guest = bed(nics=2, macs=["42:01:0a:80:00:02", "42:01:0a:aa:bb:cc"])
    links = {
        link["ifname"]: link for link in json.loads(guest.run(["ip", "-json", "address"]).stdout)
    }
    assert links["eth1"]["address"] == guest.nics[1].mac == "42:01:0a:aa:bb:cc"
    assert links["eth1"]["addr_info"] == []


def test_cut_cable_is_seen_as_lost_carrier(bed: BedFactory) -> None:
    guest = bed()
    carrier = "cat /sys/class/net/eth0/carrier"
    guest.cut_cable()
    cut = guest.run(carrier).stdout.strip()
    guest.plug_cable()
    assert (cut, guest.run(carrier).stdout.strip()) == ("0", "1")


def test_command_that_fails_says_what_it_said(bed: BedFactory) -> None:
    with pytest.raises(CommandFailed, match="ls: cannot access '/absent'"):
        bed().run(["ls", "/absent"])


def test_command_out_of_time_is_ended_with_its_children(bed: BedFactory) -> None:
    guest = bed()
    with pytest.raises(CommandTimeout):
        guest.run("sleep 4321 & sleep 4321", timeout=0.5)
    assert guest.run("pgrep -x sleep", check=False).stdout == ""


def test_command_of_a_user_has_the_users_identity_and_home(bed: BedFactory) -> None:
    guest = bed()
    guest.run("useradd --create-home ada")
    told = guest.run("id -un; echo $HOME; cat", user="ada", input="text").stdout
    assert told == "ada\n/home/ada\ntext"


def test_transient_unit_runs_in_a_cgroup_of_its_own(bed: BedFactory) -> None:
    assert "/system.slice/run-" in bed().unit_run("cat /proc/self/cgroup").stdout


def test_evidence_has_logs_units_and_every_route(bed: BedFactory, tmp_path: Path) -> None:
    guest = bed()
    guest.evidence(tmp_path / "kept")
    kept = {file.name: file.read_text() for file in (tmp_path / "kept").iterdir()}
    assert "Reached target" in kept["console.txt"]
    assert "ssh.service" in kept["units.txt"]
    assert "# -6 table local" in kept["network.txt"]
    assert "Reached target" in kept["journal.txt"]
    assert "requests.txt" in kept


def test_packages_are_installed_before_the_first_boot(bed: BedFactory, tmp_path: Path) -> None:
    deb = _small_package(tmp_path)
    guest = bed(debs=[deb])
    assert guest.run("systemctl is-active probe; cat /var/lib/probe-installed").stdout == (
        "active\nconfigure\n"
    )
    assert guest.run("dpkg-query -Wf '${db:Status-Status}' probe").stdout == "installed"


def test_layer_of_the_same_packages_is_made_once(tmp_path: Path) -> None:
    deb = _small_package(tmp_path)
    made = roots.layer("bookworm", [deb])
    assert roots.layer("bookworm", [deb]) == made
    took = quickest(lambda: seconds_of(lambda: roots.layer("bookworm", [deb])), bound=0.5)
    assert took < 0.5


def test_package_that_does_not_install_says_why(tmp_path: Path) -> None:
    deb = _small_package(tmp_path, depends="absent-library")
    with pytest.raises(CommandFailed, match="depends on absent-library"):
        roots.layer("bookworm", [deb])


def test_instance_of_people_lives_on_and_answers_every_command(tmp_path: Path) -> None:
    name = f"test-{os.getpid()}"

    def instance(verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tiers.TESTS.parent / "tools" / "instance"), verb]
        named = [] if verb == "list" else ["--name", name]
        return subprocess.run(
            [*command, *named, *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    up = instance("up", "--plain")
    try:
        assert (up.returncode, up.stderr) == (0, "")
        assert f"{name} (bookworm) runs after" in up.stdout
        assert instance("up", "--plain").stderr.startswith(f"instance: {name} runs already")
        assert instance("sh", "hostname").stdout == "bed\n"
        assert instance("metadata", "set", "color", "green").returncode == 0
        assert instance("metadata", "get", "instance/attributes/color").stdout == "green\n"
        url = "http://169.254.169.254/computeMetadata/v1/instance/attributes/color"
        fetch = f"curl -s -H 'Metadata-Flavor: Google' {url}"
        assert instance("sh", fetch).stdout == "green"
        assert instance("metadata", "delete", "color").returncode == 0
        assert instance("metadata", "get", "color").stderr == (
            "instance: the metadata has no instance/attributes/color\n"
        )
        assert "attributes/color" in instance("requests").stdout
        assert "Reached target" in instance("logs").stdout
        assert name in instance("list").stdout
    finally:
        down = instance("down")
    assert down.returncode == 0
    assert name not in instance("list").stdout
    assert instance("sh").stderr.startswith(f"instance: no bed {name};")


def test_cached_root_is_there_at_once() -> None:
    roots.base("bookworm")
    assert quickest(lambda: seconds_of(lambda: roots.base("bookworm")), bound=1) < 1


def test_two_processes_at_once_build_an_artifact_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUEST_TEST_CACHE", str(tmp_path))
    script = (
        "import sys, time\n"
        "from support import cache\n"
        "def build(tree):\n"
        "    time.sleep(0.3)\n"
        "    (tree / 'file').write_text('x')\n"
        "print(cache.artifact('probe', {'a': 1}, build).built)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tiers.TESTS)}
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    answers = sorted(builder.communicate(timeout=20)[0].strip() for builder in builders)
    assert answers == ["False", "True"]


def test_old_artifact_in_use_is_set_aside_and_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUEST_TEST_CACHE", str(tmp_path))

    def build(tree: Path) -> None:
        (tree / "file").write_text("x")

    cache.artifact("probe", {"a": 1}, build)
    rebuilt = cache.artifact("probe", {"a": 1}, build, max_age=-1)
    aside = list(tmp_path.glob("probe-*.old-*"))
    assert rebuilt.built
    # This process still holds it, as a bed that boots from it would.
    assert [folder.is_dir() for folder in aside] == [True]


def test_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUEST_TEST_CACHE", str(tmp_path))

    def build(tree: Path) -> None:
        (tree / "half").write_text("x")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cache.artifact("probe", {"a": 1}, build)
    assert list(tmp_path.glob("probe-*")) == []


def _small_package(folder: Path, *, depends: str = "systemd") -> Path:
    """A package with a service and a maintainer script that starts it like debhelper's do."""
    tree = folder / "probe"
    for name, text in {
        "DEBIAN/control": (
            "Package: probe\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@x.example>\n"
            f"Depends: {depends}\nDescription: service that does nothing\n"
        ),
        "DEBIAN/postinst": (
            '#!/bin/sh\nset -e\necho "$1" >/var/lib/probe-installed\n'
            "deb-systemd-helper enable probe.service\n"
        ),
        "lib/systemd/system/probe.service": (
            "[Unit]\nDescription=probe\n[Service]\nExecStart=sleep infinity\n"
            "[Install]\nWantedBy=multi-user.target\n"
        ),
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "DEBIAN/postinst").chmod(0o755)
    deb = folder / "probe_1_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(deb)],
        check=True,
        capture_output=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},  # one layer for every run
    )
    return deb


def _host_values() -> tuple[str, ...]:
    names = ("/proc/sys/vm/swappiness", "/proc/sys/kernel/panic", "/sys/kernel/mm/ksm/run")
    return tuple(Path(name).read_text() for name in names if Path(name).exists())
