"""The version: one text from one file, for the life of the process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from google_guest import version as module


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    module.version.cache_clear()


def test_version_is_that_of_the_source_tree() -> None:
    text = (Path(__file__).parents[2] / "VERSION").read_text().strip()
    assert module.version() == text
    assert re.fullmatch(r"[0-9]{8}\.[0-9]{2}", text)


def test_version_outlives_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    before = module.version()

    def gone(path: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(module, "_read", gone)
    assert module.version() == before
