"""The features of the Linux agent, in the order in which they start and in which people read them.

A feature is one file below ``features/`` and one line here.
"""

from __future__ import annotations

from google_guest.features import Feature, guest_attributes, telemetry
from google_guest.features.linux import (
    accounts,
    clock,
    first_boot,
    forwarded_addresses,
    io_scheduler,
    local_ssd,
    multiqueue,
    overcommit,
)

FEATURES: tuple[Feature, ...] = (
    local_ssd.FEATURE,
    multiqueue.FEATURE,
    io_scheduler.FEATURE,
    forwarded_addresses.FEATURE,
    accounts.FEATURE,
    first_boot.FEATURE,
    overcommit.FEATURE,
    clock.FEATURE,
    guest_attributes.FEATURE,
    telemetry.FEATURE,
)
