"""Immutable records: what they share with frozen dataclasses."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.records import as_dict, field, record, replace


@record
class Point:
    """Two numbers and a few extras."""

    kind: ClassVar[str] = "point"

    x: int
    y: int = 2
    tags: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    secret: Optional[str] = field(default=None, repr=False)

    @cached_property
    def total(self) -> int:
        return self.x + self.y


@record
class Named(Point):
    """A record on top of a record."""

    name: str = "n"


@record
class Empty:
    """No field at all."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """The standard library's word on the same fields."""

    x: int
    y: int = 2


def test_values_are_given_by_position_name_or_default() -> None:
    assert as_dict(Point(1)) == {"x": 1, "y": 2, "tags": {}, "secret": None}
    assert Point(1, 5) == Point(y=5, x=1)


def test_fields_of_the_base_come_first() -> None:
    assert list(as_dict(Named(1, 2, {}, None, "m"))) == ["x", "y", "tags", "secret", "name"]
    assert Named(1).name == "n"


def test_class_variables_are_no_fields() -> None:
    assert "kind" not in as_dict(Point(1))
    assert Point.kind == "point"


def test_default_factories_are_called_for_each_record() -> None:
    assert Point(1).tags is not Point(1).tags


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((), {}, "needs a value for 'x'"),
        ((1,), {"z": 1}, "has no field 'z'"),
        ((1,), {"x": 1}, "two values for 'x'"),
        ((1, 2, {}, None, 5), {}, "takes 4 values, not 5"),
    ],
)
def test_wrong_values_are_named(arguments: Any, named: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Point(*arguments, **named)


def test_records_cannot_be_changed() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="cannot be assigned"):
        point.x = 3
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del point.x
    assert point.x == 1


def test_cached_properties_work() -> None:
    point = Point(1)
    assert point.total == point.total == 3
    assert point == Point(1)


def test_hidden_values_do_not_show() -> None:
    assert repr(Point(1, secret="hunter2", tags={"a": "b"})) == "Point(x=1, y=2)"


def test_fields_can_be_left_out_of_the_hash() -> None:
    assert hash(Point(1, tags={"a": "b"})) == hash(Point(1))
    assert Point(1, tags={"a": "b"}) != Point(1)


def test_records_of_different_classes_differ() -> None:
    assert Point(1) != Named(1)
    assert Empty() == Empty()


def test_replace_copies_and_accepts_every_field_name() -> None:
    assert replace(Point(1), y=7) == Point(1, 7)
    with pytest.raises(TypeError, match="has no field 'z'"):
        replace(Point(1), z=7)


@given(st.integers(), st.integers(), st.integers())
def test_comparison_and_hash_agree_with_dataclasses(x: int, y: int, other: int) -> None:
    mine, theirs = Point(x, y), Reference(x, y)
    assert (mine == Point(x, other)) == (theirs == Reference(x, other))
    assert hash(mine) == hash(Point(x, y))


def test_agent_starts_without_the_modules_that_records_replace() -> None:
    source = str(Path(__file__).resolve().parents[2] / "src")
    code = (
        f"import sys; sys.path.append({source!r});"
        " import google_guest.agent, google_guest.catalog, google_guest.cli.agent;"
        " google_guest.catalog.platform_features();"
        " print(*(m for m in ('dataclasses', 'inspect', 'ssl', 'hashlib', 'random', 'tempfile',"
        " 'argparse', 'asyncio', 'urllib.request') if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
