"""Guest attributes: what is published, how often, and what a refusal means."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.trees import Channel, inputs, metadata, place, tree

from google_guest.changes.reports import PublishGuestAttributes
from google_guest.features import Plan
from google_guest.features import guest_attributes as feature
from google_guest.metadata.errors import Forbidden, NotFound, TooManyRequests
from google_guest.places import LINUX
from google_guest.state import STATUS_NAME
from google_guest.system import System
from google_guest.version import version

KEYS = {
    "/etc/ssh/ssh_host_ed25519_key": "private",
    "/etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAAC3Nza root@host\n",
    "/etc/ssh/ssh_host_rsa_key": "private",
    "/etc/ssh/ssh_host_rsa_key.pub": "ssh-rsa AAAAB3Nza\n",
}
ALIVE = f"/proc/{os.getpid()}/comm"
PUBLISHED = [
    ("hostkeys/ssh-ed25519", "AAAAC3Nza"),
    ("hostkeys/ssh-rsa", "AAAAB3Nza"),
    ("guest-agent/version", version()),
]


def plan(system: System, *, switch: str = "TRUE", instance_id: int = 7, now: float = 1e6) -> Plan:
    known = metadata({"id": instance_id, "attributes": {feature.SWITCH: switch}})
    return feature.plan(inputs(system, known, now=now))


def publish(system: System, **facts: object) -> None:
    for change in plan(system, **facts).changes:  # type: ignore[arg-type]
        change.apply(system)


def status(root: Path, **features: object) -> None:
    place(root, LINUX.in_run(STATUS_NAME), json.dumps({"started": 999_990.0, "features": features}))


def test_host_keys_and_version_are_published(tmp_path: Path) -> None:
    channel = Channel()
    publish(tree(tmp_path, KEYS, channel=channel))
    assert channel.written == PUBLISHED


def test_nothing_is_sent_twice(tmp_path: Path) -> None:
    system = tree(tmp_path, KEYS, channel=Channel())
    publish(system)
    assert plan(system).changes == ()


def test_only_a_changed_key_is_sent_again(tmp_path: Path) -> None:
    channel = Channel()
    system = tree(tmp_path, KEYS, channel=channel)
    publish(system)
    place(tmp_path, "/etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAAnew\n")
    channel.written.clear()
    publish(system)
    assert channel.written == [("hostkeys/ssh-rsa", "AAAAnew")]


def test_another_instance_publishes_everything(tmp_path: Path) -> None:
    channel = Channel()
    system = tree(tmp_path, KEYS, channel=channel)
    publish(system)
    channel.written.clear()
    publish(system, instance_id=8)
    assert channel.written == PUBLISHED


@pytest.mark.parametrize(
    "text", ["", "ssh-rsa", "ssh-rsa !!", "../x AAAA", "\x00 AAAA", "-----BEGIN AAAA"]
)
def test_file_that_is_no_public_key_is_left_out(tmp_path: Path, text: str) -> None:
    files = {**KEYS, "/etc/ssh/ssh_host_rsa_key.pub": text}
    channel = Channel()
    system = tree(tmp_path, files, channel=channel)
    assert plan(system).notes == (
        "/etc/ssh/ssh_host_rsa_key.pub is not published: it is no public key",
    )
    publish(system)
    assert [path for path, _ in channel.written] == ["hostkeys/ssh-ed25519", "guest-agent/version"]


def test_public_key_without_its_private_half_is_left_out(tmp_path: Path) -> None:
    channel = Channel()
    publish(tree(tmp_path, {"/etc/ssh/ssh_host_rsa_key.pub": "ssh-rsa AAAA"}, channel=channel))
    assert [path for path, _ in channel.written] == ["guest-agent/version"]


@pytest.mark.parametrize("refusal", [Forbidden("disabled"), NotFound("absent")])
def test_refusal_is_one_line_and_no_failure(
    tmp_path: Path, refusal: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    system = tree(tmp_path, {**KEYS, ALIVE: ""}, channel=Channel(refusal))
    publish(system)
    publish(system)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert plan(system).changes == ()


def test_refused_attributes_are_offered_again_when_the_switch_moves(tmp_path: Path) -> None:
    system = tree(tmp_path, {**KEYS, ALIVE: ""}, channel=Channel(Forbidden("disabled")))
    publish(system, switch="FALSE")
    assert plan(system, switch="FALSE").changes == ()
    assert plan(system, switch="TRUE").changes


def test_refused_attributes_are_offered_again_by_the_next_agent(tmp_path: Path) -> None:
    system = tree(tmp_path, {**KEYS, ALIVE: ""}, channel=Channel(Forbidden("disabled")))
    publish(system)
    (tmp_path / ALIVE.lstrip("/")).unlink()
    (tmp_path / ALIVE.lstrip("/")).parent.rmdir()
    assert plan(system).changes


def test_overloaded_server_is_a_failure_and_keeps_what_it_took(tmp_path: Path) -> None:
    class Busy(Channel):
        def write_guest_attribute(self, namespace: str, key: str, value: str) -> None:
            if self.written:
                raise TooManyRequests("429")
            super().write_guest_attribute(namespace, key, value)

    system = tree(tmp_path, KEYS, channel=Busy())
    with pytest.raises(TooManyRequests):
        publish(system)
    (change,) = plan(system).changes
    assert isinstance(change, PublishGuestAttributes)
    assert [item.path for item in change.attributes] == ["hostkeys/ssh-rsa", "guest-agent/version"]


@pytest.mark.parametrize("name", ["accounts", "oslogin"])
def test_readiness_is_the_first_success_of_accounts_or_os_login(tmp_path: Path, name: str) -> None:
    channel = Channel()
    status(tmp_path, **{name: {"on": True, "first_success": 999_995.25}})
    publish(tree(tmp_path, channel=channel))
    assert ("guest-agent/sshable", "999995") in channel.written


def test_readiness_is_told_once(tmp_path: Path) -> None:
    channel = Channel()
    system = tree(tmp_path, channel=channel)
    status(tmp_path, accounts={"on": True, "first_success": 999_995})
    publish(system)
    status(tmp_path, accounts={"on": True, "first_success": 999_999})
    assert plan(system) == Plan()


def test_readiness_is_waited_for(tmp_path: Path) -> None:
    status(tmp_path, accounts={"on": True})
    result = plan(tree(tmp_path), now=1_000_000.0)
    assert result.recheck_at == 1_000_002.0


@pytest.mark.parametrize("moment", [float("inf"), float("nan"), -1, 1e300, "soon"])
def test_what_is_no_moment_is_no_readiness(tmp_path: Path, moment: object) -> None:
    status(tmp_path, accounts={"on": True, "first_success": moment})
    channel = Channel()
    publish(tree(tmp_path, channel=channel))
    assert "guest-agent/sshable" not in dict(channel.written)


def test_wait_for_readiness_becomes_leisurely(tmp_path: Path) -> None:
    status(tmp_path, accounts={"on": True})
    assert plan(tree(tmp_path), now=1_001_000.0).recheck_at == 1_001_030.0


def test_readiness_is_not_waited_for_where_nobody_provides_it(tmp_path: Path) -> None:
    status(tmp_path, accounts={"on": False, "first_success": 1}, oslogin={"on": False})
    result = plan(tree(tmp_path))
    assert result.recheck_at is None


def test_damaged_memory_means_nothing_was_sent(tmp_path: Path) -> None:
    channel = Channel()
    system = tree(tmp_path, {**KEYS, LINUX.in_run(feature.MEMORY): '{"published": 3, "switch": 1}'})
    system.channel = channel
    publish(system)
    assert channel.written == PUBLISHED


def test_values_are_shown_in_the_difference(tmp_path: Path) -> None:
    (change,) = plan(tree(tmp_path, KEYS)).changes
    assert "+hostkeys/ssh-rsa AAAAB3Nza" in change.diff()


def test_nothing_without_an_instance_id(tmp_path: Path) -> None:
    assert feature.plan(inputs(tree(tmp_path, KEYS), metadata({"id": None}))) == Plan()
