"""The recursive document becomes typed values, whatever it contains."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from google_guest.metadata.tree import (
    InstanceGroupManager,
    Metadata,
    NetworkInterface,
    VlanNetworkInterface,
    last_part,
    parse_metadata,
)
from metadata_server import Emulator

DOCUMENT: dict[str, Any] = {
    "instance": {
        "attributes": {"created-by": "somebody", "enable-oslogin": "FALSE"},
        "hostname": "demo-1.c.sample-proj.internal",
        "id": 9007199254740993123,
        "licenses": [{"id": "1"}, {"id": 2}],
        "machineType": "projects/424242000001/machineTypes/e2-small",
        "name": "demo-1",
        "networkInterfaces": [
            {
                "accessConfigs": [{"externalIp": "198.51.100.7", "type": "ONE_TO_ONE_NAT"}],
                "dhcpv6Refresh": "7",
                "dnsServers": ["169.254.169.254"],
                "forwardedIpv6s": ["2001:db8:f::/96"],
                "forwardedIps": ["203.0.113.9"],
                "gateway": "10.20.0.1",
                "ip": "10.20.0.5",
                "ipAliases": ["10.30.1.0/24"],
                "ipv6s": ["2001:db8:1::5"],
                "mac": "42:01:0A:14:00:05",
                "mtu": 1460,
                "network": "projects/424242000001/networks/default",
                "subnetmask": "255.255.240.0",
                "targetInstanceIps": ["203.0.113.50"],
            }
        ],
        "serviceAccounts": {
            "default": {"aliases": ["default"], "email": "sa@example.com", "scopes": ["s"]}
        },
        "tags": ["web"],
        "virtualClock": {"driftToken": "0"},
        "vlanNetworkInterfaces": {
            "0": {
                "5": {
                    "gateway": "10.50.0.1",
                    "ip": "10.50.0.9",
                    "ipv6": ["2001:db8:5::9"],
                    "mac": "42:01:0a:32:00:09",
                    "mtu": 1460,
                    "parentInterface": "/computeMetadata/v1/instance/network-interfaces/0/",
                    "vlan": 5,
                }
            }
        },
        "zone": "projects/424242000001/zones/mars-north1-b",
    },
    "project": {
        "attributes": {"enable-oslogin": "TRUE"},
        "numericProjectId": 424242000001,
        "projectId": "sample-proj",
    },
    "universe": {"universeDomain": "example.goog"},
}


def with_instance(**fields: object) -> Metadata:
    document = copy.deepcopy(DOCUMENT)
    document["instance"].update(fields)
    return parse_metadata(document)


def with_nic(**fields: object) -> Metadata:
    document = copy.deepcopy(DOCUMENT)
    document["instance"]["networkInterfaces"][0].update(fields)
    return parse_metadata(document)


def test_network_interface_has_all_its_fields() -> None:
    assert parse_metadata(DOCUMENT).instance.network_interfaces == (
        NetworkInterface(
            index=0,
            mac="42:01:0a:14:00:05",
            ip="10.20.0.5",
            mtu=1460,
            subnetmask="255.255.240.0",
            gateway="10.20.0.1",
            network="projects/424242000001/networks/default",
            ipv6s=("2001:db8:1::5",),
            dns_servers=("169.254.169.254",),
            external_ips=("198.51.100.7",),
            forwarded_ips=("203.0.113.9",),
            forwarded_ipv6s=("2001:db8:f::/96",),
            target_instance_ips=("203.0.113.50",),
            ip_aliases=("10.30.1.0/24",),
            dhcpv6_refresh="7",
        ),
    )


def test_vlan_interface_knows_its_parent() -> None:
    assert parse_metadata(DOCUMENT).instance.vlan_network_interfaces == (
        VlanNetworkInterface(
            parent_index=0,
            vlan=5,
            mac="42:01:0a:32:00:09",
            ip="10.50.0.9",
            ipv6s=("2001:db8:5::9",),
            mtu=1460,
            gateway="10.50.0.1",
        ),
    )


def test_vlan_interface_without_fields_takes_parent_and_id_from_its_keys() -> None:
    metadata = with_instance(vlanNetworkInterfaces={"3": {"17": {"mac": "42:01:0a:32:00:09"}}})
    (vlan,) = metadata.instance.vlan_network_interfaces
    assert (vlan.parent_index, vlan.vlan) == (3, 17)


def test_project_and_universe_are_read() -> None:
    metadata = parse_metadata(DOCUMENT)
    assert (metadata.project.id, metadata.project.numeric_id) == ("sample-proj", 424242000001)
    assert metadata.universe_domain == "example.goog"


def test_universe_domain_has_a_default() -> None:
    assert parse_metadata({}).universe_domain == "googleapis.com"


def test_good_document_has_no_problems() -> None:
    assert parse_metadata(DOCUMENT).problems == ()


@pytest.mark.parametrize("profile", ["linux", "windows", "minimal"])
def test_documents_of_the_emulator_have_no_problems(profile: str) -> None:
    with Emulator(profile=profile) as mds:
        assert parse_metadata(mds.get("")).problems == ()


@pytest.mark.parametrize("value", [9007199254740993123, "9007199254740993123"])
def test_instance_id_is_exact(value: object) -> None:
    assert with_instance(id=value).instance.id == 9007199254740993123


@pytest.mark.parametrize("value", [1.5, 9e18, True, -1, 2**64, "12x", "", [], {}, "٣"])
def test_unusable_instance_id_is_void(value: object) -> None:
    metadata = with_instance(id=value)
    assert metadata.instance.id is None
    assert metadata.problems == (f"instance/id is not an integer from 0 to {2**64 - 1}; ignored",)


@pytest.mark.parametrize(
    "clock", [{"driftToken": 5}, {"driftToken": "5"}, {"drift-token": 5}, {"DRIFT_TOKEN": "5"}]
)
def test_drift_token_is_the_same_in_every_spelling(clock: dict[str, object]) -> None:
    assert with_instance(virtualClock=clock).instance.drift_token == "5"


@pytest.mark.parametrize("key", ["universeDomain", "universe-domain", "UNIVERSE_DOMAIN"])
def test_system_keys_match_in_every_spelling(key: str) -> None:
    assert parse_metadata({"Universe": {key: "u.example"}}).universe_domain == "u.example"


def test_wrong_mtu_voids_only_itself() -> None:
    metadata = with_nic(mtu="abc")
    (nic,) = metadata.instance.network_interfaces
    assert (nic.mtu, nic.ip, nic.mac) == (None, "10.20.0.5", "42:01:0a:14:00:05")
    assert metadata.problems == (
        "instance/network-interfaces/0/mtu is not an integer from 0 to 65535; ignored",
    )


def test_wrong_list_entry_voids_only_itself() -> None:
    metadata = with_nic(forwardedIps=["203.0.113.9", 7, None, "203.0.113.10"])
    (nic,) = metadata.instance.network_interfaces
    assert nic.forwarded_ips == ("203.0.113.9", "203.0.113.10")


@pytest.mark.parametrize("mac", [None, "", "42:01", "42:01:0a:14:00:0g", 5, "42010a140005"])
def test_interface_without_mac_address_is_left_out_and_named(mac: object) -> None:
    metadata = with_nic(mac=mac)
    assert metadata.instance.network_interfaces == ()
    assert "instance/network-interfaces/0 has no usable MAC address; ignored" in metadata.problems


def test_index_of_an_interface_is_its_position_among_all() -> None:
    interfaces = [{"mac": "broken"}, {"mac": "42-01-0A-14-00-06"}]
    (nic,) = with_instance(networkInterfaces=interfaces).instance.network_interfaces
    assert (nic.index, nic.mac) == (1, "42:01:0a:14:00:06")


@pytest.mark.parametrize("vlan", [0, 4095, -1])
def test_impossible_vlan_is_left_out(vlan: int) -> None:
    entry = {"mac": "42:01:0a:32:00:09", "vlan": vlan}
    metadata = with_instance(vlanNetworkInterfaces={"0": {"x": entry}})
    assert metadata.instance.vlan_network_interfaces == ()
    assert metadata.problems


@pytest.mark.parametrize(
    ("value", "text"),
    [("v", "v"), ("", ""), (True, "true"), (False, "false"), (5, "5"), (1.5, "1.5")],
)
def test_scalar_attribute_becomes_text(value: object, text: str) -> None:
    assert with_instance(attributes={"k": value}).instance.attributes == {"k": text}


@pytest.mark.parametrize("value", [None, [], {}, ["secret"], 2**65])
def test_attribute_that_is_no_scalar_is_void(value: object) -> None:
    metadata = with_instance(attributes={"k": value, "other": "kept"})
    assert metadata.instance.attributes == {"other": "kept"}
    assert metadata.problems == ("instance/attributes/k is not text; ignored",)


def test_attribute_names_are_verbatim() -> None:
    values = {"SSH_Keys": "a", "ssh-keys": "b", "sshKeys": "c"}
    assert with_instance(attributes=values).instance.attributes == values


def test_attributes_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        parse_metadata(DOCUMENT).instance.attributes["k"] = "v"  # type: ignore[index]


@pytest.mark.parametrize("level", ["instance", "project"])
def test_unreadable_boolean_is_named_without_its_value(level: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    document[level]["attributes"]["enable-oslogin"] = "maybe-s3cret"
    assert parse_metadata(document).problems == (
        f"{level}/attributes/enable-oslogin is not a boolean; ignored",
    )


def test_empty_boolean_is_unset_without_complaint() -> None:
    assert with_instance(attributes={"enable-oslogin": " "}).problems == ()


def test_unreadable_boolean_of_the_instance_leaves_the_project_standing() -> None:
    metadata = with_instance(attributes={"enable-oslogin": "maybe"})
    assert metadata.switch("enable-oslogin") == (True, "project metadata")


def test_yes_blocks_project_keys() -> None:
    metadata = with_instance(attributes={"block-project-ssh-keys": "yes"})
    assert metadata.attributes.boolean("block-project-ssh-keys") is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "projects/12/zones/z-b/instanceGroupManagers/web",
            InstanceGroupManager("12", "web", zone="z-b"),
        ),
        (
            "projects/12/regions/r1/instanceGroupManagers/web\n",
            InstanceGroupManager("12", "web", region="r1"),
        ),
        ("projects/12/zones/z/somethingElse/web", None),
        ("", None),
    ],
)
def test_instance_group_is_read_from_created_by(text: str, expected: object) -> None:
    assert with_instance(attributes={"created-by": text}).instance.created_by == expected


def test_equal_documents_make_equal_trees() -> None:
    assert parse_metadata(DOCUMENT) == parse_metadata(copy.deepcopy(DOCUMENT))


def test_guest_attributes_do_not_make_a_tree_different() -> None:
    assert with_instance(guestAttributes={"ns": {"k": "v"}}) == parse_metadata(DOCUMENT)


def test_trees_can_be_hashed() -> None:
    assert hash(parse_metadata(DOCUMENT)) == hash(parse_metadata(copy.deepcopy(DOCUMENT)))


def test_attributes_stay_out_of_the_printed_form() -> None:
    assert "hunter2" not in repr(with_instance(attributes={"startup-script": "hunter2"}))


def test_lone_surrogate_cannot_break_whoever_writes_the_text() -> None:
    metadata = with_instance(name="a\ud800b", attributes={"k\udfff": "\ud800"})
    assert metadata.instance.name == "a?b"
    assert metadata.instance.attributes == {"k?": "?"}


def test_names_in_problems_are_printable_and_short() -> None:
    (problem,) = with_instance(attributes={"k\n\x1b[31m" + "x" * 500: []}).problems
    assert problem.isprintable() and len(problem) < 200


def test_number_of_problems_is_bounded() -> None:
    metadata = with_instance(attributes={f"k{n}": None for n in range(500)})
    assert len(metadata.problems) == 101
    assert metadata.problems[-1] == "400 more problems in metadata"


@pytest.mark.parametrize(
    ("path", "expected"),
    [("projects/1/zones/z-b", "z-b"), ("z-b", "z-b"), ("a/", None), (None, None)],
)
def test_last_part_of_a_path(path: Any, expected: object) -> None:
    assert last_part(path) == expected


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
_known_keys = sorted(set(re.findall(r'"([A-Za-z0-9-]+)":', json.dumps(DOCUMENT))))
_likely = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("42:01:0a:14:00:05"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(_known_keys), inner, max_size=8)
    ),
    max_leaves=40,
)


@given(_json)
@settings(deadline=None)
def test_any_document_makes_a_tree(document: object) -> None:
    metadata = parse_metadata(document)
    assert metadata == parse_metadata(document)
    assert all(problem.isprintable() for problem in metadata.problems)


@given(_likely, _likely, _likely)
@settings(deadline=None)
def test_any_document_of_known_keys_makes_a_tree(
    instance: object, project: object, interfaces: object
) -> None:
    document = {"instance": instance, "project": project}
    parse_metadata(document)
    metadata = with_instance(networkInterfaces=interfaces, vlanNetworkInterfaces=interfaces)
    assert metadata.instance.id == DOCUMENT["instance"]["id"]
    for text in metadata.problems:
        text.encode()
