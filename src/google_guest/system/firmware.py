"""Whether this machine is a Compute Engine instance, told by its firmware and never by the network.

Linux offers the SMBIOS strings below ``/sys/class/dmi/id`` (the reference's telemetry module looks
for ``GoogleCloud`` in ``board_serial``; the platform sets ``product_name`` to ``Google Compute
Engine``). Machines whose firmware says something else must never be asked for metadata: whoever
answers there could hand out keys.
"""

from __future__ import annotations

from google_guest.system.files import Files

_DIRECTORY = "/sys/class/dmi/id"


def is_compute_engine(files: Files) -> bool:
    """Return whether the SMBIOS strings are those of Compute Engine."""
    product = _string(files, "product_name")
    if product in ("Google Compute Engine", "Google"):
        return True
    return any("GoogleCloud" in _string(files, name) for name in ("board_serial", "product_serial"))


def _string(files: Files, name: str) -> str:
    try:
        return (files.read_text(f"{_DIRECTORY}/{name}", limit=4096) or "").strip()
    except OSError:
        # The serial numbers are readable by root only.
        return ""
