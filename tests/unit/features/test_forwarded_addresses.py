"""Forwarded, target-instance and alias addresses: metadata and kernel state in, plan out."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Optional, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.changes import Change
from google_guest.changes.network import AddLocalRoute, DeleteLocalRoute
from google_guest.config import Config, load_config
from google_guest.features import Inputs, Plan, Stage
from google_guest.features.addresses import parse_address
from google_guest.features.linux import forwarded_addresses
from google_guest.features.linux.forwarded_addresses import FEATURE
from google_guest.metadata.tree import Metadata, parse_metadata
from google_guest.records import replace
from google_guest.state import Remember
from google_guest.system import System
from google_guest.system.files import Files
from google_guest.system.netlink import (
    Family,
    Link,
    LocalRoute,
    NetlinkError,
    Network,
    destination_text,
)

ETH0 = Link(2, "eth0", bytes.fromhex("42010a800002"), has_device=True)
ETH1 = Link(3, "eth1", bytes.fromhex("42010a800102"), has_device=True)
ETH2 = Link(4, "eth2", bytes.fromhex("42010a800202"), has_device=True)
LO = Link(1, "lo", bytes(6), is_loopback=True)
NOW = 1_700_000_000.0


def route(text: str, link: Link = ETH0, protocol: int = 66) -> LocalRoute:
    network = ipaddress.ip_network(text)
    metric = 1024 if network.version == 6 and protocol == 66 else 0
    return LocalRoute(network, link.index, protocol, metric)


class KernelTable:
    """Links and local routes in memory, with the kernel's rules for equal destinations."""

    def __init__(self, *present: LocalRoute, links: tuple[Link, ...] = (LO, ETH0, ETH1)) -> None:
        self.present = list(present)
        self.listed = list(links)
        self.failing: set[Family] = set()
        self.has_ipv6 = True

    def families(self) -> tuple[Family, ...]:
        return (Family.IPV4, Family.IPV6) if self.has_ipv6 else (Family.IPV4,)

    def links(self) -> list[Link]:
        if not self.listed:
            raise NetlinkError(5, "Input/output error")
        return self.listed

    def local_routes(self, family: Family) -> list[LocalRoute]:
        if family in self.failing:
            raise NetlinkError(105, "No buffer space available")
        return [entry for entry in self.present if entry.family is family]

    def add_local_route(self, entry: LocalRoute) -> None:
        metric = 1024 if entry.family is Family.IPV6 else 0
        self.present.append(replace(entry, metric=metric))

    def delete_local_route(self, entry: LocalRoute) -> None:
        self.present.remove(entry)


def nic(link: Link = ETH0, **lists: list[str]) -> dict[str, Any]:
    return {"mac": link.mac.hex(":"), **lists}


def metadata_of(*nics: dict[str, Any], attributes: Optional[dict[str, Any]] = None) -> Metadata:
    document = {"instance": {"networkInterfaces": list(nics), "attributes": attributes or {}}}
    return parse_metadata(document)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def inputs(
    root: Path,
    table: KernelTable,
    *nics: dict[str, Any],
    config: str = "",
    attributes: Optional[dict[str, Any]] = None,
) -> Inputs:
    system = System(root=root)
    system.network = cast(Network, table)
    return Inputs(
        metadata=metadata_of(*nics, attributes=attributes),
        config=config_of(root, config),
        system=system,
        now=NOW,
    )


def config_of(root: Path, text: str) -> Config:
    path = root / "etc/default/instance_configs.cfg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return load_config(Files(root), environ={})


def plan(*args: Any, **options: Any) -> Plan:
    return FEATURE.plan(inputs(*args, **options))


def routes_of(result: Plan) -> list[str]:
    """The route changes of a plan as ``+10.0.0.1 eth0``, in order."""
    shown = []
    for change in result.changes:
        if isinstance(change, (AddLocalRoute, DeleteLocalRoute)):
            sign = "+" if isinstance(change, AddLocalRoute) else "-"
            shown.append(f"{sign}{destination_text(change.route.destination)} {change.device}")
    return shown


def apply(given: Inputs) -> list[Change]:
    """Apply the feature's plan for ``given`` and return its changes."""
    changes = list(FEATURE.plan(given).changes)
    for change in changes:
        change.apply(given.system)
    return changes


# The reference's cases.


@pytest.mark.parametrize(
    ("wanted", "present", "expected"),
    [
        (["192.0.2.1"], [], ["+192.0.2.1 eth0"]),
        ([], ["192.0.2.1"], ["-192.0.2.1 eth0"]),
        (["192.0.2.2"], ["192.0.2.1", "192.0.2.2"], ["-192.0.2.1 eth0"]),
        (["192.0.2.1"], ["192.0.2.1"], []),
        (
            ["10.138.15.11", "10.138.15.10"],
            [],
            ["+10.138.15.10 eth0", "+10.138.15.11 eth0"],
        ),
        (["10.0.0.1/23"], ["10.0.0.0/23"], []),
        (["192.0.2.9", "192.0.2.1"], ["192.0.2.5"], [
            "-192.0.2.5 eth0", "+192.0.2.1 eth0", "+192.0.2.9 eth0",
        ]),
    ],
    ids=["add", "delete", "shrink", "equal", "sorted", "masked", "deletions first"],
)  # fmt: skip
def test_the_table_follows_metadata(
    root: Path, wanted: list[str], present: list[str], expected: list[str]
) -> None:
    table = KernelTable(*(route(text) for text in present))
    assert routes_of(plan(root, table, nic(forwardedIps=wanted))) == expected


@pytest.mark.parametrize("family", ["4", "6"])
def test_an_address_of_the_interface_satisfies_and_is_never_removed(
    root: Path, family: str
) -> None:
    text = "10.138.15.10" if family == "4" else "2001:db8::10"
    table = KernelTable(route(text, protocol=2))
    key = "forwardedIps" if family == "4" else "forwardedIpv6s"
    assert routes_of(plan(root, table, nic(ETH0, **{key: [text]}))) == []
    assert routes_of(plan(root, table, nic())) == []


def test_every_list_of_metadata_counts_once(root: Path) -> None:
    wanted = nic(
        forwardedIps=["203.0.113.9", "203.0.113.9/32"],
        forwardedIpv6s=["2001:db8:f::/96"],
        targetInstanceIps=["203.0.113.50", "203.0.113.9"],
        ipAliases=["10.30.1.7/24"],
    )
    assert routes_of(plan(root, KernelTable(), wanted)) == [
        "+10.30.1.0/24 eth0",
        "+203.0.113.50 eth0",
        "+203.0.113.9 eth0",
        "+2001:db8:f::/96 eth0",
    ]


def test_a_failover_clusters_addresses_are_left_out_of_all_but_aliases(root: Path) -> None:
    (entry,) = metadata_of(
        nic(
            forwardedIps=["192.0.2.1/24", "192.0.2.1"],
            targetInstanceIps=["192.0.2.0/24"],
            ipAliases=["192.0.2.9/24"],
        )
    ).instance.network_interfaces
    ignored = frozenset({parse_address("192.0.2.1/24")})
    section = config_of(root, "").ip_forwarding
    found = forwarded_addresses.wanted_addresses(entry, section, ignored=ignored).destinations
    assert found == {parse_address("192.0.2.1"), parse_address("192.0.2.0/24")}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("[IpForwarding]\nip_aliases=false", {"192.0.2.1", "2001:db8::/96", "192.0.2.2"}),
        ("[IpForwarding]\ntarget_instance_ips=false",
         {"192.0.2.1", "2001:db8::/96", "10.9.0.0/24"}),
        ("[IpForwarding]\nforwarded_ips=false", {"192.0.2.2", "10.9.0.0/24"}),
        ("[NetworkInterfaces]\nip_forwarding=false", set()),
        ("[NetworkInterfaces]\nsetup=false",
         {"192.0.2.1", "2001:db8::/96", "192.0.2.2", "10.9.0.0/24"}),
    ],
)  # fmt: skip
def test_switches_choose_the_lists(root: Path, config: str, expected: set[str]) -> None:
    wanted = nic(
        forwardedIps=["192.0.2.1"],
        forwardedIpv6s=["2001:db8::/96"],
        targetInstanceIps=["192.0.2.2"],
        ipAliases=["10.9.0.7/24"],
    )
    result = plan(root, KernelTable(), wanted, config=config)
    assert set(routes_of(result)) == {f"+{text} eth0" for text in expected}


def test_ip_forwarding_switched_off_removes_our_routes_and_no_other(root: Path) -> None:
    table = KernelTable(
        route("192.0.2.1"),
        route("2001:db8::/96"),
        route("10.0.0.5", protocol=2),
        route("10.0.0.6", protocol=4),
    )
    result = plan(
        root,
        table,
        nic(forwardedIps=["192.0.2.1"]),
        config="[NetworkInterfaces]\nip_forwarding = false",
    )
    assert routes_of(result) == ["-192.0.2.1 eth0", "-2001:db8::/96 eth0"]


# Addresses.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1/24", "192.0.2.0/24"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1 ", "192.0.2.1"),
        ("2001:DB8::1/128", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2600:1900:0:1::5/96", "2600:1900:0:1::/96"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_addresses_are_brought_to_one_form(text: str, expected: str) -> None:
    assert destination_text(parse_address(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "foobar", "192.0.2.1/128", "192.0.2.300", "2001:db8::1/1024", "192.0.2.1/",
        "192.0.2.1/255.255.255.0", "192.0.2.0/0.0.0.255", "192.0.2.01", "1.2.3", "3221225985",
        "fe80::1%eth0", "192.0.2.1/+24", "192.0.2.1/٢٤", "10.0.0.1/24/24", ":", "/",
    ],
)  # fmt: skip
def test_what_is_no_address_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


@given(st.text(alphabet=st.sampled_from("0123456789abcdefx:./% ٢-"), max_size=45))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    try:
        destination = parse_address(text)
    except ValueError:
        return
    assert parse_address(destination_text(destination)) == destination


@given(st.ip_addresses(), st.integers(0, 128))
def test_the_normal_form_is_stable_and_contains_the_address(address: Any, length: int) -> None:
    length = min(length, address.max_prefixlen)
    destination = parse_address(f"{address}/{length}")
    assert address in destination
    assert parse_address(destination_text(destination)) == destination


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/0", "::/0", "127.0.0.1", "127.0.0.0/8", "169.254.169.254", "169.254.0.0/16",
        "128.0.0.0/1", "224.0.0.1", "239.1.2.3/24", "0.0.0.0", "255.255.255.255", "::", "::1",
        "ff02::1", "fe80::1", "fd20:ce::254", "::ffff:192.0.2.1",
    ],
)  # fmt: skip
def test_an_address_that_would_cut_the_machine_off_is_refused_with_a_note(
    root: Path, text: str
) -> None:
    key = "forwardedIpv6s" if ":" in text else "forwardedIps"
    result = plan(root, KernelTable(), nic(ETH0, **{key: [text, "192.0.2.1"]}))
    assert routes_of(result) == ["+192.0.2.1 eth0"]
    assert any("must not become local" in note for note in result.notes)


def test_unreadable_entries_do_not_disturb_the_others(root: Path) -> None:
    wanted = nic(forwardedIps=["", "foobar", "192.0.2.300", "192.0.2.1"])
    assert routes_of(plan(root, KernelTable(), wanted)) == ["+192.0.2.1 eth0"]


# Devices.


def test_an_unknown_mac_keeps_its_index_and_is_one_note_in_every_pass(root: Path) -> None:
    table = KernelTable(links=(LO, ETH0, ETH2))
    nics = (
        nic(ETH0, forwardedIps=["192.0.2.1"]),
        nic(ETH1, forwardedIps=["192.0.2.2"]),
        nic(ETH2, forwardedIps=["192.0.2.3"]),
    )
    results = [plan(root, table, *nics) for _ in range(3)]
    assert routes_of(results[0]) == ["+192.0.2.1 eth0", "+192.0.2.3 eth2"]
    assert {result.notes for result in results} == {
        ("NIC 1: no device has the MAC address 42:01:0a:80:01:02; left out",)
    }


def test_routes_of_an_unknown_nic_are_left_alone(root: Path) -> None:
    table = KernelTable(route("192.0.2.1", ETH1), links=(LO, ETH0, ETH1))
    assert routes_of(plan(root, table, nic(ETH0))) == []


def test_of_devices_with_one_mac_the_one_with_hardware_gets_the_routes(root: Path) -> None:
    stacked = Link(9, "bond0", ETH0.mac, kind="bond")
    table = KernelTable(links=(LO, stacked, ETH0))
    assert routes_of(plan(root, table, nic(forwardedIps=["192.0.2.1"]))) == ["+192.0.2.1 eth0"]


def test_an_ipv4_address_wanted_on_two_nics_is_set_on_both(root: Path) -> None:
    nics = (nic(ETH0, forwardedIps=["192.0.2.1"]), nic(ETH1, forwardedIps=["192.0.2.1"]))
    assert routes_of(plan(root, KernelTable(), *nics)) == ["+192.0.2.1 eth0", "+192.0.2.1 eth1"]


def test_an_ipv6_address_wanted_on_two_nics_stays_with_its_first_owner(root: Path) -> None:
    nics = (
        nic(ETH0, forwardedIpv6s=["2001:db8::/96"]),
        nic(ETH1, forwardedIpv6s=["2001:db8::/96"]),
    )
    fresh = plan(root, KernelTable(), *nics)
    owned = plan(root, KernelTable(route("2001:db8::/96", ETH1)), *nics)
    assert (routes_of(fresh), routes_of(owned)) == (["+2001:db8::/96 eth0"], [])
    assert len(fresh.notes) == len(owned.notes) == 1


def test_an_ipv6_address_moves_to_another_nic_in_one_plan(root: Path) -> None:
    table = KernelTable(route("2001:db8::/96", ETH0))
    nics = (nic(ETH0), nic(ETH1, forwardedIpv6s=["2001:db8::/96"]))
    assert routes_of(plan(root, table, *nics)) == ["-2001:db8::/96 eth0", "+2001:db8::/96 eth1"]


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        (replace(ETH0, is_up=False), "eth0 is down"),
        (replace(ETH0, has_ipv6=False), "eth0 has IPv6 disabled"),
    ],
)
def test_ipv6_waits_for_a_device_that_cannot_take_it_and_ipv4_does_not(
    root: Path, link: Link, reason: str
) -> None:
    wanted = nic(forwardedIps=["192.0.2.1"], forwardedIpv6s=["2001:db8::/96"])
    result = plan(root, KernelTable(links=(LO, link)), wanted)
    assert routes_of(result) == ["+192.0.2.1 eth0"]
    assert [note.partition(";")[0] for note in result.notes] == [reason]


def test_a_kernel_without_ipv6_is_a_note_and_no_error(root: Path) -> None:
    table = KernelTable()
    table.has_ipv6 = False
    wanted = nic(forwardedIps=["192.0.2.1"], forwardedIpv6s=["2001:db8::/96"])
    result = plan(root, table, wanted)
    assert routes_of(result) == ["+192.0.2.1 eth0"]
    assert result.notes == ("the kernel runs without IPv6; IPv6 addresses are left out",)


def test_a_family_that_cannot_be_listed_does_not_stop_the_other(root: Path) -> None:
    table = KernelTable()
    table.failing = {Family.IPV4}
    wanted = nic(forwardedIps=["192.0.2.1"], forwardedIpv6s=["2001:db8::/96"])
    result = plan(root, table, wanted)
    assert routes_of(result) == ["+2001:db8::/96 eth0"]
    assert result.recheck_at == NOW + 10


def test_unlistable_devices_are_looked_at_again_later(root: Path) -> None:
    result = plan(root, KernelTable(links=()), nic(forwardedIps=["192.0.2.1"]))
    assert (result.changes, result.recheck_at, len(result.notes)) == ((), NOW + 10, 1)


# What was managed earlier in this boot.


def test_a_device_that_left_metadata_is_cleaned(root: Path) -> None:
    table = KernelTable()
    both = (nic(ETH0), nic(ETH1, forwardedIps=["192.0.2.1"], forwardedIpv6s=["2001:db8::/96"]))
    apply(inputs(root, table, *both))
    assert {destination_text(entry.destination) for entry in table.present} == {
        "192.0.2.1",
        "2001:db8::/96",
    }
    apply(inputs(root, table, nic(ETH0)))
    assert table.present == []


def test_a_device_that_never_was_in_metadata_is_left_alone(root: Path) -> None:
    table = KernelTable(route("192.0.2.1", ETH2), links=(LO, ETH0, ETH2))
    assert routes_of(plan(root, table, nic(ETH0, forwardedIps=["192.0.2.9"]))) == [
        "+192.0.2.9 eth0"
    ]


def test_the_device_is_remembered_before_its_first_route_is_added(root: Path) -> None:
    changes = plan(root, KernelTable(), nic(forwardedIps=["192.0.2.1"])).changes
    assert [type(change) for change in changes] == [Remember, AddLocalRoute]


def test_a_device_that_is_gone_is_forgotten(root: Path) -> None:
    table = KernelTable()
    apply(inputs(root, table, nic(ETH0), nic(ETH1, forwardedIps=["192.0.2.1"])))
    table.listed, table.present = [LO, ETH0], []
    apply(inputs(root, table, nic(ETH0)))
    table.listed, table.present = [LO, ETH0, ETH1], [route("192.0.2.1", ETH1)]
    assert routes_of(plan(root, table, nic(ETH0))) == []


@pytest.mark.parametrize("content", ["", "[]", '{"interfaces": "x"}', '{"interfaces": [true, -1]}'])
def test_a_damaged_record_reads_as_empty(root: Path, content: str) -> None:
    path = root / forwarded_addresses.STATE_PATH.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    table = KernelTable(route("192.0.2.1", ETH1))
    assert routes_of(plan(root, table, nic(ETH0))) == []


def test_an_answer_without_any_interface_removes_nothing(root: Path) -> None:
    table = KernelTable()
    apply(inputs(root, table, nic(ETH0, forwardedIps=["192.0.2.1"])))
    assert plan(root, table).changes == ()


# Repetition.


def test_a_second_pass_changes_nothing(root: Path) -> None:
    table = KernelTable(route("192.0.2.77"))
    given = inputs(
        root,
        table,
        nic(ETH0, forwardedIps=["192.0.2.1"], forwardedIpv6s=["2001:db8::/96"]),
        nic(ETH1, ipAliases=["10.9.0.0/24"]),
    )
    assert apply(given)
    assert apply(given) == []


def test_passes_are_due_while_an_address_is_wanted_and_not_after(root: Path) -> None:
    table = KernelTable(route("192.0.2.1"))
    assert plan(root, table, nic(forwardedIps=["192.0.2.1"])).recheck_at == NOW + 10
    assert plan(root, table, nic()).recheck_at is None


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ("[Routes]\nenable_monitor = true\nmonitor_interval = 3s", 3),
        ("[Routes]\nenable_monitor = true\nmonitor_interval = soon", 10),
        ("[Routes]\nenable_monitor = true\nmonitor_interval = 1ms", 1),
        ("[Routes]\nmonitor_interval = 3s", 10),
    ],
)
def test_the_references_monitor_interval_is_honoured(root: Path, config: str, seconds: int) -> None:
    result = plan(root, KernelTable(), nic(forwardedIps=["192.0.2.1"]), config=config)
    assert result.recheck_at == NOW + seconds


# The route protocol.


@pytest.mark.parametrize(
    ("text", "expected"),
    [("66", 66), ("77", 77), ("1", 1), ("255", 255), (" 70 ", 70), ("gce", 201), ("hexed", 0x42)],
)
def test_a_usable_protocol_is_used(root: Path, text: str, expected: int) -> None:
    names = root / "etc/iproute2/rt_protos"
    names.parent.mkdir(parents=True)
    names.write_text("# comment\n201\tgce\n0x42 hexed # ours\n999 huge\nx y z\n")
    given = inputs(root, KernelTable(), nic(), config=f"[IpForwarding]\nethernet_proto_id={text}")
    assert forwarded_addresses.route_protocol(given.config, given.system) == (expected, None)


@pytest.mark.parametrize("text", ["300", "0", "256", "-1", "foo", "6 6", "", "2", "1.5", "٦٦"])
def test_an_unusable_protocol_is_66_and_a_warning(root: Path, text: str) -> None:
    result = plan(
        root,
        KernelTable(),
        nic(forwardedIps=["192.0.2.1"]),
        config=f"[IpForwarding]\nethernet_proto_id={text}",
    )
    (added,) = (change for change in result.changes if isinstance(change, AddLocalRoute))
    assert added.route.protocol == 66
    (warning,) = result.warnings
    assert "ethernet_proto_id" in warning and "66 is used" in warning


# The switch.


@pytest.mark.parametrize(
    ("config", "instance", "project", "on", "layer"),
    [
        ("", None, None, True, "built-in"),
        ("[Daemons]\nnetwork_daemon=false", None, None, False, "/etc/default/instance_configs.cfg"),
        ("[Daemons]\nnetwork_daemon=false", "false", None, True, "instance metadata"),
        ("", None, "true", False, "project metadata"),
        ("", "false", "true", True, "instance metadata"),
        ("", "maybe", "true", False, "project metadata"),
        ("[addressManager]\ndisable=false", "true", "true", True,
         "/etc/default/instance_configs.cfg"),
        ("[addressManager]\ndisable=true", "false", None, False,
         "/etc/default/instance_configs.cfg"),
    ],
)  # fmt: skip
def test_configuration_beats_instance_beats_project_beats_the_daemon_switch(
    root: Path, config: str, instance: Optional[str], project: Optional[str], on: bool, layer: str
) -> None:
    attributes = {} if instance is None else {"disable-address-manager": instance}
    given = inputs(root, KernelTable(), nic(), config=config, attributes=attributes)
    document: dict[str, Any] = {"instance": {"attributes": attributes}}
    if project is not None:
        document["project"] = {"attributes": {"disable-address-manager": project}}
    given = replace(given, metadata=parse_metadata(document))
    decision = FEATURE.enabled(given)
    assert (decision.on, decision.layer) == (on, layer)


def test_nothing_is_undone_while_switched_off() -> None:
    assert FEATURE.plan_off is None


def test_ready_waits_for_the_first_routes_and_network_events_trigger_a_pass() -> None:
    assert (FEATURE.stage, FEATURE.watches_network, FEATURE.live_only) == (Stage.BOOT, True, True)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (metadata_of(nic(forwardedIps=["192.0.2.1"])), metadata_of(nic()), False),
        (metadata_of(nic(ipAliases=["192.0.2.0/24"])), metadata_of(nic()), False),
        (metadata_of(nic(), attributes={"disable-address-manager": "1"}),
         metadata_of(nic()), False),
        (metadata_of(nic(), attributes={"other": "1"}), metadata_of(nic()), True),
    ],
)  # fmt: skip
def test_only_what_the_feature_reads_triggers_a_pass(
    one: Metadata, other: Metadata, same: bool
) -> None:
    assert (FEATURE.inputs_of(one) == FEATURE.inputs_of(other)) is same
