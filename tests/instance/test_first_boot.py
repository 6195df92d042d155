"""First boot in booted instances with the packages installed: host keys, marker, what is published.

What the images of distributions do: openssh-server makes host keys when it is installed, so every
bed starts with the keys of its image, as a clone does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from support.bed import Bed
from support.documents import instance_document

if TYPE_CHECKING:
    from support.debs import GuestDebs

AGENT = "google-guest-agent.service"
CONFIG = "/etc/default/instance_configs.cfg"
MARKER = "/etc/google_instance_id"
STATUS = "/run/google-guest-agent/status.json"
INSTANCE_ID = 4815162342108
OTHER_ID = 4815162342999
KEY_TYPES = ("ecdsa", "ed25519", "rsa")
ENABLED = {"enable-guest-attributes": "TRUE"}
FAILING_KEYGEN = "#!/bin/sh\necho no entropy >&2\nexit 1\n"

Boot = Callable[..., Bed]


@pytest.fixture
def boot(bed: Boot, guest_debs: GuestDebs) -> Boot:
    """Boot an instance with the agent, these attributes and these lines of configuration."""

    def booted(
        *, attributes: Mapping[str, str] = ENABLED, config: str = "", **description: Any
    ) -> Bed:
        files = {CONFIG: config, **description.pop("files", {})}
        document = instance_document(attributes=attributes)
        return bed(debs=guest_debs, metadata=document, files=files, **description)

    return booted


def host_keys(bed: Bed) -> dict[str, str]:
    """Algorithm to base64 of the keys on disk."""
    lines = bed.run("cat /etc/ssh/ssh_host_*_key.pub").stdout.splitlines()
    return {line.split()[0]: line.split()[1] for line in lines}


def published(bed: Bed, namespace: str = "hostkeys") -> dict[str, str]:
    return bed.mds.guest_attributes().get(namespace, {})


def await_marker(bed: Bed, instance_id: int = INSTANCE_ID) -> None:
    path = bed.path(MARKER)
    bed.wait_until(
        lambda: path.exists() and path.read_text() == f"{instance_id}\n",
        what=f"{MARKER} names instance {instance_id}",
    )


def await_pass(bed: Bed, feature: str) -> dict[str, Any]:
    """Wait until the running agent has made a pass of `feature`; its row of the status."""

    def row() -> dict[str, Any]:
        document = json.loads(bed.path(STATUS).read_text())
        if document["pid"] != int(bed.unit_property(AGENT, "MainPID")):
            return {}
        found = document["features"].get(feature, {})
        return found if "last_pass" in found else {}

    return bed.wait_until(row, what=f"a pass of {feature}")


def restart(bed: Bed) -> None:
    bed.run(["systemctl", "restart", AGENT])


def test_new_instance_gets_its_own_keys_before_sshd_starts(boot: Boot) -> None:
    guest = boot()
    await_marker(guest)
    assert sorted(host_keys(guest)) == ["ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-rsa"]
    assert guest.run(f"stat -c %a {MARKER}").stdout.strip() == "644"
    modes = guest.run("stat -c %a:%U /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub").stdout
    assert sorted(set(modes.split())) == ["600:root", "644:root"]
    made = guest.run("stat -c %Y /etc/ssh/ssh_host_rsa_key").stdout
    started = guest.unit_property("ssh.service", "ExecMainStartTimestamp")
    assert int(made) <= int(guest.run(["date", "-d", started, "+%s"]).stdout)


def test_sshd_shows_the_key_that_is_on_disk_and_in_guest_attributes(boot: Boot) -> None:
    guest = boot()
    guest.wait_until(lambda: len(published(guest)) == 3, what="three host keys are published")
    scanned = guest.outside(["ssh-keyscan", "-t", "ed25519,rsa,ecdsa", guest.nics[0].address])
    seen = {line.split()[1]: line.split()[2] for line in scanned.stdout.splitlines() if line}
    assert published(guest) == host_keys(guest) == seen


def test_two_instances_of_one_image_have_different_keys(boot: Boot) -> None:
    first, second = boot(), boot()
    for guest in (first, second):
        await_marker(guest)
    assert not set(host_keys(first).values()) & set(host_keys(second).values())


def test_restart_changes_nothing(boot: Boot) -> None:
    guest = boot()
    await_pass(guest, "guest-attributes")
    guest.wait_until(lambda: len(published(guest)) == 3, what="three host keys are published")
    listing = "find /etc -newer /etc/google_instance_id -type f; sha256sum /etc/ssh/ssh_host_*"
    before = guest.run(listing).stdout
    guest.mds.clear_requests()
    restart(guest)
    await_pass(guest, "guest-attributes")
    assert guest.run(listing).stdout == before
    puts = [request.path for request in guest.mds.requests() if request.method == "PUT"]
    assert [path for path in puts if "hostkeys" in path] == []


def test_reboot_keeps_the_keys(boot: Boot) -> None:
    guest = boot()
    await_marker(guest)
    before = host_keys(guest)
    guest.reboot()
    await_pass(guest, "first-boot")
    assert host_keys(guest) == before


def test_new_instance_id_replaces_keys_and_what_is_published(boot: Boot) -> None:
    guest = boot()
    guest.wait_until(lambda: len(published(guest)) == 3, what="three host keys are published")
    before = host_keys(guest)
    guest.mds.set("instance/id", OTHER_ID)
    await_marker(guest, OTHER_ID)
    after = host_keys(guest)
    assert sorted(after) == sorted(before)
    assert not set(after.values()) & set(before.values())
    guest.wait_until(lambda: published(guest) == after, what="the new keys are published")


def test_switch_keeps_the_keys_and_starts_no_ssh_keygen(boot: Boot) -> None:
    guest = boot(
        config="[InstanceSetup]\nset_host_keys = false\n",
        files={"/usr/local/bin/ssh-keygen": "#!/bin/sh\ntouch /var/tmp/called\n"},
    )
    before = host_keys(guest)
    guest.path("/usr/local/bin/ssh-keygen").chmod(0o755)
    guest.mds.set("instance/id", OTHER_ID)
    await_marker(guest, OTHER_ID)
    assert host_keys(guest) == before
    assert not guest.path("/var/tmp/called").exists()
    guest.wait_until(lambda: published(guest) == before, what="the image's keys are published")


def test_failing_ssh_keygen_leaves_no_marker_and_is_tried_again(boot: Boot) -> None:
    guest = boot()
    await_marker(guest)
    before = host_keys(guest)
    guest.write("/usr/local/bin/ssh-keygen", FAILING_KEYGEN, mode=0o755)
    guest.mds.set("instance/id", OTHER_ID)
    guest.wait_until(
        lambda: "no entropy" in guest.journal(AGENT), what="the journal tells of the failure"
    )
    assert guest.path(MARKER).read_text() == f"{INSTANCE_ID}\n"
    assert host_keys(guest) == before
    guest.path("/usr/local/bin/ssh-keygen").unlink()
    restart(guest)
    await_marker(guest, OTHER_ID)
    assert not set(host_keys(guest).values()) & set(before.values())


def test_refused_guest_attributes_are_one_info_and_the_first_boot_completes(boot: Boot) -> None:
    guest = boot(attributes={})
    await_marker(guest)
    row = await_pass(guest, "guest-attributes")
    assert row["error"] == ""
    lines = [line for line in guest.journal(AGENT).splitlines() if "not published" in line]
    assert len(lines) == 1
    puts = [request for request in guest.mds.requests() if request.method == "PUT"]
    assert len(puts) == 1


def test_refused_guest_attributes_follow_when_they_are_enabled(boot: Boot) -> None:
    guest = boot(attributes={})
    await_pass(guest, "guest-attributes")
    guest.mds.set("instance/attributes/enable-guest-attributes", "TRUE")
    guest.wait_until(lambda: published(guest) == host_keys(guest), what="the keys are published")


def test_version_and_readiness_are_published(boot: Boot) -> None:
    guest = boot()
    guest.wait_until(
        lambda: {"sshable", "version"} <= set(published(guest, "guest-agent")),
        timeout=20,
        what="version and readiness are published",
    )
    said = guest.run("google-guest version").stdout.strip()
    assert published(guest, "guest-agent")["version"] == said
    assert published(guest, "guest-agent")["sshable"].isdigit()


def test_own_guest_attributes_cause_no_second_write(boot: Boot) -> None:
    guest = boot()
    guest.wait_until(
        lambda: "sshable" in published(guest, "guest-agent"), timeout=20, what="readiness"
    )
    puts = [request.path for request in guest.mds.requests() if request.method == "PUT"]
    assert len(puts) == len(set(puts))


def test_number_kept_by_an_older_agent_keeps_the_keys(boot: Boot) -> None:
    guest = boot(
        config=f"[Instance]\ninstance_id = {INSTANCE_ID}\n",
        files={"/etc/ssh/ssh_host_rsa_key.pub": "ssh-rsa QUFB kept\n"},
    )
    await_marker(guest)
    assert host_keys(guest)["ssh-rsa"] == "QUFB"
