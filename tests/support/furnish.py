"""What a bed's files need before PID 1 starts: name, resolver, DHCP client, fake firmware data.

Facts: machine-id(5) (an empty file is filled on boot without counting as a first boot),
systemd.network(5), interfaces(5); the DMI values of Compute Engine as `dmidecode` shows them.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from support.commands import run_command
from support.network import METADATA_V4

HOSTNAME = "bed"
DHCP_CLIENTS = ("dhclient", "networkd", "NetworkManager")

_NETWORKD_LINKS = {
    "multi-user.target.wants/systemd-networkd.service": "systemd-networkd.service",
    "sockets.target.wants/systemd-networkd.socket": "systemd-networkd.socket",
    "network-online.target.wants/systemd-networkd-wait-online.service": (
        "systemd-networkd-wait-online.service"
    ),
}


def stack_files(bed: str, directory: Path, lower: Sequence[Path]) -> None:
    """Make the file system of a bed at directory/m: `lower`, the topmost first, and memory."""
    run_command(
        ["mount", "-t", "tmpfs", "-o", "mode=755", bed, str(directory)],
        purpose="make the bed's memory file system",
    )
    for folder in ("u", "w", "m"):
        (directory / folder).mkdir()
    lowers = ":".join(str(path) for path in lower)
    run_command(
        [
            *("mount", "-t", "overlay", bed, str(directory / "m"), "-o"),
            f"lowerdir={lowers},upperdir={directory / 'u'},workdir={directory / 'w'}",
        ],
        purpose="stack the bed's files",
    )


def dhcp_client(suite: str, choice: Union[bool, str]) -> Optional[str]:
    """The DHCP client for a choice of `Bed`; None: configured without DHCP."""
    if choice is False:
        return None
    if choice is True:
        # What the platform's images of the suite run.
        return "dhclient" if suite == "bullseye" else "networkd"
    if choice not in DHCP_CLIENTS:
        raise ValueError(f"no DHCP client {choice!r}: one of {', '.join(DHCP_CLIENTS)}")
    return str(choice)


def client_packages(client: Optional[str]) -> tuple[str, ...]:
    """Packages of the distribution that a DHCP client needs beyond the base."""
    return {"NetworkManager": ("network-manager",), "dhclient": ("ifupdown",)}.get(client or "", ())


def furnish(root: Path, client: Optional[str]) -> None:
    """Write the per-instance files into a bed's root."""
    _replace(root / "etc/machine-id", "")
    _replace(root / "etc/hostname", f"{HOSTNAME}\n")
    # The host name must resolve (sudo and rsyslog wait for it else), and without DNS only this
    # file names the metadata server.
    _replace(
        root / "etc/hosts",
        "127.0.0.1 localhost\n"
        f"127.0.1.1 {HOSTNAME}\n"
        "::1 localhost ip6-localhost ip6-loopback\n"
        f"{METADATA_V4} metadata.google.internal metadata\n",
    )
    nameserver = f"nameserver {METADATA_V4}\n" if client is not None else ""
    _replace(root / "etc/resolv.conf", nameserver)
    interfaces = root / "etc/network/interfaces"
    if interfaces.parent.is_dir():
        text = "auto lo\niface lo inet loopback\n"
        if client == "dhclient":
            text += "\nauto eth0\niface eth0 inet dhcp\n"
        _replace(interfaces, text)
    if client == "networkd":
        _enable_networkd(root)
    _keep_rsyslog_off_the_kernel(root)


def _keep_rsyslog_off_the_kernel(root: Path) -> None:
    """Drop rsyslog's kernel input: /proc/kmsg is masked by /dev/null, which it reads without end.

    It costs a whole processor otherwise, and every figure that is measured in the bed.
    """
    settings = root / "etc/rsyslog.conf"
    if settings.is_file():
        lines = settings.read_text().splitlines(keepends=True)
        _replace(settings, "".join(line for line in lines if "imklog" not in line))


def fake_dmi(sysfs: Path) -> None:
    """Write the firmware's identity of an instance as the kernel shows it below /sys/class/dmi."""
    identity = uuid.uuid4()
    folder = sysfs / "class/dmi/id"
    folder.mkdir(parents=True)
    facts = {
        "bios_date": "06/02/2026",
        "bios_vendor": "Google",
        "bios_version": "Google",
        "board_asset_tag": identity.hex.upper(),
        "board_name": "Google Compute Engine",
        "board_serial": f"Board-GoogleCloud-{identity.hex.upper()}",
        "board_vendor": "Google",
        "chassis_type": "1",
        "chassis_vendor": "Google",
        "product_name": "Google Compute Engine",
        "product_serial": f"GoogleCloud-{identity.hex.upper()}",
        "product_uuid": str(identity),
        "sys_vendor": "Google",
    }
    for name, value in facts.items():
        (folder / name).write_text(f"{value}\n")
        (folder / name).chmod(0o400 if name.endswith(("serial", "uuid")) else 0o444)


def _enable_networkd(root: Path) -> None:
    _replace(
        root / "etc/systemd/network/20-first.network",
        "[Match]\nName=eth0\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nUseMTU=yes\n",
    )
    for link, unit in _NETWORKD_LINKS.items():
        path = root / "etc/systemd/system" / link
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink():
            path.symlink_to(f"/lib/systemd/system/{unit}")


def _replace(path: Path, text: str) -> None:
    """Write a file, also where the root has a link that leads out of it."""
    if path.is_symlink():
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
