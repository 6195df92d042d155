"""The features of the Windows agent, in the order in which they start and people read them.

A feature is one file in this folder and one line here.
"""

from __future__ import annotations

from google_guest.features import Feature, guest_attributes, telemetry
from google_guest.features.windows import (
    account_reset,
    forwarded_addresses,
    metadata_route,
    ready_line,
    ssh_users,
)

FEATURES: tuple[Feature, ...] = (
    ready_line.FEATURE,
    metadata_route.FEATURE,
    forwarded_addresses.FEATURE,
    account_reset.FEATURE,
    ssh_users.FEATURE,
    guest_attributes.FEATURE,
    telemetry.FEATURE,
)
