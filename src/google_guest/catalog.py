"""The features of the agent, in the order in which they start and in which people read them.

A feature is one file below ``features/`` and one line here, or in ``features.windows``.
"""

from __future__ import annotations

import sys

from google_guest.features import Feature


def platform_features() -> tuple[Feature, ...]:
    """Return the features of the platform that this process runs on."""
    if sys.platform == "win32":
        from google_guest.features.windows import FEATURES

        return FEATURES
    return _linux_features()


def _linux_features() -> tuple[Feature, ...]:
    from google_guest.features import guest_attributes, telemetry
    from google_guest.features.linux import (
        accounts,
        clock,
        first_boot,
        forwarded_addresses,
        hostname,
        io_scheduler,
        local_ssd,
        multiqueue,
        oslogin,
        overcommit,
    )

    return (
        local_ssd.FEATURE,
        multiqueue.FEATURE,
        io_scheduler.FEATURE,
        hostname.FEATURE,
        forwarded_addresses.FEATURE,
        accounts.FEATURE,
        oslogin.FEATURE,
        first_boot.FEATURE,
        overcommit.FEATURE,
        clock.FEATURE,
        guest_attributes.FEATURE,
        telemetry.FEATURE,
    )
