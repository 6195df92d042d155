"""What a console does with the agent's service, and what the service manager knows of it."""

from __future__ import annotations

import sys

import pytest

from google_guest.cli import agent
from google_guest.cli.windows import service
from google_guest.system.windows import ServiceState
from google_guest.system.windows.memory import MemoryServices

PYTHON = r"C:\Program Files\Google\Compute Engine\agent\python\python.exe"


@pytest.fixture
def services() -> MemoryServices:
    return MemoryServices()


def do(verb: str, services: MemoryServices) -> int:
    return service.do(verb, services, python=PYTHON)


def test_service_has_the_properties_of_the_reference(services: MemoryServices) -> None:
    assert do("install", services) == 0
    found = services.definitions["GCEAgent"]
    assert found.display_name == found.description == "Google Compute Engine Agent"
    assert found.command == f'"{PYTHON}" -I -B -m google_guest.cli.windows.service'
    assert found.dependencies == ("samss",)
    assert found.delayed
    assert found.starts_with_network
    assert found.restart_delays == (1.0, 2.0)
    assert found.reset_period == 60


def test_installing_twice_changes_nothing(services: MemoryServices) -> None:
    do("install", services)
    first = services.definitions["GCEAgent"]
    assert do("install", services) == 0
    assert services.definitions["GCEAgent"] == first


def test_installing_enables_a_disabled_service(services: MemoryServices) -> None:
    do("install", services)
    services.disabled.add("GCEAgent")
    assert do("start", services) == 1
    do("install", services)
    assert do("start", services) == 0


def test_start_and_stop_wait_for_their_effect(
    services: MemoryServices, capsys: pytest.CaptureFixture[str]
) -> None:
    do("install", services)
    assert do("start", services) == 0
    assert services.states["GCEAgent"] is ServiceState.RUNNING
    assert do("stop", services) == 0
    assert services.states["GCEAgent"] is ServiceState.STOPPED
    assert capsys.readouterr().out.splitlines() == [
        "GCEAgent: installed",
        "GCEAgent: running",
        "GCEAgent: stopped",
    ]


def test_service_that_ends_at_once_is_a_failed_start(
    services: MemoryServices, capsys: pytest.CaptureFixture[str]
) -> None:
    do("install", services)
    services.broken.add("GCEAgent")
    assert do("start", services) == 1
    assert "does not run within 30 s" in capsys.readouterr().err


def test_start_without_a_service_says_so(
    services: MemoryServices, capsys: pytest.CaptureFixture[str]
) -> None:
    assert do("start", services) == 1
    assert "there is no service GCEAgent" in capsys.readouterr().err


def test_removing_twice_is_fine(
    services: MemoryServices, capsys: pytest.CaptureFixture[str]
) -> None:
    do("install", services)
    assert do("remove", services) == 0
    assert do("remove", services) == 0
    assert services.states == {}
    assert capsys.readouterr().out.splitlines()[1:] == [
        "GCEAgent: deleted",
        "GCEAgent: not installed",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there it is the service")
def test_service_needs_windows(capsys: pytest.CaptureFixture[str]) -> None:
    assert service.main([]) == 1
    assert "does not run Windows" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="there the verb exists")
@pytest.mark.parametrize("word", ["install", "noservice", "--accounts=memory"])
def test_words_of_windows_are_unknown_elsewhere(word: str) -> None:
    with pytest.raises(SystemExit) as ended:
        agent.main([word])
    assert ended.value.code == 2


@pytest.mark.skipif(sys.platform != "win32", reason="the verbs of Windows")
def test_unknown_verb_prints_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        agent.main(["nonsense"])
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "win32", reason="the verbs of Windows")
def test_accounts_in_memory_are_refused_on_windows_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("google_guest.cli.agent._is_wine", lambda: False)
    with pytest.raises(SystemExit) as ended:
        agent.main(["noservice", "--accounts=memory"])
    assert ended.value.code == 2
    assert "is for tests under Wine" in capsys.readouterr().err
