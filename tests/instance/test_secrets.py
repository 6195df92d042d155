"""No secret in any log: keys, tokens, signed addresses and scripts stay where they belong.

Everything that programs of ours write is looked at: journal, console, serial port, syslog's files,
the status file, results of scripts, the record of users, the command lines of running processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from support import agent_service
from support.agent_service import AGENT, CONFIG
from support.bed import Bed
from support.debs import GuestDebs
from support.documents import instance_document

BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0"
SHORT = "c2VjcmV0LW9mLWJvYg=="
"""In lines that are no keys, whatever stands there might be one."""
SIGNATURE = "5ecre7516na7ure"
PASSWORD = "p4ssw0rd-in-address"
SCRIPT_SECRET = "s3cret-in-script"
OTHER_ATTRIBUTE = "s3cret-in-attribute"
SECRETS = {
    "a key": BLOB,
    "the middle of a key": BLOB[20:52],
    "what stands in a bad line": SHORT,
    "the signature of an address": SIGNATURE,
    "the password in an address": PASSWORD,
    "a line of a script": SCRIPT_SECRET,
    "another attribute": OTHER_ATTRIBUTE,
    "the private half of a host key": "PRIVATE KEY-----",
}
LINES = (
    f"ada:ssh-ed25519 {BLOB} ada",
    f"ssh-ed25519 {BLOB} without a user",
    f"bob:ssh-ed25519 {BLOB}* broken",
    f"bob:ssh-rsa {SHORT}",
    f"{SHORT}",
    f"-x:ssh-ed25519 {BLOB}",
    f"a b:password={SHORT}",
    f'bob:ssh-ed25519 {BLOB} google-ssh {{"expireOn":"{SHORT}"}}',
)
URL = f"https://ada:{PASSWORD}@127.0.0.1:1/x.sh?X-Goog-Signature={SIGNATURE}"
ACCOUNT = {
    "email": "sa@example.test",
    "aliases": ["default"],
    "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
}
TOKEN_PREFIX = "fake-"
"""How the emulator's tokens begin."""
VISIBLE = (
    "journalctl --no-pager -o verbose --all; cat /var/log/syslog /var/log/*.log"
    " /run/google-guest-agent/*.json /run/google-guest-agent/scripts/*.json"
    " /var/lib/google/* /var/lib/google-guest-agent/*.json; ps axww -o args;"
    " systemctl status --no-pager --full google-guest-agent google-startup-scripts;"
    " google-guest status; google-guest keys; google-guest plan; google-guest config"
)


def fetch_in_vain(guest: Bed) -> None:
    """Run the startup scripts with two addresses where nobody listens; does not wait for it."""
    guest.run("echo 127.0.0.1 storage.googleapis.com >>/etc/hosts")
    for unit, url in {"signed": URL, "object": "gs://bucket/object"}.items():
        guest.mds.set("instance/attributes/startup-script-url", url)
        command = ["google_metadata_script_runner", "startup"]
        guest.run(["systemd-run", "-q", f"--unit={unit}", *command])
        guest.wait_until(
            lambda unit=unit: "Found startup-script-url" in guest.journal(unit), what="it is found"
        )
    guest.mds.wait_for_request("instance/service-accounts/default/token", 10)


@pytest.fixture(scope="module")
def told(guest_debs: GuestDebs) -> Iterator[str]:
    """Everything that can be read about an instance with many secrets."""
    document = instance_document(
        attributes={
            "ssh-keys": "\n".join(LINES),
            "startup-script": f"#!/bin/sh\n: {SCRIPT_SECRET}\nexit 3\n",
            "windows-password": OTHER_ATTRIBUTE,
            "enable-guest-attributes": "TRUE",
            "enable-oslogin": OTHER_ATTRIBUTE,
        },
        instance={"serviceAccounts": {"default": ACCOUNT}},
    )
    # As much as there is to be said.
    config = "[Core]\nlog_level = 4\n[MetadataScripts]\nreport_exit_status = true\n"
    with Bed(debs=guest_debs, metadata=document, files={CONFIG: config}) as guest:
        agent_service.await_first_passes(guest)
        fetch_in_vain(guest)
        guest.mds.set("instance/attributes/ssh-keys", "\n".join(LINES[1:]))
        guest.wait_until(
            lambda: "remove the metadata keys of user ada" in guest.journal(AGENT),
            what="the keys are taken away",
        )
        guest.mds.set("instance/attributes/ssh-keys", "\n".join(LINES))
        guest.wait_until(
            lambda: guest.path("/home/ada/.ssh/authorized_keys").exists(), what="they are back"
        )
        for unit in ("signed", "object"):
            guest.wait_until(
                lambda unit=unit: "Finished running" in guest.journal(unit), 30, "scripts are over"
            )
        shown = guest.run(VISIBLE, check=False, timeout=60)
        everything = "\n".join([shown.stdout, shown.stderr, guest.console(), guest.serial()])
        # The public halves of host keys are published.
        for file in guest.path("/etc/ssh").glob("*.pub"):
            everything = everything.replace(file.read_text().split()[1], "HOST-KEY")
        yield everything


def test_there_was_something_to_tell(told: str) -> None:
    for text in (
        "write 1 metadata key for user ada",
        "a line for user bob",
        "startup-script exit status 3",
        'Script "startup-script-url" failed',
        "enable-oslogin",
        "ssh_host_ed25519_key",
    ):
        assert text in told, text


@pytest.mark.parametrize("what", SECRETS)
def test_is_in_no_log(told: str, what: str) -> None:
    lines = [line for line in told.splitlines() if SECRETS[what] in line]
    assert lines == []


def test_no_long_run_of_base64_is_in_any_log(told: str) -> None:
    runs = re.findall(r"[A-Za-z0-9+/]{60,}={0,2}", told)
    # Digests and paths are none.
    assert [run for run in runs if not re.fullmatch("[0-9a-f]+|[a-z/-]+", run)] == []


def test_the_token_for_a_download_is_in_no_log(told: str) -> None:
    assert "https://storage.googleapis.com/bucket/object: Connection refused" in told
    assert re.findall(f"{TOKEN_PREFIX}.*", told) == []
