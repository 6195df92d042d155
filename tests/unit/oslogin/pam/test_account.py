"""account and the other functions: what PAM is told, with and without a service."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from unit.oslogin.pam.conftest import Place, Serve
from unit.oslogin.pam.modules import (
    AUTH_ERR,
    AUTHINFO_UNAVAIL,
    IGNORE,
    PERM_DENIED,
    SECOND_MS,
    SUCCESS,
    Module,
    result,
    status,
)

from oslogin import protocol

RESULTS = {
    protocol.SUCCESS: SUCCESS,
    protocol.REFUSED: PERM_DENIED,
    protocol.RESULT_UNAVAILABLE: AUTHINFO_UNAVAIL,
    protocol.IGNORE: IGNORE,
    protocol.AUTH_ERROR: AUTH_ERR,
    protocol.USER_UNKNOWN: IGNORE,
}
STATUSES = {
    protocol.NOT_FOUND: IGNORE,
    protocol.UNAVAILABLE: AUTHINFO_UNAVAIL,
    protocol.BUSY: AUTHINFO_UNAVAIL,
    protocol.BAD_REQUEST: AUTHINFO_UNAVAIL,
    protocol.DENIED: PERM_DENIED,
    protocol.DISABLED: IGNORE,
    protocol.INTERNAL: AUTHINFO_UNAVAIL,
    protocol.BAD_VERSION: AUTHINFO_UNAVAIL,
}


@pytest.mark.parametrize(("value", "expected"), RESULTS.items())
def test_result_of_the_service(login: Module, serve: Serve, value: int, expected: int) -> None:
    service = serve(result(value))
    assert login.call("account", "ada").result == expected
    (request,) = service.requests
    assert request.opcode == protocol.AUTHORIZE
    assert (request.text(protocol.NAME), request.text(protocol.SERVICE)) == ("ada", "sshd")
    assert request.integer(protocol.POLICY) == protocol.POLICY_LOGIN


@pytest.mark.parametrize(("value", "expected"), STATUSES.items())
def test_status_of_the_service(login: Module, serve: Serve, value: int, expected: int) -> None:
    serve(status(value))
    assert login.call("account", "ada").result == expected


@pytest.mark.parametrize("value", RESULTS)
def test_strict_has_two_values(login: Module, serve: Serve, value: int) -> None:
    serve(result(value))
    expected = SUCCESS if value == protocol.SUCCESS else PERM_DENIED
    assert login.call("account", "ada", "strict").result == expected


@pytest.mark.parametrize("name", ["root", "local", "-a", "a b", "x" * 33, ".."])
def test_local_and_impossible_names_are_ignored_without_asking(
    login: Module, serve: Serve, name: str
) -> None:
    service = serve(result(protocol.SUCCESS))
    assert login.call("account", name).result == IGNORE
    assert login.call("account", name, "strict").result == PERM_DENIED
    assert service.requests == []


def test_local_root_is_ignored_without_a_service(login: Module) -> None:
    assert login.call("account", "root").result == IGNORE


def test_no_user_is_denied(login: Module) -> None:
    assert login.call("account", "-").result == PERM_DENIED


@pytest.fixture
def admitted(place: Place) -> Iterator[None]:
    names = ("ada", "john+2Edoe", "+README")
    for name in names:
        (place.users / name).write_text("")
    yield
    for name in names:
        (place.users / name).unlink()


@pytest.mark.usefixtures("admitted")
@pytest.mark.parametrize("name", ["ada", "john.doe", "README"])
def test_service_down_denies_who_was_admitted(login: Module, name: str) -> None:
    assert login.call("account", name).result == PERM_DENIED


@pytest.mark.usefixtures("admitted")
@pytest.mark.parametrize("name", ["ad", "adam", "john.do", "." * 32])
def test_service_down_is_no_answer_for_others(login: Module, name: str) -> None:
    run = login.call("account", name)
    assert run.result == AUTHINFO_UNAVAIL
    assert len(run.log) == 1


def test_service_that_hangs_is_left_after_20_seconds(login: Module, serve: Serve) -> None:
    serve(None)
    start = time.monotonic()
    assert login.call("account", "ada").result == AUTHINFO_UNAVAIL
    assert 20 * SECOND_MS / 1000 <= time.monotonic() - start < 5


def test_admin_asks_for_the_policy_of_administrators(admin: Module, serve: Serve) -> None:
    service = serve(result(protocol.REFUSED))
    assert admin.call("account", "ada").result == PERM_DENIED
    assert service.requests[0].integer(protocol.POLICY) == protocol.POLICY_ADMIN


def test_admin_neither_grants_nor_denies_in_auth(admin: Module, serve: Serve) -> None:
    service = serve(result(protocol.SUCCESS))
    assert admin.call("auth", "ada").result == IGNORE
    assert service.requests == []


@pytest.mark.parametrize("function", ["open_session", "close_session", "password"])
def test_functions_never_shipped_do_nothing(login: Module, admin: Module, function: str) -> None:
    assert login.call(function, "ada").result == IGNORE
    assert admin.call(function, "ada").result == IGNORE


def test_setcred_succeeds(login: Module, admin: Module) -> None:
    assert login.call("setcred", "ada").result == SUCCESS
    assert admin.call("setcred", "ada").result == SUCCESS
