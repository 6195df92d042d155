"""The host name and /etc/hosts in booted instances: leases, hooks of network services, the agent.

Leases are those of a real DHCP server to a real client; hooks are run by the services they are for
where Debian has these, and by hand where only another distribution has them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from support import agent_service
from support.agent_service import AGENT, CONFIG, SETTLED
from support.bed import Bed
from support.commands import run_command
from support.debs import OSLOGIN, SOURCE_TREE, GuestDebs
from support.documents import instance_document, nic_document
from support.network import LEASED_NAME, numbered_nics

FQDN = LEASED_NAME
FOREIGN = "127.0.0.1\tlocalhost # mine\n\n::1 localhost ip6-localhost\n10.1.1.1 other"
HOST_LINE = f"10.128.0.2 {FQDN} bed  # Added by Google\n"
SERVER_LINE = "169.254.169.254 metadata.google.internal  # Added by Google\n"
HOSTS = f"{FOREIGN}\n{HOST_LINE}{SERVER_LINE}"
PROGRAM = "/usr/bin/google_set_hostname"
LEASE = {"new_host_name": FQDN, "new_ip_address": "10.128.0.2"}
DHCLIENT_HOOK = "/etc/dhcp/dhclient-exit-hooks.d/google_set_hostname"
NM_HOOK = "/etc/NetworkManager/dispatcher.d/google_hostname.sh"
NETWORKD_HOOK = "/usr/lib/networkd-dispatcher/routable.d/google_hostname.sh"
EL_HOOK = "/etc/dhcp/dhclient.d/google_hostname.sh"
WICKED_HOOK = "/etc/sysconfig/network/scripts/google_up.sh"
Boot = Callable[..., Bed]


def clone(name: str = "template-vm", **files: str) -> dict[str, str]:
    """Files of an instance whose disk was another machine's."""
    return {**SETTLED, "/etc/hostname": f"{name}\n", "/etc/hosts": FOREIGN, **files}


@pytest.fixture
def boot(bed: Boot, guest_debs: GuestDebs) -> Boot:
    """Boot an instance that was another machine's, with the packages installed."""

    def booted(suite: str = "bookworm", *, files: Any = None, **description: Any) -> Bed:
        debs = guest_debs.with_packages(OSLOGIN, "google-compute-engine")
        return bed(suite, debs=debs, files=files or clone(), **description)

    return booted


def place_foreign_hooks(guest: Bed) -> None:
    """Put the hooks into a guest that only other distributions have."""
    for overlay, path in (("el", EL_HOOK), ("sles", WICKED_HOOK)):
        target = guest.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE_TREE / "config" / overlay / path.lstrip("/"), target)


def name_of(guest: Bed) -> str:
    return guest.run(["uname", "-n"]).stdout.strip()


def static_name_of(guest: Bed) -> str:
    return guest.path("/etc/hostname").read_text().strip()


def hosts_of(guest: Bed) -> str:
    return guest.path("/etc/hosts").read_text()


def said(guest: Bed) -> list[str]:
    """What the program logged in this boot."""
    shown = guest.run("journalctl --no-pager -q -b -o json -t google_set_hostname").stdout
    return [str(json.loads(line)["MESSAGE"]) for line in shown.splitlines()]


def await_name(guest: Bed, name: str = "bed", hosts: str = HOSTS) -> None:
    guest.wait_until(
        lambda: (name_of(guest), hosts_of(guest)) == (name, hosts), 20, f"it is called {name}"
    )


def await_settled(guest: Bed) -> None:
    """Wait until the program has written down which name it has given."""
    state = guest.path("/var/lib/google-guest-agent/hostname.json")
    guest.wait_until(lambda: state.exists() and static_name_of(guest) == "bed", 10, "it is settled")


def running_services(guest: Bed) -> dict[str, str]:
    """Which run of each service is the present one; systemd-hostnamed comes and goes by itself."""
    listed = guest.run("systemctl list-units --type=service --state=running --plain --no-legend")
    names = [line.split()[0] for line in listed.stdout.splitlines() if "hostnamed" not in line]
    return {name: guest.unit_property(name, "InvocationID") for name in names}


def with_environment(environ: Mapping[str, str], command: str) -> list[str]:
    return ["env", *(f"{key}={value}" for key, value in environ.items()), *command.split()]


def take_lease(guest: Bed, environ: Mapping[str, str] = LEASE) -> int:
    return guest.run(with_environment(environ, PROGRAM), check=False).status


# Leases.


def renew(guest: Bed) -> None:
    """Have another dhclient ask the server for the same lease, which it gets."""
    pid = "/run/renewal.pid"
    client = f"dhclient -1 -pf {pid} -lf /var/lib/dhcp/dhclient.eth0.leases eth0"
    # It goes to the background before its pid is written.
    wait = f"until test -s {pid}; do sleep 0.02; done"
    guest.run(f"rm -f {pid} && {client} && {wait} && kill $(cat {pid})", timeout=60)


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_a_lease_calls_the_instance_by_its_name(boot: Boot, suite: str) -> None:
    guest = boot(suite, dhcp="dhclient")
    await_name(guest)
    assert guest.run("hostname -f").stdout == f"{FQDN}\n"
    assert guest.run("getent hosts metadata.google.internal").stdout.split()[0] == (
        "169.254.169.254"
    )
    guest.wait_until(lambda: static_name_of(guest) == "bed", 10, "the next boot has the name")
    assert guest.failed_units() == ()


def test_a_lease_calls_an_instance_of_debian_11_by_its_name(
    bed: Boot, guest_debs: GuestDebs
) -> None:
    # The platform's images of this release use dhclient, and its hostnamectl has the old command.
    guest = bed("bullseye", debs=guest_debs, dhcp="dhclient", files=clone())
    # Its C library is older than the one that OS Login, which the package needs, was built with.
    (package,) = guest_debs.named("google-compute-engine")
    run_command(["dpkg-deb", "-x", str(package), str(guest.path("/"))], purpose="unpack a package")
    assert guest.run("hostnamectl hostname x", check=False).status != 0
    guest.reboot()
    await_name(guest)
    guest.wait_until(lambda: static_name_of(guest) == "bed", 10, "the next boot has the name")


def test_renewals_write_and_restart_nothing_and_later_hooks_run(boot: Boot) -> None:
    after = "/etc/dhcp/dhclient-exit-hooks.d/zz-later"
    files = clone()
    files[after] = 'echo "$reason" >>/run/later\n'
    guest = boot(dhcp="dhclient", files=files)
    await_name(guest)
    await_settled(guest)
    looked = guest.run("stat -c '%i %Y %Z' /etc/hosts /etc/hostname").stdout
    services = running_services(guest)
    lines = len(said(guest))
    for _ in range(3):
        renew(guest)
    renewal = {
        **LEASE,
        "reason": "RENEW",
        "interface": "eth0",
        "old_ip_address": "10.128.0.2",
        "old_host_name": FQDN,
    }
    once = " ".join(f"{key}={value}" for key, value in renewal.items())
    script = f"for i in $(seq 100); do {once} /sbin/dhclient-script || exit; done"
    guest.run(script, timeout=120)
    assert (name_of(guest), hosts_of(guest)) == ("bed", HOSTS)
    assert guest.run("stat -c '%i %Y %Z' /etc/hosts /etc/hostname").stdout == looked
    assert "rsyslog.service" in services
    assert running_services(guest) == services
    assert len(said(guest)) == lines
    reasons = guest.path("/run/later").read_text().split()
    assert reasons.count("RENEW") == 100
    assert len([reason for reason in reasons if reason in ("BOUND", "REBOOT")]) >= 4


def test_a_forged_name_is_ignored_with_one_warning(boot: Boot) -> None:
    guest = boot(dhcp="dhclient", dhcp_name="METADATA.google.internal")
    guest.wait_until(lambda: said(guest), 20, "the hook ran")
    guest.wait_until(
        lambda: "default" in guest.run("ip -4 route").stdout, 20, "the lease is in force"
    )
    for _ in range(2):
        renew(guest)
    assert name_of(guest) == static_name_of(guest) == "template-vm"
    assert hosts_of(guest) == f"{FOREIGN}\n{SERVER_LINE}"
    warnings = [line for line in said(guest) if "ignored" in line]
    assert warnings == [
        "ignored: the name 'METADATA.google.internal' belongs to the metadata server"
    ]


def test_a_whole_name_that_is_in_use_stays(boot: Boot) -> None:
    guest = boot(dhcp="dhclient", files=clone(FQDN))
    guest.wait_until(lambda: hosts_of(guest) == HOSTS, 20, "the lease is in force")
    assert take_lease(guest) == 0
    assert name_of(guest) == static_name_of(guest) == FQDN


def test_a_whole_name_that_only_dhclient_set_becomes_short(boot: Boot) -> None:
    guest = boot(dhcp="dhclient", files=clone("localhost"))
    await_name(guest)


def test_a_name_that_somebody_sets_later_stays_and_a_copy_gets_its_own(boot: Boot) -> None:
    guest = boot(dhcp="dhclient")
    await_name(guest)
    await_settled(guest)
    guest.run(["hostnamectl", "set-hostname", "mine"])
    guest.reboot()
    guest.wait_until(lambda: "default" in guest.run("ip -4 route").stdout, 20, "a lease came")
    assert take_lease(guest) == 0
    assert (name_of(guest), static_name_of(guest), hosts_of(guest)) == ("mine", "mine", HOSTS)
    assert take_lease(guest, {**LEASE, "new_host_name": "copy.c.test-project.internal"}) == 0
    assert (name_of(guest), static_name_of(guest)) == ("copy", "copy")


# Hooks that ask the metadata server.


def test_networkmanager_calls_the_instance_by_its_name(boot: Boot) -> None:
    nics = numbered_nics(2)
    document = instance_document(nics=nics)
    guest = boot(dhcp="NetworkManager", nics=2, metadata=document)
    await_name(guest)
    assert guest.run("nmcli general hostname").stdout == "bed\n"
    # Any other interface than the first one changes nothing.
    await_settled(guest)
    guest.run(["hostnamectl", "set-hostname", "mine"])
    guest.write("/etc/hosts", FOREIGN)
    guest.run(
        "nmcli connection add type ethernet ifname eth1 con-name second"
        " ipv4.method manual ipv4.addresses 10.129.0.2/32 ipv6.method disabled"
    )
    guest.run("nmcli --wait 20 connection up second")
    refusal = "nothing to do: 'eth1' is not the first network interface"
    guest.wait_until(lambda: refusal in said(guest), 20, "the hook ran for the second interface")
    assert hosts_of(guest) == FOREIGN
    # The first one does, and a name that somebody chose stays.
    device = guest.run("nmcli -g GENERAL.CONNECTION device show eth0").stdout.strip()
    guest.run(["nmcli", "--wait", "20", "connection", "up", device])
    await_name(guest, "mine")


def test_networkd_dispatcher_calls_the_instance_by_its_name(boot: Boot) -> None:
    guest = boot(dhcp="networkd", packages=["networkd-dispatcher"])
    await_name(guest)


@pytest.fixture
def settled(boot: Boot) -> Bed:
    """An instance with two interfaces whose name nobody has set yet."""
    guest = boot(nics=2, metadata=instance_document(nics=numbered_nics(2)))
    place_foreign_hooks(guest)
    assert (name_of(guest), hosts_of(guest)) == ("template-vm", FOREIGN)
    return guest


def hook_commands(interface: str) -> dict[str, list[str]]:
    return {
        "NetworkManager": [NM_HOOK, interface, "up"],
        "networkd-dispatcher": ["env", f"IFACE={interface}", NETWORKD_HOOK],
        "wicked": [WICKED_HOOK, interface, interface, "-o", "rc"],
    }


def test_what_is_not_about_the_first_interface_changes_nothing(settled: Bed) -> None:
    guest = settled
    commands = [
        *hook_commands("eth1").values(),
        *hook_commands("lo").values(),
        [NM_HOOK, "eth0", "down"],
        [NM_HOOK, "none", "hostname"],
        [NETWORKD_HOOK],
        [WICKED_HOOK],
    ]
    assert [guest.run(argv, check=False).status for argv in commands] == [0] * len(commands)
    assert (name_of(guest), hosts_of(guest)) == ("template-vm", FOREIGN)


@pytest.mark.parametrize("service", list(hook_commands("")))
def test_each_hook_calls_the_instance_by_its_name(settled: Bed, service: str) -> None:
    settled.run(hook_commands("eth0")[service])
    assert (name_of(settled), hosts_of(settled)) == ("bed", HOSTS)


def test_a_metadata_server_without_a_good_answer_changes_nothing(settled: Bed) -> None:
    guest = settled
    hook = [NM_HOOK, "eth0", "up"]
    statuses = []
    for status in (404, 503):
        number = guest.mds.fault("instance/", "status", status=status)
        statuses.append(guest.run(hook, check=False).status)
        guest.mds.remove_fault(number)
    guest.drop_metadata_packets()
    statuses.append(guest.run(hook, check=False, timeout=60).status)
    assert statuses == [0, 0, 0]
    assert (name_of(guest), hosts_of(guest)) == ("template-vm", FOREIGN)
    assert "null" not in hosts_of(guest)
    assert len(said(guest)) >= 3
    guest.restore_metadata()
    guest.run(hook)
    assert (name_of(guest), hosts_of(guest)) == ("bed", HOSTS)


def test_the_hook_of_enterprise_linux_can_be_sourced(settled: Bed) -> None:
    script = f". {EL_HOOK}; google_hostname_config; google_hostname_restore; echo later"
    done = settled.run(with_environment(LEASE, "sh -ec") + [script])
    assert done.stdout == "later\n"
    assert (name_of(settled), hosts_of(settled)) == ("bed", HOSTS)


def test_hooks_of_a_removed_package_do_nothing(settled: Bed) -> None:
    guest = settled
    guest.path(PROGRAM).unlink()
    commands = [
        *hook_commands("eth0").values(),
        [*with_environment(LEASE, "sh -ec"), f". {DHCLIENT_HOOK}"],
        [*with_environment(LEASE, "sh -ec"), f". {EL_HOOK}; google_hostname_config"],
    ]
    done = [guest.run(argv, check=False) for argv in commands]
    assert [(one.status, one.stderr) for one in done] == [(0, "")] * len(commands)


# The file.


def test_a_mounted_hosts_file_is_rewritten_in_place(settled: Bed) -> None:
    guest = settled
    guest.run("cp /etc/hosts /run/hosts && mount --bind /run/hosts /etc/hosts")
    before = guest.run("stat -c %i /run/hosts").stdout
    assert take_lease(guest) == 0
    assert guest.run("cat /etc/hosts").stdout == HOSTS
    assert guest.run("stat -c %i /run/hosts").stdout == before
    assert not list(guest.path("/etc").glob(".hosts*"))
    assert take_lease(guest) == 0
    assert guest.run("cat /etc/hosts").stdout == HOSTS


def test_mode_owner_and_label_of_the_hosts_file_stay(settled: Bed) -> None:
    guest = settled
    label = "system_u:object_r:net_conf_t:s0"
    guest.run("chown root:adm /etc/hosts && chmod 0664 /etc/hosts")
    guest.run(
        ["python3", "-c", f"import os; os.setxattr('/etc/hosts', 'security.selinux', b'{label}')"]
    )
    assert take_lease(guest) == 0
    assert hosts_of(guest) == HOSTS
    assert guest.run("stat -c '%a %U %G' /etc/hosts").stdout == "664 root adm\n"
    read = "import os; print(os.getxattr('/etc/hosts', 'security.selinux').decode())"
    assert guest.run(["python3", "-c", read]).stdout == f"{label}\n"


def test_what_is_no_name_is_rejected(settled: Bed) -> None:
    guest = settled
    assert take_lease(guest, {**LEASE, "new_host_name": "a b;c"}) == 1
    assert name_of(guest) == "template-vm"
    assert "10.128.0.2" not in hosts_of(guest)


def test_a_new_name_restarts_rsyslog_once(settled: Bed) -> None:
    guest = settled
    show = "systemctl show --value --property=InvocationID rsyslog"
    first = guest.run(show).stdout
    assert take_lease(guest) == 0
    guest.wait_until(lambda: guest.run(show).stdout not in ("\n", first), 10, "it restarted")
    second = guest.run(show).stdout
    assert take_lease(guest) == 0
    assert guest.run(show).stdout == second
    guest.run("logger -t probe written")
    log = guest.path("/var/log/syslog")
    guest.wait_until(lambda: " bed probe: written" in log.read_text(), 10, "rsyslog knows it")


# The agent.

AGENT_OWNS = "[Unstable]\nset_hostname = true\nset_fqdn = true\nadditional_aliases = tc2,tc3\n"
AGENT_HOSTS = f"{FOREIGN}\n10.128.0.2 {FQDN} bed tc2 tc3  # Added by Google\n"
AGENT_HOSTS += f"fd20:a:b:1::2 {FQDN} bed tc2 tc3  # Added by Google\n{SERVER_LINE}"


def test_the_agent_owns_the_name_where_it_is_told_to(boot: Boot) -> None:
    nic = nic_document(numbered_nics(1)[0])
    document = instance_document(instance={"networkInterfaces": [nic]})
    guest = boot(files=clone(**{CONFIG: AGENT_OWNS}), metadata=document)
    await_name(guest, hosts=AGENT_HOSTS)
    # The program leaves it alone.
    assert take_lease(guest, {"new_host_name": "x.example", "new_ip_address": "10.0.0.9"}) == 0
    assert (name_of(guest), hosts_of(guest)) == ("bed", AGENT_HOSTS)
    assert said(guest)[-1].startswith("nothing to do: the agent owns the host name")
    # What somebody changes is put right, and shown before.
    guest.run(["systemctl", "stop", AGENT])
    guest.run(["hostnamectl", "set-hostname", "mine"])
    guest.write("/etc/hosts", FOREIGN)
    shown = guest.run("google-guest plan").stdout
    assert "set the host name to bed" in shown
    assert f"+10.128.0.2 {FQDN} bed tc2 tc3  # Added by Google" in shown
    assert (name_of(guest), hosts_of(guest)) == ("mine", FOREIGN)
    guest.run(["systemctl", "start", AGENT])
    await_name(guest, hosts=AGENT_HOSTS)
    # A new name in metadata.
    guest.mds.set("instance/hostname", "other.example")
    guest.wait_until(lambda: name_of(guest) == "other", 10, "the agent follows")
    guest.wait_until(
        lambda: "10.128.0.2 other.example other tc2 tc3" in hosts_of(guest), 10, "in the file too"
    )
    urgent = agent_service.above_info(agent_service.log_lines(guest))
    assert [line for line in urgent if line.startswith("hostname:")] == []


def test_without_its_switches_the_agent_leaves_the_name(boot: Boot) -> None:
    guest = boot(files=clone())
    agent_service.await_first_passes(guest)
    row = agent_service.status(guest)["features"]["hostname"]
    assert (row["on"], row["layer"]) == (False, "built-in")
    assert (name_of(guest), hosts_of(guest)) == ("template-vm", FOREIGN)
