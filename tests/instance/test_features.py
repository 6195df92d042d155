"""The features together: a second pass that does nothing, drift that is repaired, all switched off.

What each feature does when it has something to do is in the file of its name.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support import agent_service
from support.agent_service import AGENT, CONFIG, SETTLED
from support.bed import Bed, Sysfs
from support.debs import GuestDebs
from support.documents import instance_document, nic_document
from support.network import numbered_nics

VIP, VIP6 = "192.0.2.10", "2600:1900:0:1::/96"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 ada"
OURS = f"# Added by Google\n{KEY}\n"
KEYS_PATH = "/home/ada/.ssh/authorized_keys"
PROGRAM = "/usr/bin/google_guest_agent"
DROP_IN = f"/etc/systemd/system/{AGENT}.d/trace.conf"
TRACES = "/var/tmp/traces"
CHANGING = (
    "creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "unlink,unlinkat,rmdir,truncate,ftruncate,chmod,fchmod,fchmodat,chown,lchown,fchown,fchownat,"
    "utimensat,setxattr,lsetxattr,fsetxattr,sethostname,settimeofday,clock_settime,mount"
)
STARTING = "execve,fork,vfork"
ALL_ON = """
[Daemons]
clock_skew_daemon = true
[Unstable]
set_hostname = true
set_fqdn = true
"""
ALL_OFF = """
[Daemons]
accounts_daemon = false
clock_skew_daemon = false
network_daemon = false
oslogin_daemon = false
[InstanceSetup]
network_enabled = false
optimize_local_ssd = false
set_multiqueue = false
set_io_scheduler = false
set_overcommit = false
[Unstable]
set_hostname = false
set_fqdn = false
"""

REPEATED = {
    *("accounts", "clock", "first-boot", "forwarded-addresses", "guest-attributes", "hostname"),
    *("oslogin", "telemetry"),
}
"""The features that run more than once in an agent's life."""

Boot = Callable[..., Bed]


@pytest.fixture
def boot(bed: Boot, guest_debs: GuestDebs) -> Boot:
    """Boot an instance for which every feature has something to do."""

    def booted(*, config: str = ALL_ON, files: Any = None, **description: Any) -> Bed:
        nic = nic_document(numbered_nics(1)[0], forwardedIps=[VIP], forwardedIpv6s=[VIP6])
        document = instance_document(
            attributes={"ssh-keys": f"ada:{KEY}", "enable-guest-attributes": "TRUE"},
            instance={"networkInterfaces": [nic]},
        )
        written = {CONFIG: config, **(files or {})}
        return bed(debs=guest_debs, metadata=document, files=written, **description)

    return booted


def await_everything(guest: Bed) -> None:
    agent_service.await_first_passes(guest)
    guest.wait_until(
        lambda: "sshable" in guest.mds.guest_attributes().get("guest-agent", {}),
        what="everything is published",
    )
    guest.wait_until(lambda: guest.mds.waiting_clients, what="the agent waits for a change")


def agent_pid(guest: Bed) -> int:
    """The agent itself, under a tracer too."""
    return int(agent_service.status(guest)["pid"])


# Again.


def traced_calls(guest: Bed) -> Counter[str]:
    """What the agent and its processes did, without what only reads and the agent's status."""
    found: Counter[str] = Counter()
    for file in guest.path(TRACES).iterdir():
        for line in file.read_text(errors="replace").splitlines():
            call, _, result = line.rpartition(" = ")
            is_open = call.startswith(("open(", "openat("))
            if not call or (is_open and not re.search("O_(WRONLY|RDWR|CREAT)", call)):
                continue
            if not re.search("status.json|/dev/null", call):
                found[f"{call} = {result}"] += 1
    return found


@pytest.fixture
def furnished(boot: Boot) -> Bed:
    """An instance in which every feature finds what it looks after."""
    guest = boot(sysfs=Sysfs.CAPTURED, files={"/etc/adjtime": "0.0 0 0.0\n0\nUTC\n"})
    for program in ("sbin/hwclock", "bin/google_set_multiqueue", "bin/google_optimize_local_ssd"):
        guest.write(f"/usr/{program}", "#!/bin/sh\n", mode=0o755)
    guest.run("touch /dev/rtc0; echo 0 >/run/overcommit")
    guest.run("mount --bind /run/overcommit /proc/sys/vm/overcommit_memory")
    guest.run(["systemctl", "restart", AGENT])
    await_everything(guest)
    return guest


def test_a_second_pass_of_every_feature_writes_starts_and_sends_nothing(furnished: Bed) -> None:
    guest = furnished
    guest.run(["systemctl", "stop", AGENT])
    first = agent_pid(guest)
    calls = f"open,openat,{CHANGING},{STARTING}"
    command = f"/usr/bin/strace -ff -y -s 256 -o {TRACES}/t -e trace={calls} {PROGRAM}"
    guest.write(DROP_IN, f"[Service]\nNotifyAccess=all\nExecStart=\nExecStart={command}\n")
    guest.run(f"mkdir {TRACES} && systemctl daemon-reload && systemctl start {AGENT}")
    guest.wait_until(lambda: agent_pid(guest) != first, what="the status is the new agent's")
    await_everything(guest)
    await_idle(guest)
    known, asked, began = traced_calls(guest), guest.mds.requests()[-1].number, time.time()
    guest.run(["kill", "-HUP", str(agent_pid(guest))])
    guest.wait_until(
        lambda: "configuration read again" in guest.journal(AGENT), what="every pass is asked for"
    )
    await_idle(guest)
    again = traced_calls(guest)
    targets = [request.target for request in guest.mds.requests() if request.number > asked]
    guest.run(["kill", str(agent_pid(guest))])
    guest.wait_until(
        lambda: agent_service.status(guest)["state"] == "stopped", what="the agent has ended"
    )
    rows = agent_service.status(guest)["features"]
    assert [name for name, row in rows.items() if row["error"] or row["skipped"]] == []
    assert {name for name, row in rows.items() if row["last_pass"] >= began} == REPEATED
    assert known and again - known == Counter()
    assert [target for target in targets if "wait_for_change" not in target] == []


def await_idle(guest: Bed) -> None:
    """Wait until the agent has no thread but the two that wait."""
    pid = agent_pid(guest)
    guest.wait_until(
        lambda: agent_service.resources(guest, pid).threads == 2, what="every pass has ended"
    )


def test_a_restart_leaves_every_file_as_it_is(boot: Boot) -> None:
    guest = boot()
    await_everything(guest)
    look = (
        "find /etc /home /root /usr /opt /srv /var/lib /boot -xdev"
        " ! -path '/var/lib/systemd/*' -printf '%p %y %m %U %G %i %T@ %C@ %l %s\\n' | sort"
    )
    routes = "ip -d route show table all; ip -6 -d route show table all; ip -d rule"
    guest.await_addresses()
    guest.run("systemd-run -q --unit=watch ip monitor route")
    before = guest.run(look, timeout=60).stdout.splitlines(), guest.run(routes).stdout
    guest.run(["systemctl", "restart", AGENT])
    agent_service.await_first_passes(guest)
    guest.wait_until(lambda: guest.mds.waiting_clients, what="the agent waits for a change")
    after = guest.run(look, timeout=60).stdout.splitlines(), guest.run(routes).stdout
    assert set(after[0]) ^ set(before[0]) == set()
    assert after[1] == before[1]
    assert VIP not in guest.journal("watch.service")


# Drift.


@pytest.mark.parametrize(
    "harm",
    [
        f"printf 'own\\n' >{KEYS_PATH}",
        f"rm {KEYS_PATH}",
        "rm -r ~ada/.ssh",
        "rm -r ~ada",
        "gpasswd -d ada google-sudoers",
        "userdel -r ada",
        "groupdel google-sudoers; rm /etc/sudoers.d/google_sudoers",
    ],
)
def test_what_somebody_did_to_a_user_is_repaired_by_the_next_pass(boot: Boot, harm: str) -> None:
    guest = boot(files=SETTLED)
    key = guest.new_key()
    guest.mds.set("instance/attributes/ssh-keys", f"ada:{key.public}")
    guest.wait_until(
        lambda: key.public in guest.path(KEYS_PATH).read_text(), what="the key is there"
    )
    guest.run(harm)
    # What comes by itself within five minutes.
    guest.run(["systemctl", "reload", AGENT])
    guest.wait_until(
        lambda: guest.ssh("ada", key, "sudo -n id -u", check=False).stdout == "0\n",
        what="the user may log in and become root",
    )
    if "own" in harm:
        assert guest.path(KEYS_PATH).read_text().startswith("own\n")


def test_a_host_key_that_somebody_replaced_is_published_by_the_next_pass(boot: Boot) -> None:
    guest = boot(files=SETTLED)
    await_everything(guest)
    file = "/etc/ssh/ssh_host_ed25519_key"
    guest.run(f"rm {file}* && ssh-keygen -q -t ed25519 -N '' -f {file}")
    fresh = guest.path(f"{file}.pub").read_text().split()[1]
    guest.run(["systemctl", "reload", AGENT])
    guest.wait_until(
        lambda: guest.mds.guest_attributes()["hostkeys"]["ssh-ed25519"] == fresh,
        what="the new key is published",
    )


# Off.


def test_with_everything_switched_off_nothing_happens(boot: Boot) -> None:
    noting = '#!/bin/sh\necho "$0" >>/var/tmp/calls\n'
    scripts = ("google_set_multiqueue", "google_optimize_local_ssd")
    guest = boot(config=ALL_OFF, sysfs=Sysfs.CAPTURED)
    keys = guest.run("sha256sum /etc/ssh/ssh_host_*").stdout
    for name in scripts:
        guest.write(f"/usr/bin/{name}", noting, mode=0o755)
    guest.reboot()
    agent_service.await_first_passes(guest)
    rows = agent_service.status(guest)["features"]
    assert {name: row["on"] for name, row in rows.items()} == dict.fromkeys(rows, False)
    assert {row["layer"] for row in rows.values()} == {CONFIG}
    assert guest.run("sha256sum /etc/ssh/ssh_host_*").stdout == keys
    assert "ada" not in guest.path("/etc/passwd").read_text()
    assert guest.run("ip route show table local proto 66; ip -6 route show proto 66").stdout == ""
    assert captured(guest) == []
    left = ("/etc/google_instance_id", "/etc/boto.cfg", "/etc/sudoers.d/google_sudoers")
    assert [path for path in (*left, "/var/tmp/calls") if guest.path(path).exists()] == []
    assert guest.mds.guest_attributes() == {}
    assert not any("X-Google-Guest-OS" in request.headers for request in guest.mds.requests())


def captured(guest: Bed) -> Sequence[str]:
    upper = guest.captured_writes()
    return sorted(str(path.relative_to(upper)) for path in upper.rglob("*") if path.is_file())


def test_switching_users_off_on_a_running_instance_leaves_them_as_they_are(boot: Boot) -> None:
    guest = boot(files=SETTLED)
    agent_service.await_first_passes(guest)
    assert guest.path(KEYS_PATH).read_text() == OURS
    guest.write(CONFIG, "[Daemons]\naccounts_daemon = false\n")
    guest.run(["systemctl", "reload", AGENT])
    guest.mds.set("instance/attributes/ssh-keys", "")
    guest.wait_until(
        lambda: not agent_service.status(guest)["features"]["accounts"]["on"],
        what="the feature is off",
    )
    assert guest.path(KEYS_PATH).read_text() == OURS
    assert "google-sudoers" in guest.run("id -nG ada").stdout
    assert json.loads(guest.path("/var/lib/google/managed_users.json").read_text())["users"]
