"""docs/features.md against the catalog."""

from __future__ import annotations

import re
from pathlib import Path

from google_guest.catalog import FEATURES

TABLE = Path(__file__).resolve().parents[2] / "docs" / "features.md"


def test_every_feature_has_a_row_in_the_catalogs_order() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", TABLE.read_text(), re.MULTILINE)
    assert rows == [feature.name for feature in FEATURES]
