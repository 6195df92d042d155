"""The ready-made documents."""

from __future__ import annotations

import json

import pytest

from metadata_server import Emulator
from metadata_server.profiles import PROFILES, profile

from .conftest import ask_host


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_profile_is_served_in_every_form(name: str) -> None:
    with Emulator(name) as mds:
        for form in ("?recursive=true", "?recursive=true&alt=text", ""):
            assert ask_host(mds.host, form).status == 200
        assert mds.failures == []


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_profile_is_a_fresh_copy(name: str) -> None:
    document = profile(name)
    document.clear()
    assert profile(name)


@pytest.mark.parametrize("name", ["linux", "windows", "minimal"])
def test_document_comes_back_as_it_went_in(name: str) -> None:
    with Emulator(name) as mds:
        assert ask_host(mds.host, "?recursive=true").json == profile(name)


def test_minimal_profile_has_only_id_and_project() -> None:
    with Emulator("minimal") as mds:
        assert ask_host(mds.host, "").text == "instance/\nproject/\n"
        assert ask_host(mds.host, "instance/").text == "id\n"


def test_hostile_profile_is_valid_json_with_a_huge_attribute_and_wrong_types() -> None:
    with Emulator("hostile") as mds:
        body = ask_host(mds.host, "?recursive=true").body
        assert len(body) > 5 * 1024 * 1024
        instance = json.loads(body)["instance"]
        assert instance["networkInterfaces"][0]["mtu"] == "abc"
        assert instance["attributes"]["null-value"] is None
        leaf = ask_host(mds.host, "instance/attributes/binary-value").body
        with pytest.raises(UnicodeDecodeError):
            leaf.decode("utf-8")


def test_profile_can_be_changed_while_running() -> None:
    with Emulator("linux") as mds:
        mds.use_profile("windows")
        assert ask_host(mds.host, "instance/name").text == "win-7"


def test_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="hostile"):
        Emulator("nonsense")
