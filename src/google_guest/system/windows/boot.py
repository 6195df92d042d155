"""What belongs to one boot of Windows: its identifier, its processes.

Windows has no identifier of a boot that stays the same when the clock is set. A volatile key of the
registry lives exactly as long: the first who asks after the start puts a random value into it.

Source: learn.microsoft.com, "RegCreateKeyExW" (REG_OPTION_VOLATILE), "QueryFullProcessImageNameW".
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    import os
    from ctypes import wintypes

    from google_guest.system.windows.calls import function
    from google_guest.system.windows.registry import Registry

    _LOCAL_MACHINE = 0xFFFFFFFF80000002
    _VOLATILE = 1
    _WRITE, _VIEW_64 = 0x20006, 0x100
    _NAME = "Id"
    _QUERY_LIMITED_INFORMATION = 0x1000
    _SYNCHRONIZE = 0x100000
    _STILL_ACTIVE = 259
    _LONGEST_PATH = 32768

    def boot_id(registry: Registry, key: str) -> str:
        """Return the identifier of this boot from ``key``; empty if it may not be made."""
        try:
            known = registry.text(key, _NAME)
            if known is None:
                registry.create_key(key.rpartition("\\")[0])
                if not _create_volatile(key):
                    return ""
                registry.set_text(key, _NAME, os.urandom(16).hex())
                known = registry.text(key, _NAME)
        except PermissionError:
            return ""
        return known or ""

    def program_of(process: int) -> str:
        """Return the path of the program that a process runs; empty if there is no such process."""
        handle = _open(process, _QUERY_LIMITED_INFORMATION)
        if not handle:
            return ""
        try:
            status = wintypes.DWORD()
            function("kernel32", "GetExitCodeProcess", ctypes.c_void_p, ctypes.c_void_p)(
                handle, ctypes.byref(status)
            )
            if status.value != _STILL_ACTIVE:
                return ""
            path = ctypes.create_unicode_buffer(_LONGEST_PATH)
            size = wintypes.DWORD(len(path))
            function(
                "kernel32",
                "QueryFullProcessImageNameW",
                ctypes.c_void_p,
                wintypes.DWORD,
                wintypes.LPWSTR,
                ctypes.c_void_p,
            )(handle, 0, path, ctypes.byref(size))
            return path.value
        finally:
            _close(handle)

    def wait_for_end(process: int, timeout: float) -> bool:
        """Return whether a process ends within ``timeout`` seconds."""
        handle = _open(process, _SYNCHRONIZE)
        if not handle:
            return True
        try:
            waited = function("kernel32", "WaitForSingleObject", ctypes.c_void_p, wintypes.DWORD)(
                handle, round(1000 * timeout)
            )
            return bool(waited == 0)
        finally:
            _close(handle)

    def _open(process: int, rights: int) -> int:
        """Return a handle of a process, 0 if there is none or it may not be looked at."""
        handle = function(
            "kernel32",
            "OpenProcess",
            wintypes.DWORD,
            wintypes.BOOL,
            wintypes.DWORD,
            result=ctypes.c_void_p,
        )(rights, False, process)
        return handle or 0

    def _close(handle: int) -> None:
        function("kernel32", "CloseHandle", ctypes.c_void_p)(handle)

    def _create_volatile(key: str) -> bool:
        handle = ctypes.c_void_p()
        code = function(
            "advapi32",
            "RegCreateKeyExW",
            ctypes.c_void_p,
            wintypes.LPCWSTR,
            wintypes.DWORD,
            wintypes.LPWSTR,
            wintypes.DWORD,
            wintypes.DWORD,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
        )(
            _LOCAL_MACHINE,
            key,
            0,
            None,
            _VOLATILE,
            _WRITE | _VIEW_64,
            None,
            ctypes.byref(handle),
            None,
        )
        if code:
            return False
        function("advapi32", "RegCloseKey", ctypes.c_void_p)(handle)
        return True
