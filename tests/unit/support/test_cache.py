"""What the cache of artifacts forgets, and what it keeps."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from support import cache

HOUR = 3600.0


def entry(folder: Path, name: str, *, unused_for: float) -> Path:
    """An artifact that another process made and used so long ago."""
    made = folder / name
    (made / "tree").mkdir(parents=True)
    (made / "facts.json").write_text("{}")
    (made / "use").touch()
    last = time.time() - unused_for
    os.utime(made / "use", (last, last))
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUEST_TEST_CACHE", str(tmp_path))
    return tmp_path


def test_large_kind_is_forgotten_sooner_than_others(folder: Path) -> None:
    large = entry(folder, "image-0123", unused_for=2 * HOUR)
    other = entry(folder, "base-0123", unused_for=2 * HOUR)
    made = cache.artifact("image", {}, lambda tree: None, forget_after=HOUR)
    assert (large.exists(), other.exists(), made.tree.exists()) == (False, True, True)


def test_recently_used_artifact_of_a_large_kind_stays(folder: Path) -> None:
    recent = entry(folder, "image-0123", unused_for=HOUR / 2)
    cache.artifact("image", {}, lambda tree: None, forget_after=HOUR)
    assert recent.exists()


def test_every_kind_is_forgotten_after_the_common_time(folder: Path) -> None:
    other = entry(folder, "base-0123", unused_for=cache.MAX_AGE + HOUR)
    cache.artifact("image", {}, lambda tree: None)
    assert not other.exists()
