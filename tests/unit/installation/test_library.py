"""The library's package: the pointer to the version in use, and what happens around it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.windows_machines import Machine

from google_guest.cli.windows.service import SERVICE
from google_guest.errors import GuestError
from google_guest.installation import layout, library, runtime
from google_guest.system.windows import ServiceState

POINTER = r"C:\Program Files\Google\Compute Engine\agent\python\Lib\site-packages\google-guest.pth"
LIBRARIES = r"C:\Program Files\Google\Compute Engine\agent\lib"
NEW = "20261130.00"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(library, "version", lambda: NEW)
    return Machine(tmp_path)


def place(machine: Machine, version: str) -> None:
    machine.files.write_atomic(rf"{LIBRARIES}\{version}\google_guest\VERSION", version.encode())


def pointer(machine: Machine) -> str:
    data = machine.files.read_bytes(POINTER)
    return "" if data is None else data.decode("ascii")


def line(version: str) -> str:
    return rf"..\..\..\lib\{version}" + "\r\n"


def silent(text: str) -> None:
    """Takes a line."""


def test_pointer_is_where_the_layout_says() -> None:
    assert (layout.POINTER, layout.LIBRARIES) == (POINTER, LIBRARIES)


def test_first_installation_names_the_version(machine: Machine) -> None:
    library.install(machine, silent)
    assert pointer(machine) == line(NEW)


def test_version_before_is_named_behind_the_new_one(machine: Machine) -> None:
    machine.files.write_atomic(POINTER, line("20261124.00").encode())
    library.install(machine, silent)
    assert pointer(machine) == line(NEW) + line("20261124.00")


def test_reinstallation_keeps_the_version_before(machine: Machine) -> None:
    machine.files.write_atomic(POINTER, (line(NEW) + line("20261124.00")).encode())
    library.install(machine, silent)
    assert pointer(machine) == line(NEW) + line("20261124.00")


def test_folders_of_older_versions_go_and_the_last_two_stay(machine: Machine) -> None:
    for version in ("20261001.00", "20261124.00", NEW):
        place(machine, version)
    machine.files.write_atomic(POINTER, line("20261124.00").encode())
    library.install(machine, silent)
    assert machine.files.list_directory(LIBRARIES) == ("20261124.00", NEW)


def test_what_is_no_library_stays(machine: Machine) -> None:
    machine.files.write_atomic(rf"{LIBRARIES}\LICENSE.google-guest-library.txt", b"x")
    machine.files.write_atomic(rf"{LIBRARIES}\theirs\file", b"x")
    library.install(machine, silent)
    assert machine.files.list_directory(LIBRARIES) == (
        "LICENSE.google-guest-library.txt",
        "theirs",
    )


def test_running_service_is_restarted_behind_the_new_pointer(machine: Machine) -> None:
    machine.memory.services.add(SERVICE)
    seen: list[str] = []
    start = machine.memory.services.start

    def noted(name: str, *arguments: str) -> None:
        seen.append(pointer(machine))
        start(name, *arguments)

    machine.memory.services.start = noted  # type: ignore[method-assign]
    library.install(machine, silent)
    assert seen == [line(NEW)]
    assert machine.memory.services.state(SERVICE) is ServiceState.RUNNING


def test_stopped_service_stays_stopped(machine: Machine) -> None:
    machine.memory.services.add(SERVICE, ServiceState.STOPPED)
    library.install(machine, silent)
    assert machine.memory.services.state(SERVICE) is ServiceState.STOPPED


def test_former_pointer_comes_back_when_the_service_does_not(machine: Machine) -> None:
    machine.files.write_atomic(POINTER, line("20261124.00").encode())
    place(machine, "20261001.00")
    machine.memory.services.add(SERVICE)
    machine.memory.services.broken.add(SERVICE)
    with pytest.raises(GuestError, match="does not run"):
        library.install(machine, silent)
    assert pointer(machine) == line("20261124.00")
    assert machine.files.list_directory(LIBRARIES) == ("20261001.00",)


def test_first_pointer_goes_again_when_the_service_does_not_come_up(machine: Machine) -> None:
    machine.memory.services.add(SERVICE)
    machine.memory.services.broken.add(SERVICE)
    with pytest.raises(GuestError):
        library.install(machine, silent)
    assert not machine.files.exists(POINTER)


def test_service_gets_a_second_chance_on_the_former_version(machine: Machine) -> None:
    machine.files.write_atomic(POINTER, line("20261124.00").encode())
    services = machine.memory.services
    services.add(SERVICE)
    start = services.start

    def works_on_the_former_alone(name: str, *arguments: str) -> None:
        services.broken = {SERVICE} if NEW in pointer(machine) else set()
        start(name, *arguments)

    services.start = works_on_the_former_alone  # type: ignore[method-assign]
    with pytest.raises(GuestError):
        library.install(machine, silent)
    assert services.state(SERVICE) is ServiceState.RUNNING


def test_removal_takes_the_pointer_away(machine: Machine) -> None:
    library.install(machine, silent)
    library.remove(machine, silent)
    assert not machine.files.exists(POINTER)


def test_runtime_restarts_what_runs(machine: Machine) -> None:
    machine.memory.services.add(SERVICE)
    runtime.install(machine, silent)
    assert ("stop", SERVICE) in machine.memory.services.calls
    assert machine.memory.services.state(SERVICE) is ServiceState.RUNNING


def test_runtime_starts_nothing_that_does_not_run(machine: Machine) -> None:
    machine.memory.services.add(SERVICE, ServiceState.STOPPED)
    runtime.install(machine, silent)
    assert machine.memory.services.calls == []
