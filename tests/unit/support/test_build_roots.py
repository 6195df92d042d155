"""What a root tree for building packages is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.build_roots import build_depends

CONTROL = Path(__file__).resolve().parents[3] / "debian" / "control"


@pytest.mark.parametrize(
    ("control", "wanted"),
    [
        ("Source: a\nBuild-Depends: b\nStandards-Version: 4\n", "b"),
        ("Build-Depends: b,\n               c (>= 1) | d,\nHomepage: e\n", "b, c (>= 1) | d"),
        ("Build-Depends: b, c <!nocheck>, d\n", "b, d"),
        ("Source: a\nBuild-Depends-Indep: b\n", ""),
        ("", ""),
    ],
)
def test_relations_are_those_of_a_build_without_tests(control: str, wanted: str) -> None:
    assert build_depends(control) == wanted


def test_our_own_build_needs_yaml_for_its_tables_and_no_test_runner() -> None:
    relations = build_depends(CONTROL.read_text()).split(", ")
    assert "python3-yaml" in relations
    assert "python3-pytest" not in relations


@given(st.text())
def test_any_text_gives_relations_on_one_line(control: str) -> None:
    assert "<!nocheck>" not in build_depends(control)
