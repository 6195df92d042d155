"""The agent's package: its service, what it takes away, what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.windows_machines import CONFIG, Machine

from google_guest.cli.windows.service import SERVICE, definition
from google_guest.config import load_config
from google_guest.errors import GuestError
from google_guest.installation import agent, layout
from google_guest.system.windows import ServiceState, WindowsError
from google_guest.system.windows.registry import Value

STATE = r"C:\ProgramData\Google\Compute Engine\google-guest-agent"
MANAGERS = ("GCEAgentManager", "GCEWindowsCompatManager")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class Told(list[str]):
    """The lines that were told."""

    def __call__(self, line: str) -> None:
        self.append(line)


def test_service_is_registered_and_runs(machine: Machine) -> None:
    agent.install(machine, Told())
    services = machine.memory.services
    assert services.definitions[SERVICE] == definition(layout.PYTHON)
    assert services.state(SERVICE) is ServiceState.RUNNING


def test_service_runs_python_itself(machine: Machine) -> None:
    agent.install(machine, Told())
    command = machine.memory.services.definitions[SERVICE].command
    assert command.startswith(
        r'"C:\Program Files\Google\Compute Engine\agent\python\python.exe" -I '
    )


def test_second_installation_gives_the_same_service_and_keeps_the_configuration(
    machine: Machine,
) -> None:
    agent.install(machine, Told())
    first = machine.memory.services.definitions[SERVICE]
    (machine.root / CONFIG).write_text("[wsfc]\nenable=true\n")
    agent.install(machine, Told())
    assert machine.memory.services.definitions[SERVICE] == first
    assert (machine.root / CONFIG).read_text() == "[wsfc]\nenable=true\n"


def test_disabled_service_runs_after_installation(machine: Machine) -> None:
    machine.memory.services.add(SERVICE, ServiceState.STOPPED)
    machine.memory.services.disabled.add(SERVICE)
    agent.install(machine, Told())
    assert machine.memory.services.state(SERVICE) is ServiceState.RUNNING


def test_running_service_is_restarted(machine: Machine) -> None:
    machine.memory.services.add(SERVICE)
    agent.install(machine, Told())
    calls = machine.memory.services.calls
    assert calls.index(("stop", SERVICE)) < calls.index(("start", SERVICE))


def test_service_that_does_not_come_up_fails_the_installation(machine: Machine) -> None:
    machine.memory.services.broken.add(SERVICE)
    with pytest.raises(GuestError, match="GCEAgent does not run within 30 seconds"):
        agent.install(machine, Told())


def test_service_that_has_nothing_to_do_and_ends_well_is_installed(machine: Machine) -> None:
    machine.memory.services.short.add(SERVICE)
    agent.install(machine, Told())
    assert machine.memory.services.state(SERVICE) is ServiceState.STOPPED


def test_service_that_cannot_be_started_is_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, *arguments: str) -> None:
        raise WindowsError("StartService", 1053, "no answer in time")

    monkeypatch.setattr(machine.memory.services, "start", refuse)
    with pytest.raises(GuestError, match="GCEAgent does not start: StartService failed with 1053"):
        agent.install(machine, Told())


@pytest.mark.parametrize("name", MANAGERS)
def test_services_of_the_plugin_manager_are_deleted(machine: Machine, name: str) -> None:
    machine.memory.services.add(name)
    agent.install(machine, Told())
    assert machine.memory.services.state(name) is None


def test_flag_of_the_core_plugin_is_removed(machine: Machine) -> None:
    machine.files.write_atomic(rf"{STATE}\core-plugin-enabled", b"true")
    agent.install(machine, Told())
    assert not machine.files.exists(rf"{STATE}\core-plugin-enabled")


def test_missing_configuration_becomes_comments_alone(machine: Machine) -> None:
    before = load_config(machine.files, environ={})
    agent.install(machine, Told())
    text = (machine.root / CONFIG).read_bytes().decode("ascii")
    assert ";[accountManager]\r\n;disable=false\r\n" in text
    assert ";[addressManager]\r\n;disable=false\r\n" in text
    assert all(line[:1] in ("", "#", ";") for line in text.split("\r\n"))
    assert load_config(machine.files, environ={}) == before


def test_event_source_is_registered(machine: Machine) -> None:
    agent.install(machine, Told())
    key = r"SYSTEM\CurrentControlSet\Services\EventLog\Application\GCEGuestAgent"
    assert machine.memory.registry.get(key, "CustomSource") == Value(1, 4)


def test_removal_deletes_the_service_and_its_state(machine: Machine) -> None:
    agent.install(machine, Told())
    machine.files.write_atomic(rf"{STATE}\status.json", b"{}")
    agent.remove(machine, Told())
    assert machine.memory.services.state(SERVICE) is None
    assert not machine.files.exists(STATE)


def test_removal_leaves_configuration_and_registry(machine: Machine) -> None:
    agent.install(machine, Told())
    machine.memory.registry.set_strings(r"SOFTWARE\Google\ComputeEngine", "PublicKeys", ["x"])
    agent.remove(machine, Told())
    assert (machine.root / CONFIG).exists()
    assert machine.memory.registry.strings(r"SOFTWARE\Google\ComputeEngine", "PublicKeys") == ("x",)


def test_removal_goes_on_after_a_failure(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.install(machine, Told())
    machine.files.write_atomic(rf"{STATE}\status.json", b"{}")

    def refuse(name: str) -> bool:
        raise WindowsError("DeleteService", 5, "Access is denied.")

    monkeypatch.setattr(machine.memory.services, "delete", refuse)
    told = Told()
    agent.remove(machine, told)
    assert [line for line in told if line.startswith("warning: cannot delete the service GCEAgent")]
    assert not machine.files.exists(STATE)


def test_removal_waits_for_the_process_to_end(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.install(machine, Told())
    process = machine.memory.services.process_of(SERVICE)
    looks = iter((True, True, False))
    asked: list[int] = []

    def is_alive(number: int) -> bool:
        asked.append(number)
        return next(looks)

    monkeypatch.setattr(machine.memory, "is_alive", is_alive)
    agent.remove(machine, Told())
    assert asked == [process] * 3


def test_removal_without_installation_says_nothing(machine: Machine) -> None:
    told = Told()
    agent.remove(machine, told)
    assert told == []
