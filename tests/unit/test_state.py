"""Remembered documents: bound to an instance, damaged ones read as absent."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from google_guest.state import Remember, encode_state, read_state
from google_guest.system import System

PATH = "/var/lib/google-guest-agent/x.json"


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(root=tmp_path)


def test_document_is_read_back(system: System, tmp_path: Path) -> None:
    Remember(PATH, {"a": 1}, "a", instance_id=7).apply(system)
    assert read_state(system, PATH, instance_id=7) == {"a": 1, "instance": "7"}
    assert stat.S_IMODE((tmp_path / PATH[1:]).stat().st_mode) == 0o600


def test_document_of_another_instance_reads_as_absent(system: System) -> None:
    Remember(PATH, {"a": 1}, "a", instance_id=7).apply(system)
    assert read_state(system, PATH, instance_id=8) is None


def test_content_does_not_show_in_the_description() -> None:
    change = Remember(PATH, {"a": "hidden"}, "the users that were made")
    assert "hidden" not in repr(change) + str(change.as_dict())


@given(st.binary(max_size=200))
@example(b"[" * 100_000)
def test_damaged_document_reads_as_absent_or_as_an_object(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "x.json").write_bytes(data)
    document = read_state(System(root=root), "/x.json", instance_id=1)
    assert document is None or isinstance(document, dict)


def test_encoding_is_stable() -> None:
    assert encode_state({"b": 1, "a": 2}) == encode_state({"a": 2, "b": 1})
