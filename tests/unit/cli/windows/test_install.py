"""The program behind the packages' install scripts: arguments, messages, exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.windows_machines import Machine

from google_guest.cli.windows import ggactl, install
from google_guest.cli.windows.service import SERVICE
from google_guest.installation import PACKAGES
from google_guest.system.windows import FORWARDED_IPS, ServiceState

MAC = "42:01:0a:80:00:02"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_installs_and_is_removed(machine: Machine, package: str) -> None:
    assert install.main([package], machine) == 0
    assert install.main([package, "remove"], machine) == 0


@pytest.mark.parametrize(
    "arguments",
    [[], ["remove"], ["vss"], [PACKAGES[0], "purge"], [PACKAGES[0], "remove", "x"], ["", ""]],
)
def test_wrong_arguments_end_with_the_usage(
    machine: Machine, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert install.main(arguments, machine) == 2
    assert capsys.readouterr().err.startswith("usage: install PACKAGE [remove [--purge]]")


def test_failure_is_one_line(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.memory.services.broken.add(SERVICE)
    assert install.main(["google-compute-engine-windows"], machine) == 1
    assert capsys.readouterr().err == (
        "google-compute-engine-windows: the service GCEAgent does not run within 30 seconds of "
        "its start\n"
    )


def test_refusal_of_the_registry_is_one_line(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.memory.registry.refusal = PermissionError(13, "Access is denied")
    assert install.main(["google-compute-engine-metadata-scripts"], machine) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_removal_ends_well_whatever_fails(machine: Machine) -> None:
    machine.memory.registry.refusal = PermissionError(13, "Access is denied")
    assert install.main(["google-compute-engine-metadata-scripts", "remove"], machine) == 0


def test_purge_takes_the_agents_addresses_alone(machine: Machine) -> None:
    machine.memory.addresses.put(7, MAC, "10.0.0.2", "203.0.113.9")
    machine.memory.registry.set_strings(FORWARDED_IPS, MAC, ["203.0.113.9", "203.0.113.10"])
    assert install.main(["google-compute-engine-windows", "remove", "--purge"], machine) == 0
    assert machine.memory.addresses.table[7].addresses == {"10.0.0.2"}
    assert machine.memory.registry.names(FORWARDED_IPS) == ()


@pytest.mark.parametrize(
    "arguments",
    [
        ["google-compute-engine-windows", "remove"],
        ["google-compute-engine-metadata-scripts", "remove", "--purge"],
    ],
)
def test_addresses_stay_without_a_purge_of_the_agent(
    machine: Machine, arguments: list[str]
) -> None:
    machine.memory.addresses.put(7, MAC, "203.0.113.9")
    machine.memory.registry.set_strings(FORWARDED_IPS, MAC, ["203.0.113.9"])
    assert install.main(arguments, machine) == 0
    assert machine.memory.addresses.table[7].addresses == {"203.0.113.9"}
    assert machine.memory.registry.strings(FORWARDED_IPS, MAC) == ("203.0.113.9",)


def test_core_plugin_is_the_agents_service(machine: Machine) -> None:
    machine.memory.services.add(SERVICE)
    assert ggactl.main(["coreplugin", "stop"], machine) == 0
    assert machine.memory.services.state(SERVICE) is ServiceState.STOPPED
    assert ggactl.main(["coreplugin", "restart"], machine) == 0
    assert machine.memory.services.state(SERVICE) is ServiceState.RUNNING


@pytest.mark.parametrize(
    "arguments", [["dynamic-cleanup"], ["routes", "setup"], ["guestagent", "vmevent", "startup"]]
)
def test_verbs_about_plugins_do_nothing_and_say_so(
    machine: Machine, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ggactl.main(arguments, machine) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert machine.memory.services.calls == []


@pytest.mark.parametrize("arguments", [[], ["coreplugin"], ["coreplugin", "start"], ["x"]])
def test_unknown_verbs_are_refused(machine: Machine, arguments: list[str]) -> None:
    assert ggactl.main(arguments, machine) == 2


def test_service_that_is_missing_is_named(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ggactl.main(["coreplugin", "restart"], machine) == 1
    assert "GCEAgent" in capsys.readouterr().err
