"""Environment variables of the machine, ``Path`` above all.

Values are kept as they are stored: ``%SystemRoot%`` stays a reference, and an entry that is taken
away again leaves the text exactly as it was. Entries of ``Path`` are compared one by one, with
their variables filled in, without quotes, a last backslash or differences of case.

Source: learn.microsoft.com, "Environment Variables" (the key, and the message that tells programs).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Optional

from google_guest.system.windows.registry import EXPAND_SZ, SZ, Registry, Value

KEY = r"SYSTEM\CurrentControlSet\Control\Session Manager\Environment"
_PATH = "Path"


def windows_folder() -> str:
    """Return the folder of Windows itself, ``C:\\Windows`` where nothing else is said."""
    return os.environ.get("SYSTEMROOT") or r"C:\Windows"


def announce() -> None:
    """Tell running programs (the shell above all) that variables have changed."""
    if sys.platform == "win32":
        import ctypes

        from google_guest.system.windows.calls import function

        everybody, setting_changed, give_up_on_hung = 0xFFFF, 0x1A, 0x2
        function(
            "user32",
            "SendMessageTimeoutW",
            ctypes.c_void_p,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_wchar_p,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            result=ctypes.c_void_p,
        )(everybody, setting_changed, None, "Environment", give_up_on_hung, 1000, None)


def set_variable(
    registry: Registry, name: str, text: str, *, announce: Callable[[], None] = announce
) -> bool:
    """Set a variable of the machine; return whether that changed anything.

    Raises:
        OSError: Windows refused, as below.
    """
    value = Value(text, EXPAND_SZ if "%" in text else SZ)
    if registry.get(KEY, name) == value:
        return False
    registry.set(KEY, name, value)
    announce()
    return True


def remove_variable(
    registry: Registry, name: str, *, announce: Callable[[], None] = announce
) -> bool:
    """Remove a variable of the machine; return whether there was one."""
    removed = registry.delete_value(KEY, name)
    if removed:
        announce()
    return removed


def add_to_path(
    registry: Registry, folder: str, *, announce: Callable[[], None] = announce
) -> bool:
    """Append ``folder`` to the machine's ``Path`` unless it is there; return whether it was not."""
    before = registry.get(KEY, _PATH)
    text = with_entry(_text(before), folder)
    if text is None:
        return False
    registry.set(KEY, _PATH, Value(text, EXPAND_SZ if before is None else before.kind))
    announce()
    return True


def remove_from_path(
    registry: Registry, folder: str, *, announce: Callable[[], None] = announce
) -> bool:
    """Take ``folder`` out of the machine's ``Path``; return whether it was there."""
    before = registry.get(KEY, _PATH)
    text = without_entry(_text(before), folder)
    if before is None or text is None:
        return False
    registry.set(KEY, _PATH, Value(text, before.kind))
    announce()
    return True


def with_entry(path: str, folder: str) -> Optional[str]:
    """Return the ``Path`` with ``folder`` behind the others, or None if it is there already."""
    if any(_is_same(entry, folder) for entry in path.split(";")):
        return None
    return f"{path};{folder}" if path else folder


def without_entry(path: str, folder: str) -> Optional[str]:
    """Return the ``Path`` without ``folder``, or None if it is not there."""
    entries = path.split(";")
    kept = [entry for entry in entries if not _is_same(entry, folder)]
    return ";".join(kept) if len(kept) < len(entries) else None


def _text(value: Optional[Value]) -> str:
    if value is None:
        return ""
    if value.kind not in (SZ, EXPAND_SZ):
        raise OSError(rf"{KEY}\{_PATH} in the registry is no text")
    return str(value.data)


def _is_same(entry: str, folder: str) -> bool:
    return _comparable(entry) == _comparable(folder)


def _comparable(entry: str) -> str:
    text = os.path.expandvars(entry.strip().replace('"', ""))
    return text.replace("/", "\\").rstrip("\\").casefold()
