"""Scenarios, as the guest sees them."""

from __future__ import annotations

import json
import time

import pytest

from metadata_server import Emulator

from .conftest import Ask


def test_live_migration_interrupts_service_and_moves_the_clock(mds: Emulator, ask: Ask) -> None:
    mds.preset("live-migration", seconds=0.2)
    assert mds.get("instance/maintenance-event") == "MIGRATE_ON_HOST_MAINTENANCE"
    assert ask("instance/id").status == 503
    deadline = time.monotonic() + 10
    while mds.get("instance/virtual-clock/drift-token") != "1":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert mds.get("instance/maintenance-event") == "NONE"
    while ask("instance/id").status == 503:
        assert time.monotonic() < deadline


def test_preempted_instance_says_so(mds: Emulator, ask: Ask) -> None:
    mds.preset("preemption")
    assert ask("instance/preempted").text == "TRUE"


def test_added_interface_is_the_next_one(mds: Emulator, ask: Ask) -> None:
    mds.preset("nic-added", mac="42:01:0a:99:00:05", ip="10.99.0.5")
    assert ask("instance/network-interfaces/").text == "0/\n1/\n2/\n"
    assert ask("instance/network-interfaces/2/mac").text == "42:01:0a:99:00:05"
    mds.preset("nic-removed")
    assert ask("instance/network-interfaces/").text == "0/\n1/\n"


def test_interface_can_be_added_where_there_was_none() -> None:
    with Emulator("minimal") as mds:
        mds.preset("nic-added")
        assert mds.get("instance/network-interfaces/0/mtu") == 1460


def test_rotated_keys_differ_but_keep_their_users(mds: Emulator) -> None:
    before = mds.get("instance/attributes/ssh-keys")
    mds.preset("key-rotation")
    after = mds.get("instance/attributes/ssh-keys")
    assert isinstance(before, str) and isinstance(after, str)
    pairs = list(zip(before.split("\n"), after.split("\n")))
    assert [new.split(":")[0] for _, new in pairs] == ["ada", "bob"]
    assert all(old != new and new.split()[1] for old, new in pairs)
    assert after.split("\n")[0].endswith('"expireOn":"2099-01-01T00:00:00+0000"}')


def test_rotated_windows_keys_differ_and_other_lines_stay() -> None:
    with Emulator("windows") as mds:
        mds.preset("key-rotation")
        keys = mds.get("instance/attributes/windows-keys")
        assert isinstance(keys, str)
        first, second = keys.split("\n")
        assert json.loads(first)["userName"] == "carol"
        assert json.loads(first)["modulus"] != "c2FtcGxl"
        assert second == "not-json"


@pytest.mark.parametrize(("name", "options"), [("nonsense", {}), ("preemption", {"seconds": 1})])
def test_unknown_scenario_or_option_is_refused(
    mds: Emulator, name: str, options: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match="preset"):
        mds.preset(name, **options)
