"""Host name of the agent: who switches it on, and what it plans of name, addresses and aliases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, cast

import pytest
from support.trees import inputs, metadata, place, tree
from unit.features.test_forwarded_addresses import ETH0, ETH1, LO, KernelTable, route

from google_guest.changes.hostname import EditHosts, SetHostname
from google_guest.features import Plan
from google_guest.features.linux import hostname
from google_guest.hostname import METADATA_LINE
from google_guest.reconcile import plan_feature
from google_guest.system import System
from google_guest.system.netlink import Network

FQDN = "vm.c.sample-proj.internal"
LONG = "vm." + "abcdefghi." * 6 + "abcdefg"
NICS = [
    {"mac": ETH0.mac.hex(":"), "ip": "10.128.0.2"},
    {"mac": ETH1.mac.hex(":"), "ip": "10.128.1.2"},
]
FOREIGN = "127.0.0.1 localhost\n"
ADDRESSES = (
    route("127.0.0.0/8", LO, 2),
    route("127.0.0.1/32", LO, 2),
    route("10.128.0.2/32", ETH0, 2),
    route("10.128.1.2/32", ETH1, 2),
)


class Live(System):
    """A tree that is treated as the running machine."""

    is_live = True


def planned(
    root: Path,
    config: str,
    *,
    name: Optional[str] = FQDN,
    current: str = "old",
    hosts: str = FOREIGN,
    attributes: Optional[Mapping[str, str]] = None,
    table: Optional[KernelTable] = None,
    nics: Any = None,
) -> Plan:
    tree(root, {"/etc/hosts": hosts, "/proc/sys/kernel/hostname": f"{current}\n"})
    system = Live(root=root)
    system.network = cast(Network, table or KernelTable(*ADDRESSES))
    known = metadata(
        {
            "hostname": name,
            "attributes": dict(attributes or {}),
            "networkInterfaces": NICS if nics is None else nics,
        }
    )
    return hostname.plan(inputs(system, known, config=f"[Unstable]\n{config}"))


def new_name(plan: Plan) -> Optional[str]:
    names = [change.name for change in plan.changes if isinstance(change, SetHostname)]
    assert len(names) <= 1
    return names[0] if names else None


def added(plan: Plan) -> list[str]:
    """The lines that /etc/hosts gets."""
    (content,) = [change.content for change in plan.changes if isinstance(change, EditHosts)]
    assert content.decode().startswith(FOREIGN)
    return content.decode()[len(FOREIGN) :].splitlines()


# Switches.


def test_off_by_default(tmp_path: Path) -> None:
    decision, plan = plan_feature(hostname.FEATURE, inputs(Live(root=tmp_path), metadata()))
    assert (decision.on, decision.layer, plan) == (False, "built-in", Plan())


@pytest.mark.parametrize("key", ["set_hostname", "set_fqdn"])
def test_either_switch_turns_it_on(tmp_path: Path, key: str) -> None:
    given = inputs(Live(root=tmp_path), metadata(), config=f"[Unstable]\n{key} = true\n")
    decision = hostname.enabled(given)
    assert (decision.on, decision.reason) == (True, f"[Unstable] {key} = true")
    assert decision.layer == "/etc/default/instance_configs.cfg"


def test_set_hostname_alone_leaves_the_file(tmp_path: Path) -> None:
    plan = planned(tmp_path, "set_hostname = true")
    assert [type(change) for change in plan.changes] == [SetHostname]


def test_set_fqdn_alone_leaves_the_name(tmp_path: Path) -> None:
    plan = planned(tmp_path, "set_fqdn = true")
    assert [type(change) for change in plan.changes] == [EditHosts]


# The name.


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        (FQDN, "", "vm"),
        (FQDN, "fqdn_as_hostname = true", FQDN),
        (LONG, "fqdn_as_hostname = true", "vm"),
        ("single", "", "single"),
    ],
)
def test_host_name_is_the_first_label_or_the_whole_name(
    tmp_path: Path, name: str, config: str, expected: str
) -> None:
    plan = planned(tmp_path, f"set_hostname = true\n{config}", name=name)
    assert new_name(plan) == expected


def test_long_name_of_the_table_has_70_bytes() -> None:
    assert len(LONG) == 70


def test_name_in_force_is_no_change(tmp_path: Path) -> None:
    plan = planned(tmp_path, "set_hostname = true", current="vm")
    assert plan.changes == ()


def test_somebody_elses_name_is_put_right_later(tmp_path: Path) -> None:
    plan = planned(tmp_path, "set_hostname = true", current="vm")
    assert plan.recheck_at == 1_000_000.0 + hostname.RECHECK


def test_attribute_counts_where_the_platform_gives_no_name(tmp_path: Path) -> None:
    attributes = {"hostname": "custom.example"}
    plan = planned(tmp_path, "set_hostname = true", name=None, attributes=attributes)
    assert new_name(plan) == "custom"


def test_the_platforms_name_beats_the_attribute(tmp_path: Path) -> None:
    plan = planned(tmp_path, "set_hostname = true", attributes={"hostname": "custom.example"})
    assert new_name(plan) == "vm"


@pytest.mark.parametrize("name", [None, "metadata.google.internal", "a b;c", "10.0.0.2"])
def test_disallowed_name_changes_nothing_and_is_told(tmp_path: Path, name: Optional[str]) -> None:
    plan = planned(tmp_path, "set_hostname = true\nset_fqdn = true", name=name)
    assert plan.changes == ()
    (warning,) = plan.warnings
    assert warning.startswith("the host name stays as it is: ")


# The file.


def test_the_line_has_name_and_host_name_and_the_metadata_server_has_one(tmp_path: Path) -> None:
    plan = planned(tmp_path, "set_hostname = true\nset_fqdn = true")
    assert added(plan) == [f"10.128.0.2 {FQDN} vm  # Added by Google", METADATA_LINE]


def test_without_set_hostname_the_line_has_the_kernels_host_name(tmp_path: Path) -> None:
    plan = planned(tmp_path, "set_fqdn = true", current="other")
    assert added(plan)[0] == f"10.128.0.2 {FQDN} other  # Added by Google"


@pytest.mark.parametrize("current", ["localhost", "(none)", "", "localhost.localdomain"])
def test_a_host_name_of_the_loopback_address_stays_there(tmp_path: Path, current: str) -> None:
    plan = planned(tmp_path, "set_fqdn = true", current=current)
    assert added(plan)[0] == f"10.128.0.2 {FQDN}  # Added by Google"


def test_whole_name_as_host_name_stands_in_the_line_once(tmp_path: Path) -> None:
    config = "set_hostname = true\nset_fqdn = true\nfqdn_as_hostname = true"
    assert added(planned(tmp_path, config))[0] == f"10.128.0.2 {FQDN}  # Added by Google"


def test_aliases_follow(tmp_path: Path) -> None:
    plan = planned(tmp_path, "set_fqdn = true\nadditional_aliases = tc2, tc3,", current="vm")
    assert added(plan)[0] == f"10.128.0.2 {FQDN} vm tc2 tc3  # Added by Google"
    assert plan.warnings == ()


def test_alias_that_is_no_name_is_left_out_and_told(tmp_path: Path) -> None:
    config = "set_fqdn = true\nadditional_aliases = tc2,a_b,metadata"
    plan = planned(tmp_path, config, current="vm")
    assert added(plan)[0] == f"10.128.0.2 {FQDN} vm tc2  # Added by Google"
    assert plan.warnings == (
        "[Unstable] additional_aliases: 'a_b' is left out",
        "[Unstable] additional_aliases: 'metadata' is left out",
    )


def test_every_address_has_a_line_the_one_in_metadata_first(tmp_path: Path) -> None:
    table = KernelTable(
        *ADDRESSES,
        route("10.1.0.1/32", ETH0, 2),
        route("fd20:a::2/128", ETH0, 2),
        # No addresses of the interface: link-local, a forwarded one, an alias range.
        route("fe80::1/128", ETH0, 2),
        route("192.0.2.10/32", ETH0, 66),
        route("10.9.0.0/24", ETH0, 2),
    )
    plan = planned(tmp_path, "set_fqdn = true", current="vm", table=table)
    assert [line.split()[0] for line in added(plan)] == [
        *("10.128.0.2", "10.1.0.1", "fd20:a::2", "169.254.169.254"),
    ]


def test_index_counts_the_interfaces_in_metadata(tmp_path: Path) -> None:
    config = "set_fqdn = true\nfqdn_address_interface_index = 1"
    plan = planned(tmp_path, config, current="vm")
    assert added(plan)[0] == f"10.128.1.2 {FQDN} vm  # Added by Google"


def test_index_of_an_interface_without_mac_address_is_not_that_of_the_next(tmp_path: Path) -> None:
    nics = [{"ip": "10.128.0.2"}, NICS[1]]
    plan = planned(tmp_path, "set_fqdn = true", nics=nics)
    assert (plan.changes, len(plan.warnings)) == ((), 1)


@pytest.mark.parametrize("index", [2, -1])
def test_index_out_of_range_is_told(tmp_path: Path, index: int) -> None:
    config = f"set_fqdn = true\nfqdn_address_interface_index = {index}"
    plan = planned(tmp_path, config)
    assert plan.changes == ()
    assert plan.warnings[0].startswith(
        f"[Unstable] fqdn_address_interface_index = {index} names none of the 2"
    )


def test_interface_without_address_leaves_the_file(tmp_path: Path) -> None:
    plan = planned(tmp_path, "set_fqdn = true", table=KernelTable())
    assert plan.changes == ()
    assert plan.notes == ("NIC 0 has no address yet: /etc/hosts stays as it is",)


def test_interface_that_the_machine_does_not_have_leaves_the_file(tmp_path: Path) -> None:
    plan = planned(tmp_path, "set_fqdn = true", table=KernelTable(*ADDRESSES, links=(LO, ETH1)))
    assert plan.changes == ()


def test_kernel_without_an_answer_leaves_the_file_and_sets_the_name(tmp_path: Path) -> None:
    config = "set_hostname = true\nset_fqdn = true"
    plan = planned(tmp_path, config, table=KernelTable(links=()))
    assert [type(change) for change in plan.changes] == [SetHostname]
    assert plan.notes[0].startswith("/etc/hosts stays as it is: ")


def test_right_lines_are_no_change(tmp_path: Path) -> None:
    hosts = f"10.128.0.2 {FQDN} vm  # Added by Google\n{METADATA_LINE}\n"
    plan = planned(tmp_path, "set_fqdn = true", current="vm", hosts=FOREIGN + hosts)
    assert plan.changes == ()


def test_a_foreign_line_of_the_metadata_server_is_not_doubled(tmp_path: Path) -> None:
    mine = "169.254.169.254 metadata.google.internal metadata\n"
    plan = planned(tmp_path, "set_fqdn = true", current="vm", hosts=FOREIGN + mine)
    assert [*added(plan)] == [
        mine.strip(),
        f"10.128.0.2 {FQDN} vm  # Added by Google",
    ]


def test_unreadable_hosts_is_left_alone(tmp_path: Path) -> None:
    place(tmp_path, "/x", "")
    (tmp_path / "etc/hosts").mkdir(parents=True)
    system = Live(root=tmp_path)
    system.network = cast(Network, KernelTable(*ADDRESSES))
    known = metadata({"hostname": FQDN, "networkInterfaces": NICS})
    plan = hostname.plan(inputs(system, known, config="[Unstable]\nset_fqdn = true\n"))
    assert plan.changes == ()
    assert plan.notes[0].startswith("/etc/hosts stays as it is: ")


def test_a_new_name_or_address_in_metadata_asks_for_a_pass() -> None:
    first = hostname.inputs_of(metadata({"hostname": FQDN, "networkInterfaces": NICS}))
    assert first != hostname.inputs_of(metadata({"hostname": "x", "networkInterfaces": NICS}))
    assert first != hostname.inputs_of(metadata({"hostname": FQDN, "networkInterfaces": NICS[:1]}))
    assert hostname.FEATURE.watches_network
