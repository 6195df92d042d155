r"""``google-guest-library``: which version of the library programs use.

Programs find it through the pointer file, a ``.pth`` file that Python reads at every start. Each of
its lines names a folder, and folders that do not exist are passed over: the first line is the
version in use, the second the one before it. So a broken-off upgrade, whose folder googet takes
away again, leaves programs with the version that they had.

Installing writes the pointer when everything is in place, restarts those of our services that run,
and puts the former pointer back when one of them does not come up. Folders of still older versions,
which no package owns any more, are removed.
"""

from __future__ import annotations

import contextlib
from typing import Optional

from google_guest.errors import GuestError
from google_guest.installation import Tell, attempt, layout, services
from google_guest.system import System
from google_guest.system.windows.trees import remove_tree
from google_guest.version import version


def install(system: System, tell: Tell) -> None:
    """Let programs use the version that this module belongs to."""
    files = system.files
    before = files.read_bytes(layout.POINTER)
    former = [one for one in _versions_in(before) if one != version()][:1]
    files.write_atomic(layout.POINTER, _pointer(version(), *former))
    for name in services.running(system):
        try:
            services.restart(system, name)
        except GuestError:
            _restore(system, before)
            with contextlib.suppress(GuestError):
                services.restart(system, name)
            raise
        tell(f"restarted the service {name}")
    for found in files.list_directory(layout.LIBRARIES):
        folder = rf"{layout.LIBRARIES}\{found}"
        if found not in (version(), *former) and files.exists(rf"{folder}\google_guest"):
            remove_tree(files, folder)
            tell(f"removed the library of version {found}")


def remove(system: System, tell: Tell) -> None:
    """Take the pointer away: what used the library was removed before it."""
    attempt(f"remove {layout.POINTER}", lambda: system.files.remove(layout.POINTER), tell)


def _pointer(*versions: str) -> bytes:
    lines = (rf"{layout.LIBRARIES_FROM_POINTER}\{one}" for one in versions)
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _versions_in(pointer: Optional[bytes]) -> list[str]:
    """Return the versions that a pointer names, the one in use first."""
    lines = (pointer or b"").decode("ascii", "replace").split()
    return [line.rpartition("\\")[2] for line in lines]


def _restore(system: System, before: Optional[bytes]) -> None:
    if before is None:
        system.files.remove(layout.POINTER)
    else:
        system.files.write_atomic(layout.POINTER, before)
