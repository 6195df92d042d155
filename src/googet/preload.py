"""Import everything that a command may still need, before the first file is touched.

A package may contain googet's own program. On Windows that is one file from which modules are
loaded; once it has been replaced, nothing more can be loaded from it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

_MODULES = (
    "applications",
    "archive",
    "atomic",
    "commands",
    "credentials",
    "database",
    "filesteps",
    "host",
    "index",
    "journal",
    "locking",
    "logbook",
    "placing",
    "progress",
    "repofiles",
    "repositories",
    "settings",
    "signing",
    "staging",
    "transaction",
    "transport",
    "urls",
    "web",
    "yamltext",
)
_OTHERS = ("google_guest.metadata.client", "urllib3", "urllib3.exceptions")
# The system's own certificates, where the distribution of googet has it.
_OPTIONAL = ("truststore",)
# What the standard library itself imports only when it is first needed.
_STANDARD = (
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.mbcs",
    "encodings.oem",
    "encodings.utf_16_le",
    "encodings.utf_8_sig",
    "http.cookiejar",
    "shutil",
    "ssl",
    "stringprep",
    "subprocess",
    "tempfile",
    "traceback",
)


def load_everything() -> None:
    """Import what an install, a removal or their failure can need."""
    for name in _MODULES:
        importlib.import_module(f"googet.{name}")
    for name in _OTHERS:
        importlib.import_module(name)
    for name in _OPTIONAL:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in _STANDARD:
        if sys.platform != "win32" and name in ("encodings.mbcs", "encodings.oem"):
            continue
        importlib.import_module(name)
