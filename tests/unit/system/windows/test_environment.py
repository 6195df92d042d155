"""Environment variables of the machine: entries of Path, and texts kept as they are stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.system.windows.environment import (
    KEY,
    add_to_path,
    remove_from_path,
    remove_variable,
    set_variable,
    with_entry,
    without_entry,
)
from google_guest.system.windows.memory import MemoryRegistry
from google_guest.system.windows.registry import DWORD, EXPAND_SZ, SZ, Value

FOLDER = r"C:\Program Files\Google\Compute Engine\metadata_scripts"
SYSTEM_PATH = r"%SystemRoot%\system32;%SystemRoot%;C:\X"


class Announcements:
    """Counts how often programs were told."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def registry() -> MemoryRegistry:
    found = MemoryRegistry()
    found.set_text(KEY, "Path", SYSTEM_PATH, expandable=True)
    return found


def test_entry_goes_behind_the_others_and_references_stay(registry: MemoryRegistry) -> None:
    assert add_to_path(registry, FOLDER)
    assert registry.get(KEY, "Path") == Value(f"{SYSTEM_PATH};{FOLDER}", EXPAND_SZ)


def test_entry_that_is_there_is_not_added_again(registry: MemoryRegistry) -> None:
    tell = Announcements()
    add_to_path(registry, FOLDER, announce=tell)
    assert not add_to_path(registry, FOLDER, announce=tell)
    assert registry.get(KEY, "Path") == Value(f"{SYSTEM_PATH};{FOLDER}", EXPAND_SZ)
    assert tell.count == 1


def test_removal_restores_the_original_text(registry: MemoryRegistry) -> None:
    add_to_path(registry, FOLDER)
    assert remove_from_path(registry, FOLDER)
    assert registry.get(KEY, "Path") == Value(SYSTEM_PATH, EXPAND_SZ)


def test_removal_of_what_is_not_there_changes_and_tells_nothing(registry: MemoryRegistry) -> None:
    tell = Announcements()
    assert not remove_from_path(registry, FOLDER, announce=tell)
    assert registry.get(KEY, "Path") == Value(SYSTEM_PATH, EXPAND_SZ)
    assert tell.count == 0


def test_machine_without_path_gets_one() -> None:
    registry = MemoryRegistry()
    add_to_path(registry, FOLDER)
    assert registry.get(KEY, "Path") == Value(FOLDER, EXPAND_SZ)


def test_kind_of_path_is_kept() -> None:
    registry = MemoryRegistry()
    registry.set_text(KEY, "Path", r"C:\X")
    add_to_path(registry, FOLDER)
    assert registry.get(KEY, "Path") == Value(rf"C:\X;{FOLDER}", SZ)


def test_path_that_is_no_text_is_refused() -> None:
    registry = MemoryRegistry()
    registry.set(KEY, "Path", Value(1, DWORD))
    with pytest.raises(OSError, match="is no text"):
        add_to_path(registry, FOLDER)
    assert registry.get(KEY, "Path") == Value(1, DWORD)


@pytest.mark.parametrize(
    "entry",
    [
        FOLDER,
        FOLDER + "\\",
        FOLDER.upper(),
        f'"{FOLDER}"',
        f" {FOLDER} ",
        FOLDER.replace("\\", "/"),
    ],
)
def test_same_folder_in_another_spelling_counts(entry: str) -> None:
    assert with_entry(rf"C:\X;{entry};C:\Y", FOLDER) is None
    assert without_entry(rf"C:\X;{entry};C:\Y", FOLDER) == r"C:\X;C:\Y"


@pytest.mark.parametrize("entry", [FOLDER + r"\x", r"C:\metadata_scripts", FOLDER[:-1], ""])
def test_another_folder_does_not_count(entry: str) -> None:
    assert with_entry(rf"C:\X;{entry}", FOLDER) == rf"C:\X;{entry};{FOLDER}"
    assert without_entry(rf"C:\X;{entry}", FOLDER) is None


def test_entry_with_a_variable_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUEST_TEST_BASE", FOLDER)
    assert with_entry("$GUEST_TEST_BASE", FOLDER) is None


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$%"), max_size=60))
def test_adding_and_removing_gives_back_any_text(path: str) -> None:
    added = with_entry(path, FOLDER)
    if added is not None:
        assert without_entry(added, FOLDER) == path


def test_variable_is_set_once(registry: MemoryRegistry) -> None:
    tell = Announcements()
    assert set_variable(registry, "GooGetRoot", r"C:\G", announce=tell)
    assert not set_variable(registry, "GooGetRoot", r"C:\G", announce=tell)
    assert registry.get(KEY, "GooGetRoot") == Value(r"C:\G", SZ)
    assert tell.count == 1


def test_variable_with_a_reference_stays_expandable(registry: MemoryRegistry) -> None:
    set_variable(registry, "GooGetRoot", r"%ProgramData%\G")
    assert registry.get(KEY, "GooGetRoot") == Value(r"%ProgramData%\G", EXPAND_SZ)


def test_variable_is_removed_once(registry: MemoryRegistry) -> None:
    set_variable(registry, "GooGetRoot", r"C:\G")
    assert remove_variable(registry, "GooGetRoot")
    assert not remove_variable(registry, "GooGetRoot")
