"""What Windows says of itself, in the terms of ``os_release`` and ``system.kernel``.

Reads the registry and the version of the kernel's file. Python's ``platform`` module would ask
Windows' management service for the same, slowly.

Source: google-guest-agent ``internal/osinfo`` (Windows) for what stands where; learn.microsoft.com,
"Windows 11 release information" (builds from 22000; the registry still calls them Windows 10).
"""

from __future__ import annotations

from google_guest.os_release import OsRelease
from google_guest.system.kernel import KernelFacts
from google_guest.system.windows import FileVersion, Windows

KERNEL = r"C:\Windows\System32\ntoskrnl.exe"
VERSION_KEY = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"
_FIRST_BUILD_OF_11 = 22000
_MOST_DIGITS = 10


def windows_kernel(windows: Windows) -> KernelFacts:
    """Return the facts of the kernel's file."""
    found = windows.file_version(_kernel_file(windows)) or FileVersion("", "")
    return KernelFacts("windows", found.product, found.file, windows.architecture())


def windows_os_release(windows: Windows) -> OsRelease:
    """Return names and version; what cannot be read stays empty."""
    release = windows_kernel(windows).release
    return OsRelease(
        id="windows",
        version_id=".".join(release.split(".")[:3]),
        pretty_name=_product_name(windows),
    )


def _product_name(windows: Windows) -> str:
    name = windows.registry.text(VERSION_KEY, "ProductName") or "Windows"
    build = windows.registry.text(VERSION_KEY, "CurrentBuild") or ""
    is_number = build.isascii() and build.isdigit() and len(build) <= _MOST_DIGITS
    is_11 = is_number and int(build) >= _FIRST_BUILD_OF_11
    return name.replace("Windows 10", "Windows 11", 1) if is_11 else name


def _kernel_file(windows: Windows) -> str:
    root = windows.registry.text(VERSION_KEY, "SystemRoot")
    return f"{root}\\System32\\ntoskrnl.exe" if root else KERNEL
