"""Steering the OS Login directory of a running emulator: one user, one group, hostile answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metadata_server import Emulator
from metadata_server.control import ControlClient

from .conftest import Ask, ask_host

EMAIL = "email=ada@example.com"
START = json.dumps({"email": "ada@example.com", "supportedChallengeTypes": ["TOTP"]}).encode()


@pytest.fixture
def mds(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(control_socket=str(tmp_path / "control.sock")) as running:
        yield running
        assert running.failures == []


@pytest.fixture
def ask(mds: Emulator) -> Ask:
    return functools.partial(ask_host, mds.host)


@pytest.fixture
def control(mds: Emulator, tmp_path: Path) -> ControlClient:
    mds.set("instance/attributes/enable-oslogin", "TRUE")
    client = ControlClient(str(tmp_path / "control.sock"))
    client.oslogin_user("ada", uid=2001, challenges=[{"type": "TOTP", "credential": "1"}])
    return client


def _json(ask: Ask, path: str, method: str = "GET", body: bytes = b"") -> Any:
    return json.loads(ask(f"oslogin/{path}", method=method, body=body).body)


def test_one_setting_of_a_user_changes_and_the_rest_stays(control: ControlClient, ask: Ask) -> None:
    control.oslogin_user("ada", admin=True)
    assert _json(ask, f"authorize?{EMAIL}&policy=adminLogin") == {"success": True}
    control.oslogin_user("ada", login=False)
    assert _json(ask, f"authorize?{EMAIL}&policy=login") == {"success": False}
    assert _json(ask, "authenticate/sessions/start", "POST", START)["status"] == (
        "CHALLENGE_REQUIRED"
    )


def test_a_new_user_needs_a_uid(control: ControlClient) -> None:
    with pytest.raises(ValueError, match="uid"):
        control.oslogin_user("new", admin=True)


def test_a_removed_user_is_not_found(control: ControlClient, ask: Ask) -> None:
    control.oslogin_remove_user("ada")
    assert ask("oslogin/users?username=ada").status == 404


def test_a_group_comes_and_goes(control: ControlClient, ask: Ask) -> None:
    control.oslogin_group("ops", 5001, ["ada"])
    assert ask("oslogin/groups?gid=5001").status == 200
    control.oslogin_remove_group("ops")
    assert ask("oslogin/groups?gid=5001").status == 404


def test_oslogin_can_be_switched_off_for_all_requests(control: ControlClient, ask: Ask) -> None:
    control.oslogin_enabled(False)
    assert ask("oslogin/users?username=ada").status == 404
    control.oslogin_enabled(None)
    assert ask("oslogin/users?username=ada").status == 200


@pytest.mark.parametrize("document", [None, [], {"success": "true"}, "text", 7])
def test_any_document_can_be_the_answer(control: ControlClient, ask: Ask, document: object) -> None:
    control.oslogin_answers({"authorize": document})
    assert _json(ask, f"authorize?{EMAIL}&policy=login") == document
    control.oslogin_answers({})
    assert _json(ask, f"authorize?{EMAIL}&policy=login") == {"success": True}


@pytest.mark.parametrize(
    "document", [{"status": "X", "sessionId": "s", "challenges": []}, {}, ["AUTHENTICATED"]]
)
def test_a_session_can_begin_as_it_should_never(
    control: ControlClient, ask: Ask, document: object
) -> None:
    control.oslogin_user("ada", session=document)
    assert _json(ask, "authenticate/sessions/start", "POST", START) == document


def test_a_session_can_go_on_as_it_should_never(control: ControlClient, ask: Ask) -> None:
    control.oslogin_user("ada", continuation={"status": ["AUTHENTICATED"]})
    path = "authenticate/sessions/any/continue"
    assert _json(ask, path, "POST", START) == {"status": ["AUTHENTICATED"]}


def test_a_rejection_has_the_reason_that_a_test_gives(control: ControlClient, ask: Ask) -> None:
    challenge = {"type": "TOTP", "credential": "1", "reason": "no %n"}
    control.oslogin_user("ada", challenges=[challenge])
    session = _json(ask, "authenticate/sessions/start", "POST", START)
    body = {"email": "ada@example.com", "challengeId": 1, "action": "RESPOND"}
    path = f"authenticate/sessions/{session['sessionId']}/continue"
    answer = _json(ask, path, "POST", json.dumps(body).encode())
    assert answer["rejectionReason"] == "no %n"


def test_a_directory_document_carries_answers(mds: Emulator, ask: Ask) -> None:
    mds.set_oslogin({"enabled": True, "answers": {"users": {"loginProfiles": None}}})
    assert _json(ask, "users?username=x") == {"loginProfiles": None}
