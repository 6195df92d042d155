"""Which machines count as Compute Engine instances."""

from __future__ import annotations

from pathlib import Path

import pytest

from google_guest.system.files import Files
from google_guest.system.firmware import is_compute_engine


@pytest.mark.parametrize(
    ("strings", "expected"),
    [
        ({"product_name": "Google Compute Engine\n"}, True),
        ({"product_name": "Google\n"}, True),
        ({"board_serial": "Board-GoogleCloud-0123\n", "product_name": "x"}, True),
        ({"product_serial": "GoogleCloud-0123\n"}, True),
        ({"product_name": "Standard PC (Q35 + ICH9, 2009)\n"}, False),
        ({"product_name": "Google Chromebook\n"}, False),
        ({}, False),
    ],
)
def test_only_the_platforms_own_strings_count(
    tmp_path: Path, strings: dict[str, str], expected: bool
) -> None:
    folder = tmp_path / "sys/class/dmi/id"
    folder.mkdir(parents=True)
    for name, text in strings.items():
        (folder / name).write_text(text)
    assert is_compute_engine(Files(tmp_path)) is expected


def test_machine_without_firmware_strings_is_no_instance(tmp_path: Path) -> None:
    assert not is_compute_engine(Files(tmp_path))
