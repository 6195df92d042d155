"""What an agent's start needs on Windows before anything else: its folders, its registry keys.

The folders below ``C:\\ProgramData`` are made, or taken over from whoever made them first, so that
only administrators can change what the agent believes. What an earlier boot left in the ``run``
folder is removed: Windows has no folder that ends with the boot.

Source: guest-agent ``google_guest_agent/main.go`` for the keys.
"""

from __future__ import annotations

import logging

from google_guest.system.files import Files
from google_guest.system.windows import FORWARDED_IPS, Windows
from google_guest.system.windows.files import WindowsFiles

log = logging.getLogger(__name__)

_BOOT = "boot-id"


def prepare(files: Files, windows: Windows) -> None:
    """Make folders and keys ready; see ``System.prepare``."""
    windows.registry.create_key(FORWARDED_IPS)
    places = files.places
    if isinstance(files, WindowsFiles):
        files.secure_directory(places.state.rpartition("\\")[0])
        files.secure_directory(places.state)
    files.make_directory(places.run)
    boot = windows.boot_id()
    marker = places.in_run(_BOOT)
    if boot and files.read_text(marker) != boot:
        _empty(files, places.run)
        files.write_atomic(marker, boot.encode(), mode=0o644)


def _empty(files: Files, folder: str) -> None:
    for name in files.list_directory(folder):
        path = f"{folder}\\{name}"
        try:
            files.remove(path)
        except OSError as error:
            # A folder belongs to somebody else; a file that is open tells of a living process.
            log.debug("%s stays: %s", path, error)
