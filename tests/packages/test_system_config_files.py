"""The system's configuration files, read by the programs they are for: dracut and the initramfs it
makes, udev, sysctl, sshd, rsyslog, systemd, apt, modprobe, and which distribution gets which file.

Two systems, each made once: the files of the el9 target beside dracut and a kernel that has NVMe
built in and virtio_scsi as a module, and those of Debian 13 with Debian's own programs.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import artifact_table
import pytest
import yaml
from support import roots, tiers
from support.chroot import Chroot, is_possible
from unit.system_config.test_nvme_id import NAMES

from google_guest.config import load_config
from google_guest.system.files import Files

DRACUT_SUITE = "bookworm"
DRACUT_PACKAGES = (
    *("busybox-static", "dracut-core", "linux-image-cloud-amd64", "mount", "nvme-cli", "python3"),
    *("systemd-sysv", "udev", "zstd"),
)
SUITE = "trixie"
MODULE = "/usr/lib/dracut/modules.d/30gcp-udev-rules"
HELPER = "/usr/lib/udev/google_nvme_id"
RULES = "/usr/lib/udev/rules.d/65-gce-disk-naming.rules"
NAME = b'{"device_name": \t"a.b_c-1","disk_type":"PERSISTENT"}'

SETTINGS = {
    "net.ipv4.tcp_syncookies": 1,
    "net.ipv4.ip_forward": 0,
    "net.ipv4.icmp_echo_ignore_broadcasts": 1,
    "net.ipv4.icmp_ignore_bogus_error_responses": 1,
    **{
        f"net.ipv4.conf.{which}.{key}": value
        for which in ("all", "default")
        for key, value in (
            ("accept_source_route", 0),
            ("accept_redirects", 0),
            ("secure_redirects", 1),
            ("send_redirects", 0),
            ("rp_filter", 1),
            ("log_martians", 1),
        )
    },
    "kernel.randomize_va_space": 2,
    "kernel.panic": 10,
}

EVERYWHERE = {
    "/etc/modprobe.d/gce-blacklist.conf",
    "/etc/sysctl.d/60-gce-network-security.conf",
    "/usr/lib/systemd/resolved.conf.d/10-gce.conf",
    RULES,
    "/usr/lib/udev/rules.d/75-gce-network.rules",
}
EXIT_HOOK = "/etc/dhcp/dhclient-exit-hooks.d/google_set_hostname"
NM_HOOK = "/etc/NetworkManager/dispatcher.d/google_hostname.sh"
DEBIAN = {
    *EVERYWHERE,
    *("/etc/apt/apt.conf.d/01autoremove-gce", "/etc/rsyslog.d/90-google.conf", EXIT_HOOK, NM_HOOK),
    "/usr/lib/networkd-dispatcher/routable.d/google_hostname.sh",
}
UBUNTU = {
    *EVERYWHERE,
    *("/etc/apt/apt.conf.d/01autoremove-gce", EXIT_HOOK),
    "/etc/cloud/cloud.cfg.d/91-gce.cfg",
    "/etc/default/instance_configs.cfg.distro",
    "/usr/lib/udev/rules.d/99-gce.rules",
}
DRACUT = {f"{MODULE}/google_nvme_id", f"{MODULE}/module-setup.sh"}
EL = {
    *(*EVERYWHERE, *DRACUT),
    *("/etc/dracut.conf.d/gce.conf", "/etc/rsyslog.d/90-google.conf", NM_HOOK),
    "/etc/dhcp/dhclient.d/google_hostname.sh",
}
WICKED_HOOK = "/etc/sysconfig/network/scripts/google_up.sh"
SLES = {*EVERYWHERE, *DRACUT, "/etc/rsyslog.d/90-google.conf", WICKED_HOOK}
FILES = {
    **dict.fromkeys(("debian11", "debian12"), DEBIAN),
    "debian13": {
        *DEBIAN,
        "/etc/ssh/sshd_config.d/90_google_keyexchange.conf",
        "/usr/lib/systemd/system/rsyslog.service.d/90_google_serial.conf",
    },
    **dict.fromkeys(("ubuntu2204", "ubuntu2404"), UBUNTU),
    **dict.fromkeys(("el8", "el9", "el10", "fedora"), EL),
    "sles15": SLES,
    "sles16": {*SLES, NM_HOOK},
}
"""Of each target: the files of its packages that come from config/ and belong to other programs."""

MakeSystem = Callable[[Path, str], Chroot]


def _configuration(target: str) -> dict[str, dict[str, Any]]:
    """A target's entries of the table whose files lie in config/, by path."""
    chosen = artifact_table.target(target)
    packages = [artifact_table.package(chosen, "google-compute-engine")]
    packages += [p for p in artifact_table.packages(chosen) if p.key == "gce-configs-trixie"]
    return {
        item["path"]: item
        for package in packages
        for item in package.files
        if _source(target, item) is not None
    }


def _source(target: str, item: dict[str, Any]) -> Optional[Path]:
    if "source" in item:
        return artifact_table.TOP / item["source"]
    return artifact_table.overlay_file(artifact_table.target(target), item["path"])


def _refuse(problems: Sequence[str]) -> None:
    reason = "reading configuration files in another system needs " + "; ".join(problems)
    if tiers.in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def furnished() -> Iterator[MakeSystem]:
    """Makes a system on a tree, with the files that a target gets."""
    folders: list[Path] = []

    def make(tree: Path, target: str) -> Chroot:
        folders.append(Path(tempfile.mkdtemp(prefix="guest-chroot-")))
        system = Chroot([tree], folders[-1])
        for path, item in _configuration(target).items():
            source = _source(target, item)
            assert source is not None
            system.write(path, source.read_text(), mode=int(item.get("mode", "0644"), 8))
        return system

    yield make
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def enterprise(furnished: MakeSystem) -> Chroot:
    """A system with dracut, and the programs of the guest environment that its rules name."""
    impossible = is_possible()
    if impossible:
        _refuse([impossible])
    if not roots.is_helper_cached(DRACUT_SUITE, DRACUT_PACKAGES):
        if shutil.which("mmdebstrap") is None:
            _refuse(["program mmdebstrap"])
        problem = roots.archive_problem(DRACUT_SUITE)
        if problem:
            _refuse([problem])
    system = furnished(roots.helper(DRACUT_SUITE, DRACUT_PACKAGES), "el9")
    system.write(HELPER, "#!/usr/bin/python3 -IS\n", mode=0o755)
    return system


@pytest.fixture(scope="module")
def kernel(enterprise: Chroot) -> str:
    return enterprise.shell("ls /lib/modules").strip()


@pytest.fixture(scope="module")
def initramfs(enterprise: Chroot, kernel: str) -> str:
    """The path of an initramfs in that system."""
    image = "/var/tmp/initramfs"
    build = f"dracut --no-hostonly --no-compress {image} {kernel} 2>{image}.messages"
    enterprise.run(["sh", "-c", build], timeout=240.0)
    return image


@pytest.fixture(scope="module")
def unpacked_initramfs(enterprise: Chroot, initramfs: str) -> str:
    """Its contents, with a persistent disk and an nvme program that answers for it."""
    folder = "/var/tmp/unpacked"
    enterprise.shell(f"mkdir {folder}; cd {folder}; lsinitrd --unpack {initramfs}")
    disk = f"{folder}/sys/class/block/nvme0n1"
    enterprise.write(f"{disk}/device/model", f"{'nvme_card-pd':<40}\n")
    enterprise.write(f"{disk}/nsid", "1\n")
    enterprise.write(f"{folder}/data", _identity(NAME).decode())
    enterprise.write(f"{folder}/usr/sbin/nvme", "#!/bin/sh\nexec cat /data\n", mode=0o755)
    return folder


@pytest.fixture(scope="module")
def debian(furnished: MakeSystem) -> Chroot:
    """Debian 13 with its own programs."""
    impossible = is_possible()
    problems = [impossible] if impossible else list(tiers.root_problems(SUITE))
    if problems:
        _refuse(problems)
    return furnished(roots.base(SUITE), "debian13")


def _identity(area: bytes) -> bytes:
    """Identify Namespace data with this vendor's part."""
    return bytes(384) + area.ljust(4096 - 384, b"\0")


@pytest.mark.parametrize(("target", "files"), FILES.items(), ids=list(FILES))
def test_target_has_exactly_its_configuration_files(target: str, files: set[str]) -> None:
    assert set(_configuration(target)) == files


@pytest.mark.parametrize("target", FILES)
def test_files_below_etc_are_configuration_and_others_are_not(target: str) -> None:
    for path, item in _configuration(target).items():
        assert bool(item.get("config")) == path.startswith("/etc/"), path


# The initramfs.


def test_initramfs_has_the_rules_and_the_shell_twin(enterprise: Chroot, initramfs: str) -> None:
    for path, source in ((RULES, RULES), (HELPER, f"{MODULE}/google_nvme_id")):
        copy = enterprise.shell(f"lsinitrd -f {path.lstrip('/')} {initramfs}")
        assert copy == enterprise.read(source)


def test_initramfs_has_no_python(enterprise: Chroot, initramfs: str) -> None:
    assert "python" not in enterprise.shell(f"lsinitrd {initramfs} | grep -v ^Arguments")


def test_initramfs_has_what_the_rules_and_the_helper_call(
    enterprise: Chroot, initramfs: str
) -> None:
    lines = enterprise.shell(f"lsinitrd {initramfs}").splitlines()
    # Mode, links, owner, group, size, date (three words), name, and where a link leads.
    held = {line.split()[8] for line in lines if re.match(r"[-l]r", line)}
    source = enterprise.read(f"{MODULE}/google_nvme_id") or ""
    promised = re.search(r"^# Programs: (.*); module-setup", source, re.MULTILINE)
    assert promised is not None
    names = {*re.findall(r"[a-z]{2,}", promised[1]), "sh"} - {"and", "for"}
    assert names == {"nvme", "tail", "tr", "sed", "ln", "mkdir", "mv", "sh"}
    missing = {n for n in names if not {f"usr/{b}/{n}" for b in ("bin", "sbin")} & held}
    assert missing == set()
    assert "usr/lib/udev/scsi_id" in held


def test_helper_names_a_disk_in_the_initramfs(enterprise: Chroot, unpacked_initramfs: str) -> None:
    helper = f"chroot {unpacked_initramfs} {HELPER} -d /dev/nvme0n1"
    assert enterprise.shell(helper) == (
        "ID_SERIAL_SHORT=a.b_c-1\nID_SERIAL=Google_PersistentDisk_a.b_c-1\n"
    )
    enterprise.shell(f"{helper} -s")
    link = f"{unpacked_initramfs}/dev/disk/by-id/google-a.b_c-1"
    assert enterprise.shell(f"readlink {link}") == "../../nvme0n1\n"


def test_initramfs_has_the_drivers_of_the_disks(
    enterprise: Chroot, initramfs: str, kernel: str
) -> None:
    built_in = enterprise.read(f"/lib/modules/{kernel}/modules.builtin") or ""
    assert ("/nvme.ko" in built_in, "/virtio_scsi.ko" in built_in) == (True, False)
    assert f"lib/modules/{kernel}/kernel/drivers/scsi/virtio_scsi.ko" in enterprise.shell(
        f"lsinitrd {initramfs}"
    )


def test_drivers_are_not_asked_for_at_boot(enterprise: Chroot, initramfs: str) -> None:
    assert "rd.driver.pre" not in enterprise.shell(
        f"lsinitrd -f etc/cmdline.d/20-force_drivers.conf {initramfs}"
    )


def test_building_the_initramfs_finds_nothing_wrong(enterprise: Chroot, initramfs: str) -> None:
    messages = enterprise.shell(f"cat {initramfs}.messages").splitlines()
    assert any("Including module: gcp-udev-rules" in message for message in messages)
    ours = re.compile(r"(?i)error|failed|gce|gcp|google|virtio_scsi|google_nvme_id")
    assert [m for m in messages if ours.search(m) and "Including module" not in m] == []


def test_initramfs_is_built_without_the_nvme_program(enterprise: Chroot, kernel: str) -> None:
    enterprise.shell("mv /usr/sbin/nvme /usr/sbin/not-nvme")
    try:
        build = f"dracut --no-hostonly --no-kernel --no-compress --force /var/tmp/without {kernel}"
        enterprise.shell(build)
        assert "gce-disk-naming" not in enterprise.shell("lsinitrd /var/tmp/without")
        # Somebody who asks for the module gets what works without the program.
        enterprise.shell(f"{build} --add gcp-udev-rules")
        held = enterprise.shell("lsinitrd /var/tmp/without")
        assert ("65-gce-disk-naming.rules" in held, "udev/google_nvme_id" in held) == (True, True)
    finally:
        enterprise.shell("mv /usr/sbin/not-nvme /usr/sbin/nvme")


def test_dracut_keeps_the_drivers_that_others_add(enterprise: Chroot) -> None:
    script = 'add_drivers=one; . /etc/dracut.conf.d/gce.conf; printf %s "$add_drivers"'
    words = enterprise.run(["bash", "-c", script]).stdout
    assert words.split() == ["one", "nvme", "virtio_scsi"]
    assert words.endswith(" ")


_WRITE_CASES = """
import json
for number, area in enumerate(json.load(open("/applets/data"))):
    with open(f"/applets/case{number}", "wb") as file:
        file.write(area.encode("latin-1"))
"""


def test_twin_says_the_same_with_busybox(enterprise: Chroot) -> None:
    """Every case of the table, with busybox as the shell and for all commands."""
    applets = " ".join(("sh", "tail", "tr", "sed", "cat"))
    adapted = enterprise.read(f"{MODULE}/google_nvme_id") or ""
    for line, changed in (
        ("PATH=/usr/sbin:/usr/bin:/sbin:/bin\n", "PATH=/applets\n"),
        ("SYSFS=/sys/class/block\n", "SYSFS=/applets/block\n"),
    ):
        assert f"\n{line}" in adapted
        adapted = adapted.replace(f"\n{line}", f"\n{changed}")
    enterprise.write("/applets/twin", adapted)
    enterprise.write("/applets/block/nvme0n1/device/model", "nvme_card-pd\n")
    enterprise.write("/applets/nvme", "#!/applets/sh\nexec cat $CASE\n", mode=0o755)
    data = [_identity(area).decode("latin-1") for area, _ in NAMES.values()]
    enterprise.write("/applets/data", json.dumps(data))
    enterprise.run(["python3", "-c", _WRITE_CASES])
    output = enterprise.shell(
        f"for name in {applets}; do ln -s $(command -v busybox) /applets/$name; done\n"
        f"for number in $(seq 0 {len(NAMES) - 1}); do\n"
        "CASE=/applets/case$number /applets/sh /applets/twin -d /dev/nvme0n1 2>/dev/null"
        " | sed -n s/^ID_SERIAL_SHORT=//p >/tmp/answer\n"
        "printf '%s\\n' \"$(cat /tmp/answer)\"\ndone"
    )
    answers = dict(zip(NAMES, output.splitlines()))
    assert answers == {case: name or "" for case, (_, name) in NAMES.items()}


# The other programs.


def test_udev_understands_every_rule(debian: Chroot) -> None:
    rules = sorted((artifact_table.TOP / "config").rglob("*.rules"))
    assert {"65-gce-disk-naming.rules", "99-gce.rules"} <= {file.name for file in rules}
    debian.shell("groupadd --system syslog")
    for file in rules:
        debian.put(file, f"/usr/lib/udev/rules.d/{file.name}")
    paths = " ".join(f"/usr/lib/udev/rules.d/{file.name}" for file in rules)
    done = debian.run(["sh", "-c", f"udevadm verify {paths} 2>&1"], check=False)
    assert (done.status, f"Success: {len(rules)}" in done.stdout) == (0, True), done.stdout


def test_kernel_settings_are_exactly_those_of_the_platform(debian: Chroot) -> None:
    text = debian.read("/etc/sysctl.d/60-gce-network-security.conf") or ""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [tuple(map(str.strip, line.split("="))) for line in lines]
    assert sorted(found) == sorted((key, str(value)) for key, value in SETTINGS.items())


def test_kernel_settings_say_how_to_override_them(debian: Chroot) -> None:
    text = debian.read("/etc/sysctl.d/60-gce-network-security.conf") or ""
    assert "/etc/sysctl.d/99-" in text.split("\n\n")[0] + text.split("net.ipv4.tcp")[0]


def test_kernel_takes_the_settings_of_the_network(debian: Chroot) -> None:
    # In a network of its own; the two settings of the kernel itself would be the test machine's.
    keys = " ".join(key for key in SETTINGS if key.startswith("net."))
    known = debian.shell(f"cd /proc/sys; for key in {keys}; do ls $(echo $key | tr . /); done || :")
    if len(known.split()) != len(keys.split()):
        pytest.skip("this kernel does not have all settings of the network")
    found = debian.shell(
        "grep ^net /etc/sysctl.d/60-gce-network-security.conf >/tmp/network.conf\n"
        f"unshare --net sh -ec 'sysctl -q -p /tmp/network.conf; sysctl {keys}'"
    )
    assert dict(line.split(" = ") for line in found.splitlines()) == {
        key: str(value) for key, value in SETTINGS.items() if key.startswith("net.")
    }


def test_modprobe_leaves_two_drivers_alone(debian: Chroot) -> None:
    lines = debian.shell("modprobe --showconfig").splitlines()
    assert {"blacklist nouveau", "blacklist floppy"} <= set(lines)


def test_apt_never_removes_the_guest_environment_by_itself(debian: Chroot) -> None:
    lines = debian.shell("apt-config dump APT::NeverAutoRemove").splitlines()
    patterns = [line.split('"')[1] for line in lines]
    kept = (
        *("gce-compute-image-packages", "google-compute-engine", "google-compute-engine-oslogin"),
        *("python-google-compute-engine", "python3-google-compute-engine"),
    )
    assert [name for name in kept if not any(p and re.search(p, name) for p in patterns)] == []
    others = ("google-chrome-stable", "my-google-compute-engine", "bash")
    assert [name for name in others if any(p and re.search(p, name) for p in patterns)] == []


def test_sshd_offers_the_key_exchanges_of_the_browser_and_its_own(debian: Chroot) -> None:
    debian.shell("mkdir -p /run/sshd; sshd -t")
    text = debian.shell("mkdir -p /run/sshd; sshd -T")
    offered = re.search(r"^kexalgorithms (.*)$", text, re.MULTILINE)
    assert offered is not None
    added = ["diffie-hellman-group-exchange-sha256", "diffie-hellman-group14-sha1"]
    algorithms = offered[1].split(",")
    assert algorithms[-2:] == added
    assert "curve25519-sha256" in algorithms[:-2]


def test_systemd_understands_the_drop_in_of_rsyslog(debian: Chroot) -> None:
    drop_in = "/usr/lib/systemd/system/rsyslog.service.d/90_google_serial.conf"
    done = debian.run(["systemd-analyze", "--man=no", "verify", "rsyslog.service"], check=False)
    assert "rsyslog.service.d" not in done.stderr
    text = debian.read(drop_in) or ""
    settings = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    assert settings == ["PrivateDevices=no", "DeviceAllow=/dev/console rw", "DevicePolicy=closed"]


def test_resolver_reads_the_drop_in(debian: Chroot) -> None:
    text = debian.shell("systemd-analyze cat-config systemd/resolved.conf")
    _, _, ours = text.partition("# /usr/lib/systemd/resolved.conf.d/10-gce.conf\n")
    lines = [line for line in ours.splitlines() if line and not line.startswith("#")]
    assert lines == ["[Resolve]", "DNS=169.254.169.254", "Domains=~local", "MulticastDNS=false"]


_TALK = """
import socket, sys
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.connect("/tmp/log")
for line in sys.argv[1:]:
    log.send(line.encode())
"""


def test_console_gets_what_programs_of_ours_say_and_nothing_else(debian: Chroot) -> None:
    debian.run(["rsyslogd", "-N1"])
    told = (
        "google_set_hostname",
        "google_oslogin_control",
        "gce_workload_cert_refresh",
        "GCEGuest",
    )
    # The runner of scripts writes to the console itself; 0 and 24 are kern and daemon.
    untold = ("google_metadata_script_runner", "google-oslogind", "sshd", "mygoogle_x", "gcegroup")
    messages = [f"<30>{name}[1]: hello" for name in (*told, *untold)]
    messages += ["<6>google_kernel: hello", "<30>GCEGuestAgentManager: the last"]
    arguments = " ".join(map(shlex.quote, messages))
    console = debian.shell(
        "sed s,/dev/console,/tmp/console, /etc/rsyslog.d/90-google.conf >/tmp/rule.conf\n"
        "cat >/tmp/rsyslog.conf <<'EOF'\n"
        'module(load="imuxsock" SysSock.Use="off")\n'
        'input(type="imuxsock" Socket="/tmp/log")\n'
        'include(file="/tmp/rule.conf")\n'
        "EOF\n"
        "rsyslogd -n -f /tmp/rsyslog.conf -iNONE &\n"
        "for _ in $(seq 100); do [ ! -S /tmp/log ] || break; sleep 0.05; done\n"
        f"python3 -c {shlex.quote(_TALK)} {arguments}\n"
        "for _ in $(seq 100); do ! grep -qs 'the last' /tmp/console || break; sleep 0.05; done\n"
        "kill $!; wait || :; cat /tmp/console"
    )
    speakers = [line.split()[2].split("[")[0].rstrip(":") for line in console.splitlines()]
    assert speakers == [*told, "GCEGuestAgentManager"]


def test_cloud_init_looks_for_this_platform_alone() -> None:
    file = artifact_table.TOP / "config/ubuntu/etc/cloud/cloud.cfg.d/91-gce.cfg"
    assert yaml.safe_load(file.read_text()) == {"datasource_list": ["GCE"]}


def test_agent_reads_the_settings_of_ubuntu() -> None:
    config = load_config(Files(artifact_table.TOP / "config/ubuntu"), environ={})
    assert config.problems == ()
    assert config.accounts.groups.split(",") == [
        *("ubuntu", "adm", "dialout", "cdrom", "floppy", "audio", "dip", "video", "plugdev"),
        *("netdev", "lxd"),
    ]
    assert config.instance_setup.set_host_keys is False
    changed = {origin for origin in config.origins.values() if origin.endswith(".distro")}
    assert len(changed) == 1
