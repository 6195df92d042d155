"""Who may read what: access control lists of files and folders, as security descriptors.

Source: learn.microsoft.com, "Security Descriptor String Format", "SetNamedSecurityInfoW".
"""

from __future__ import annotations

import sys

PRIVATE_FILE = "D:P(A;;FA;;;SY)(A;;FA;;;BA)"
"""For SYSTEM and the administrators alone, nothing inherited."""
PRIVATE_FOLDER = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
"""The same for a folder and everything that comes into it."""
READABLE_FOLDER = f"{PRIVATE_FOLDER}(A;OICI;0x1200a9;;;BU)"
"""Users may also read and list, and nothing else."""

if sys.platform == "win32":
    import contextlib
    import ctypes
    import msvcrt
    import os
    from collections.abc import Iterator
    from ctypes import wintypes

    from google_guest.system.windows.calls import (
        CREATE_NEW,
        GENERIC_WRITE,
        create_file,
        failure,
        function,
        last_error,
    )

    _REVISION = 1
    _FILE_OBJECT = 1
    _OWNER, _DACL, _PROTECTED_DACL = 0x1, 0x4, 0x80000000

    class _SecurityAttributes(ctypes.Structure):
        _fields_ = (
            ("length", wintypes.DWORD),
            ("descriptor", ctypes.c_void_p),
            ("inherit", wintypes.BOOL),
        )

    @contextlib.contextmanager
    def _descriptor(sddl: str) -> Iterator[ctypes.c_void_p]:
        pointer = ctypes.c_void_p()
        if not function(
            "advapi32",
            "ConvertStringSecurityDescriptorToSecurityDescriptorW",
            wintypes.LPCWSTR,
            wintypes.DWORD,
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.c_void_p,
        )(sddl, _REVISION, ctypes.byref(pointer), None):
            raise last_error("ConvertStringSecurityDescriptorToSecurityDescriptor")
        try:
            yield pointer
        finally:
            function("kernel32", "LocalFree", ctypes.c_void_p, result=ctypes.c_void_p)(pointer)

    @contextlib.contextmanager
    def _attributes(sddl: str) -> Iterator[_SecurityAttributes]:
        with _descriptor(sddl) as descriptor:
            yield _SecurityAttributes(ctypes.sizeof(_SecurityAttributes), descriptor, False)

    def create_private_file(path: str) -> int:
        """Create a new file for SYSTEM and administrators; return its descriptor for writing.

        Raises:
            OSError: it exists, or cannot be created.
        """
        with _attributes(PRIVATE_FILE) as attributes:
            handle = create_file(path, GENERIC_WRITE, CREATE_NEW, security=ctypes.byref(attributes))
        if handle is None:
            raise _os_error(ctypes.get_last_error(), path)
        return msvcrt.open_osfhandle(handle, os.O_BINARY | os.O_NOINHERIT)

    def create_folder(path: str, sddl: str) -> None:
        """Create a folder with these rights from the first moment.

        Raises:
            OSError: it exists, or cannot be created.
        """
        with _attributes(sddl) as attributes:
            created = function("kernel32", "CreateDirectoryW", wintypes.LPCWSTR, ctypes.c_void_p)(
                path, ctypes.byref(attributes)
            )
        if not created:
            raise _os_error(ctypes.get_last_error(), path)

    def take_folder(path: str, sddl: str) -> None:
        """Make an existing folder the administrators' own, with these rights and no other.

        Raises:
            WindowsError: Windows refused.
        """
        owner, dacl = ctypes.c_void_p(), ctypes.c_void_p()
        present, defaulted = wintypes.BOOL(), wintypes.BOOL()
        with _descriptor(f"O:BA{sddl}") as descriptor:
            function(
                "advapi32",
                "GetSecurityDescriptorOwner",
                ctypes.c_void_p,
                ctypes.POINTER(ctypes.c_void_p),
                ctypes.POINTER(wintypes.BOOL),
            )(descriptor, ctypes.byref(owner), ctypes.byref(defaulted))
            function(
                "advapi32",
                "GetSecurityDescriptorDacl",
                ctypes.c_void_p,
                ctypes.POINTER(wintypes.BOOL),
                ctypes.POINTER(ctypes.c_void_p),
                ctypes.POINTER(wintypes.BOOL),
            )(descriptor, ctypes.byref(present), ctypes.byref(dacl), ctypes.byref(defaulted))
            code = function(
                "advapi32",
                "SetNamedSecurityInfoW",
                wintypes.LPCWSTR,
                ctypes.c_int,
                wintypes.DWORD,
                ctypes.c_void_p,
                ctypes.c_void_p,
                ctypes.c_void_p,
                ctypes.c_void_p,
            )(path, _FILE_OBJECT, _OWNER | _DACL | _PROTECTED_DACL, owner, None, dacl, None)
        if code:
            raise failure("SetNamedSecurityInfo", code)

    def replace_file(source: str, target: str) -> None:
        """Move a file over another one of the same folder, and wait until that is on the disk.

        Raises:
            OSError: with the ``winerror`` 5 or 32 while somebody has the target open.
        """
        replace_existing, write_through = 0x1, 0x8
        if not function(
            "kernel32", "MoveFileExW", wintypes.LPCWSTR, wintypes.LPCWSTR, wintypes.DWORD
        )(source, target, replace_existing | write_through):
            raise _os_error(ctypes.get_last_error(), target)

    def _os_error(code: int, path: str) -> OSError:
        # The errno of the right subclass (FileExistsError, PermissionError) follows from the code.
        return OSError(None, ctypes.FormatError(code).strip(), path, code)
