"""The route to the metadata server: when it is added, where, and how long it is tried."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.windows_machines import NOW, Machine, windows_inputs

from google_guest.features.windows import metadata_route as feature
from google_guest.reconcile import Pass, run_pass
from google_guest.state import encode_state, status_path
from google_guest.system.windows.routes import Route

SERVER = "169.254.169.254"
NOWHERE = "0.0.0.0"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    return Machine(tmp_path)


def default(interface: int, metric: int) -> Route:
    return Route(NOWHERE, 0, "10.0.0.1", interface, metric)


def host(interface: int, metric: int = 5) -> Route:
    return Route(SERVER, 32, NOWHERE, interface, metric)


def run(machine: Machine, *table: Route, leads: tuple[int, ...] = ()) -> Pass:
    machine.memory.routes.table[:] = table
    machine.memory.routes.leads_there = set(leads)
    return run_pass(feature.FEATURE, windows_inputs(machine))


def added(machine: Machine) -> list[Route]:
    return [route for route in machine.memory.routes.table if route.destination == SERVER]


def test_route_goes_to_the_interface_with_the_lowest_metric(machine: Machine) -> None:
    assert run(machine, default(3, 25), default(7, 10), leads=(3, 7)).ok
    assert added(machine) == [host(7, 10)]


def test_of_equal_metrics_the_lowest_index_is_taken(machine: Machine) -> None:
    run(machine, default(7, 10), default(3, 10), leads=(3, 7))
    assert added(machine) == [host(3, 10)]


def test_interface_that_does_not_lead_there_is_left_again(machine: Machine) -> None:
    assert run(machine, default(3, 10), default(7, 25), leads=(7,)).ok
    assert added(machine) == [host(7, 25)]
    assert ("remove", host(3, 10)) in machine.memory.routes.calls


def test_if_no_interface_leads_there_no_route_is_left_and_it_is_tried_again(
    machine: Machine,
) -> None:
    result = run(machine, default(3, 10), default(7, 25))
    assert added(machine) == []
    assert "interface 3 does not lead there; interface 7 does not lead there" in result.errors[0]
    assert result.plan.recheck_at == NOW + 1


def test_existing_route_is_enough(machine: Machine) -> None:
    result = run(machine, default(3, 10), default(7, 25), host(7))
    assert result.plan.changes == ()
    assert result.plan.recheck_at is None


def test_route_on_an_interface_without_a_default_route_does_not_count(machine: Machine) -> None:
    run(machine, default(3, 10), host(9), leads=(3,))
    assert host(3, 10) in added(machine)


def test_interface_with_two_default_routes_is_tried_once_with_the_better_metric(
    machine: Machine,
) -> None:
    run(machine, default(3, 40), default(3, 10), leads=())
    tried = [route for call, route in machine.memory.routes.calls if call == "add"]
    assert tried == [host(3, 10)]


@pytest.mark.parametrize(("age", "pause"), [(5.0, 1.0), (300.0, 10.0)])
def test_without_a_default_route_it_looks_again_for_ever(
    machine: Machine, age: float, pause: float
) -> None:
    status = encode_state({"started": NOW - age})
    machine.files.write_atomic(status_path(machine), status)
    result = run(machine)
    assert result.ok
    assert result.plan.notes == ("there is no default route yet",)
    assert result.plan.recheck_at == NOW + pause


def test_route_is_added_once_a_default_route_appears(machine: Machine) -> None:
    run(machine)
    run(machine, default(3, 10), leads=(3,))
    table = tuple(machine.memory.routes.table)
    assert run(machine, *table, leads=(3,)).plan.changes == ()
    assert [call for call, _ in machine.memory.routes.calls] == ["add"]


def test_named_server_needs_no_route(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:8080")
    assert not run(machine, default(3, 10)).decision.on
