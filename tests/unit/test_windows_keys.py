"""The attribute windows-keys, and the registry's list of processed requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.windows_keys import (
    WindowsKey,
    encode_processed,
    parse_processed,
    parse_windows_keys,
)

NOW = 1_700_000_000.0
LATER = "2030-01-02T03:04:05Z"
FIELDS = {"userName": "ana", "modulus": "vW0=", "exponent": "AQAB", "expireOn": LATER}
REGISTRY_FIELDS = [
    "Email",
    "ExpireOn",
    "Exponent",
    "Modulus",
    "UserName",
    "HashFunction",
    "AddToAdministrators",
    "PasswordLength",
]


def line(**changes: Any) -> str:
    values = {**FIELDS, **changes}
    return json.dumps({key: value for key, value in values.items() if value is not ...})


def users(text: str) -> list[str]:
    return [key.user_name for key in parse_windows_keys(text, NOW).keys]


def test_every_field_is_taken() -> None:
    text = line(
        email="ana@example.com",
        hashFunction="sha256",
        addToAdministrators=False,
        passwordLength=30,
        unknown={"a": [1]},
    )
    assert parse_windows_keys(text, NOW).keys == (
        WindowsKey("ana", "vW0=", "AQAB", LATER, "ana@example.com", "sha256", False, 30, 1),
    )


def test_names_of_fields_ignore_case_and_the_last_duplicate_counts() -> None:
    text = '{"USERNAME": "eva", "username": "ana", "Modulus": "vW0=", "exponent": "AQAB",'
    assert users(f'{text} "EXPIREON": "{LATER}"}}') == ["ana"]


def test_null_leaves_a_field_unset() -> None:
    (key,) = parse_windows_keys(line(email=None, addToAdministrators=None), NOW).keys
    assert key.email == ""
    assert key.add_to_administrators is None


@pytest.mark.parametrize(
    "expiry",
    ["2030-01-02T03:04:05Z", "2030-01-02T03:04:05+01:00", "2030-01-02T03:04:05-0800"],
)
def test_both_forms_of_a_date_are_read(expiry: str) -> None:
    assert users(line(expireOn=expiry)) == ["ana"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\r",
        line(modulus=...),
        line(userName=""),
        line(exponent=""),
        line(expireOn=""),
        line(expireOn="soon"),
        line(expireOn="2020-01-02T03:04:05Z"),
        "{}",
    ],
    ids=lambda text: text[:60],
)
def test_line_that_lacks_something_or_is_expired_is_dropped_in_silence(text: str) -> None:
    found = parse_windows_keys(f"{text}\n{line(userName='eva')}\r\n", NOW)
    assert [key.user_name for key in found.keys] == ["eva"]
    assert found.problems == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("abcde", "it is not JSON"),
        (line() + "x", "it is not JSON"),
        ('{"userName": NaN}', "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ('"ana"', "it is no JSON object"),
        ("[]", "it is no JSON object"),
        (line(exponent=False), "the type of exponent is wrong"),
        (line(userName=7), "the type of userName is wrong"),
        (line(email=["x"]), "the type of email is wrong"),
        (line(addToAdministrators="true"), "the type of addToAdministrators is wrong"),
        (line(passwordLength="30"), "the type of passwordLength is wrong"),
        (line(passwordLength=30.5), "the type of passwordLength is wrong"),
        (line(passwordLength=True), "the type of passwordLength is wrong"),
        (line(passwordLength=2**70), "the type of passwordLength is wrong"),
    ],
    ids=lambda text: text[:60],
)
def test_wrong_line_is_a_problem_and_costs_no_other_line(text: str, problem: str) -> None:
    found = parse_windows_keys(f"{text}\n\n{line(userName='eva')}", NOW)
    assert [key.user_name for key in found.keys] == ["eva"]
    assert found.problems == (f"windows-keys line 1 is left out: {problem}",)


def test_problem_never_shows_the_line() -> None:
    (problem,) = parse_windows_keys('{"modulus": "secret-modulus", "email": 3}', NOW).problems
    assert "secret" not in problem


def test_request_that_is_listed_twice_is_one_request() -> None:
    text = f"{line()}\n{line(email='other@example.com')}\n{line(modulus='AAAA')}"
    assert [key.line for key in parse_windows_keys(text, NOW).keys] == [1, 3]


def test_registry_string_has_the_eight_fields_of_the_reference_in_its_order() -> None:
    text = encode_processed(WindowsKey("ana", "vW0=", "AQAB", LATER))
    document = json.loads(text)
    assert list(document) == REGISTRY_FIELDS
    assert list(document.values()) == ["", LATER, "AQAB", "vW0=", "ana", "", None, 0]
    assert ": " not in text


def test_registry_string_escapes_as_the_reference_does() -> None:
    key = WindowsKey("a&b", "vW0=", "AQAB", LATER, email="<ana@example.com>")
    assert r"\u003cana@example.com\u003e" in encode_processed(key)
    assert r"a\u0026b" in encode_processed(key)


def test_what_was_encoded_is_found_again() -> None:
    key = WindowsKey("änä", "vW0=", "AQAB", LATER)
    found = parse_processed([encode_processed(key)])
    assert found.identities == {key.identity}
    assert found.problems == ()


def test_string_of_an_older_agent_with_fewer_fields_counts() -> None:
    text = f'{{"UserName":"ana","Modulus":"vW0=","ExpireOn":"{LATER}"}}'
    assert parse_processed([text]).identities == {("ana", "vW0=", LATER)}


def test_bad_registry_string_is_a_problem_and_costs_no_other_one() -> None:
    good = encode_processed(WindowsKey("ana", "vW0=", "AQAB", LATER))
    found = parse_processed(["{nonsense", good, "", '{"UserName": 3}'])
    assert len(found.identities) == 1
    assert [problem.split()[1] for problem in found.problems] == ["1", "3", "4"]


@given(st.text(max_size=400), st.floats(allow_nan=False, allow_infinity=False))
def test_any_attribute_is_read_without_an_error(text: str, now: float) -> None:
    found = parse_windows_keys(text, now)
    assert len(found.keys) + len(found.problems) <= text.count("\n") + 1


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "email", "hashFunction", "addToAdministrators", "x"]),
        JSON_VALUES,
    )
)
def test_any_object_among_good_lines_leaves_them_alone(document: dict[str, Any]) -> None:
    text = f"{line(userName='a')}\n{json.dumps(document)}\n{line(userName='b')}"
    found = users(text)
    assert found[0] == "a"
    assert found[-1] == "b"


@given(st.lists(st.text(max_size=200), max_size=5))
def test_any_registry_strings_are_read_without_an_error(strings: list[str]) -> None:
    assert len(parse_processed(strings).problems) <= len(strings)


@given(
    st.builds(
        WindowsKey,
        st.text(min_size=1),
        st.text(min_size=1),
        st.text(),
        st.text(min_size=1),
        st.text(),
        st.text(),
        st.none() | st.booleans(),
        st.integers(-(2**63) + 1, 2**63 - 1),
    )
)
def test_any_key_survives_the_registry(key: WindowsKey) -> None:
    text = encode_processed(key)
    assert text.isascii()
    assert "\0" not in text
    assert parse_processed([text]).identities == {key.identity}
