"""Forwarded addresses on Windows: what is added, listed, removed and left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import metadata
from support.windows_machines import NOW, Machine, windows_inputs

from google_guest.features.windows import forwarded_addresses as feature
from google_guest.features.windows.cluster import cluster_addresses
from google_guest.metadata.tree import Metadata
from google_guest.reconcile import Pass, run_pass
from google_guest.system.windows import FORWARDED_IPS

MAC = "42:01:0a:80:00:02"
OTHER = "42:01:0a:80:00:03"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.memory.addresses.put(4, MAC, "10.128.0.2")
    return machine


def known(*forwarded: str, mac: str = MAC, project: Any = None, **fields: Any) -> Metadata:
    attributes = fields.pop("attributes", {})
    nic = {"mac": mac, "forwardedIps": list(forwarded), **fields}
    return metadata(
        {"networkInterfaces": [nic], "attributes": attributes},
        project={"attributes": project or {}},
    )


def run(machine: Machine, tree: Metadata, config: str = "") -> Pass:
    return run_pass(feature.FEATURE, windows_inputs(machine, tree, config=config))


def added(machine: Machine) -> set[str]:
    return set(machine.memory.addresses.table[4].addresses) - {"10.128.0.2"}


def listed(machine: Machine, name: str = MAC) -> tuple[str, ...]:
    return machine.memory.registry.strings(FORWARDED_IPS, name)


def note(machine: Machine, *addresses: str, name: str = MAC) -> None:
    machine.memory.registry.set_strings(FORWARDED_IPS, name, addresses)


def test_forwarded_address_is_added_with_prefix_32_and_listed(machine: Machine) -> None:
    result = run(machine, known("10.9.9.9"))
    assert [change.describe() for change in result.plan.changes] == [
        "add address 10.9.9.9/32 on Ethernet 4",
        f"list the agent's own addresses of nic {MAC} in the registry",
    ]
    assert machine.memory.addresses.prefix_lengths == {(4, "10.9.9.9"): 32}
    assert listed(machine) == ("10.9.9.9",)


def test_address_that_left_metadata_is_removed_from_both(machine: Machine) -> None:
    run(machine, known("10.9.9.9", "10.9.9.8/32"))
    run(machine, known("10.9.9.8"))
    assert added(machine) == {"10.9.9.8"}
    assert listed(machine) == ("10.9.9.8",)


def test_second_pass_changes_nothing(machine: Machine) -> None:
    run(machine, known("10.9.9.9"))
    assert run(machine, known("10.9.9.9")).plan.changes == ()


def test_address_that_somebody_removed_comes_back(machine: Machine) -> None:
    run(machine, known("10.9.9.9"))
    machine.memory.addresses.put(4, MAC, "10.128.0.2")
    run(machine, known("10.9.9.9"))
    assert added(machine) == {"10.9.9.9"}
    assert listed(machine) == ("10.9.9.9",)


def test_address_that_the_user_configured_is_neither_listed_nor_ever_removed(
    machine: Machine,
) -> None:
    machine.memory.addresses.put(4, MAC, "10.128.0.2", "10.9.9.9")
    result = run(machine, known("10.9.9.9"))
    assert result.plan.changes == ()
    assert result.plan.notes == ("10.9.9.9 on Ethernet 4 was configured by somebody else",)
    run(machine, known())
    assert added(machine) == {"10.9.9.9"}
    assert listed(machine) == ()


def test_list_under_the_former_name_is_taken_over(machine: Machine) -> None:
    former = MAC.replace(":", "")
    note(machine, "10.9.9.9", "10.9.9.8", name=former)
    machine.memory.addresses.put(4, MAC, "10.128.0.2", "10.9.9.9", "10.9.9.8")
    run(machine, known("10.9.9.9"))
    assert added(machine) == {"10.9.9.9"}
    assert listed(machine) == ("10.9.9.9",)
    assert machine.memory.registry.names(FORWARDED_IPS) == (MAC,)


def test_former_list_beside_a_present_one_is_only_deleted(machine: Machine) -> None:
    note(machine, "10.9.9.9")
    note(machine, "10.128.0.2", name=MAC.replace(":", ""))
    machine.memory.addresses.put(4, MAC, "10.128.0.2", "10.9.9.9")
    run(machine, known("10.9.9.9"))
    assert machine.memory.addresses.calls == []
    assert machine.memory.registry.names(FORWARDED_IPS) == (MAC,)


def test_address_that_cannot_be_removed_stays_listed_and_is_tried_again(machine: Machine) -> None:
    run(machine, known("10.9.9.9"))
    machine.memory.addresses.refused = {"10.9.9.9"}
    assert not run(machine, known()).ok
    assert listed(machine) == ("10.9.9.9",)
    machine.memory.addresses.refused = set()
    assert run(machine, known()).ok
    assert listed(machine) == ()


def test_address_that_cannot_be_added_is_not_listed_and_the_others_are(machine: Machine) -> None:
    machine.memory.addresses.refused = {"10.9.9.9"}
    result = run(machine, known("10.9.9.9", "10.9.9.8"))
    assert len(result.errors) == 1
    assert listed(machine) == ("10.9.9.8",)


def test_ipv6_keeps_its_prefix_length(machine: Machine) -> None:
    run(machine, known(forwardedIpv6s=["2600:2d00::/96", "2600:2d01::1/128"]))
    assert machine.memory.addresses.prefix_lengths == {
        (4, "2600:2d00::"): 96,
        (4, "2600:2d01::1"): 128,
    }


def test_wider_ipv4_range_is_ignored_with_a_warning(machine: Machine) -> None:
    result = run(machine, known("10.9.0.0/24", "10.9.9.9"))
    assert added(machine) == {"10.9.9.9"}
    assert result.plan.warnings == ("NIC 0: 10.9.0.0/24 is no single address; ignored",)


def test_alias_ranges_are_not_applied(machine: Machine) -> None:
    run(machine, known(ipAliases=["10.7.0.1/32"]))
    assert added(machine) == set()


@pytest.mark.parametrize(("wanted", "addresses"), [("true", {"10.8.8.8"}), ("false", set())])
def test_target_instance_addresses_can_be_switched_off(
    machine: Machine, wanted: str, addresses: set[str]
) -> None:
    tree = known(targetInstanceIps=["10.8.8.8"])
    run(machine, tree, config=f"[IpForwarding]\ntarget_instance_ips = {wanted}\n")
    assert added(machine) == addresses


def test_without_forwarding_own_addresses_are_removed(machine: Machine) -> None:
    run(machine, known("10.9.9.9"))
    run(machine, known("10.9.9.9"), config="[NetworkInterfaces]\nip_forwarding = false\n")
    assert added(machine) == set()
    assert listed(machine) == ()


def test_unknown_mac_is_noted_and_skipped(machine: Machine) -> None:
    result = run(machine, known("10.9.9.9", mac=OTHER))
    assert result.plan.changes == ()
    assert result.plan.notes == (f"NIC 0: no adapter has the MAC address {OTHER}; left out",)


def test_unreadable_list_leaves_the_addresses_alone(machine: Machine) -> None:
    machine.memory.registry.refusal = PermissionError(13, "refused")
    result = run(machine, known("10.9.9.9"))
    assert result.plan.changes == ()
    assert "are left alone" in result.plan.warnings[0]
    assert result.plan.recheck_at == NOW + 60


@pytest.mark.parametrize(
    ("config", "attribute", "on"),
    [
        ("[addressManager]\ndisable = true\n", "false", False),
        ("[addressManager]\n", "true", True),
        ("", "true", False),
        ("[Daemons]\nnetwork_daemon = false\n", "", False),
        ("", "", True),
    ],
)
def test_switches(machine: Machine, config: str, attribute: str, on: bool) -> None:
    tree = known("10.9.9.9", attributes={"disable-address-manager": attribute})
    assert run(machine, tree, config=config).decision.on is on
    assert added(machine) == ({"10.9.9.9"} if on else set())


def test_address_of_the_cluster_is_left_to_it(machine: Machine) -> None:
    run(machine, known("10.9.9.9", "10.9.9.8", attributes={"wsfc-addrs": "10.9.9.9"}))
    assert added(machine) == {"10.9.9.8"}


def test_address_that_becomes_the_clusters_is_removed(machine: Machine) -> None:
    run(machine, known("10.9.9.9"))
    run(machine, known("10.9.9.9", attributes={"wsfc-addrs": "10.9.9.9"}))
    assert added(machine) == set()


def test_cluster_without_a_list_has_all_ipv4_addresses_and_no_ipv6_ones(machine: Machine) -> None:
    tree = known(
        "10.9.9.9",
        targetInstanceIps=["10.8.8.8"],
        forwardedIpv6s=["2600:2d01::1/128"],
        attributes={"enable-wsfc": "true"},
    )
    run(machine, tree)
    assert added(machine) == {"2600:2d01::1"}


def test_list_of_the_cluster_can_have_ipv6_addresses(machine: Machine) -> None:
    tree = known(
        "10.9.9.9",
        forwardedIpv6s=["2600:2d01::1/128"],
        attributes={"wsfc-addrs": "2600:2d01::1"},
    )
    run(machine, tree)
    assert added(machine) == {"10.9.9.9"}


@pytest.mark.parametrize(
    ("config", "instance", "project", "addresses"),
    [
        ("[wsfc]\naddresses = 10.9.9.9\n", "10.9.9.8", "10.9.9.7", {"10.9.9.8", "10.9.9.7"}),
        ("", "10.9.9.8", "10.9.9.7", {"10.9.9.9", "10.9.9.7"}),
        ("", " ", "10.9.9.7", {"10.9.9.9", "10.9.9.8"}),
    ],
)
def test_first_list_that_is_not_empty_counts(
    machine: Machine, config: str, instance: str, project: str, addresses: set[str]
) -> None:
    tree = known(
        "10.9.9.9",
        "10.9.9.8",
        "10.9.9.7",
        attributes={"wsfc-addrs": instance},
        project={"wsfc-addrs": project},
    )
    run(machine, tree, config=config)
    assert added(machine) == addresses


def test_nonsense_in_the_list_is_warned_about_and_skipped(machine: Machine) -> None:
    result = run(machine, known("10.9.9.9", attributes={"wsfc-addrs": "x, 10.9.9.9,,"}))
    assert added(machine) == set()
    assert result.plan.warnings == ("'x' in the list of the cluster's addresses is no address",)


@pytest.mark.parametrize(
    ("config", "attribute", "left_alone"),
    [
        ("[wsfc]\nenable = false\n", "true", False),
        ("[wsfc]\nenable = true\n", "false", True),
        ("", "true", True),
        ("", "maybe", False),
    ],
)
def test_configuration_decides_about_the_cluster_before_metadata(
    machine: Machine, config: str, attribute: str, left_alone: bool
) -> None:
    run(machine, known("10.9.9.9", attributes={"enable-wsfc": attribute}), config=config)
    assert (added(machine) == set()) is left_alone


@given(st.text(max_size=100))
def test_any_list_of_the_cluster_is_read(tmp_path_factory: Any, text: str) -> None:
    machine = Machine(tmp_path_factory.getbasetemp())
    inputs = windows_inputs(machine, known(attributes={"wsfc-addrs": text}))
    cluster_addresses(inputs)


@given(st.lists(st.text(max_size=20) | st.just("10.9.9.9"), max_size=4))
def test_any_addresses_are_planned(tmp_path_factory: Any, texts: list[str]) -> None:
    machine = Machine(tmp_path_factory.getbasetemp())
    machine.memory.addresses.put(4, MAC, "10.128.0.2")
    run(machine, known(*texts))
    assert ("10.9.9.9" in added(machine)) is ("10.9.9.9" in {text.strip() for text in texts})
    assert run(machine, known(*texts)).plan.changes == ()


def test_changes_of_switches_and_lists_are_changes_of_the_inputs() -> None:
    states = {
        feature.inputs_of(known()),
        feature.inputs_of(known("10.9.9.9")),
        feature.inputs_of(known(attributes={"wsfc-addrs": "10.9.9.9"})),
        feature.inputs_of(known(attributes={"enable-wsfc": "true"})),
        feature.inputs_of(known(attributes={"disable-address-manager": "true"})),
    }
    assert len(states) == 5
