"""The running Windows: each part is made when it is first asked for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from google_guest.errors import GuestError

if TYPE_CHECKING:
    from google_guest.system.windows import Windows


def native_windows(*, live: bool) -> Windows:
    """Return the running Windows.

    Raises:
        GuestError: this is not Windows, or (not ``live``) the guest is a file tree.
    """
    if not live:
        raise GuestError("the registry and the accounts of a file tree cannot be looked at")
    if sys.platform == "win32":
        return NativeWindows()
    raise GuestError("this machine does not run Windows")


if sys.platform == "win32":
    import ctypes
    import os
    from functools import cached_property
    from typing import Optional

    from google_guest.system import NetworkMonitor
    from google_guest.system.windows import (
        COMPUTE_ENGINE_KEY,
        Addresses,
        FileVersion,
        Routes,
        Services,
        UserAccounts,
    )
    from google_guest.system.windows.registry import Registry

    _ARCHITECTURES = {0: "x86", 5: "arm", 6: "ia-64", 9: "x64", 12: "arm64"}
    """SYSTEM_INFO.wProcessorArchitecture to the names that reports use."""
    _FIRMWARE_KEYS = (r"SYSTEM\HardwareConfig\Current", r"HARDWARE\DESCRIPTION\System\BIOS")
    _BOOT_KEY = COMPUTE_ENGINE_KEY + r"\Boot"

    class NativeWindows:
        """See ``google_guest.system.windows.Windows``."""

        def __init__(self, accounts: Optional[UserAccounts] = None) -> None:
            """``accounts`` stands in for those of the machine, where Wine has none."""
            self._accounts = accounts

        @cached_property
        def registry(self) -> Registry:
            """The registry of the machine."""
            from google_guest.system.windows.native_registry import NativeRegistry

            return NativeRegistry()

        @cached_property
        def accounts(self) -> UserAccounts:
            """Local users and groups."""
            if self._accounts is not None:
                return self._accounts
            from google_guest.system.windows.accounts import NativeAccounts

            return NativeAccounts(self.registry)

        @cached_property
        def services(self) -> Services:
            """The service manager."""
            from google_guest.system.windows.services import NativeServices

            return NativeServices()

        @cached_property
        def routes(self) -> Routes:
            """IPv4 routes."""
            from google_guest.system.windows.routes import NativeRoutes

            return NativeRoutes()

        @cached_property
        def addresses(self) -> Addresses:
            """The adapters' addresses."""
            from google_guest.system.windows.addresses import NativeAddresses

            return NativeAddresses()

        def write_serial(self, port: str, data: bytes) -> None:
            """Write to a serial port now."""
            from google_guest.system.windows.serial_ports import write_now

            write_now(port, data)

        def file_version(self, path: str) -> Optional[FileVersion]:
            """Return what the file's version resource says."""
            from google_guest.system.windows.file_version import file_version

            return file_version(path)

        def architecture(self) -> str:
            """Return the machine's architecture, whatever that of this process."""
            # SYSTEM_INFO: the architecture is its first word, 48 bytes are enough for all of it.
            info = (ctypes.c_uint8 * 64)()
            ctypes.WinDLL("kernel32").GetNativeSystemInfo(ctypes.byref(info))
            return _ARCHITECTURES.get(ctypes.c_uint16.from_buffer(info).value, "unknown")

        def boot_id(self) -> str:
            """Return the identifier in a key of the registry that ends with the boot."""
            from google_guest.system.windows.boot import boot_id

            return boot_id(self.registry, _BOOT_KEY)

        def is_alive(self, process: int) -> bool:
            """Return whether the process runs and is a Python program."""
            from google_guest.system.windows.boot import program_of

            return "python" in os.path.basename(program_of(process)).lower()

        def wait_for_end(self, process: int, *, timeout: float) -> bool:
            """Wait for the process."""
            from google_guest.system.windows.boot import wait_for_end

            return wait_for_end(process, timeout)

        def is_compute_engine(self) -> bool:
            """Return what the firmware's tables say."""
            names = (self.registry.text(key, "SystemProductName") for key in _FIRMWARE_KEYS)
            return any(name is not None and name.startswith("Google") for name in names)

        def open_monitor(self) -> NetworkMonitor:
            """Subscribe to changes of routes and addresses."""
            from google_guest.system.windows.monitor import AddressMonitor

            return AddressMonitor()
