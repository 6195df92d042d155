"""Packages as applications of Windows: Add or Remove Programs.

A package without files of its own often wraps an installer that registers an application;
:func:`find_application` finds it, so that the package can be removed without an uninstall command
and so that ``check`` knows it. :func:`register` lists the package itself as ``GooGet - NAME``.

Facts: googet: system/system_windows.go.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from googet.database import InstalledApp
from googet.host import Host, UninstallEntry
from googet.host.quoting import quote_arguments
from googet.pkgspec import PackageSpec
from google_guest.errors import GuestError

_log = logging.getLogger(__name__)

_OWN_PREFIX = "GooGet - "


def find_application(spec: PackageSpec, local_path: str, host: Host) -> InstalledApp:
    """Return the application that the package installed, an empty one where there is none.

    ``local_path`` is the package's cached archive, empty if it is not known.
    """
    if spec.files:
        return InstalledApp()
    for entry in host.uninstall_entries():
        name = entry.value("DisplayName")
        if not name or name.startswith(_OWN_PREFIX.rstrip()):
            continue
        if _belongs(entry, name, spec, local_path):
            return InstalledApp(name=name, reg=entry.key)
    return InstalledApp()


def _belongs(entry: UninstallEntry, name: str, spec: PackageSpec, local_path: str) -> bool:
    source = entry.value("InstallSource").casefold()
    path = local_path.casefold()
    if spec.install.path.lower().endswith(".msi") and path and path.split("@")[0] in source:
        return True
    if spec.external_program_name and name == spec.external_program_name:
        return True
    if spec.authors and entry.value("Publisher").casefold() == spec.authors.casefold():
        shown = name.casefold()
        if any(spec.name.casefold() in shown.replace(each, "") for each in (" ", "-")):
            return True
    return bool(path) and path in source


def register(
    spec: PackageSpec, folder: Path, root: Path, host: Host, *, now: Optional[float] = None
) -> None:
    """List the package in Add or Remove Programs; a failure is only logged.

    ``folder`` is where it was extracted, ``root`` the active ROOT, ``now`` in seconds since 1970.
    Packages without an install command are not listed.
    """
    if host.name != "windows" or not spec.install.path:
        return
    program = host.host_path(root / "googet.exe")
    values = {
        "UninstallString": _command_line(program, ["-noconfirm", "remove", spec.name]),
        "InstallLocation": host.host_path(folder),
        "DisplayVersion": spec.version,
        "DisplayName": _OWN_PREFIX + spec.name,
        "InstallDate": time.strftime("%Y%m%d", time.localtime(now)),
    }
    try:
        host.write_uninstall_entry(_OWN_PREFIX + spec.name, values)
    except (OSError, GuestError) as error:
        _log.error("%s cannot be listed among the applications: %s", spec.full_name, error)


def unregister(name: str, host: Host) -> None:
    """Take the package ``name`` off Add or Remove Programs; a failure is only logged."""
    try:
        host.delete_uninstall_entry(_OWN_PREFIX + name)
    except (OSError, GuestError) as error:
        _log.error("%s cannot be taken off the list of applications: %s", name, error)


def _command_line(program: str, arguments: Iterable[str]) -> str:
    # Always quoted: ROOT may contain blanks one day although it does not now.
    return f'"{program}" {quote_arguments(arguments)}'
