"""Custom metadata at two levels."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.booleans import parse_boolean
from google_guest.metadata.attributes import INSTANCE_LEVEL, PROJECT_LEVEL, Attributes


def attributes(instance: Optional[str], project: Optional[str]) -> Attributes:
    return Attributes(
        {} if instance is None else {"enable-oslogin": instance},
        {} if project is None else {"enable-oslogin": project},
    )


@pytest.mark.parametrize("text", ["true", "TRUE", " True\n", "t", "1", "yes", "Y", "on", "On"])
def test_affirmative_words_of_any_case_are_true(text: str) -> None:
    assert parse_boolean(text) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "\tf", "0", "no", "N", "off", "OFF "])
def test_negative_words_of_any_case_are_false(text: str) -> None:
    assert parse_boolean(text) is False


@pytest.mark.parametrize("value", ["", " ", "maybe", "2", "truee", "ja", None, 2, -1, 1.0, [], {}])
def test_everything_else_is_no_boolean(value: object) -> None:
    assert parse_boolean(value) is None


@given(st.text())
def test_any_text_is_true_false_or_neither(text: str) -> None:
    assert parse_boolean(text) in (True, False, None)
    assert parse_boolean(f"  {text.upper()}\n") is parse_boolean(text.upper())


@pytest.mark.parametrize(
    ("instance", "project", "expected"),
    [
        (None, None, None),
        ("true", None, (True, INSTANCE_LEVEL)),
        (None, "true", (True, PROJECT_LEVEL)),
        ("false", "true", (False, INSTANCE_LEVEL)),
        ("true", "false", (True, INSTANCE_LEVEL)),
        ("maybe", "true", (True, PROJECT_LEVEL)),
        ("", "true", (True, PROJECT_LEVEL)),
        ("maybe", "perhaps", None),
    ],
)
def test_first_readable_level_decides_a_switch(
    instance: Optional[str], project: Optional[str], expected: Optional[tuple[bool, str]]
) -> None:
    levels = attributes(instance, project)
    assert levels.switch("enable-oslogin") == expected
    assert levels.boolean("enable-oslogin") == (expected[0] if expected else None)


@pytest.mark.parametrize(
    ("instance", "project", "expected"),
    [
        (None, None, None),
        ("false", "true", PROJECT_LEVEL),
        ("true", "true", INSTANCE_LEVEL),
        ("maybe", "false", None),
    ],
)
def test_either_level_is_enough(
    instance: Optional[str], project: Optional[str], expected: Optional[str]
) -> None:
    assert attributes(instance, project).either("enable-oslogin") == expected


@pytest.mark.parametrize(
    ("instance", "project", "expected"),
    [(None, None, None), ("a", "b", "a"), (None, "b", "b"), ("", "b", "")],
)
def test_text_of_the_instance_hides_that_of_the_project(
    instance: Optional[str], project: Optional[str], expected: Optional[str]
) -> None:
    assert attributes(instance, project).text("enable-oslogin") == expected


def test_attribute_keys_are_verbatim() -> None:
    levels = Attributes({"Enable-OSLogin": "true", "enable_oslogin": "true"}, {})
    assert levels.boolean("enable-oslogin") is None


def test_values_stay_out_of_the_printed_form() -> None:
    assert "hunter2" not in repr(Attributes({"startup-script": "hunter2"}, {"k": "hunter2"}))
