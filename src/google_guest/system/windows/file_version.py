"""The version resource of executable files, through version.dll.

Source: learn.microsoft.com, "VerQueryValueW" and "VERSIONINFO resource".
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes
    from typing import Optional

    from google_guest.system.windows import FileVersion
    from google_guest.system.windows.calls import function

    _ENGLISH_UNICODE = "040904b0"

    def file_version(path: str) -> Optional[FileVersion]:
        """Return the versions of a file, or None if it is not there or has none."""
        size = function("version", "GetFileVersionInfoSizeW", wintypes.LPCWSTR, ctypes.c_void_p)(
            path, None
        )
        if not size:
            return None
        data = ctypes.create_string_buffer(size)
        if not function(
            "version",
            "GetFileVersionInfoW",
            wintypes.LPCWSTR,
            wintypes.DWORD,
            wintypes.DWORD,
            ctypes.c_void_p,
        )(path, 0, size, data):
            return None
        language = _language(data)
        prefix = f"\\StringFileInfo\\{language}\\"
        return FileVersion(
            file=_text(data, f"{prefix}FileVersion"),
            product=_text(data, f"{prefix}ProductVersion"),
        )

    def _language(data: ctypes.Array[ctypes.c_char]) -> str:
        """Return language and code page of the first translation, as its block is named."""
        address, size = _query(data, "\\VarFileInfo\\Translation")
        if size < 4:
            return _ENGLISH_UNICODE
        words = (ctypes.c_uint16 * 2).from_address(address)
        return f"{words[0]:04x}{words[1]:04x}"

    def _text(data: ctypes.Array[ctypes.c_char], name: str) -> str:
        address, size = _query(data, name)
        return ctypes.wstring_at(address, size).rstrip("\0").strip() if size else ""

    def _query(data: ctypes.Array[ctypes.c_char], name: str) -> tuple[int, int]:
        address, size = ctypes.c_void_p(), wintypes.UINT()
        found = function(
            "version",
            "VerQueryValueW",
            ctypes.c_void_p,
            wintypes.LPCWSTR,
            ctypes.c_void_p,
            ctypes.c_void_p,
        )(data, name, ctypes.byref(address), ctypes.byref(size))
        return (address.value or 0, size.value) if found else (0, 0)
