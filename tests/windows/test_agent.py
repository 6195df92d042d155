"""The agent as a service of Windows: its life under the service manager, a password reset.

Users are kept in memory (`--accounts=memory`), because Wine has none to set passwords of.
"""

from __future__ import annotations

import json
import time
from typing import Any, Optional

import pytest
from support.wine import SOURCES, Wine

pytest.importorskip("cryptography", reason="the library that encrypts is not installed")

from support.windows_keys import password, request

SERVICE = "GCEAgent"
KEY = r"HKLM\SOFTWARE\Google\ComputeEngine"
RUN = r"C:\ProgramData\Google\Compute Engine\google-guest-agent\run"
HOST = r"C:\agent_host.py"

_HOST_PROGRAM = f"""
import sys
sys.path.insert(0, {SOURCES!r})
from google_guest.cli.windows.service import main
sys.exit(main())
"""
_INSTALL = """
import sys
from google_guest.cli.windows.service import definition
from google_guest.records import replace
from google_guest.system import System
command = rf'"{sys.executable}" %s --accounts=memory'
System().windows.services.install(replace(definition(sys.executable), command=command))
"""


@pytest.fixture
def agent(wine: Wine) -> Wine:
    """A Windows with the agent's service, which does not run yet."""
    # Nothing is installed here: the service's interpreter must be told where the library is.
    wine.write(HOST, _HOST_PROGRAM)
    wine.py(_INSTALL % HOST)
    wine.registry.set(
        r"HKLM\SYSTEM\HardwareConfig\Current", "SystemProductName", "Google Compute Engine"
    )
    wine.mds.set("instance/attributes/windows-keys", "")
    return wine


def answers(wine: Wine) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in wine.com("COM4").splitlines()]
    return [line for line in lines if "ready" not in line]


def status(wine: Wine) -> Optional[dict[str, Any]]:
    path = wine.path(rf"{RUN}\status.json")
    document: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return document


def ask(wine: Wine, *lines: str) -> None:
    wine.mds.set("instance/attributes/windows-keys", "\n".join(lines))


def test_service_runs_answers_a_request_once_and_stops_at_once(agent: Wine) -> None:
    service = agent.service(SERVICE)
    service.start()
    assert service.state() == "RUNNING"
    agent.wait_until(
        lambda: '"ready":true' in agent.com("COM4"), what="the agent says that it is ready"
    )
    ask(agent, request())
    agent.wait_until(lambda: len(answers(agent)) == 1, what="the request is answered")
    assert len(password(answers(agent)[0])) == 15
    agent.wait_until(lambda: bool(agent.registry.value(KEY, "PublicKeys")), what="it is noted")
    assert [json.loads(text)["UserName"] for text in agent.registry.value(KEY, "PublicKeys")] == [
        "ana"
    ]
    started = time.monotonic()
    service.stop()
    assert time.monotonic() - started < 10
    assert service.exit_codes() == (0, 0)


def test_restarted_service_does_not_answer_again(agent: Wine) -> None:
    service = agent.service(SERVICE)
    ask(agent, request())
    service.start()
    agent.wait_until(lambda: bool(agent.registry.value(KEY, "PublicKeys")), what="it is noted")
    service.stop()
    service.start()
    ask(agent, request(), request("eva"))
    agent.wait_until(lambda: len(answers(agent)) == 2, what="the new request is answered")
    assert [answer["userName"] for answer in answers(agent)] == ["ana", "eva"]


def test_service_runs_without_a_metadata_server_and_stops(agent: Wine) -> None:
    agent.mds.fault("", "hang")
    service = agent.service(SERVICE)
    service.start()
    assert service.state() == "RUNNING"
    service.stop()
    assert service.exit_codes() == (0, 0)


def test_second_agent_is_refused_while_the_service_runs(agent: Wine) -> None:
    agent.service(SERVICE).start()
    agent.wait_until(lambda: bool((status(agent) or {}).get("ready")), what="the agent is ready")
    second = agent.py(
        "import sys; from google_guest.cli.agent import main; sys.exit(main(['noservice']))",
        check=False,
    )
    assert second.status == 3
    assert "another agent is running" in second.stderr


def test_service_host_on_a_console_says_so_and_runs_in_the_foreground(agent: Wine) -> None:
    done = agent.py(
        "import sys; from google_guest.cli.windows.service import main;"
        " sys.exit(main(['--once', '--accounts=memory']))",
        check=False,
    )
    assert (
        "the service manager did not start this process; running in the foreground" in done.stderr
    )
    assert "ready" in agent.com("COM4")


def test_status_and_plan_look_at_the_running_machine(agent: Wine) -> None:
    agent.service(SERVICE).start()
    agent.wait_until(lambda: bool((status(agent) or {}).get("ready")), what="the agent is ready")
    ask(agent, request(hashFunction="md5"))
    agent.wait_until(lambda: len(answers(agent)) == 1, what="the request is answered")
    code = "import sys; from google_guest.cli.guest import main; sys.exit(main(sys.argv[1:]))"
    shown = json.loads(agent.py(code, "status", "--json").stdout)
    assert shown["state"] == "running"
    assert shown["features"]["account-reset"]["on"] is True
    plan = json.loads(agent.py(code, "plan", "--json").stdout)
    rows = {row["name"]: row for row in plan["features"]}
    assert rows["account-reset"]["changes"] == []


def test_what_an_earlier_boot_remembered_is_gone_after_the_next_one(agent: Wine) -> None:
    service = agent.service(SERVICE)
    service.start()
    agent.wait_until(lambda: bool((status(agent) or {}).get("ready")), what="the agent is ready")
    service.stop()
    first = (status(agent) or {})["boot_id"]
    agent.write(rf"{RUN}\left-over.json", "{}")
    agent.restart_session()
    service.start()
    agent.wait_until(
        lambda: (status(agent) or {}).get("boot_id") != first, what="another boot is seen"
    )
    assert not agent.path(rf"{RUN}\left-over.json").exists()
