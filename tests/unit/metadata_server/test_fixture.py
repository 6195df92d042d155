"""The pytest fixture that other suites use."""

from __future__ import annotations

from metadata_server import Emulator, pytest_plugin

from .conftest import ask_host

metadata_server = pytest_plugin.metadata_server


def test_fixture_is_a_running_emulator(metadata_server: Emulator) -> None:
    assert ask_host(metadata_server.host, "instance/name").text == "demo-1"
