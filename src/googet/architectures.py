"""Architectures of packages, and which of them a machine takes.

Facts: googet: system/system_windows.go, system/system_linux.go.
"""

from __future__ import annotations

ARCHITECTURES = ("noarch", "x86_64", "x86_32", "arm", "arm64")
"""What a package spec may say, in exactly this case."""

_NATIVE_NAMES = {
    "amd64": "x86_64",
    "x86_64": "x86_64",
    "x64": "x86_64",
    "x86": "x86_32",
    "x86_32": "x86_32",
    "i386": "x86_32",
    "i486": "x86_32",
    "i586": "x86_32",
    "i686": "x86_32",
    "386": "x86_32",
    "arm64": "arm64",
    "aarch64": "arm64",
}
_WINDOWS = {
    "x86_64": ("x86_64", "x86_32", "noarch"),
    "x86_32": ("x86_32", "noarch"),
    "arm": ("arm", "noarch"),
    "arm64": ("arm64", "x86_64", "x86_32", "noarch"),
}
# Linux serves tests and builds: it takes everything.
_LINUX = ("noarch", "x86_64", "x86_32", "arm", "arm64")


def default_architectures(system: str, machine: str) -> tuple[str, ...]:
    """Return what a machine installs, in order of preference.

    Args:
        system: ``windows`` or ``linux``.
        machine: the native machine, not that of the running interpreter, by any common name
            (``AMD64``, ``x86_64``, ``aarch64``). An unknown one on Windows counts as 32-bit x86,
            which every Windows runs.
    """
    if system != "windows":
        return _LINUX
    return _WINDOWS[native_architecture(machine) or "x86_32"]


def native_architecture(machine: str) -> str:
    """Return a machine's architecture as packages write it; empty for an unknown one."""
    folded = machine.strip().lower()
    if folded.startswith("armv") and not folded.startswith("armv8"):
        return "arm"
    return "arm" if folded == "arm" else _NATIVE_NAMES.get(folded, "")
