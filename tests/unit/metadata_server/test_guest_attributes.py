"""What the guest may write, and when it may not."""

from __future__ import annotations

import pytest

from metadata_server import Emulator

from .conftest import Ask, ask_host

PATH = "instance/guest-attributes"


def test_written_attribute_can_be_read_listed_and_seen(mds: Emulator, ask: Ask) -> None:
    assert ask(f"{PATH}/hostkeys/ssh-ed25519", method="PUT", body=b"AAAA").status == 200
    assert ask(f"{PATH}/hostkeys/ssh-ed25519").body == b"AAAA"
    assert ask(f"{PATH}/").text == "hostkeys/\n"
    assert ask(f"{PATH}/hostkeys/").text == "ssh-ed25519\n"
    assert mds.guest_attributes() == {"hostkeys": {"ssh-ed25519": "AAAA"}}
    document = ask("?recursive=true").json
    assert isinstance(document, dict)
    assert document["instance"]["guestAttributes"] == {"hostkeys": {"ssh-ed25519": "AAAA"}}


def test_names_stay_as_the_guest_wrote_them(mds: Emulator, ask: Ask) -> None:
    ask(f"{PATH}/guestInventory/LongName", method="PUT", body=b"x")
    assert ask(f"{PATH}/guestInventory/LongName").text == "x"
    assert mds.guest_attributes() == {"guestInventory": {"LongName": "x"}}


def test_deleting_the_last_key_removes_its_namespace(mds: Emulator, ask: Ask) -> None:
    ask(f"{PATH}/a/b", method="PUT", body=b"x")
    assert ask(f"{PATH}/a/b", method="DELETE").status == 200
    assert ask(f"{PATH}/a/b").status == 404
    assert mds.guest_attributes() == {}


def test_deleting_what_is_absent_is_not_found(ask: Ask) -> None:
    assert ask(f"{PATH}/a/b", method="DELETE").status == 404


@pytest.mark.parametrize("value", ["FALSE", "", "maybe", None])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_everything_is_refused_unless_enabled(
    mds: Emulator, ask: Ask, method: str, value: object
) -> None:
    if value is None:
        mds.delete("instance/attributes/enable-guest-attributes")
    else:
        mds.set("instance/attributes/enable-guest-attributes", value)
    answer = ask(f"{PATH}/a/b", method=method)
    assert answer.status == 403
    assert "Guest attributes endpoint access is disabled." in answer.text


def test_project_may_enable_what_the_instance_does_not_mention(mds: Emulator, ask: Ask) -> None:
    mds.delete("instance/attributes/enable-guest-attributes")
    mds.set("project/attributes/enable-guest-attributes", "yes")
    assert ask(f"{PATH}/a/b", method="PUT", body=b"x").status == 200
    mds.set("instance/attributes/enable-guest-attributes", "no")
    assert ask(f"{PATH}/a/b", method="PUT", body=b"x").status == 403


@pytest.mark.parametrize(
    ("name", "size", "status"),
    [
        ("k" * 128, 1, 200),
        ("k" * 129, 1, 400),
        ("%C3%A9" * 64, 1, 200),
        ("%C3%A9" * 65, 1, 400),
        ("a%2Fb", 1, 400),
        ("a%0Ab", 1, 400),
        ("%FF", 1, 400),
        ("k", 0, 200),
        ("k", 256 * 1024, 200),
        ("k", 256 * 1024 + 1, 400),
    ],
)
def test_limits_of_names_and_values(ask: Ask, name: str, size: int, status: int) -> None:
    assert ask(f"{PATH}/ns/{name}", method="PUT", body=b"x" * size).status == status
    assert ask(f"{PATH}/{name}/key", method="PUT", body=b"x" * size).status == status


def test_value_that_is_not_text_is_kept_byte_by_byte(ask: Ask) -> None:
    ask(f"{PATH}/a/b", method="PUT", body=b"\xff\x00\n")
    assert ask(f"{PATH}/a/b").body == b"\xff\x00\n"


def test_a_write_moves_the_root_etag(ask: Ask) -> None:
    before = ask("?recursive=true").etag
    ask(f"{PATH}/a/b", method="PUT", body=b"x")
    assert ask("?recursive=true").etag != before


def test_root_etag_can_be_kept_from_moving() -> None:
    with Emulator(guest_writes_move_root=False) as mds:
        before = ask_host(mds.host, "?recursive=true").etag
        ask_host(mds.host, f"{PATH}/a/b", method="PUT", body=b"x")
        assert ask_host(mds.host, "?recursive=true").etag == before
        assert mds.guest_attributes() == {"a": {"b": "x"}}


def test_too_many_requests_are_told_to_wait(mds: Emulator, ask: Ask) -> None:
    mds.limit_guest_attributes(0.5)
    answers = [ask(f"{PATH}/a/b", method="PUT", body=b"x") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 429, 429]
    assert answers[1].headers["retry-after"] == "1"
    assert ask("instance/id").status == 200
    mds.limit_guest_attributes(None)
    assert ask(f"{PATH}/a/b", method="PUT", body=b"x").status == 200
