"""Ready-made metadata documents: invented instances in the shape of real recursive answers.

Every name, number, address and key here is made up (RFC 5737 and RFC 3849 ranges where an address
is public).  Reads and writes nothing.
"""

from __future__ import annotations

import copy
import json
from typing import Callable

_PROJECT_NUMBER = 424242000001
_ZONE = f"projects/{_PROJECT_NUMBER}/zones/mars-north1-b"
_UNIVERSE = {"universeDomain": "googleapis.com"}

Document = dict[str, object]


def profile(name: str) -> Document:
    """A fresh copy of a profile's document, in the spelling of JSON; raises ValueError."""
    try:
        return PROFILES[name]()
    except KeyError:
        raise ValueError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}") from None


def _linux() -> Document:
    key_comment = json.dumps(
        {"userName": "ada@example.com", "expireOn": "2099-01-01T00:00:00+0000"},
        separators=(",", ":"),
    )
    group = f"projects/{_PROJECT_NUMBER}/zones/mars-north1-b/instanceGroupManagers/web"
    instance = {
        "attributes": {
            "created-by": group,
            "enable-guest-attributes": "TRUE",
            "enable-oslogin": "FALSE",
            "ssh-keys": f"ada:ssh-ed25519 AAAAC3NzaExample google-ssh {key_comment}\n"
            "bob:ssh-rsa AAAAB3NzaExample bob",
            "startup-script": "#!/bin/sh\necho hello",
        },
        "cpuPlatform": "Imaginary Lake",
        "description": "",
        "disks": [
            {
                "deviceName": "boot",
                "index": 0,
                "interface": "NVME",
                "mode": "READ_WRITE",
                "type": "PERSISTENT-BALANCED",
            }
        ],
        "guestAttributes": {},
        "hostname": "demo-1.c.sample-proj.internal",
        "id": 9007199254740993123,
        "image": "projects/sample-images/global/images/deb-x",
        "licenses": [{"id": "1"}],
        "machineType": f"projects/{_PROJECT_NUMBER}/machineTypes/e2-small",
        "maintenanceEvent": "NONE",
        "name": "demo-1",
        "networkInterfaces": _linux_interfaces(),
        "partnerAttributes": {},
        "physicalHost": "/0123456789abcdef/rack-7/host-3",
        "preempted": "FALSE",
        "remainingCpuTime": -1,
        "scheduling": {
            "automaticRestart": "TRUE",
            "onHostMaintenance": "MIGRATE",
            "preemptible": "FALSE",
        },
        "serviceAccounts": {
            "default": {
                "aliases": ["default"],
                "email": "sa@sample-proj.iam.gserviceaccount.com",
                "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
            }
        },
        "tags": ["web"],
        "virtualClock": {"driftToken": "0"},
        "vlanNetworkInterfaces": {"0": {"5": _linux_vlan()}},
        "zone": _ZONE,
    }
    project = {
        "attributes": {"enable-oslogin": "TRUE", "ssh-keys": "ops:ssh-rsa AAAAB3OpsExample ops"},
        "numericProjectId": _PROJECT_NUMBER,
        "projectId": "sample-proj",
    }
    return _whole(instance, project)


def _linux_interfaces() -> list[Document]:
    primary: Document = {
        "accessConfigs": [{"externalIp": "198.51.100.7", "type": "ONE_TO_ONE_NAT"}],
        "dhcpv6Refresh": "7",
        "dnsServers": ["169.254.169.254"],
        "forwardedIpv6s": ["2001:db8:f::/96"],
        "forwardedIps": ["203.0.113.9"],
        "gateway": "10.20.0.1",
        "ip": "10.20.0.5",
        "ipAliases": ["10.30.1.0/24"],
        "ipv6s": ["2001:db8:1::5"],
        "mac": "42:01:0a:14:00:05",
        "mtu": 1460,
        "network": f"projects/{_PROJECT_NUMBER}/networks/default",
        "subnetmask": "255.255.240.0",
        "targetInstanceIps": [],
    }
    secondary: Document = {
        "accessConfigs": [],
        "forwardedIps": [],
        "gateway": "10.40.0.1",
        "ip": "10.40.0.5",
        "ipAliases": [],
        "mac": "42:01:0a:28:00:05",
        "mtu": 8896,
        "targetInstanceIps": ["203.0.113.50"],
    }
    return [primary, secondary]


def _linux_vlan() -> Document:
    return {
        "gateway": "10.50.0.1",
        "ip": "10.50.0.9",
        "ipv6": ["2001:db8:5::9"],
        "mac": "42:01:0a:32:00:09",
        "mtu": 1460,
        "parentInterface": "/computeMetadata/v1/instance/network-interfaces/0/",
        "vlan": 5,
    }


def _windows() -> Document:
    carol = {
        "userName": "carol",
        "modulus": "c2FtcGxl",
        "exponent": "AQAB",
        "email": "carol@example.com",
        "expireOn": "2099-01-01T00:00:00Z",
        "hashFunction": "sha512",
        "addToAdministrators": False,
        "passwordLength": 20,
    }
    instance = {
        "attributes": {
            "disable-account-manager": "false",
            "enable-windows-ssh": "true",
            "enable-wsfc": "1",
            "windows-keys": json.dumps(carol, separators=(",", ":")) + "\nnot-json",
            "windows-startup-script-ps1": "Write-Output hi",
            "wsfc-addrs": "10.20.0.77,10.20.0.78",
            "wsfc-agent-port": "60000",
        },
        "disks": [
            {
                "deviceName": "win",
                "index": 0,
                "interface": "SCSI",
                "mode": "READ_WRITE",
                "type": "PERSISTENT",
            }
        ],
        "guestAttributes": {},
        "hostname": "win-7.c.sample-proj.internal",
        "id": 555000111,
        "licenses": [{"id": "6107784707477449232"}],
        "machineType": f"projects/{_PROJECT_NUMBER}/machineTypes/n2-standard-2",
        "name": "win-7",
        "networkInterfaces": [
            {
                "accessConfigs": [],
                "forwardedIps": ["10.20.0.77"],
                "gateway": "10.20.0.1",
                "ip": "10.20.0.70",
                "ipAliases": [],
                "mac": "42:01:0a:14:00:46",
                "mtu": 1460,
                "subnetmask": "255.255.240.0",
                "targetInstanceIps": [],
            }
        ],
        "preempted": "FALSE",
        "serviceAccounts": {},
        "tags": [],
        "virtualClock": {"driftToken": "0"},
        "zone": _ZONE,
    }
    project = {
        "attributes": {},
        "numericProjectId": _PROJECT_NUMBER,
        "projectId": "sample-proj",
    }
    return _whole(instance, project)


def _minimal() -> Document:
    return {
        "instance": {"id": 1},
        "project": {"numericProjectId": _PROJECT_NUMBER, "projectId": "sample-proj"},
    }


def _hostile() -> Document:
    """Well-formed JSON in which nearly everything is of a wrong type, size or encoding."""
    document = copy.deepcopy(_linux())
    instance = document["instance"]
    project = document["project"]
    assert isinstance(instance, dict)
    assert isinstance(project, dict)
    instance["attributes"].update(
        {
            "binary-value": b"\xff\xfe\x00caf\xe9 \x80",
            "block-project-ssh-keys": {"nested": ["yes"]},
            "created-by": ["not", "a", "string"],
            "enable-oslogin": "maybe",
            "huge-value": "x" * (5 * 1024 * 1024),
            "empty-value": "",
            "null-value": None,
            "sshKeys": 42,
            "ssh-keys": "\n:\nada\nada:\n" + "k" * 300 + ":ssh-rsa AAAA\nada:ssh-rsa\x00AAAA\r\n"
            'root:command="/bin/false" ssh-rsa AAAAB3\n../../etc:ssh-ed25519 AAAAC3 x',
            "startup-script": True,
            "windows-keys": '[]\n{}\nnull\n{"userName":7,"modulus":null,"exponent":"%%"}',
        }
    )
    broken_nic = {
        "accessConfigs": "none",
        "dhcpv6Refresh": {"token": 7},
        "dnsServers": None,
        "forwardedIps": ["not-an-address", 7, None, "203.0.113.9/33", "203.0.113.9"],
        "forwardedIpv6s": "2001:db8::/96",
        "ip": 17,
        "ipAliases": [["10.0.0.0/8"], "10.30.1.0/99", "0.0.0.0/0"],
        "mac": "zz:zz",
        "mtu": "abc",
        "targetInstanceIps": {"0": "203.0.113.50"},
    }
    nics: list[object] = [broken_nic, None, "a string", [], *instance["networkInterfaces"]]
    deep: object = "bottom"
    for _ in range(60):
        deep = {"level": [deep]}
    instance.update(
        {
            "disks": {"0": "not a list"},
            "futureFeature": deep,
            "hostname": None,
            "licenses": [None, 7, {"id": None}],
            "machineType": 3.5,
            "maintenanceEvent": False,
            "networkInterfaces": nics,
            "preempted": 1,
            "remainingCpuTime": 10**30,
            "serviceAccounts": ["default"],
            "tags": "web",
            "unknown_Key with spaces": "\u0000\u2028\ud83d\ude00",
            "virtualClock": {"drift-token": 5},
            "vlanNetworkInterfaces": {"0": {"5": None, "x": {"vlan": "5000"}}, "9": []},
        }
    )
    project.update({"attributes": None, "numericProjectId": "424242000001", "projectId": 7})
    document["universe"] = []
    document["unexpected"] = {"a": [1, {"b": None}]}
    return document


def _whole(instance: Document, project: Document) -> Document:
    return {
        "instance": instance,
        "oslogin": {"authenticate": {"sessions": {}}},
        "project": project,
        "universe": dict(_UNIVERSE),
    }


PROFILES: dict[str, Callable[[], Document]] = {
    "linux": _linux,
    "windows": _windows,
    "minimal": _minimal,
    "hostile": _hostile,
}
