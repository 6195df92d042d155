"""The forwarded addresses against the real kernel, a case of its behaviour each.

The feature runs in this process; its netlink sockets are in a network namespace of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

import pytest
from support.commands import run_command
from support.network import NAMESPACES, enter_namespace, numbered_nics, remove_namespace

from google_guest.changes import Change
from google_guest.config import load_config
from google_guest.features import Inputs, Plan
from google_guest.features.linux.forwarded_addresses import FEATURE
from google_guest.metadata.tree import parse_metadata
from google_guest.system import System
from google_guest.system.commands import Completed
from google_guest.system.commands import run_command as run_guest_command
from google_guest.system.files import Files
from google_guest.system.netlink import NetlinkUnavailable, Network, RouteMonitor, wire

NICS = numbered_nics(3)
VIP = "192.0.2.10"
VIP6 = "2600:1900:0:1::/96"
CLONE_NEWNET = 0x40000000


def nic(index: int = 0, **lists: list[str]) -> dict[str, Any]:
    return {"mac": NICS[index].mac, **lists}


def document(
    *nics: Mapping[str, Any], attributes: Optional[Mapping[str, str]] = None
) -> dict[str, Any]:
    return {
        "instance": {
            "id": 4711000000000000001,
            "attributes": dict(attributes or {}),
            "networkInterfaces": list(nics),
        },
        "project": {"projectId": "sample-proj", "numericProjectId": 424242000001},
    }


class ScratchNetwork:
    """An inside with eth0 and eth1 as an instance has them, and an outside at their other ends."""

    def __init__(self, name: str) -> None:
        self.inside, self.outside = f"{name}-in", f"{name}-out"

    def create(self) -> None:
        for namespace in (self.inside, self.outside):
            run_command(["ip", "netns", "add", namespace], purpose="make a namespace")
        self.ip("link set lo up")
        for index in (0, 1):
            entry, peer = NICS[index], f"port{index}"
            self.ip(
                f"link add {entry.name} address {entry.mac} type veth"
                f" peer name {peer} netns {self.outside}"
            )
            self.ip(f"link set {entry.name} up")
            self.ip(f"addr add {entry.address}/20 dev {entry.name}")
            self.ip(f"-6 addr add {entry.address6}/64 dev {entry.name} nodad")
            self.outer(f"link set {peer} up")
            self.outer(f"addr add {entry.gateway}/20 dev {peer}")
            self.outer(f"-6 addr add {entry.gateway6}/64 dev {peer} nodad")

    def remove(self) -> None:
        for namespace in (self.inside, self.outside):
            remove_namespace(namespace)

    def ip(self, line: str, *, check: bool = True) -> str:
        """Run ``ip`` inside."""
        argv = [*enter_namespace(self.inside), "ip", *line.split()]
        return run_command(argv, purpose="configure the inside", check=check).stdout

    def outer(self, line: str) -> None:
        argv = [*enter_namespace(self.outside), "ip", *line.split()]
        run_command(argv, purpose="configure the outside")

    def sysctl(self, setting: str) -> None:
        argv = [*enter_namespace(self.inside), "sysctl", "-q", "-w", setting]
        run_command(argv, purpose="configure the inside")

    def routes(self, family: str = "-4", *, protocol: str = "66") -> list[dict[str, Any]]:
        """What iproute2 shows of the table local."""
        text = self.ip(f"{family} -j route show table local proto {protocol}")
        found: list[dict[str, Any]] = json.loads(text or "[]")
        return found

    def destinations(self, family: str = "-4") -> list[tuple[str, str]]:
        return sorted((entry["dst"], entry["dev"]) for entry in self.routes(family))

    @contextlib.contextmanager
    def entered(self, namespace: str) -> Iterator[None]:
        """Sockets that this thread opens meanwhile are in ``namespace``."""
        libc = ctypes.CDLL(None, use_errno=True)
        own = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        other = os.open(NAMESPACES / namespace, os.O_RDONLY)
        try:
            _succeed(libc.setns(other, CLONE_NEWNET))
            yield
        finally:
            _succeed(libc.setns(own, CLONE_NEWNET))
            os.close(own)
            os.close(other)

    def open_route_socket(self, groups: int) -> socket.socket:
        with self.entered(self.inside):
            return wire.open_route_socket(groups)

    def run_inside(self, argv: Any, *, timeout: float) -> Completed:
        return run_guest_command([*enter_namespace(self.inside), *argv], timeout=timeout)

    def accepts_connections_to(self, address: str) -> bool:
        """Whether the outside can talk to a server inside by ``address``."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.entered(self.inside):
            server = socket.socket(family, socket.SOCK_STREAM)
        with self.entered(self.outside):
            client = socket.socket(family, socket.SOCK_STREAM)
        with server, client:
            server.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
            server.listen(1)
            client.settimeout(2)
            try:
                client.connect((address, server.getsockname()[1]))
            except OSError:
                return False
            return True


def _succeed(status: int) -> None:
    if status != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Pass:
    """The feature in the scratch network: what the agent does, without the agent."""

    def __init__(self, scratch: ScratchNetwork, root: Path, network: Network) -> None:
        self.scratch = scratch
        self.root = root
        self.system = System(root=root)
        self.system.network = network
        self.config = ""
        self.nics: tuple[Mapping[str, Any], ...] = ()

    def plan(self) -> Plan:
        path = self.root / "etc/default/instance_configs.cfg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.config)
        config = load_config(Files(self.root), environ={})
        metadata = parse_metadata(document(*self.nics))
        return FEATURE.plan(Inputs(metadata, config, self.system, now=time.time()))

    def apply(self, *nics: Mapping[str, Any]) -> list[Change]:
        """One pass for these interfaces of metadata (none: the same as before)."""
        self.nics = nics or self.nics
        changes = list(self.plan().changes)
        for change in changes:
            change.apply(self.system)
        return changes

    def settle(self, monitor: RouteMonitor, *, within: float = 2.0) -> int:
        """Do as the agent does with network events until they end; return the passes made."""
        deadline = time.monotonic() + within
        passes = 0
        while time.monotonic() < deadline:
            ready, _, _ = select.select([monitor.fileno()], [], [], 0.3)
            if not ready:
                return passes
            if monitor.drain():
                self.apply()
                passes += 1
        raise AssertionError(f"still events after {within:g} s and {passes} passes")


@pytest.fixture
def scratch() -> Iterator[ScratchNetwork]:
    network = ScratchNetwork(f"ggroute-{os.getpid()}")
    network.remove()
    try:
        network.create()
        yield network
    finally:
        network.remove()


@pytest.fixture
def guest(scratch: ScratchNetwork, tmp_path: Path) -> Pass:
    network = Network(open_socket=scratch.open_route_socket, sysfs="/nonexistent", has_ipv6=True)
    return Pass(scratch, tmp_path, network)


def test_a_forwarded_address_is_exactly_one_local_route_and_takes_connections(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    scratch.outer(f"route add {VIP} dev port0")
    assert not scratch.accepts_connections_to(VIP)
    guest.apply(nic(0, forwardedIps=[VIP]))
    assert scratch.routes() == [
        {"type": "local", "dst": VIP, "dev": "eth0", "scope": "host", "flags": []}
    ]
    assert scratch.accepts_connections_to(VIP)


def test_an_ipv6_range_is_one_route_with_the_kernels_metric(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    scratch.outer(f"-6 route add {VIP6} via {NICS[0].address6}")
    guest.apply(nic(0, forwardedIpv6s=[VIP6]))
    (entry,) = scratch.routes("-6")
    assert (entry["dst"], entry["dev"], entry["metric"]) == (VIP6, "eth0", 1024)
    assert scratch.accepts_connections_to("2600:1900:0:1::77")


def test_an_ipv6_range_that_left_metadata_is_deleted(guest: Pass, scratch: ScratchNetwork) -> None:
    guest.apply(nic(0, forwardedIpv6s=[VIP6]))
    guest.apply(nic(0))
    assert scratch.routes("-6") == []


def test_idle_passes_change_nothing(guest: Pass, scratch: ScratchNetwork) -> None:
    guest.apply(nic(0, forwardedIps=[VIP], forwardedIpv6s=[VIP6], ipAliases=["10.9.0.7/24"]))
    assert [guest.apply() for _ in range(3)] == [[], [], []]


def test_an_alias_range_has_its_host_bits_cleared(guest: Pass, scratch: ScratchNetwork) -> None:
    guest.apply(nic(0, ipAliases=["10.9.0.7/24"]))
    assert scratch.destinations() == [("10.9.0.0/24", "eth0")]


def test_aliases_can_be_switched_off(guest: Pass, scratch: ScratchNetwork) -> None:
    guest.apply(nic(0, ipAliases=["10.9.0.7/24"]))
    guest.config = "[IpForwarding]\nip_aliases = false"
    guest.apply()
    assert scratch.destinations() == []


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_an_interface_address_gets_no_route_and_survives(
    guest: Pass, scratch: ScratchNetwork, family: str
) -> None:
    text = NICS[0].address if family == "-4" else NICS[0].address6
    key = "forwardedIps" if family == "-4" else "forwardedIpv6s"
    own = [entry["dst"] for entry in scratch.routes(family, protocol="kernel")]
    assert text in own
    guest.apply(nic(0, **{key: [text]}))
    assert scratch.routes(family) == []
    guest.apply(nic(0))
    assert [entry["dst"] for entry in scratch.routes(family, protocol="kernel")] == own


def test_ip_forwarding_switched_off_removes_ours_and_nothing_else(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    scratch.ip("route add to local 192.0.2.77 dev eth0 proto static")
    guest.apply(nic(0, forwardedIps=[VIP], forwardedIpv6s=[VIP6]))
    before = [scratch.ip(f"{family} route show table all") for family in ("-4", "-6")]
    ours = ("proto 66",)
    kept = [
        [line for line in text.splitlines() if not any(mark in line for mark in ours)]
        for text in before
    ]
    guest.config = "[NetworkInterfaces]\nip_forwarding = false"
    guest.apply()
    after = [scratch.ip(f"{family} route show table all") for family in ("-4", "-6")]
    assert [text.splitlines() for text in after] == kept


DESTRUCTION = {
    "route deleted": (f"route del table local to local {VIP} dev eth0",),
    "addresses flushed": ("addr flush dev eth0", f"addr add {NICS[0].address}/20 dev eth0"),
    "link down and up": ("link set eth0 down", "link set eth0 up"),
    "ipv6 route deleted": (f"-6 route del table local to local {VIP6} dev eth0",),
    "renamed": ("link set eth0 down", "link set eth0 name ens4", "link set ens4 up"),
}


@pytest.mark.parametrize("commands", DESTRUCTION.values(), ids=DESTRUCTION)
def test_destroyed_routes_are_back_within_two_seconds_and_the_repair_ends(
    guest: Pass, scratch: ScratchNetwork, commands: tuple[str, ...]
) -> None:
    guest.apply(nic(0, forwardedIps=[VIP], forwardedIpv6s=[VIP6]))
    with guest.system.network.open_monitor() as monitor:
        for command in commands:
            scratch.ip(command)
        passes = guest.settle(monitor)
    device = "ens4" if "name ens4" in " ".join(commands) else "eth0"
    assert scratch.destinations("-4") == [(VIP, device)]
    assert scratch.destinations("-6") == [(VIP6, device)]
    assert 1 <= passes <= 6


def test_the_loss_of_the_last_ipv4_address_is_noticed_although_no_route_message_tells(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    guest.apply(nic(0, forwardedIps=[VIP]))
    with guest.system.network.open_monitor() as monitor:
        scratch.ip(f"addr del {NICS[0].address}/20 dev eth0")
        assert scratch.destinations() == []
        assert monitor.drain()


def test_other_programs_routes_in_other_tables_are_no_event(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    with guest.system.network.open_monitor() as monitor:
        scratch.ip("route add 198.51.100.0/24 dev eth0")
        scratch.ip("-6 route add 2001:db8:77::/64 dev eth0")
        assert monitor.drain() == frozenset()


def test_one_ipv4_address_on_two_nics_is_two_routes(guest: Pass, scratch: ScratchNetwork) -> None:
    guest.apply(nic(0, forwardedIps=[VIP]), nic(1, forwardedIps=[VIP]))
    assert scratch.destinations() == [(VIP, "eth0"), (VIP, "eth1")]
    assert guest.apply() == []


def test_of_one_ipv4_address_on_two_nics_the_right_one_is_removed(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    guest.apply(nic(0, forwardedIps=[VIP]), nic(1, forwardedIps=[VIP]))
    guest.apply(nic(0), nic(1, forwardedIps=[VIP]))
    assert scratch.destinations() == [(VIP, "eth1")]


def test_an_ipv6_range_on_two_nics_stays_with_the_first(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    guest.apply(nic(0, forwardedIpv6s=[VIP6]), nic(1, forwardedIpv6s=[VIP6]))
    assert scratch.destinations("-6") == [(VIP6, "eth0")]
    assert guest.apply() == []


def test_a_nic_without_a_device_does_not_stop_the_others(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    guest.apply(nic(2, forwardedIps=["192.0.2.1"]), nic(1, forwardedIps=[VIP]))
    assert scratch.destinations() == [(VIP, "eth1")]


def test_a_nic_that_left_metadata_is_cleaned(guest: Pass, scratch: ScratchNetwork) -> None:
    guest.apply(nic(0), nic(1, forwardedIps=[VIP], forwardedIpv6s=[VIP6]))
    guest.apply(nic(0))
    assert scratch.destinations("-4") == scratch.destinations("-6") == []


def test_a_protocol_out_of_range_is_66(guest: Pass, scratch: ScratchNetwork) -> None:
    guest.config = "[IpForwarding]\nethernet_proto_id = 300"
    guest.apply(nic(0, forwardedIps=[VIP]))
    assert scratch.destinations() == [(VIP, "eth0")]


def test_another_protocol_is_used_and_cleaned_by_that_number(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    guest.config = "[IpForwarding]\nethernet_proto_id = 77"
    guest.apply(nic(0, forwardedIps=[VIP]))
    assert [entry["dst"] for entry in scratch.routes(protocol="77")] == [VIP]
    guest.apply(nic(0))
    assert scratch.routes(protocol="77") == []


def test_ipv6_switched_off_for_the_device_leaves_ipv4_working(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    scratch.sysctl("net.ipv6.conf.eth0.disable_ipv6=1")
    guest.apply(nic(0, forwardedIps=[VIP], forwardedIpv6s=[VIP6]))
    assert (scratch.destinations("-4"), scratch.routes("-6")) == ([(VIP, "eth0")], [])


def test_ipv6_comes_when_the_device_comes_up(guest: Pass, scratch: ScratchNetwork) -> None:
    scratch.ip("link set eth1 down")
    with guest.system.network.open_monitor() as monitor:
        guest.apply(nic(0), nic(1, forwardedIpv6s=[VIP6]))
        assert scratch.routes("-6") == []
        scratch.ip("link set eth1 up")
        guest.settle(monitor)
    assert scratch.destinations("-6") == [(VIP6, "eth1")]


def test_a_macvlan_with_the_same_address_is_not_taken_for_the_nic(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    scratch.ip(f"link add link eth0 name mv0 address {NICS[0].mac} type macvlan mode bridge")
    guest.apply(nic(0, forwardedIps=[VIP]))
    assert scratch.destinations() == [(VIP, "eth0")]


def test_where_netlink_is_forbidden_the_program_ip_does_the_same(
    scratch: ScratchNetwork, tmp_path: Path
) -> None:
    def forbidden(groups: int) -> wire.RouteSocket:
        raise NetlinkUnavailable(97, "forbidden")

    network = Network(scratch.run_inside, open_socket=forbidden, sysfs="/x", has_ipv6=True)
    guest = Pass(scratch, tmp_path, network)
    guest.apply(
        nic(0, forwardedIps=[VIP], forwardedIpv6s=[VIP6]), nic(1, forwardedIps=[VIP, "10.9.0.0/24"])
    )
    assert scratch.destinations("-4") == [("10.9.0.0/24", "eth1"), (VIP, "eth0"), (VIP, "eth1")]
    assert scratch.destinations("-6") == [(VIP6, "eth0")]
    assert guest.apply() == []
    guest.apply(nic(0), nic(1))
    assert scratch.destinations("-4") == scratch.destinations("-6") == []


def test_five_thousand_routes_are_listed_and_lost_messages_are_noticed(
    guest: Pass, scratch: ScratchNetwork
) -> None:
    wanted = [f"10.200.{number // 250}.{number % 250}" for number in range(5000)]
    with guest.system.network.open_monitor() as monitor:
        guest.apply(nic(0, ipAliases=wanted))
        assert guest.apply() == []
        assert guest.settle(monitor, within=10) >= 1
    assert len(scratch.routes()) == 5000
