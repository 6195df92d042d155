"""OS Login switched on and off in a booted instance: by metadata, by hand, beside other managers.

One instance for all: it starts with OS Login off and every test leaves it off again.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support import agent_service
from support.agent_service import SETTLED
from support.bed import Bed
from support.commands import run_command
from support.debs import OSLOGIN, GuestDebs
from support.documents import instance_document
from support.guest import Key

CONTROL = "/usr/bin/google_oslogin_control"
SWITCH = "instance/attributes/enable-oslogin"
CA_FILE = "/etc/ssh/oslogin_trustedca.pub"
EDITED = (
    "/etc/ssh/sshd_config",
    "/etc/nsswitch.conf",
    "/etc/pam.d/sshd",
    "/etc/security/group.conf",
)
FINGERPRINT = "b86d3f0a-1d1f-4b0a-8d3f-2f6f0b1c9a77"


@pytest.fixture(scope="module")
def booted(guest_debs: GuestDebs) -> Iterator[Bed]:
    debs = guest_debs.with_packages(OSLOGIN)
    with Bed(debs=debs, metadata=instance_document(), files=dict(SETTLED)) as guest:
        agent_service.await_first_passes(guest)
        yield guest


@pytest.fixture
def guest(booted: Bed) -> Iterator[Bed]:
    """The instance with OS Login off, before the test and after it."""
    before = contents(booted)
    yield booted
    booted.mds.set(SWITCH, "FALSE")
    booted.wait_until(
        lambda: contents(booted) == before and not booted.path(CA_FILE).exists(),
        what="everything is set back",
    )


def contents(guest: Bed) -> Mapping[str, bytes]:
    return {path: guest.path(path).read_bytes() for path in EDITED}


def is_set_up(guest: Bed) -> bool:
    return b"google_authorized_principals" in guest.path(EDITED[0]).read_bytes()


def enable(guest: Bed) -> None:
    guest.mds.set(SWITCH, "TRUE")
    guest.wait_until(lambda: is_set_up(guest) and not pending(guest), what="OS Login is set up")


def pending(guest: Bed) -> bool:
    return guest.path("/run/google-guest-agent/oslogin-services.json").exists()


class Authority:
    """A certificate authority as OS Login's: the fingerprint is in an extension's name.

    ssh-keygen cannot write such a name, it divides it at the equals sign.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._private = folder / f"{name}.pem"
        self._message = folder / f"{name}.message"
        run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(self._private)])
        text = run(["openssl", "pkey", "-in", str(self._private), "-pubout"])
        der = base64.b64decode("".join(text.splitlines()[1:-1]))
        self._blob = string(b"ssh-ed25519") + string(der[-32:])
        self.public = f"ssh-ed25519 {base64.b64encode(self._blob).decode()}"

    def sign(self, key: Key, user: str) -> None:
        """Put a certificate for `user` beside the key, where ssh looks for it."""
        plain = base64.b64decode(key.public.split()[1])
        kind = b"ssh-ed25519-cert-v01@openssh.com"
        extensions = string(f"fingerprint@google.com={FINGERPRINT}".encode()) + string(b"")
        extensions += string(b"permit-pty") + string(b"")
        body = string(kind) + string(b"n" * 32) + plain[4 + len(b"ssh-ed25519") :]
        body += struct.pack(">QI", 1, 1) + string(b"id") + string(string(user.encode()))
        body += struct.pack(">QQ", 0, 2**64 - 1) + string(b"") + string(extensions)
        body += string(b"") + string(self._blob)
        self._message.write_bytes(body)
        signature = self._message.with_suffix(".signature")
        run(
            ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", str(self._private)]
            + ["-in", str(self._message), "-out", str(signature)]
        )
        body += string(string(b"ssh-ed25519") + string(signature.read_bytes()))
        line = f"{kind.decode()} {base64.b64encode(body).decode()}\n"
        Path(f"{key.private}-cert.pub").write_text(line)


def string(data: bytes) -> bytes:
    """A string of the SSH protocol."""
    return struct.pack(">I", len(data)) + data


def run(argv: list[str]) -> str:
    return run_command(argv, purpose="make a certificate").stdout


def test_by_hand_on_and_off_leaves_every_byte(guest: Bed) -> None:
    before = contents(guest)
    assert guest.run([CONTROL, "status"], check=False).status == 1
    guest.run([CONTROL, "activate", "--force"])
    assert guest.run([CONTROL, "status"]).status == 0
    assert guest.run(["/usr/sbin/sshd", "-t"]).status == 0
    guest.run([CONTROL, "deactivate"])
    assert contents(guest) == before
    assert guest.run([CONTROL, "status"], check=False).status == 1


def test_by_hand_is_refused_while_metadata_does_not_want_it(guest: Bed) -> None:
    refused = guest.run([CONTROL, "activate"], check=False)
    assert refused.status == 1 and "enable-oslogin" in refused.stderr
    assert not is_set_up(guest)


def test_sockets_are_open_only_while_it_is_on(guest: Bed) -> None:
    units = ("google-oslogind-nss.socket", "google-oslogind-auth.socket")
    enable(guest)
    assert {guest.unit_property(unit, "ActiveState") for unit in units} == {"active"}
    guest.mds.set(SWITCH, "FALSE")
    guest.wait_until(
        lambda: {guest.unit_property(unit, "ActiveState") for unit in units} == {"inactive"},
        what="the sockets are closed",
    )


def test_a_second_pass_writes_and_restarts_nothing(guest: Bed) -> None:
    enable(guest)
    # The reload that the switch itself has asked for.
    time.sleep(1)
    guest.wait_until(
        lambda: (
            guest.unit_property("ssh.service", "Job") in ("", "0")
            and guest.unit_property("ssh.service", "ActiveState") == "active"
        ),
        what="sshd has read its files",
    )
    started = guest.unit_property("ssh.service", "StateChangeTimestampMonotonic")
    inodes = [guest.path(path).stat().st_ino for path in EDITED]
    lines = len(agent_service.log_lines(guest))
    for _ in range(2):
        guest.run(["systemctl", "reload", "google-guest-agent.service"])
        time.sleep(1)
    assert [guest.path(path).stat().st_ino for path in EDITED] == inodes
    assert guest.unit_property("ssh.service", "StateChangeTimestampMonotonic") == started
    later = [line.text for line in agent_service.log_lines(guest, after=lines)]
    assert not [text for text in later if text.startswith("oslogin:")]


def test_authorities_follow_the_metadata_server_and_replace_a_fifo(guest: Bed) -> None:
    authority = guest.new_key()
    guest.run(["mkfifo", CA_FILE])
    guest.mds.set_oslogin({"certificates": [authority.public]})
    enable(guest)
    assert guest.path(CA_FILE).is_file()
    kind, blob = authority.public.split()[:2]
    assert guest.path(CA_FILE).read_text().startswith(f"{kind} {blob}")


def test_only_certificates_of_the_authorities_open(guest: Bed, tmp_path: Path) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    good, bad = guest.new_key(), guest.new_key()
    guest.mds.set_oslogin(
        {
            "certificates": [ours.public],
            "users": [{"username": "ada", "uid": 5001, "fingerprints": [FINGERPRINT]}],
        }
    )
    enable(guest)
    ours.sign(good, "ada")
    other.sign(bad, "ada")
    assert guest.ssh("ada", good, "id -un").stdout == "ada\n"
    refused = guest.ssh("ada", bad, "true", check=False)
    assert refused.status != 0 and "Permission denied" in refused.stderr


def test_another_keys_command_stays_and_works(guest: Bed) -> None:
    key = guest.new_key()
    drop_in = "/etc/ssh/sshd_config.d/50-x.conf"
    guest.run(["useradd", "-m", "-s", "/bin/bash", "-p", "*", "eve"])
    guest.run(f"mkdir -p /opt && printf '#!/bin/sh\\necho \"{key.public}\"\\n' >/opt/x")
    guest.run(["chmod", "755", "/opt", "/opt/x"])
    text = "AuthorizedKeysCommand /opt/x\nAuthorizedKeysCommandUser nobody\n"
    guest.path(drop_in).write_text(text)
    guest.run(["systemctl", "restart", "ssh.service"])
    lines = len(agent_service.log_lines(guest))
    try:
        enable(guest)
        assert guest.path(drop_in).read_text() == text
        assert b"google_authorized_keys" not in guest.path(EDITED[0]).read_bytes()
        assert guest.ssh("eve", key, "true").status == 0
        said = agent_service.above_info(agent_service.log_lines(guest, after=lines))
        assert len([line for line in said if "/opt/x" in line]) == 1
    finally:
        guest.path(drop_in).unlink()


def test_a_plan_shows_the_difference_and_changes_nothing(guest: Bed, tmp_path: Path) -> None:
    before = contents(guest)
    document = instance_document()
    document["instance"]["attributes"]["enable-oslogin"] = "TRUE"  # type: ignore[index]
    guest.path("/root/wanted.json").write_text(json.dumps(document))
    shown = guest.run(
        ["google-guest", "plan", "--feature", "oslogin", "--metadata", "/root/wanted.json"]
    ).stdout
    assert re.search(r"\+passwd:.*cache_oslogin oslogin", shown)
    assert "google_authorized_keys" in shown
    assert contents(guest) == before
