"""Calls of the Win32 API through ctypes: libraries, errors, texts.

Libraries are loaded by name from the system's folder only, and once. A function of an API that this
Windows lacks raises ``WindowsError`` with ERROR_PROC_NOT_FOUND instead of an ``AttributeError``.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    import functools
    from typing import Any, Optional

    from google_guest.system.windows import WindowsError

    _PROC_NOT_FOUND = 127
    _SEARCH_SYSTEM_ONLY = 0x800
    _NETWORK_MESSAGES = range(2100, 3000)
    _FROM_MODULE = 0x800
    _FROM_SYSTEM = 0x1000
    _IGNORE_INSERTS = 0x200
    _AS_DATA_FILE = 0x2
    _INVALID_HANDLE = ctypes.c_void_p(-1).value
    GENERIC_READ, GENERIC_WRITE = 0x80000000, 0x40000000
    CREATE_NEW, OPEN_EXISTING = 1, 3
    FILE_ATTRIBUTE_NORMAL = 0x80

    @functools.cache
    def library(name: str) -> ctypes.WinDLL:
        """Return the library ``name`` (``kernel32``) of the system."""
        return ctypes.WinDLL(f"{name}.dll", use_last_error=True, winmode=_SEARCH_SYSTEM_ONLY)

    def function(dll: str, name: str, *arguments: Any, result: Any = ctypes.c_uint32) -> Any:
        """Return a function with the types of its arguments and result.

        Raises:
            WindowsError: this Windows has no such function.
        """
        try:
            found = getattr(library(dll), name)
        except (AttributeError, OSError) as error:
            raise WindowsError(name, _PROC_NOT_FOUND, "this Windows does not have it") from error
        found.argtypes = arguments
        found.restype = result
        return found

    def create_file(
        path: str,
        access: int,
        disposition: int,
        *,
        security: Any = None,
        flags: int = FILE_ATTRIBUTE_NORMAL,
    ) -> Optional[int]:
        """Return the handle of a file, port or pipe that nobody else may open meanwhile.

        None: there is none, and ``ctypes.get_last_error()`` tells why.
        """
        handle: Optional[int] = function(
            "kernel32",
            "CreateFileW",
            ctypes.c_wchar_p,
            ctypes.c_uint32,
            ctypes.c_uint32,
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_uint32,
            ctypes.c_void_p,
            result=ctypes.c_void_p,
        )(path, access, 0, security, disposition, flags, None)
        return None if handle == _INVALID_HANDLE else handle

    def last_error(name: str) -> WindowsError:
        """Return the thread's last error as that of the function ``name``."""
        return failure(name, ctypes.get_last_error())

    def failure(name: str, code: int) -> WindowsError:
        """Return the error ``code`` of the function ``name`` with the system's text for it."""
        return WindowsError(name, code, _message(code))

    def _message(code: int) -> str:
        if code not in _NETWORK_MESSAGES:
            return ctypes.FormatError(code).strip()
        # The texts of the network API's errors are in a library of their own.
        try:
            module = ctypes.WinDLL(
                "netmsg.dll", winmode=_SEARCH_SYSTEM_ONLY | _AS_DATA_FILE
            )._handle
        except OSError:
            return ""
        buffer = ctypes.create_unicode_buffer(1024)
        function(
            "kernel32",
            "FormatMessageW",
            ctypes.c_uint32,
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_uint32,
            ctypes.c_wchar_p,
            ctypes.c_uint32,
            ctypes.c_void_p,
        )(
            _FROM_MODULE | _FROM_SYSTEM | _IGNORE_INSERTS,
            module,
            code,
            0,
            buffer,
            len(buffer),
            None,
        )
        return " ".join(buffer.value.split())

    def is_wine() -> bool:
        """Return whether this is Wine, which imitates Windows for tests."""
        return hasattr(library("ntdll"), "wine_get_version")
