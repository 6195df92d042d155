"""The agent with the features of Windows, on a machine in memory and a real metadata server."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest
from support.windows_machines import Machine

pytest.importorskip("cryptography", reason="the library that encrypts is not installed")

from support.windows_keys import password, request

from google_guest.agent import Agent, AgentOptions
from google_guest.changes.windows_accounts import PUBLIC_KEYS
from google_guest.config import load_config
from google_guest.features.windows import FEATURES, metadata_route
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.watcher import Watcher
from google_guest.status import StatusFile
from google_guest.system.service import ServiceManager
from google_guest.system.windows import COMPUTE_ENGINE_KEY
from google_guest.system.windows.routes import Route
from google_guest.system.windows.service_process import ServiceControls, serve
from metadata_server.emulator import Emulator

DOCUMENT = {"instance": {"id": 7, "attributes": {}}, "project": {"projectId": "p"}}


class Running:
    """An agent as a service in threads of this process."""

    def __init__(self, machine: Machine, mds: Emulator) -> None:
        machine.prepare()
        self.machine = machine
        self.controls = ServiceControls()
        self.states: list[int] = []
        client = MetadataClient(mds.host)
        machine.channel = client
        self.agent = Agent(
            machine,
            load_config=lambda: load_config(machine.files, environ={}),
            watcher=Watcher(client),
            features=FEATURES,
            manager=ServiceManager({}),
            status=StatusFile(),
            options=AgentOptions(stop_bound=8),
        )
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        serve(self.controls, self._work, lambda state, *_: self.states.append(state))

    def _work(self) -> int:
        self.controls.connect(stop=self.agent.stop, reload=self.agent.reload)
        return self.agent.run(handle_signals=False)

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive() and self.states == [4]

    def stop(self) -> float:
        """Stop the service and return how long that took."""
        started = time.monotonic()
        self.controls.take(1)
        self._thread.join(12)
        assert not self._thread.is_alive()
        return time.monotonic() - started

    def answers(self) -> list[dict[str, Any]]:
        return [answer for answer in self.machine.answers() if "ready" not in answer]


def eventually(condition: Callable[[], bool], timeout: float = 8) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    machine = Machine(tmp_path)
    machine.memory.routes.table = [Route("0.0.0.0", 0, "10.0.0.1", 3, 10)]
    machine.memory.routes.leads_there = {3}
    return machine


def ask(mds: Emulator, *lines: str) -> None:
    mds.set("instance/attributes/windows-keys", "\n".join(lines))


def recorded(machine: Machine) -> int:
    return len(machine.memory.registry.strings(COMPUTE_ENGINE_KEY, PUBLIC_KEYS))


def test_start_says_ready_adds_the_route_and_answers_a_request(machine: Machine) -> None:
    with Emulator(document=DOCUMENT) as mds, Running(machine, mds) as running:
        eventually(lambda: {"ready", "version"} <= {k for a in machine.answers() for k in a})
        eventually(lambda: len(machine.memory.routes.table) == 2)
        ask(mds, request())
        eventually(lambda: recorded(machine) == 1)
        assert machine.memory.accounts.passwords["ana"] == password(running.answers()[0])


def test_restarted_agent_does_not_answer_again(machine: Machine) -> None:
    with Emulator(document=DOCUMENT) as mds:
        ask(mds, request())
        with Running(machine, mds):
            eventually(lambda: recorded(machine) == 1)
        with Running(machine, mds) as second:
            eventually(lambda: mds.waiting_clients > 0)
            ask(mds, request(), request("eva"))
            eventually(lambda: recorded(machine) == 2)
            assert [answer["userName"] for answer in second.answers()] == ["ana", "eva"]


def test_broken_registry_string_is_told_once_over_three_events(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    machine.memory.registry.set_strings(COMPUTE_ENGINE_KEY, PUBLIC_KEYS, ["{nonsense"])
    # Rewriting the list would mend it.
    machine.memory.serial_failures = 10**6
    with Emulator(document=DOCUMENT) as mds, Running(machine, mds):
        for number in range(3):
            ask(mds, request(), *["abcde"] * number)
            passes = machine.memory.accounts.calls.count(("exists", "ana"))
            eventually(
                lambda before=passes: (
                    machine.memory.accounts.calls.count(("exists", "ana")) > before
                )
            )
            time.sleep(0.1)
    text = "entry 1 of PublicKeys in the registry is ignored"
    assert sum(text in record.getMessage() for record in caplog.records) == 1


def test_without_any_route_the_service_runs_and_finds_the_one_that_appears(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_route, "_SOON", 0.02)
    machine.memory.routes.table = []
    with Emulator(document=DOCUMENT) as mds, Running(machine, mds) as running:
        time.sleep(0.3)
        assert running.is_running
        machine.memory.routes.table = [Route("0.0.0.0", 0, "10.0.0.1", 3, 10)]
        eventually(lambda: len(machine.memory.routes.table) == 2)
        assert machine.memory.routes.table[1].destination == "169.254.169.254"


def test_web_page_instead_of_metadata_is_told_once_and_survived(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Emulator(document=DOCUMENT) as mds:
        ask(mds, request())
        fault = mds.fault("", "html")
        with Running(machine, mds):
            eventually(lambda: mds.request_count >= 3, 20)
            assert recorded(machine) == 0
            told = [r for r in caplog.records if r.name.startswith("google_guest.metadata")]
            assert len(told) == 1
            mds.remove_fault(fault)
            eventually(lambda: recorded(machine) == 1, 30)


def test_stop_in_the_middle_of_a_long_poll_takes_a_moment(machine: Machine) -> None:
    with Emulator(document=DOCUMENT) as mds, Running(machine, mds) as running:
        eventually(lambda: mds.waiting_clients > 0)
        assert running.stop() < 5
        assert running.states[-1] == 1


def test_proxies_of_the_environment_are_not_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Emulator(document=DOCUMENT) as mds, Running(machine, mds):
        ask(mds, request())
        eventually(lambda: recorded(machine) == 1)


def test_reload_takes_a_changed_configuration(machine: Machine) -> None:
    path = machine.root / "C/Program Files/Google/Compute Engine/instance_configs.cfg"
    path.parent.mkdir(parents=True)
    path.write_text("[accountManager]\ndisable = true\n")
    with Emulator(document=DOCUMENT) as mds, Running(machine, mds) as running:
        ask(mds, request())
        eventually(lambda: state_of(machine, "account-reset") is False)
        assert running.answers() == []
        path.write_text("[accountManager]\ndisable = false\n")
        running.controls.take(6)
        eventually(lambda: recorded(machine) == 1)


def state_of(machine: Machine, feature: str) -> Optional[bool]:
    try:
        data = machine.files.read_bytes(machine.places.in_run("status.json"))
    except PermissionError:
        # Windows refuses a file to readers for the moment in which it is replaced.
        return None
    rows = json.loads(data or b"{}").get("features", {})
    state: Optional[bool] = rows.get(feature, {}).get("on")
    return state
