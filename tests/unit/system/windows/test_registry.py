"""The registry's typed values: in memory everywhere, and the real one on Windows."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.system.windows.memory import MemoryRegistry
from google_guest.system.windows.registry import BINARY, EXPAND_SZ, SZ, Registry, Value

KEY = r"SOFTWARE\Google\ComputeEngine\Test"


def registries() -> list[str]:
    return ["memory", "native"] if sys.platform == "win32" else ["memory"]


@pytest.fixture(params=registries())
def registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    made: Registry = MemoryRegistry()
    if request.param == "native" and sys.platform == "win32":
        from google_guest.system.windows.native_registry import NativeRegistry

        made = NativeRegistry()
    made.delete_key(KEY)
    yield made
    made.delete_key(KEY)


@pytest.mark.parametrize("texts", [(), ("a",), ("a", "b c", "ä")])
def test_list_of_texts_comes_back(registry: Registry, texts: tuple[str, ...]) -> None:
    registry.set_strings(KEY, "List", texts)
    assert registry.strings(KEY, "List") == texts


def test_missing_value_is_an_empty_list_and_no_text(registry: Registry) -> None:
    assert registry.strings(KEY, "List") == ()
    assert registry.text(KEY, "Text") is None
    assert registry.number(KEY, "Number") is None


def test_list_of_another_kind_is_an_error_and_no_empty_list(registry: Registry) -> None:
    registry.set_text(KEY, "List", "a")
    with pytest.raises(OSError, match="is no list of texts"):
        registry.strings(KEY, "List")


def test_names_of_keys_and_values_ignore_case(registry: Registry) -> None:
    registry.set_text(KEY, "Text", "a")
    assert registry.text(KEY.upper(), "TEXT") == "a"


def test_variables_are_filled_in_only_where_the_kind_says_so(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUEST_TEST", "here")
    registry.set_text(KEY, "Plain", "%GUEST_TEST%")
    registry.set_text(KEY, "Expandable", "%GUEST_TEST%", expandable=True)
    assert registry.text(KEY, "Plain") == "%GUEST_TEST%"
    assert registry.text(KEY, "Expandable") == "here"
    assert registry.get(KEY, "Expandable") == Value("%GUEST_TEST%", EXPAND_SZ)


def test_number_comes_back_and_is_no_text(registry: Registry) -> None:
    registry.set_number(KEY, "Number", 7)
    assert registry.number(KEY, "Number") == 7
    assert registry.text(KEY, "Number") is None


def test_bytes_come_back(registry: Registry) -> None:
    registry.set(KEY, "Bytes", Value(b"\0\1", BINARY))
    assert registry.get(KEY, "Bytes") == Value(b"\0\1", BINARY)


def test_value_is_deleted_once(registry: Registry) -> None:
    registry.set(KEY, "Text", Value("a", SZ))
    assert registry.delete_value(KEY, "text") is True
    assert registry.delete_value(KEY, "text") is False
    assert registry.names(KEY) == ()


def test_key_is_deleted_with_what_is_below_it(registry: Registry) -> None:
    registry.set_text(rf"{KEY}\A\B", "x", "1")
    registry.create_key(rf"{KEY}\C")
    assert sorted(registry.subkeys(KEY)) == ["A", "C"]
    assert registry.delete_key(KEY) is True
    assert registry.delete_key(KEY) is False
    assert registry.subkeys(KEY) == ()


def test_existing_key_is_left_as_it_is(registry: Registry) -> None:
    registry.set_text(KEY, "Text", "a")
    registry.create_key(KEY)
    assert registry.names(KEY) == ("Text",)


@given(st.text(alphabet=st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))))
def test_any_text_comes_back(text: str) -> None:
    registry = MemoryRegistry()
    registry.set_text(KEY, "Text", text)
    assert registry.text(KEY, "Text") == text
