"""Every feature of the catalog plans whatever metadata, memory and files there are.

What a feature makes of good input is in the file of its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trees import Commands, place
from unit.features.test_forwarded_addresses import ETH0, KernelTable

from google_guest.catalog import platform_features
from google_guest.config import load_config
from google_guest.features import Feature, Inputs, guest_attributes, telemetry
from google_guest.features.linux import clock, first_boot, forwarded_addresses
from google_guest.features.linux.accounts import sshd
from google_guest.managed_users import DOCUMENT, USER_LIST
from google_guest.metadata.tree import parse_metadata
from google_guest.places import LINUX
from google_guest.reconcile import plan_feature
from google_guest.state import STATUS_NAME
from google_guest.system import System
from google_guest.system.commands import Completed
from google_guest.system.netlink import Network

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0"
MEMORIES = {
    DOCUMENT: ["users", "instance"],
    LINUX.in_run(guest_attributes.MEMORY): [
        "switch",
        "published",
        "refused",
        "instance",
        "pid",
        "started",
    ],
    LINUX.in_run(STATUS_NAME): ["features", "started", "boot_id", "done_this_boot"],
    LINUX.in_run(telemetry.MEMORY): ["sent", "process"],
    clock.MEMORY: ["drift_token"],
    first_boot.PROGRESS: ["host_keys", "instance"],
    forwarded_addresses.STATE_PATH: ["devices", "instance"],
    sshd.MEMORY: ["boot_id", "looked"],
}
FILES = {
    USER_LIST: 0o600,
    "/etc/passwd": 0o644,
    "/etc/group": 0o644,
    "/etc/adjtime": 0o644,
    "/etc/boto.cfg": 0o600,
    "/etc/boto.cfg.template": 0o644,
    "/etc/google_instance_id": 0o644,
    "/etc/hosts": 0o644,
    "/etc/iproute2/rt_protos": 0o644,
    "/etc/os-release": 0o644,
    "/etc/ssh/ssh_host_rsa_key": 0o600,
    "/etc/ssh/ssh_host_rsa_key.pub": 0o644,
    "/proc/sys/kernel/hostname": 0o644,
    "/proc/sys/vm/overcommit_memory": 0o644,
    "/sys/block/sda/queue/scheduler": 0o644,
    "/sys/block/sda/mq/0": 0o644,
    "/run/chrony/chronyd.pid": 0o644,
    "/dev/rtc0": 0o644,
    "/usr/bin/ssh-keygen": 0o755,
    "/usr/bin/hwclock": 0o755,
    "/usr/bin/google_set_multiqueue": 0o755,
    "/usr/bin/google_optimize_local_ssd": 0o755,
}
CONFIG = """
[Daemons]
clock_skew_daemon = true
[Unstable]
set_hostname = true
set_fqdn = true
"""

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["accounts", "ada", "on", "first_success", "last_success", "uid", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
TEXTS = st.sampled_from(["", "true", "7", "ada", f"ada:{KEY}", f"-x:{KEY}", "192.0.2.1", "::/0"])
VALUES = TEXTS | ANYTHING
ATTRIBUTES = st.dictionaries(
    st.sampled_from(
        [
            *("ssh-keys", "sshKeys", "block-project-ssh-keys", "enable-oslogin"),
            *("disable-address-manager", "disable-guest-telemetry", "enable-guest-attributes"),
        ]
    ),
    VALUES,
    max_size=4,
)
ROWS = st.dictionaries(
    st.sampled_from(["accounts", "oslogin"]),
    st.fixed_dictionaries(
        {"on": st.just(True) | VALUES},
        optional={"first_success": st.floats() | VALUES, "last_success": st.floats() | VALUES},
    ),
)
"""What the status says of features."""
NICS = st.lists(
    st.fixed_dictionaries(
        {"mac": st.just(ETH0.mac.hex(":")) | VALUES},
        optional={
            name: st.lists(VALUES, max_size=3) | VALUES
            for name in ("forwardedIps", "forwardedIpv6s", "targetInstanceIps", "ipAliases")
        },
    )
    | ANYTHING,
    max_size=3,
)
TREES = st.fixed_dictionaries(
    {
        "instance": st.fixed_dictionaries(
            {},
            optional={
                "id": st.just(7) | VALUES,
                "hostname": st.just("vm.c.p.internal") | VALUES,
                "attributes": ATTRIBUTES | ANYTHING,
                "networkInterfaces": NICS | ANYTHING,
                "virtualClock": st.fixed_dictionaries({"driftToken": VALUES}) | ANYTHING,
                "machineType": st.just("projects/1/machineTypes/e2-small") | VALUES,
            },
        )
    },
    optional={
        "project": st.fixed_dictionaries(
            {}, optional={"attributes": ATTRIBUTES | ANYTHING, "projectId": VALUES}
        )
    },
)


def memories() -> st.SearchStrategy[dict[str, Any]]:
    """Documents of any content for the features' memories."""
    return st.fixed_dictionaries(
        {},
        optional={
            path: st.dictionaries(st.sampled_from(keys), VALUES | ROWS, max_size=4) | ANYTHING
            for path, keys in MEMORIES.items()
        },
    )


class Live(System):
    """A tree that is treated as the running machine."""

    is_live = True


def nobody(argv: Sequence[str]) -> Completed:
    """A name service that has no answer, and programs with nothing to say."""
    return Completed(tuple(argv), 2 if argv[0] == "getent" else 0, "", "")


def inputs(root: Path, tree: object, memory: Mapping[str, object], file: bytes) -> Inputs:
    system = Live(root=root, runner=Commands(nobody))
    system.network = cast(Network, KernelTable())
    for path, document in memory.items():
        place(root, path, json.dumps(document))
    for path, mode in FILES.items():
        place(root, path, "", mode=mode).write_bytes(file)
    place(root, "/etc/default/instance_configs.cfg", CONFIG)
    config = load_config(system.files, environ={})
    return Inputs(parse_metadata(tree), config, system, 1_700_000_000.0)


def planned(feature: Feature, given: Inputs) -> list[str]:
    """The decision and every change in words; whatever people are shown must be printable."""
    assert given.metadata is not None
    hash(feature.inputs_of(given.metadata))
    decision, plan = plan_feature(feature, given)
    shown = [decision.reason, *plan.notes]
    for change in plan.changes:
        shown += [change.describe(), change.subject, *change.diff(), json.dumps(change.as_dict())]
    return shown


@pytest.mark.parametrize("feature", platform_features(), ids=lambda feature: feature.name)
@settings(max_examples=60)
@given(tree=TREES, memory=memories(), file=st.binary(max_size=40))
def test_any_input_is_planned(
    tmp_path_factory: pytest.TempPathFactory,
    feature: Feature,
    tree: object,
    memory: Mapping[str, object],
    file: bytes,
) -> None:
    given_inputs = inputs(tmp_path_factory.mktemp("root"), tree, memory, file)
    before = files_of(given_inputs.system.root)
    for text in planned(feature, given_inputs):
        text.encode()
    assert files_of(given_inputs.system.root) == before


def files_of(root: Path) -> set[str]:
    return {os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names}
