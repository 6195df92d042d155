"""The file of certificate authorities: fetched, kept through outages, emptied after a day."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.errors import GuestError
from google_guest.features.linux.oslogin.trusted_ca import (
    INTERVAL,
    KEPT_FOR,
    PATH,
    authorities,
    plan_file,
    plan_removal,
)
from google_guest.system import System

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
NOW = 1_900_000_000.0


class Channel:
    """Stands for the metadata server; without a document it is down."""

    def __init__(self, document: Optional[object]) -> None:
        self.document = document

    def oslogin_certificates(self) -> object:
        if self.document is None:
            raise GuestError("the metadata server is down")
        return self.document


def listing(*keys: object) -> dict[str, object]:
    return {"trustedCertificateAuthorities": [{"publicKey": key} for key in keys]}


@pytest.fixture
def system(tmp_path: Path) -> System:
    (tmp_path / "etc/ssh").mkdir(parents=True)
    return connected(System(root=tmp_path), listing(KEY))


def connected(system: System, document: Optional[object]) -> System:
    system.channel = Channel(document)  # type: ignore[assignment]
    return system


def run(system: System, now: float = NOW, switches: str = "a") -> int:
    changes, _ = plan_file(system, switches, now)
    for change in changes:
        change.apply(system)
    return len(changes)


def content(system: System) -> bytes:
    return (system.root / PATH.lstrip("/")).read_bytes()


def test_keys_are_written_a_line_each(system: System) -> None:
    connected(system, listing(KEY, f"{KEY} second"))
    run(system)
    assert content(system) == f"{KEY}\n{KEY} second\n".encode()
    assert stat.S_IMODE(os.stat(system.root / PATH.lstrip("/")).st_mode) == 0o644


def test_nothing_is_due_before_the_interval_is_over(system: System) -> None:
    assert run(system) == 1
    assert run(system, NOW + 0.89 * INTERVAL) == 0
    assert run(system, NOW + 1.11 * INTERVAL) == 1


def test_the_next_request_comes_within_a_tenth_of_the_interval(system: System) -> None:
    _, recheck_at = plan_file(system, "a", NOW)
    assert recheck_at is not None
    assert 0.9 * INTERVAL <= recheck_at - NOW <= 1.1 * INTERVAL


def test_a_changed_switch_asks_at_once(system: System) -> None:
    run(system)
    assert run(system, NOW + 1, switches="b") == 1


def test_a_clock_set_back_asks_at_once(system: System) -> None:
    run(system)
    assert run(system, NOW - 10 * INTERVAL) == 1


def test_equal_keys_are_not_written_again(system: System) -> None:
    run(system)
    before = os.stat(system.root / PATH.lstrip("/"))
    run(system, NOW + 2 * INTERVAL)
    assert os.stat(system.root / PATH.lstrip("/")).st_ino == before.st_ino


def test_an_outage_keeps_the_last_keys(system: System) -> None:
    run(system)
    connected(system, None)
    with pytest.raises(GuestError, match="down"):
        run(system, NOW + KEPT_FOR - 10)
    assert content(system) == f"{KEY}\n".encode()


def test_an_outage_of_a_day_empties_the_file(system: System) -> None:
    run(system)
    connected(system, None)
    with pytest.raises(GuestError):
        run(system, NOW + KEPT_FOR + 1)
    assert content(system) == b""


@pytest.mark.parametrize("document", [listing(KEY), None])
def test_a_fifo_is_replaced_and_never_opened(system: System, document: Optional[object]) -> None:
    os.mkfifo(system.root / PATH.lstrip("/"))
    connected(system, document)
    changes, _ = plan_file(system, "a", NOW)
    for change in changes:
        if document is None:
            with pytest.raises(GuestError):
                change.apply(system)
        else:
            change.apply(system)
    assert content(system) == (b"" if document is None else f"{KEY}\n".encode())


def test_a_server_without_authorities_empties_the_file(system: System) -> None:
    run(system)
    connected(system, listing())
    run(system, NOW + 2 * INTERVAL)
    assert content(system) == b""


def test_removal_takes_a_fifo_too(system: System) -> None:
    os.mkfifo(system.root / PATH.lstrip("/"))
    for change in plan_removal(system):
        change.apply(system)
    assert not os.path.lexists(system.root / PATH.lstrip("/"))
    assert plan_removal(system) == ()


@pytest.mark.parametrize(
    "key",
    [
        "",
        7,
        None,
        "ssh-ed25519 notbase64!",
        f"{KEY}\n{KEY}",
        f'command="id" {KEY}',
        KEY.replace("ssh-ed25519", "ssh-rsa"),
        "# a comment",
    ],
)
def test_a_bad_key_is_left_out(key: object) -> None:
    assert list(authorities(listing(key, KEY))) == [KEY]


@pytest.mark.parametrize(
    "document", [None, [], "text", {}, {"trustedCertificateAuthorities": {}}, listing("junk")]
)
def test_an_answer_without_usable_keys_is_no_answer(document: object) -> None:
    with pytest.raises(GuestError):
        authorities(document)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda one: st.lists(one)))
def test_any_key_gives_lines_or_a_guest_error(key: object) -> None:
    try:
        keys = authorities(listing(key))
    except GuestError:
        return
    assert all("\n" not in line for line in keys)
