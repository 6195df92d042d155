"""Packing: from a goospec to a package archive.

The goospec is rendered and checked, its build command runs, the files are collected and what the
spec promises about them is checked; then the archive is written, which replaces one of the same
name only when it is complete.

Facts: googet: goopack/goopack.go. Here command paths must be packaged, too.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Optional

from googet.archive import Member, write_archive
from googet.collecting import collect, missing_files
from googet.goospec import Build, GooSpec, read_goospec
from googet.host.console import run_in_console
from googet.pkgspec import PackageSpec, clean_path, file_name
from google_guest.errors import GuestError

_LOG = logging.getLogger(__name__)

_ON_WINDOWS = sys.platform == "win32"
_ENOUGH_FIELDS = 3


class PackingError(GuestError):
    """A package cannot be built; the message says what is missing or failed."""


def pack(
    goospec: Path,
    variables: Mapping[str, str],
    output: Path,
    working_folder: Path = Path(),
    *,
    mtime: Optional[int] = None,
) -> Path:
    """Build a package and return its archive, ``output/NAME.ARCH.VERSION.goo``.

    Args:
        output: the folder for the archive; it exists.
        working_folder: where sources are looked for and the build command runs.
        mtime: time of the files in the archive; see ``write_archive``.

    Raises:
        GuestError: the goospec, a source or the build is at fault; nothing was written.
        OSError: a file cannot be read or the archive not be written.
    """
    wanted = read_goospec(goospec, variables)
    _warn_of_version(wanted.spec)
    build(wanted.windows if _ON_WINDOWS else wanted.linux, goospec.parent, working_folder)
    files = collect(wanted.sources, working_folder)
    check_files(wanted, files.keys())
    archive = output / file_name(wanted.spec)
    members = {name: Member(file) for name, file in files.items()}
    write_archive(archive, wanted.spec, members, mtime=mtime)
    return archive


def build(command: Build, spec_folder: Path, working_folder: Path) -> None:
    """Run a build command, if there is one; its output goes where ours goes.

    Raises:
        PackingError: it failed.
        HostError: it cannot be started.
    """
    if not command.command:
        return
    # A relative command is beside the goospec, but it runs where the sources are.
    program = os.path.abspath(spec_folder / command.command)
    status = run_in_console([program, *command.args], working_folder)
    if status != 0:
        ending = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
        raise PackingError(f"build command {program} {ending}")


def check_files(wanted: GooSpec, names: Collection[str]) -> None:
    """Check that the files to place and the commands to run are in the package.

    Raises:
        PackingError: some are not; the message names them.
    """
    missing = missing_files(wanted.file_keys, names)
    if missing:
        shown = ", ".join(_with_hint(key, names) for key in missing)
        raise PackingError(f"Files of {wanted.spec.name} are not in the package: {shown}")
    for key, command in (
        ("Install", wanted.spec.install),
        ("Uninstall", wanted.spec.uninstall),
        ("Verify", wanted.spec.verify),
    ):
        if command.path and command.path not in names:
            raise PackingError(f"{key}.Path {command.path!r} is not in the package")


def _with_hint(key: str, names: Collection[str]) -> str:
    cleaned = clean_path(key)
    if cleaned != key and not missing_files([cleaned], names):
        return f"{key!r} (write it as {cleaned!r})"
    return repr(key)


def _warn_of_version(spec: PackageSpec) -> None:
    fields = re.split(r"[-+@]", spec.version)[0].split(".")
    if len(fields) < _ENOUGH_FIELDS:
        _LOG.warning(
            "version %s has %d fields of %d: it is older than any 1.0.0",
            spec.version,
            len(fields),
            _ENOUGH_FIELDS,
        )
