"""Which scripts an event has on an operating system, in which order, and how patient it is.

Source: public GCE documentation, "Startup scripts", "Shutdown scripts", "Windows startup scripts";
guest-agent ``google_metadata_script_runner/main.go`` for the keys and their order. A shutdown has
to fit into the time that the platform leaves (30 s for a preempted instance), a startup may wait
for a network that comes late.
"""

from __future__ import annotations

from collections.abc import Mapping

from google_guest.records import record

URL_SUFFIX = "-url"
_WINDOWS_KINDS = ("ps1", "cmd", "bat", "url")


@record
class Patience:
    """How long an event waits for others; all in seconds."""

    metadata_request: float
    metadata_total: float
    name_lookups: int
    """Attempts to resolve the host of a download."""
    name_pause: float
    download_total: float
    report_request: float
    """For publishing one result as a guest attribute."""


@record
class Event:
    """One occasion on which scripts run."""

    name: str
    """As on the command line and in messages."""
    keys: tuple[str, ...]
    """Metadata keys in the order in which their scripts run."""
    setting: str
    """Field of ``MetadataScriptsSection`` that switches it."""
    patience: Patience
    disabled_prefix: str = ""


_BOOT = Patience(
    metadata_request=10.0,
    metadata_total=300.0,
    name_lookups=20,
    name_pause=5.0,
    download_total=1800.0,
    report_request=5.0,
)
_SHUTDOWN = Patience(
    metadata_request=2.0,
    metadata_total=10.0,
    name_lookups=2,
    name_pause=1.0,
    download_total=20.0,
    report_request=2.0,
)


def _windows_keys(stem: str) -> tuple[str, ...]:
    return tuple(f"{stem}-{kind}" for kind in _WINDOWS_KINDS)


LINUX: Mapping[str, Event] = {
    "startup": Event("startup", ("startup-script", "startup-script-url"), "startup", _BOOT),
    "shutdown": Event(
        "shutdown", ("shutdown-script", "shutdown-script-url"), "shutdown", _SHUTDOWN
    ),
}
WINDOWS: Mapping[str, Event] = {
    "startup": Event(
        "startup", _windows_keys("windows-startup-script"), "startup_windows", _BOOT, "windows "
    ),
    "shutdown": Event(
        "shutdown",
        _windows_keys("windows-shutdown-script"),
        "shutdown_windows",
        _SHUTDOWN,
        "windows ",
    ),
    "specialize": Event(
        "specialize",
        _windows_keys("sysprep-specialize-script"),
        "sysprep_specialize",
        _BOOT,
        "windows ",
    ),
}


def is_url_key(key: str) -> bool:
    """Return whether the value of ``key`` is the address of a script."""
    return key.endswith(URL_SUFFIX)
