"""Password resets: what is processed, once, and how it is answered and remembered."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from support.trees import metadata
from support.windows_machines import NOW, Machine, windows_inputs

pytest.importorskip("cryptography", reason="the library that encrypts is not installed")

from support.windows_keys import LATER, modulus, password, request

from google_guest.changes.windows_accounts import PUBLIC_KEYS
from google_guest.features.windows import account_reset as feature
from google_guest.metadata.tree import Metadata
from google_guest.reconcile import Pass, plan_feature, run_pass
from google_guest.system.windows import ADMINISTRATORS, COMPUTE_ENGINE_KEY, WindowsError

OLD_ENTRY = json.dumps({"UserName": "old", "Modulus": "x", "ExpireOn": LATER})


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def asked(*lines: str, **attributes: str) -> Metadata:
    return metadata({"attributes": {"windows-keys": "\n".join(lines), **attributes}})


def run(machine: Machine, *lines: str, config: str = "", **attributes: str) -> Pass:
    inputs = windows_inputs(machine, asked(*lines, **attributes), config=config)
    return run_pass(feature.FEATURE, inputs)


def recorded(machine: Machine) -> tuple[str, ...]:
    return machine.memory.registry.strings(COMPUTE_ENGINE_KEY, PUBLIC_KEYS)


def record(machine: Machine, *strings: str) -> None:
    machine.memory.registry.set_strings(COMPUTE_ENGINE_KEY, PUBLIC_KEYS, strings)


def admins(machine: Machine) -> set[str]:
    return machine.memory.accounts.members.get(ADMINISTRATORS, set())


def changing_calls(machine: Machine) -> list[tuple[str, ...]]:
    return [call for call in machine.memory.accounts.calls if call[0] != "exists"]


def test_new_user_is_an_administrator_whose_password_is_reported(machine: Machine) -> None:
    assert run(machine, request()).ok
    (answer,) = machine.answers()
    assert answer["hashFunction"] == "sha1"
    assert answer["modulus"] == modulus()
    assert len(password(answer)) == 15
    assert machine.memory.accounts.passwords == {"ana": password(answer)}
    assert admins(machine) == {"ana"}
    assert [port for port, _ in machine.memory.written] == ["COM4"]


def test_same_metadata_again_does_nothing(machine: Machine) -> None:
    run(machine, request())
    assert run(machine, request()).plan.changes == ()
    assert len(machine.answers()) == 1


def test_another_agent_on_the_same_machine_does_nothing_either(
    machine: Machine, tmp_path: Path
) -> None:
    run(machine, request())
    successor = Machine(tmp_path)
    record(successor, *recorded(machine))
    assert run(successor, request()).plan.changes == ()
    assert successor.answers() == []


def test_new_expiry_of_the_same_key_is_a_new_request(machine: Machine) -> None:
    run(machine, request())
    run(machine, request(expireOn="2031-01-02T03:04:05Z"))
    first, second = machine.answers()
    assert password(first) != password(second)


@pytest.mark.parametrize("name", ["sha256", "sha512"])
def test_hash_function_is_used_and_echoed(machine: Machine, name: str) -> None:
    run(machine, request(hashFunction=name))
    (answer,) = machine.answers()
    assert answer["hashFunction"] == name
    assert len(password(answer)) == 15


def test_unknown_hash_function_is_answered_and_touches_no_account(machine: Machine) -> None:
    result = run(machine, request(hashFunction="md5"))
    assert machine.answers() == [
        {
            "errorMessage": 'unknown hash function requested: "md5"',
            "userName": "ana",
            "exponent": "AQAB",
            "modulus": modulus(),
        }
    ]
    assert changing_calls(machine) == []
    assert result.errors == (
        "create user ana, asked for with windows-keys:"
        ' user ana: unknown hash function requested: "md5"',
    )


def test_failed_request_is_not_tried_again(machine: Machine) -> None:
    run(machine, request(hashFunction="md5"))
    assert run(machine, request(hashFunction="md5")).plan.changes == ()


@pytest.mark.parametrize(("wanted", "length"), [(5, 15), (30, 30)])
def test_length_of_the_password_is_as_asked_for(machine: Machine, wanted: int, length: int) -> None:
    run(machine, request(passwordLength=wanted))
    assert len(password(machine.answers()[0])) == length


def test_password_that_the_key_cannot_carry_leaves_the_account_alone(machine: Machine) -> None:
    machine.memory.accounts.passwords["ana"] = "old"
    run(machine, request(passwordLength=256))
    (answer,) = machine.answers()
    assert "a password of 255 characters is too long" in answer["errorMessage"]
    assert machine.memory.accounts.passwords == {"ana": "old"}


@pytest.mark.parametrize(
    ("exists", "wish", "joins"),
    [
        (True, ..., False),
        (True, False, False),
        (True, True, True),
        (False, ..., True),
        (False, True, True),
        (False, False, False),
    ],
)
def test_membership_of_the_administrators(
    machine: Machine, exists: bool, wish: object, joins: bool
) -> None:
    if exists:
        machine.memory.accounts.passwords["ana"] = "old"
    assert run(machine, request(addToAdministrators=wish)).ok
    assert admins(machine) == ({"ana"} if joins else set())


def test_administrators_are_found_by_their_sid_whatever_their_name(machine: Machine) -> None:
    run(machine, request())
    assert list(machine.memory.accounts.members) == ["S-1-5-32-544"]


@pytest.mark.parametrize(
    "bad",
    [
        request(expireOn="2000-01-01T00:00:00Z"),
        "abcde",
        request(modulus=...),
        request(exponent=False),
        "   ",
    ],
    ids=["expired", "no json", "no modulus", "wrong type", "blank"],
)
def test_bad_line_changes_nothing_and_the_next_line_is_processed(
    machine: Machine, bad: str
) -> None:
    inputs = windows_inputs(machine, asked(bad, request("eva")), now=1_600_000_000.0)
    run_pass(feature.FEATURE, inputs)
    assert list(machine.memory.accounts.passwords) == ["eva"]


def test_names_of_fields_ignore_case(machine: Machine) -> None:
    text = request().replace("userName", "username").replace("expireOn", "EXPIREON")
    run(machine, text)
    assert len(machine.answers()) == 1


def test_registry_string_that_is_no_json_is_told_and_survives_nothing(machine: Machine) -> None:
    record(machine, "{nonsense")
    result = run(machine, request())
    assert result.plan.warnings == (
        "entry 1 of PublicKeys in the registry is ignored: it is not JSON",
    )
    assert len(recorded(machine)) == 1
    assert json.loads(recorded(machine)[0])["UserName"] == "ana"


def test_what_was_processed_is_listed_in_the_order_of_metadata(machine: Machine) -> None:
    run(machine, request("eva"), request("ana"))
    assert [json.loads(text)["UserName"] for text in recorded(machine)] == ["eva", "ana"]


def test_requests_that_metadata_no_longer_has_are_forgotten(machine: Machine) -> None:
    record(machine, OLD_ENTRY)
    run(machine, request())
    assert [json.loads(text)["UserName"] for text in recorded(machine)] == ["ana"]
    run(machine)
    assert recorded(machine) == ()


def test_expired_requests_are_forgotten(machine: Machine) -> None:
    run(machine, request())
    late = windows_inputs(machine, asked(request()), now=4_000_000_000.0)
    run_pass(feature.FEATURE, late)
    assert recorded(machine) == ()
    assert len(machine.answers()) == 1


def test_without_requests_and_list_the_registry_stays_as_it_is(machine: Machine) -> None:
    assert run(machine).plan.changes == ()
    assert machine.memory.registry.names(COMPUTE_ENGINE_KEY) == ()


def test_unreadable_list_means_that_nothing_is_processed(machine: Machine) -> None:
    machine.memory.registry.refusal = PermissionError(13, "refused")
    result = run(machine, request())
    assert result.plan.changes == ()
    assert "the list of processed ones is unreadable" in result.plan.warnings[0]
    assert result.plan.recheck_at == NOW + 60
    assert machine.answers() == []


def test_user_that_appears_meanwhile_gets_the_password_by_the_other_call(
    machine: Machine,
) -> None:
    machine.memory.accounts.passwords["ana"] = "old"
    machine.memory.accounts.appears_late = True
    run(machine, request())
    (answer,) = machine.answers()
    assert machine.memory.accounts.passwords == {"ana": password(answer)}
    assert [call[0] for call in changing_calls(machine)] == ["create", "set_password"]
    assert admins(machine) == set()


def test_answer_that_cannot_be_written_leaves_the_request_open(machine: Machine) -> None:
    machine.memory.serial_failures = 1
    result = run(machine, request())
    assert not result.ok
    assert recorded(machine) == ()
    assert run(machine, request()).ok
    (answer,) = machine.answers()
    assert machine.memory.accounts.passwords == {"ana": password(answer)}
    assert len(recorded(machine)) == 1


def test_failure_of_one_request_does_not_stop_the_others(machine: Machine) -> None:
    run(machine, request(hashFunction="md5"), request(key=1), request("eva"))
    assert [answer["userName"] for answer in machine.answers()] == ["ana", "ana", "eva"]
    assert password(machine.answers()[1], key=1) == machine.memory.accounts.passwords["ana"]


@pytest.mark.parametrize(("function", "code"), [("exists", 5), ("create", 2202), ("create", 2245)])
def test_refusal_of_windows_is_the_answer(machine: Machine, function: str, code: int) -> None:
    refusal = WindowsError("NetUser", code, "no")
    machine.memory.accounts.refusals[function] = refusal
    run(machine, request())
    assert machine.answers()[0]["errorMessage"] == f"NetUser failed with {code} (no)"
    assert len(recorded(machine)) == 1


def test_password_is_reported_even_if_the_user_cannot_join_the_administrators(
    machine: Machine,
) -> None:
    machine.memory.accounts.refusals["add_to_group"] = WindowsError("NetLocalGroup", 5, "no")
    result = run(machine, request())
    assert machine.memory.accounts.passwords == {"ana": password(machine.answers()[0])}
    assert "is no member of the administrators" in result.errors[0]
    assert run(machine, request()).plan.changes == ()


def test_domain_controller_is_warned_about(machine: Machine) -> None:
    machine.memory.accounts.domain_controller = True
    result = run(machine, request(), request("eva"))
    assert result.plan.warnings == (
        "this is a domain controller: the new passwords of ana, eva are the domain's",
    )
    assert run(machine, request(), request("eva")).plan.warnings == ()


@pytest.mark.parametrize(
    ("config", "attribute", "on", "layer"),
    [
        ("[accountManager]\ndisable=true", "false", False, "file"),
        ("[accountManager]\ndisable=false", "true", True, "file"),
        ("[accountManager]\n", "true", True, "file"),
        ("", "true", False, "instance metadata"),
        ("", "false", True, "instance metadata"),
        ("", "maybe", True, "built-in"),
    ],
)
def test_section_of_the_configuration_decides_before_metadata(
    machine: Machine, config: str, attribute: str, on: bool, layer: str
) -> None:
    attributes = {"disable-account-manager": attribute}
    result = run(machine, request(), config=config, **attributes)
    assert result.decision.on is on
    place = machine.places.config if layer == "file" else layer
    assert result.decision.layer == place
    assert len(machine.answers()) == (1 if on else 0)


def test_project_cannot_ask_for_passwords(machine: Machine) -> None:
    known = metadata(project={"attributes": {"windows-keys": request()}})
    assert run_pass(feature.FEATURE, windows_inputs(machine, known)).plan.changes == ()


def test_project_can_switch_it_off(machine: Machine) -> None:
    known = metadata(
        {"attributes": {"windows-keys": request()}},
        project={"attributes": {"disable-account-manager": "true"}},
    )
    result = run_pass(feature.FEATURE, windows_inputs(machine, known))
    assert (result.decision.on, result.decision.layer) == (False, "project metadata")
    assert machine.answers() == []


def test_plan_shows_what_would_be_reset_and_changes_nothing(machine: Machine) -> None:
    machine.memory.accounts.passwords["ana"] = "old"
    inputs = windows_inputs(
        machine, asked(request(addToAdministrators=True), request("eva", passwordLength=30))
    )
    _, plan = plan_feature(feature.FEATURE, inputs)
    assert [change.describe() for change in plan.changes] == [
        "reset the password of user ana",
        "create user eva, asked for with windows-keys",
    ]
    assert plan.changes[0].diff() == (
        "+password of 15 characters",
        "+member of the administrators",
        f"+answer on COM4, asked for until {LATER}",
    )
    assert plan.changes[1].diff()[0] == "+password of 30 characters"
    assert changing_calls(machine) == []
    assert machine.answers() == []


def test_neither_password_nor_ciphertext_nor_modulus_is_ever_shown(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    machine.memory.serial_failures = 1
    results = [run(machine, request(), request("eva", hashFunction="md5")) for _ in range(2)]
    secrets = [*machine.memory.accounts.passwords.values(), modulus()]
    secrets += [a["encryptedPassword"] for a in machine.answers() if "encryptedPassword" in a]
    assert len(secrets) == 3
    shown = [caplog.text]
    for result in results:
        shown += [*result.errors, *result.plan.warnings]
        shown += [repr(change) for change in result.plan.changes]
        shown += [line for change in result.plan.changes for line in change.diff()]
    for secret in secrets:
        assert not any(secret in text for text in shown)


def test_small_key_is_taken_with_a_warning(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    import base64

    from support.windows_keys import private_key

    number = private_key(9, 1024).public_key().public_numbers().n
    text = request(modulus=base64.b64encode(number.to_bytes(128, "big")).decode())
    assert run(machine, text).ok
    assert "the key of the request has 1024 bits only" in caplog.text


def test_change_of_the_attribute_or_the_switch_is_a_change_of_the_inputs() -> None:
    states = [
        feature.inputs_of(asked()),
        feature.inputs_of(asked(request())),
        feature.inputs_of(asked(request(), **{"disable-account-manager": "true"})),
    ]
    assert len(set(states)) == 3
