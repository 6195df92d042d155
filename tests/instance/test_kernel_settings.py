"""Kernel settings of the system configuration on a running instance: applied once, never again.

The settings of the network alone: a bed may not change others; tests/vm sees them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bed import Bed
from support.debs import CONFIGS, OSLOGIN, GuestDebs, next_versions
from support.documents import instance_document

OURS = "net.ipv4.conf.all.accept_source_route"
FORWARDING = "net.ipv4.ip_forward"
ADMINISTRATORS = "/etc/sysctl.d/99-router.conf"

pytestmark = pytest.mark.xdist_group("kernel-settings")


def value(guest: Bed, key: str) -> str:
    return guest.run(["sysctl", "-n", key]).stdout.strip()


def install(guest: Bed, debs: list[Path]) -> None:
    for deb in debs:
        guest.path(f"/var/tmp/{deb.name}").write_bytes(deb.read_bytes())
    guest.run(
        ["dpkg", "--auto-deconfigure", "-i", *(f"/var/tmp/{deb.name}" for deb in debs)], timeout=60
    )


@pytest.fixture(scope="module")
def router(guest_debs: GuestDebs) -> Iterator[Bed]:
    """An instance that somebody has made a router, before the package comes."""
    with Bed(
        debs=guest_debs.with_packages(OSLOGIN),
        metadata=instance_document(),
        files={ADMINISTRATORS: f"{FORWARDING} = 1\n"},
    ) as guest:
        guest.run(["sysctl", "-w", f"{FORWARDING}=1", f"{OURS}=1"])
        install(guest, list(guest_debs.named(CONFIGS)))
        yield guest


def test_first_installation_applies_the_settings_at_once(router: Bed) -> None:
    assert value(router, OURS) == "0"


def test_setting_of_a_later_file_wins_at_the_first_installation(router: Bed) -> None:
    assert value(router, FORWARDING) == "1"


def test_upgrade_leaves_what_was_set_at_run_time(
    router: Bed, guest_debs: GuestDebs, tmp_path: Path
) -> None:
    router.run(["sysctl", "-w", f"{OURS}=1"])
    debs = [*guest_debs, *guest_debs.named(OSLOGIN, CONFIGS)]
    install(router, next_versions(debs, tmp_path))
    assert value(router, OURS) == "1"
    assert router.run(["systemctl", "is-system-running"], check=False).stdout.strip() == "running"
