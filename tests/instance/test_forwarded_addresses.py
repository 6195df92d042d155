"""Forwarded, target-instance and alias addresses in booted instances with the packages installed.

What the kernel does with each kind of route is in ``test_local_routes.py``; here the agent, its
monitor, the network services and the metadata server take part.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Optional

import pytest
from support.bed import Bed
from support.network import numbered_nics

if TYPE_CHECKING:
    from support.debs import GuestDebs

NICS = numbered_nics(3)
AGENT = "google-guest-agent.service"
CONFIG = "/etc/default/instance_configs.cfg"
VIP = "192.0.2.10"
VIP6 = "2600:1900:0:1::/96"
Boot = Callable[..., Bed]


def nic(index: int = 0, **lists: list[str]) -> dict[str, Any]:
    entry = NICS[index]
    return {"mac": entry.mac, "ip": entry.address, "mtu": 1460, **lists}


def document(
    *nics: Mapping[str, Any], attributes: Optional[Mapping[str, str]] = None
) -> dict[str, Any]:
    return {
        "instance": {
            "id": 4711000000000000001,
            "hostname": "bed.c.sample-proj.internal",
            "attributes": dict(attributes or {}),
            "networkInterfaces": [copy.deepcopy(dict(entry)) for entry in nics],
        },
        "project": {"projectId": "sample-proj", "numericProjectId": 424242000001},
    }


@pytest.fixture
def boot(bed: Boot, guest_debs: GuestDebs) -> Boot:
    """Boot an instance with these interfaces in metadata, these lines of configuration."""

    def booted(*nics: Mapping[str, Any], config: str = "", **description: Any) -> Bed:
        attributes = description.pop("attributes", None)
        description.setdefault("files", {})[CONFIG] = config
        description.setdefault("nics", len(nics))
        return bed(debs=guest_debs, metadata=document(*nics, attributes=attributes), **description)

    return booted


def local_routes(bed: Bed, family: str = "-4") -> list[tuple[str, str]]:
    argv = ["ip", family, "-j", "route", "show", "table", "local", "proto", "66"]
    listed = json.loads(bed.run(argv).stdout or "[]")
    return sorted((entry["dst"], entry["dev"]) for entry in listed)


def await_routes(
    bed: Bed, *expected: tuple[str, str], family: str = "-4", within: float = 2.0
) -> None:
    """Wait until exactly these routes (destination, device) carry our protocol."""
    began = time.monotonic()
    wanted = sorted(expected)
    while (found := local_routes(bed, family)) != wanted:
        assert time.monotonic() - began < within, f"{found} instead of {wanted}"
        time.sleep(0.02)


def await_journal(bed: Bed, text: str) -> None:
    bed.wait_until(lambda: text in bed.journal(AGENT), what=f"the journal says {text!r}")


def journal_count(bed: Bed, text: str) -> int:
    return sum(text in line for line in bed.journal(AGENT).splitlines())


def test_routes_are_there_when_the_agent_reports_ready(boot: Boot) -> None:
    guest = boot(nic(0, forwardedIps=[VIP], forwardedIpv6s=[VIP6], ipAliases=["10.9.0.7/24"]))
    assert local_routes(guest) == [("10.9.0.0/24", "eth0"), (VIP, "eth0")]
    assert local_routes(guest, "-6") == [(VIP6, "eth0")]


def test_a_new_address_takes_connections_within_two_seconds(boot: Boot) -> None:
    guest = boot(nic(0))
    guest.outside(["ip", "route", "add", VIP, "dev", "br0"])
    guest.mds.replace(document(nic(0, forwardedIps=[VIP])))
    await_routes(guest, (VIP, "eth0"))
    client = f"import socket; print(socket.create_connection(({VIP!r}, 22), 2).recv(4))"
    assert "SSH-" in guest.outside(["python3", "-c", client]).stdout


def test_a_removed_address_is_gone_within_two_seconds_and_stays_gone(boot: Boot) -> None:
    guest = boot(nic(0, forwardedIps=[VIP], forwardedIpv6s=[VIP6]))
    guest.mds.replace(document(nic(0)))
    await_routes(guest)
    await_routes(guest, family="-6")


def test_metadata_that_changes_elsewhere_adds_nothing_again(boot: Boot) -> None:
    guest = boot(nic(0, forwardedIpv6s=[VIP6]))
    guest.run(["systemd-run", "--quiet", "--unit=watch", "ip", "-6", "monitor", "route"])
    for number in range(3):
        guest.mds.set(f"instance/attributes/unrelated-{number}", "x")
        guest.mds.wait_for_request("", timeout=5)
    # The end of what is looked at: one deletion, and the one addition that repairs it.
    guest.run(f"ip -6 route del local {VIP6} dev eth0 table local")
    await_routes(guest, (VIP6, "eth0"), family="-6")
    guest.wait_until(
        lambda: sum(VIP6 in line for line in guest.journal("watch.service").splitlines()) >= 2,
        what="the addition is seen",
    )
    seen = [line for line in guest.journal("watch.service").splitlines() if VIP6 in line]
    assert [line.startswith("Deleted") for line in seen] == [True, False]


def test_ip_forwarding_switched_off_removes_our_routes_at_the_next_start(boot: Boot) -> None:
    guest = boot(nic(0, forwardedIps=[VIP], forwardedIpv6s=[VIP6]))
    guest.run("ip route add local 192.0.2.77 dev eth0 proto static table local")
    guest.await_addresses()
    others = "ip route show table all | grep -v 'proto 66'"
    before = guest.run(others).stdout
    guest.write(CONFIG, "[NetworkInterfaces]\nip_forwarding = false\n")
    guest.run(["systemctl", "restart", AGENT])
    await_routes(guest)
    await_routes(guest, family="-6")
    assert guest.run(others).stdout == before


def test_routes_survive_a_stop_of_the_agent(boot: Boot) -> None:
    guest = boot(nic(0, forwardedIps=[VIP]))
    guest.run(["systemctl", "stop", AGENT])
    assert local_routes(guest) == [(VIP, "eth0")]


@pytest.mark.parametrize(
    "command",
    [
        f"ip route del local {VIP} dev eth0 table local",
        f"ip -4 addr flush dev eth0; ip addr add {NICS[0].address}/32 dev eth0",
        "ip link set eth0 down; ip link set eth0 up",
    ],
    ids=["route deleted", "addresses flushed", "link down and up"],
)
def test_destroyed_routes_are_back_within_two_seconds_without_metadata(
    boot: Boot, command: str
) -> None:
    guest = boot(nic(0, forwardedIps=[VIP], forwardedIpv6s=[VIP6]))
    guest.drop_metadata_packets()
    guest.run(command)
    await_routes(guest, (VIP, "eth0"))
    await_routes(guest, (VIP6, "eth0"), family="-6")


def test_the_repair_of_a_route_does_not_keep_the_agent_busy(boot: Boot) -> None:
    guest = boot(nic(0, forwardedIps=[VIP]))
    guest.run(f"ip route del local {VIP} dev eth0 table local")
    await_routes(guest, (VIP, "eth0"))
    pid = guest.unit_property(AGENT, "MainPID")

    def ticks() -> int:
        fields = guest.run(["cat", f"/proc/{pid}/stat"]).stdout.rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    guest.run(["sleep", "2"])
    assert ticks() - before <= 10, "hundredths of a second of processor time in two seconds"


@pytest.mark.parametrize(
    ("client", "command"),
    [
        ("networkd", "systemctl restart systemd-networkd"),
        ("networkd", "networkctl reconfigure eth0"),
        ("NetworkManager", "nmcli connection up ifname eth0"),
        ("NetworkManager", "systemctl restart NetworkManager"),
    ],
)
def test_a_network_service_that_starts_over_costs_routes_for_two_seconds_at_most(
    boot: Boot, client: str, command: str
) -> None:
    guest = boot(nic(0, forwardedIps=[VIP], forwardedIpv6s=[VIP6]), dhcp=client)
    await_routes(guest, (VIP, "eth0"), within=10)
    await_routes(guest, (VIP6, "eth0"), family="-6", within=10)
    guest.run(command, timeout=60)
    await_routes(guest, (VIP, "eth0"))
    await_routes(guest, (VIP6, "eth0"), family="-6")
    assert guest.unit_property(AGENT, "ActiveState") == "active"
    assert guest.unit_property(AGENT, "NRestarts") == "0"


def test_one_address_on_two_nics_is_two_routes(boot: Boot) -> None:
    guest = boot(nic(0, forwardedIps=[VIP]), nic(1, forwardedIps=[VIP]))
    await_routes(guest, (VIP, "eth0"), (VIP, "eth1"))


def test_an_unknown_mac_shifts_no_index_and_is_one_line(boot: Boot) -> None:
    stranger = {**nic(1, forwardedIps=["192.0.2.11"]), "mac": "42:01:0a:63:63:63"}
    guest = boot(nic(0, forwardedIps=[VIP]), stranger, nic(2, forwardedIps=["192.0.2.12"]), nics=3)
    await_routes(guest, (VIP, "eth0"), ("192.0.2.12", "eth2"))
    for number in range(2):
        last = f"192.0.2.{100 + number}"
        guest.mds.replace(
            document(nic(0, forwardedIps=[last]), stranger, nic(2, forwardedIps=["192.0.2.12"]))
        )
        await_routes(guest, (last, "eth0"), ("192.0.2.12", "eth2"))
    assert journal_count(guest, "42:01:0a:63:63:63") == 1


def test_a_protocol_out_of_range_is_one_warning_and_66(boot: Boot) -> None:
    guest = boot(nic(0, forwardedIps=[VIP]), config="[IpForwarding]\nethernet_proto_id = 300\n")
    await_routes(guest, (VIP, "eth0"))
    assert journal_count(guest, "ethernet_proto_id") == 1


@pytest.mark.parametrize(
    ("config", "attribute", "routed"),
    [
        ("[NetworkInterfaces]\nsetup = false\n", None, True),
        ("[addressManager]\ndisable = true\n", None, False),
        ("[addressManager]\ndisable = false\n", "true", True),
        ("", "true", False),
    ],
    ids=["setup off", "disabled by file", "file beats attribute", "disabled by attribute"],
)
def test_the_switches_of_the_address_manager(
    boot: Boot, config: str, attribute: Optional[str], routed: bool
) -> None:
    attributes = {} if attribute is None else {"disable-address-manager": attribute}
    guest = boot(nic(0, forwardedIps=[VIP]), config=config, attributes=attributes)
    assert local_routes(guest) == ([(VIP, "eth0")] if routed else [])


def test_the_instance_overrules_the_project_s_attribute(boot: Boot) -> None:
    guest = boot(nic(0, forwardedIps=[VIP]), attributes={"disable-address-manager": "false"})
    guest.mds.set("project/attributes/disable-address-manager", "true")
    guest.run(["systemctl", "restart", AGENT])
    assert local_routes(guest) == [(VIP, "eth0")]
    guest.mds.delete("instance/attributes/disable-address-manager")
    guest.wait_until(
        lambda: "forwarded-addresses: off" in guest.journal(AGENT), what="the project's is in force"
    )


def test_an_address_that_the_interface_has_is_left_to_it(boot: Boot) -> None:
    own = "192.0.2.50"
    guest = boot(nic(0))
    guest.run(f"ip address add {own}/32 dev eth0")
    before = guest.run("ip -o address show dev eth0; ip route show table local").stdout
    guest.mds.replace(document(nic(0, forwardedIps=[own, VIP])))
    await_routes(guest, (VIP, "eth0"))
    guest.mds.replace(document(nic(0)))
    await_routes(guest)
    assert guest.run("ip -o address show dev eth0; ip route show table local").stdout == before


def test_clearing_the_attribute_brings_the_routes(boot: Boot) -> None:
    guest = boot(nic(0, forwardedIps=[VIP]), attributes={"disable-address-manager": "true"})
    assert local_routes(guest) == []
    guest.mds.delete("instance/attributes/disable-address-manager")
    await_routes(guest, (VIP, "eth0"))


def test_without_ipv6_the_ipv4_routes_are_set_and_nothing_is_an_error(boot: Boot) -> None:
    guest = boot(nic(0))
    guest.run("sysctl -q -w net.ipv6.conf.all.disable_ipv6=1")
    guest.mds.replace(document(nic(0, forwardedIps=[VIP], forwardedIpv6s=[VIP6])))
    await_routes(guest, (VIP, "eth0"))
    await_journal(guest, "IPv6")
    errors = guest.run(["journalctl", "-u", AGENT, "-p", "err", "-o", "cat", "--no-pager"]).stdout
    assert errors.strip() == ""


def test_the_primary_nic_and_foreign_routes_are_left_as_they_are(boot: Boot) -> None:
    network = "[Match]\nName=eth0\n[Network]\nAddress=10.128.0.2/32\nKeepConfiguration=yes\n"
    path = "/etc/systemd/network/10-mine.network"
    guest = boot(nic(0, forwardedIps=[VIP]), files={path: network})
    guest.run(["systemctl", "stop", AGENT])
    guest.run(f"ip route del local {VIP} dev eth0 table local")
    guest.run(
        "ip link add wg0 type veth peer name far && ip link set far up && ip link set wg0 up"
        " && ip route add default dev wg0 metric 5 && ip route add default dev wg0 table 51820"
    )
    state = (
        "ip -d route show table all | grep -v 'proto 66'; ip -d rule;"
        f" cat {path}; ls -la /etc/systemd/network /run/systemd/network;"
        " cat /sys/class/net/eth0/carrier_changes"
    )
    guest.await_addresses()
    before = guest.run(state).stdout
    guest.run(["systemctl", "start", AGENT])
    await_routes(guest, (VIP, "eth0"))
    assert guest.run(state).stdout == before
