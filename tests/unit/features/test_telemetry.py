"""Telemetry: the two headers, their encoding, the switch and the day between two reports."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import Channel, inputs, metadata, place, tree

from google_guest.features import telemetry as feature
from google_guest.metadata.errors import Forbidden, Unreachable
from google_guest.places import LINUX
from google_guest.system import System
from google_guest.system.kernel import KernelFacts
from google_guest.version import version

OS_RELEASE = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
KERNEL = KernelFacts("linux", "6.1.0-18-cloud-amd64", "#1 SMP Debian", "x86_64")
ALIVE = f"/proc/{os.getpid()}/comm"
DAY = 86400.0


@pytest.fixture(autouse=True)
def _kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature, "kernel_facts", lambda: KERNEL)


def machine(root: Path, channel: Channel) -> System:
    return tree(root, {"/etc/os-release": OS_RELEASE, ALIVE: ""}, channel=channel)


def report(system: System, now: float = 1e6) -> None:
    for change in feature.plan(inputs(system, metadata(), now=now)).changes:
        change.apply(system)


def decoded(message: bytes) -> dict[int, str]:
    """Decode a message of string fields as protobuf.dev describes it."""
    fields = {}
    position = 0
    while position < len(message):
        key, position = varint(message, position)
        assert key & 7 == 2
        length, position = varint(message, position)
        fields[key >> 3] = message[position : position + length].decode()
        position += length
    return fields


def varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position


def test_headers_say_which_agent_on_which_system(tmp_path: Path) -> None:
    channel = Channel()
    report(machine(tmp_path, channel))
    (headers,) = channel.reports
    assert decoded(base64.b64decode(headers["X-Google-Guest-Agent"])) == {
        1: "GCEGuestAgent",
        2: version(),
        3: "amd64",
    }
    assert decoded(base64.b64decode(headers["X-Google-Guest-OS"])) == {
        2: "linux",
        3: "debian",
        4: "Debian GNU/Linux 12 (bookworm)",
        5: "12",
        6: "x86_64",
        7: "6.1.0-18-cloud-amd64",
        8: "#1 SMP Debian",
    }


def test_encoding_is_the_documented_example() -> None:
    # protobuf.dev, "Encoding": field 2 with the text "testing".
    assert feature.encode_texts(("", "testing")) == bytes.fromhex("120774657374696e67")


@given(st.lists(st.text(max_size=300), max_size=40))
def test_every_text_is_decoded_as_it_was_or_cut(texts: list[str]) -> None:
    expected = {
        number: text[:256].encode("utf-8", "replace").decode()
        for number, text in enumerate(texts, start=1)
        if text
    }
    assert decoded(feature.encode_texts(tuple(texts))) == expected


@pytest.mark.parametrize("level", ["instance", "project"])
def test_either_level_switches_it_off(tmp_path: Path, level: str) -> None:
    values: dict[str, Any] = {"attributes": {"disable-guest-telemetry": "true"}}
    known = metadata(values) if level == "instance" else metadata(project=values)
    decision = feature.enabled(inputs(tree(tmp_path), known))
    assert (decision.on, decision.layer) == (False, f"{level} metadata")


def test_instance_cannot_switch_on_what_the_project_switched_off(tmp_path: Path) -> None:
    known = metadata(
        {"attributes": {"disable-guest-telemetry": "false"}},
        project={"attributes": {"disable-guest-telemetry": "true"}},
    )
    assert not feature.enabled(inputs(tree(tmp_path), known)).on


def test_on_by_default(tmp_path: Path) -> None:
    assert feature.enabled(inputs(tree(tmp_path), metadata())).on


def test_next_report_is_a_day_later(tmp_path: Path) -> None:
    channel = Channel()
    system = machine(tmp_path, channel)
    report(system, 1e6)
    result = feature.plan(inputs(system, metadata(), now=1e6 + DAY - 1))
    assert (result.changes, result.recheck_at) == ((), 1e6 + DAY)
    report(system, 1e6 + DAY)
    assert len(channel.reports) == 2


def test_clock_that_was_set_back_does_not_silence_it(tmp_path: Path) -> None:
    channel = Channel()
    system = machine(tmp_path, channel)
    report(system, 9e9)
    report(system, 1e6)
    assert len(channel.reports) == 2


def test_next_agent_reports_anew(tmp_path: Path) -> None:
    system = machine(tmp_path, Channel())
    place(tmp_path, LINUX.in_run(feature.MEMORY), '{"sent": 999999, "process": 4194399}')
    assert feature.plan(inputs(system, metadata())).changes


def test_any_answer_will_do(tmp_path: Path) -> None:
    system = machine(tmp_path, Channel(Forbidden("403")))
    report(system)
    assert feature.plan(inputs(system, metadata(), now=1e6 + 1)).changes == ()


def test_no_answer_is_a_failure(tmp_path: Path) -> None:
    system = machine(tmp_path, Channel(Unreachable("nobody")))
    with pytest.raises(Unreachable):
        report(system)
    assert feature.plan(inputs(system, metadata(), now=1e6 + 1)).changes


def test_everything_that_is_sent_is_shown(tmp_path: Path) -> None:
    (change,) = feature.plan(inputs(machine(tmp_path, Channel()), metadata())).changes
    assert "+6.1.0-18-cloud-amd64" in change.diff()
