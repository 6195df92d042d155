"""The registry of the running machine, 64-bit view, through winreg."""

from __future__ import annotations

import sys
from typing import Optional

from google_guest.system.windows.registry import Registry, Value

if sys.platform == "win32":
    import winreg

    _VIEW = winreg.KEY_WOW64_64KEY

    class NativeRegistry(Registry):
        """``HKEY_LOCAL_MACHINE``."""

        def get(self, key: str, name: str) -> Optional[Value]:
            """Return the value as it is stored."""
            try:
                with self._open(key) as handle:
                    return Value(*winreg.QueryValueEx(handle, name))
            except FileNotFoundError:
                return None

        def set(self, key: str, name: str, value: Value) -> None:
            """Store the value."""
            with winreg.CreateKeyEx(
                winreg.HKEY_LOCAL_MACHINE, key, 0, winreg.KEY_SET_VALUE | _VIEW
            ) as handle:
                winreg.SetValueEx(handle, name, 0, value.kind, value.data)

        def create_key(self, key: str) -> None:
            """Create the key."""
            winreg.CreateKeyEx(
                winreg.HKEY_LOCAL_MACHINE, key, 0, winreg.KEY_SET_VALUE | _VIEW
            ).Close()

        def delete_value(self, key: str, name: str) -> bool:
            """Delete the value."""
            try:
                with self._open(key, winreg.KEY_SET_VALUE) as handle:
                    winreg.DeleteValue(handle, name)
            except FileNotFoundError:
                return False
            return True

        def delete_key(self, key: str) -> bool:
            """Delete the key and what is below it."""
            for name in self.subkeys(key):
                self.delete_key(f"{key}\\{name}")
            try:
                winreg.DeleteKeyEx(winreg.HKEY_LOCAL_MACHINE, key, _VIEW)
            except FileNotFoundError:
                return False
            return True

        def names(self, key: str) -> tuple[str, ...]:
            """Return the values' names."""
            try:
                with self._open(key) as handle:
                    count = winreg.QueryInfoKey(handle)[1]
                    return tuple(winreg.EnumValue(handle, index)[0] for index in range(count))
            except FileNotFoundError:
                return ()

        def subkeys(self, key: str) -> tuple[str, ...]:
            """Return the keys' names."""
            try:
                with self._open(key) as handle:
                    count = winreg.QueryInfoKey(handle)[0]
                    return tuple(winreg.EnumKey(handle, index) for index in range(count))
            except FileNotFoundError:
                return ()

        @staticmethod
        def _open(key: str, access: int = winreg.KEY_READ) -> winreg.HKEYType:
            return winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key, 0, access | _VIEW)
