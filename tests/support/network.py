"""The network of a bed: what Compute Engine puts around an instance, made of two namespaces.

The *inside* namespace belongs to the bed and is made anew at every boot, as a reboot loses
addresses and routes.  The *outside* one lives as long as the bed: one bridge per NIC carries the
gateway, the first also the metadata server's addresses; the emulator, the DHCP server and ssh
clients run there.  All beds use the same addresses, each in namespaces of its own.

Facts: the DHCP answers of Compute Engine (RFC 2132 options with a /32 mask and RFC 3442 routes),
metadata server addresses from the platform's documentation, ip-link(8), dnsmasq(8).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.commands import run_command

METADATA_V4 = "169.254.169.254"
METADATA_V6 = "fd20:ce::254"
MTU = 1460
LEASED_NAME = "bed.c.test-project.internal"
NAMESPACES = Path("/run/netns")
_DROP_TABLE = "drop_metadata"


@dataclass(frozen=True)
class Nic:
    """One network interface of a bed and the subnetwork it is in."""

    name: str
    mac: str
    address: str
    gateway: str
    address6: str
    gateway6: str

    @property
    def subnet(self) -> str:
        """The IPv4 subnetwork, a /20 as the platform's automatic ones."""
        return self.gateway.rsplit(".", 1)[0] + ".0/20"

    @property
    def subnet6(self) -> str:
        return self.gateway6.rsplit("::", 1)[0] + "::/64"


def numbered_nics(count: int, *, macs: Sequence[str] = ()) -> tuple[Nic, ...]:
    """`count` NICs in subnetworks 10.128.0.0/20, 10.129.0.0/20, ...; MACs follow the address
    as the platform's do (42:01 and the four bytes) unless `macs` names them."""
    return tuple(
        Nic(
            name=f"eth{index}",
            mac=macs[index] if index < len(macs) else f"42:01:0a:{128 + index:02x}:00:02",
            address=f"10.{128 + index}.0.2",
            gateway=f"10.{128 + index}.0.1",
            address6=f"fd20:a:b:{index + 1}::2",
            gateway6=f"fd20:a:b:{index + 1}::1",
        )
        for index in range(count)
    )


class Network:
    """The two namespaces of one bed."""

    def __init__(
        self, bed: str, nics: tuple[Nic, ...], *, dhcp: bool, leased_name: str = LEASED_NAME
    ) -> None:
        self.inside = f"{bed}-in"
        self.outside = f"{bed}-out"
        self.nics = nics
        self._dhcp = dhcp
        self._leased_name = leased_name

    def create_outside(self) -> None:
        """Make the outside namespace with its bridges and addresses."""
        _ip("netns", "add", self.outside)
        lines = ["link set lo up"]
        for index, nic in enumerate(self.nics):
            bridge = f"br{index}"
            lines += [
                f"link add {bridge} type bridge forward_delay 0",
                f"link set {bridge} mtu {MTU} up",
                f"addr add {nic.gateway}/{20 if self._dhcp else 32} dev {bridge}",
                f"addr add {nic.gateway6}/64 dev {bridge} nodad",
            ]
            if not self._dhcp:
                lines.append(f"route add {nic.subnet} dev {bridge}")
        lines += [
            f"addr add {METADATA_V4}/32 dev br0",
            f"addr add {METADATA_V6}/128 dev br0 nodad",
        ]
        _ip_batch(self.outside, lines)

    def create_inside(self) -> None:
        """Make the inside namespace as it is when an instance powers on.

        Without DHCP the first NIC is configured here, so that the network is complete before
        PID 1 starts; further NICs are left down, for the agent.
        """
        self.remove_inside()
        _ip("netns", "add", self.inside)
        _ip_batch(
            self.outside,
            [
                line
                for index, nic in enumerate(self.nics)
                for line in (
                    f"link add port{index} type veth peer name {nic.name} "
                    f"address {nic.mac} mtu {MTU} netns {self.inside}",
                    f"link set port{index} mtu {MTU} master br{index} up",
                )
            ],
        )
        lines = ["link set lo up"]
        if not self._dhcp:
            first = self.nics[0]
            lines += [
                f"link set {first.name} up",
                f"addr add {first.address}/32 dev {first.name}",
                f"route add {first.gateway} dev {first.name}",
                f"route add default via {first.gateway} dev {first.name}",
                f"route add {METADATA_V4} dev {first.name}",
                f"addr add {first.address6}/128 dev {first.name} nodad",
                f"route add {first.gateway6} dev {first.name}",
                f"route add default via {first.gateway6} dev {first.name}",
                f"route add {METADATA_V6} dev {first.name}",
            ]
        _ip_batch(self.inside, lines)

    def remove_inside(self) -> None:
        """Remove the inside namespace and its cables at once, not when its last user is gone."""
        if (NAMESPACES / self.outside).exists():
            for index in range(len(self.nics)):
                _ip("-n", self.outside, "link", "del", f"port{index}", check=False)
        remove_namespace(self.inside)

    def remove(self) -> None:
        """Remove both namespaces."""
        self.remove_inside()
        remove_namespace(self.outside)

    def cut(self, nic: Nic) -> None:
        """Unplug the cable of a NIC: the bed sees the carrier go."""
        index = self.nics.index(nic)
        _ip("-n", self.outside, "link", "set", f"port{index}", "down")

    def plug(self, nic: Nic) -> None:
        """Plug the cable in again."""
        index = self.nics.index(nic)
        _ip("-n", self.outside, "link", "set", f"port{index}", "up")

    def drop_metadata_packets(self) -> None:
        """From now on no packet reaches the metadata server, and nothing says so to the bed."""
        rules = (
            f"table inet {_DROP_TABLE} {{\nchain input {{\n"
            "type filter hook input priority 0; policy accept;\n"
            f"ip daddr {METADATA_V4} drop\n"
            f"ip6 daddr {METADATA_V6} drop\n"
            "}\n}\n"
        )
        run_command(
            [*enter_namespace(self.outside), "nft", "-f", "-"],
            purpose="drop the packets to the metadata server",
            input=f"add table inet {_DROP_TABLE}\ndelete table inet {_DROP_TABLE}\n{rules}",
        )

    def restore_metadata(self) -> None:
        """Undo `drop_metadata_packets`; harmless when it was not called."""
        run_command(
            [*enter_namespace(self.outside), "nft", "-f", "-"],
            purpose="let packets reach the metadata server",
            input=f"add table inet {_DROP_TABLE}\ndelete table inet {_DROP_TABLE}\n",
        )

    def dhcp_server(self, directory: Path) -> list[str]:
        """The command of a DHCP and DNS server that answers as the platform does."""
        command = [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="),
            *("--user=root", "--no-hosts", "--no-resolv", "--bind-dynamic", "--log-dhcp"),
            f"--log-facility={directory / 'dnsmasq.log'}",
            f"--dhcp-leasefile={directory / 'dnsmasq.leases'}",
            "--except-interface=lo",
            "--dhcp-authoritative",
            "--dhcp-no-override",
            f"--address=/metadata.google.internal/{METADATA_V4}",
            "--enable-ra",
        ]
        for index, nic in enumerate(self.nics):
            tag = f"nic{index}"
            first = nic.gateway.rsplit(".", 1)[0]
            prefix6 = nic.gateway6.rsplit("::", 1)[0]
            command += [
                f"--interface=br{index}",
                f"--dhcp-range=set:{tag},{first}.2,{first}.250,255.255.240.0,86400",
                f"--dhcp-range=set:{tag},{prefix6}::2,{prefix6}::fff,64,86400",
                f"--dhcp-host={nic.mac},{nic.address},[{nic.address6}]",
                *(
                    f"--dhcp-option-force=tag:{tag},{o}"
                    for o in _dhcp_options(nic, self._leased_name)
                ),
            ]
        return command


def enter_namespace(name: str) -> list[str]:
    """The beginning of a command that runs in a named network namespace."""
    return ["nsenter", f"--net={NAMESPACES / name}", "--"]


def namespaces(prefix: str) -> tuple[str, ...]:
    """Names of the network namespaces that begin with `prefix`."""
    try:
        names = os.listdir(NAMESPACES)
    except FileNotFoundError:
        return ()
    return tuple(sorted(name for name in names if name.startswith(prefix)))


def remove_namespace(name: str) -> None:
    """Remove a named network namespace if it is there."""
    if (NAMESPACES / name).exists():
        _ip("netns", "del", name)


def interface_names(namespace: str) -> tuple[str, ...]:
    """The links of a namespace."""
    done = run_command(
        ["ip", "-n", namespace, "-json", "link", "show"], purpose=f"list links of {namespace}"
    )
    return tuple(link["ifname"] for link in json.loads(done.stdout))


def _dhcp_options(nic: Nic, name: str) -> tuple[str, ...]:
    return (
        "1,255.255.255.255",
        f"3,{nic.gateway}",
        f"6,{METADATA_V4}",
        f"12,{name}",
        "15,c.test-project.internal",
        f"26,{MTU}",
        f"42,{METADATA_V4}",
        "119,c.test-project.internal,google.internal",
        f"121,{nic.gateway}/32,0.0.0.0,0.0.0.0/0,{nic.gateway}",
    )


def _ip(*arguments: str, check: bool = True) -> None:
    run_command(["ip", *arguments], purpose="set up the network of a bed", timeout=20, check=check)


def _ip_batch(namespace: str, lines: Sequence[str]) -> None:
    # `route add fd20:...` needs no -6: the family follows from the address; only the default
    # route by an IPv6 gateway would be read as IPv4 without `via inet6`, which ip does itself.
    run_command(
        ["ip", "-n", namespace, "-batch", "-"],
        purpose=f"set up the network namespace {namespace}",
        timeout=20,
        input="\n".join(lines) + "\n",
    )
