"""Changes of local routes: what they say, what shares a subject, what they call."""

from __future__ import annotations

import errno
import ipaddress
from pathlib import Path
from typing import Optional, cast

import pytest

from google_guest.changes import Change, apply_all
from google_guest.changes.network import AddLocalRoute, DeleteLocalRoute
from google_guest.system import System
from google_guest.system.netlink import LocalRoute, NetlinkError, Network

MAC = "42:01:0a:80:00:02"


def route(text: str) -> LocalRoute:
    return LocalRoute(ipaddress.ip_network(text), 2, 66)


def add(text: str) -> AddLocalRoute:
    return AddLocalRoute(route=route(text), device="eth0", mac=MAC)


def delete(text: str) -> DeleteLocalRoute:
    return DeleteLocalRoute(route=route(text), device="eth0", mac=MAC)


class Calls:
    """A network that records, and refuses one destination."""

    def __init__(self, refused: Optional[LocalRoute] = None) -> None:
        self.refused = refused
        self.made: list[tuple[str, LocalRoute]] = []

    def _call(self, name: str, entry: LocalRoute) -> None:
        if entry == self.refused:
            raise NetlinkError(errno.ENETDOWN, "Network is down")
        self.made.append((name, entry))

    def add_local_route(self, entry: LocalRoute) -> None:
        self._call("add", entry)

    def delete_local_route(self, entry: LocalRoute) -> None:
        self._call("delete", entry)


def live_system(calls: Calls) -> System:
    system = System(root=Path("/"))
    system.network = cast(Network, calls)
    return system


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (add("192.0.2.10"), "add local route 192.0.2.10 on eth0"),
        (add("10.9.0.0/24"), "add local route 10.9.0.0/24 on eth0"),
        (delete("2600:1900:0:1::/96"), "delete local route 2600:1900:0:1::/96 on eth0"),
    ],
)
def test_a_route_change_names_address_and_device(change: Change, text: str) -> None:
    assert change.describe() == text


def test_applying_goes_to_the_systems_network() -> None:
    calls = Calls()
    system = live_system(calls)
    delete("192.0.2.9").apply(system)
    add("192.0.2.10").apply(system)
    assert calls.made == [("delete", route("192.0.2.9")), ("add", route("192.0.2.10"))]


def test_one_refused_route_does_not_stop_the_others_of_its_nic() -> None:
    calls = Calls(refused=route("192.0.2.10"))
    outcome = apply_all(
        [add("192.0.2.10"), add("192.0.2.11"), delete("192.0.2.12")], live_system(calls)
    )
    assert [change.describe() for change, _ in outcome.failed] == [
        "add local route 192.0.2.10 on eth0"
    ]
    assert calls.made == [("add", route("192.0.2.11")), ("delete", route("192.0.2.12"))]


def test_a_tree_that_is_not_booted_gets_no_routes(tmp_path: Path) -> None:
    calls = Calls()
    system = System(root=tmp_path)
    system.network = cast(Network, calls)
    outcome = apply_all([add("192.0.2.10")], system)
    assert (outcome.applied, calls.made) == ([], [])
