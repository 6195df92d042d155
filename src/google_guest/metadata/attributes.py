"""Custom metadata: the free-form attributes of the instance and of its project.

The same key may exist at both levels. For most keys the instance's value wins (``text``,
``boolean``, ``switch``), a few are on when either level says so (``either``), and some exist at one
level only (``Attributes.instance`` and ``Attributes.project`` are plain mappings). A boolean that
nobody can read counts as absent at its level, so that ``enable-oslogin=maybe`` on an instance
leaves the project's word standing.

Source: public GCE documentation, "Predefined metadata keys" and "Boolean values"; guest-agent,
``google_guest_agent/metadata`` and ``addresses.go`` for the precedence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from google_guest.booleans import parse_boolean
from google_guest.records import field, record

INSTANCE_LEVEL = "instance metadata"
PROJECT_LEVEL = "project metadata"

BOOLEAN_KEYS = frozenset(
    {
        "block-project-ssh-keys",
        "disable-account-manager",
        "disable-address-manager",
        "disable-agent-updates",
        "disable-dns-probe",
        "disable-guest-telemetry",
        "disable-https-mds-setup",
        "enable-diagnostics",
        "enable-guest-agent-core-plugin",
        "enable-guest-attributes",
        "enable-https-mds-native-cert-store",
        "enable-os-config-debug",
        "enable-os-inventory",
        "enable-oslogin",
        "enable-oslogin-2fa",
        "enable-oslogin-certificates",
        "enable-oslogin-sk",
        "enable-scalibr-linux",
        "enable-windows-ssh",
        "enable-workload-certificate",
        "enable-wsfc",
        "os-inventory-enabled",
        "trace-get-inventory",
    }
)
"""Attributes whose value is read as a boolean somewhere; an unreadable one is worth a warning."""


@record
class Attributes:
    """The custom metadata of both levels; keys are verbatim, values are text."""

    instance: Mapping[str, str] = field(default_factory=dict, repr=False)
    project: Mapping[str, str] = field(default_factory=dict, repr=False)

    def text(self, key: str) -> Optional[str]:
        """Return the instance's value of ``key``, else the project's, else None."""
        value = self.instance.get(key)
        return self.project.get(key) if value is None else value

    def boolean(self, key: str) -> Optional[bool]:
        """Return what the first level with a readable boolean says, instance before project."""
        decided = self.switch(key)
        return None if decided is None else decided[0]

    def switch(self, key: str) -> Optional[tuple[bool, str]]:
        """Return what ``boolean`` returns and the level that said so; None when no level did."""
        for values, level in ((self.instance, INSTANCE_LEVEL), (self.project, PROJECT_LEVEL)):
            value = parse_boolean(values.get(key))
            if value is not None:
                return value, level
        return None

    def either(self, key: str) -> Optional[str]:
        """Return the level at which ``key`` is true, instance first, or None if at neither."""
        for values, level in ((self.instance, INSTANCE_LEVEL), (self.project, PROJECT_LEVEL)):
            if parse_boolean(values.get(key)):
                return level
        return None
