r"""A private directory for one script on Windows: made, locked, removed afterwards.

Children of ``C:\Windows\Temp`` inherit the right to create files for every user, who could put a
library beside a program that runs as SYSTEM. So the directory is created with rights of its own:
for SYSTEM and the administrators, nothing inherited.

``.lock`` is open without sharing as long as the directory's maker lives, so that a later run can
tell what a killed one left behind: there, that file can be removed. A directory without it was made
by a reference runner and is certainly left behind if it is older than this boot. Only directories
to which nobody else could write are removed: a junction below one of somebody else's would lead the
removal to anywhere.

Source: guest-agent ``google_metadata_script_runner/main.go`` for the name.
"""

from __future__ import annotations

import errno
import ntpath
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Optional

from google_guest.errors import GuestError
from google_guest.system.files import Files
from google_guest.system.windows import security

PREFIX = "metadata-scripts"
_LOCK = ".lock"
_CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY
_CREATE |= getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_ATTEMPTS = 100
_REMOVAL_TRIES, _REMOVAL_PAUSE = 5, 0.1
_REPARSE_POINT = 0x400
_TRUSTED = ("SY", "BA", "S-1-5-18", "S-1-5-32-544")
_DESCRIPTOR = re.compile(r"O:([A-Z]{2}|S-[0-9-]+)D:(?:P|AR|AI)*((?:\([^()]*\))+)")


class ScratchDirectory:
    """A private directory that exists as long as the ``with`` block."""

    def __init__(self, path: str, lock: int) -> None:
        self.path = path
        """Where it is on this host."""
        self._lock = lock

    def __enter__(self) -> ScratchDirectory:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        os.close(self._lock)
        try:
            _remove_tree(self.path)
        except BaseException:
            # A request to end came in between; it comes once.
            _remove_tree(self.path)
            raise

    def create(self, name: str) -> int:
        """Create a file and return a descriptor to write to."""
        return os.open(os.path.join(self.path, name), _CREATE, 0o700)

    def write(self, name: str, data: bytes) -> str:
        """Create a file with this content and return its path on this host."""
        with os.fdopen(self.create(name), "wb") as file:
            file.write(data)
        return os.path.join(self.path, name)

    def rename(self, source: str, target: str) -> str:
        """Give a file another name and return its path on this host."""
        path = os.path.join(self.path, target)
        os.rename(os.path.join(self.path, source), path)
        return path


def make_scratch(files: Files, bases: Sequence[str]) -> ScratchDirectory:
    """Make a private directory below the first of the folders ``bases`` that takes one.

    A base that is missing is made, for SYSTEM and the administrators.

    Raises:
        GuestError: none of them does; the message says why for each.
    """
    complaints = []
    for base in dict.fromkeys(bases):
        try:
            path = _host_path(files, base)
            files.make_directory(base, mode=0o700)
            if _is_link(os.lstat(path)):
                raise OSError(errno.ELOOP, "it is a link or junction", path)
            return _make(path)
        except OSError as error:
            complaints.append(f"{base}: {error.strerror}")
    raise GuestError("no directory for the script: " + "; ".join(complaints))


def remove_leftovers(
    files: Files,
    bases: Sequence[str],
    *,
    is_private: Optional[Callable[[str], bool]] = None,
    unlink: Callable[[str], None] = os.unlink,
    booted_at: Optional[float] = None,
) -> None:
    """Remove private directories below ``bases`` whose makers are gone.

    ``booted_at`` is in Unix seconds.
    """
    private = is_private or is_private_folder
    boot = time.time() - time.monotonic() if booted_at is None else booted_at
    for base in dict.fromkeys(bases):
        try:
            with os.scandir(_host_path(files, base)) as entries:
                found = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
        except OSError:
            # A base that is missing or unreadable holds nothing of ours.
            continue
        for leftover in found:
            try:
                if private(leftover) and _is_left(leftover, unlink, boot):
                    _remove_tree(leftover)
            except OSError:
                # In use, or somebody was faster.
                continue


def is_private_folder(path: str) -> bool:
    """Return whether ``path`` is a folder that only SYSTEM and administrators could write to.

    Raises:
        OSError: it cannot be looked at.
    """
    facts = os.lstat(path)
    if _is_link(facts) or not stat.S_ISDIR(facts.st_mode):
        return False
    if sys.platform == "win32":
        return is_private_descriptor(*_descriptor_and_user(path))
    return facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) == 0o700


def is_private_descriptor(sddl: str, user: str) -> bool:
    """Return whether a security descriptor gives rights to SYSTEM and administrators alone.

    ``user`` is the SID of the current user, who is one of them. In doubt it does not.
    """
    match = _DESCRIPTOR.fullmatch(sddl)
    if match is None:
        return False
    entries = [entry.split(";") for entry in match[2][1:-1].split(")(")]
    if any(len(entry) != 6 or entry[0] != "A" for entry in entries):
        return False
    return _are_trusted({match[1], *(entry[5] for entry in entries)}, user)


def _host_path(files: Files, base: str) -> str:
    if not ntpath.splitdrive(base)[0] or not ntpath.isabs(base):
        # It would depend on where the runner was started.
        raise OSError(errno.EINVAL, "it is no absolute path", base)
    return files.host_path(base)


def _are_trusted(names: Collection[str], user: str) -> bool:
    return all(name in _TRUSTED or name == user for name in names)


def _is_link(facts: os.stat_result) -> bool:
    if stat.S_ISLNK(facts.st_mode):
        return True
    return bool(getattr(facts, "st_file_attributes", 0) & _REPARSE_POINT)


def _make(base: str) -> ScratchDirectory:
    path = _new_directory(base)
    try:
        return ScratchDirectory(path, _lock(os.path.join(path, _LOCK)))
    except BaseException:
        # A full disk shows here: the next base may have room.
        _remove_tree(path)
        raise


def _new_directory(base: str) -> str:
    for _ in range(_ATTEMPTS):
        path = os.path.join(base, f"{PREFIX}{os.urandom(8).hex()}")
        try:
            if sys.platform == "win32":
                security.create_folder(path, security.PRIVATE_FOLDER)
            else:
                os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        return path
    raise OSError(errno.EEXIST, "every name is taken", base)


def _lock(path: str) -> int:
    if sys.platform == "win32":
        # Opened without sharing.
        return security.create_private_file(path)
    return os.open(path, _CREATE, 0o600)


def _is_left(path: str, unlink: Callable[[str], None], booted_at: float) -> bool:
    """Return whether the maker of a directory is gone; raise OSError if it is not."""
    try:
        unlink(os.path.join(path, _LOCK))
    except FileNotFoundError:
        return os.lstat(path).st_mtime < booted_at
    return True


def _remove_tree(path: str) -> None:
    # Only here: it loads the compression modules, and runs after the script.
    import shutil

    for attempt in range(1, _REMOVAL_TRIES + 1):
        shutil.rmtree(path, ignore_errors=True)
        if attempt == _REMOVAL_TRIES or not os.path.lexists(path):
            return
        # A virus scanner has a file open, or a program that the script left runs from here. What
        # stays is removed by a later run.
        time.sleep(_REMOVAL_PAUSE)


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    from google_guest.system.windows.calls import failure, function, last_error

    _FILE_OBJECT, _OWNER, _DACL = 1, 0x1, 0x4
    _REVISION = 1
    _TOKEN_QUERY, _TOKEN_USER = 0x8, 1

    def _descriptor_and_user(path: str) -> tuple[str, str]:
        descriptor = ctypes.c_void_p()
        code = function(
            "advapi32",
            "GetNamedSecurityInfoW",
            wintypes.LPCWSTR,
            ctypes.c_int,
            wintypes.DWORD,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_void_p),
        )(path, _FILE_OBJECT, _OWNER | _DACL, None, None, None, None, ctypes.byref(descriptor))
        if code:
            raise OSError(None, str(failure("GetNamedSecurityInfo", code)), path, code)
        try:
            return _text_of("SecurityDescriptor", descriptor), _own_sid()
        finally:
            _free(descriptor)

    def _text_of(kind: str, pointer: ctypes.c_void_p) -> str:
        """Return a SID or security descriptor as text."""
        text = ctypes.c_void_p()
        if kind == "Sid":
            done = function("advapi32", "ConvertSidToStringSidW", ctypes.c_void_p, ctypes.c_void_p)(
                pointer, ctypes.byref(text)
            )
        else:
            done = function(
                "advapi32",
                "ConvertSecurityDescriptorToStringSecurityDescriptorW",
                ctypes.c_void_p,
                wintypes.DWORD,
                wintypes.DWORD,
                ctypes.c_void_p,
                ctypes.c_void_p,
            )(pointer, _REVISION, _OWNER | _DACL, ctypes.byref(text), None)
        if not done:
            raise OSError(None, str(last_error(f"Convert{kind}")), None, ctypes.get_last_error())
        try:
            return ctypes.wstring_at(text.value or 0)
        finally:
            _free(text)

    def _own_sid() -> str:
        """Return the SID of the user of this process."""
        token = ctypes.c_void_p()
        process = function("kernel32", "GetCurrentProcess", result=ctypes.c_void_p)()
        if not function(
            "advapi32", "OpenProcessToken", ctypes.c_void_p, wintypes.DWORD, ctypes.c_void_p
        )(process, _TOKEN_QUERY, ctypes.byref(token)):
            raise OSError(None, str(last_error("OpenProcessToken")), None, ctypes.get_last_error())
        try:
            # TOKEN_USER: a pointer to the SID, which follows; no SID is longer than 68 bytes.
            user = (ctypes.c_void_p * 16)()
            size = wintypes.DWORD()
            if not function(
                "advapi32",
                "GetTokenInformation",
                ctypes.c_void_p,
                ctypes.c_int,
                ctypes.c_void_p,
                wintypes.DWORD,
                ctypes.c_void_p,
            )(token, _TOKEN_USER, user, ctypes.sizeof(user), ctypes.byref(size)):
                code = ctypes.get_last_error()
                raise OSError(None, str(failure("GetTokenInformation", code)), None, code)
            return _text_of("Sid", ctypes.c_void_p(user[0]))
        finally:
            function("kernel32", "CloseHandle", ctypes.c_void_p)(token)

    def _free(pointer: ctypes.c_void_p) -> None:
        function("kernel32", "LocalFree", ctypes.c_void_p, result=ctypes.c_void_p)(pointer)
