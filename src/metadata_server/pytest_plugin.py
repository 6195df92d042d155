"""The pytest fixture ``metadata_server``: a running emulator, new for each test.

Load it with ``pytest_plugins = ["metadata_server.pytest_plugin"]`` in the top ``conftest.py``.  The
marker ``metadata_profile("windows")`` on a test chooses another profile than ``linux``.  A test
fails when the emulator itself failed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from metadata_server.emulator import Emulator


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "metadata_profile(name): profile of the metadata_server fixture"
    )


@pytest.fixture
def metadata_server(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    marker = request.node.get_closest_marker("metadata_profile")
    profile = str(marker.args[0]) if marker is not None else "linux"
    with Emulator(profile=profile) as emulator:
        yield emulator
        failures = emulator.failures
    assert not failures, f"the emulator failed: {failures!r}"
