"""image-clean in a booted instance, and the next instance that is made of its disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from support.bed import Bed
from support.documents import instance_document

if TYPE_CHECKING:
    from support.debs import GuestDebs

AGENT = "google-guest-agent.service"
MARKER = "/etc/google_instance_id"
KEYS = "/home/builder/.ssh/authorized_keys"
OTHER_ID = 4815162342999


def test_instance_made_of_a_cleaned_disk_knows_nothing_of_its_builder(
    bed: Callable[..., Bed], guest_debs: GuestDebs
) -> None:
    guest = bed(debs=guest_debs, metadata=instance_document())
    key = guest.new_key()
    guest.mds.set("instance/attributes/ssh-keys", f"builder:{key.public}")
    guest.wait_until(lambda: guest.path(KEYS).exists(), what="the builder's key is written")
    own = guest.new_key().public
    guest.path(KEYS).write_text(f"{own}\n{guest.path(KEYS).read_text()}")
    host_key = guest.path("/etc/ssh/ssh_host_rsa_key.pub").read_text()
    guest.run(["systemctl", "stop", AGENT])

    listed = json.loads(guest.run(["google-guest", "image-clean", "--dry-run", "--json"]).stdout)
    assert guest.path(MARKER).exists()
    guest.run(["google-guest", "image-clean", "--yes"])
    assert f"remove {MARKER}" in [change["description"] for change in listed["changes"]]
    assert not guest.path(MARKER).exists()
    assert guest.path(KEYS).read_text() == f"{own}\n"
    again = guest.run(["google-guest", "image-clean", "--dry-run"]).stdout
    assert again == "There is nothing to remove.\n"

    guest.poweroff()
    with guest.mds.batch():
        guest.mds.delete("instance/attributes/ssh-keys")
        guest.mds.set("instance/id", OTHER_ID)
    guest.boot()
    guest.wait_until(lambda: guest.path(MARKER).exists(), what="the new instance is set up")
    assert guest.path("/etc/ssh/ssh_host_rsa_key.pub").read_text() != host_key
    assert guest.path(KEYS).read_text() == f"{own}\n"
    assert guest.ssh("builder", key, check=False).status == 255
