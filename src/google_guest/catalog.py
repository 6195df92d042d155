"""The features of the Linux agent, in the order in which people read them.

A feature is one file below ``features/`` and one line here.
"""

from __future__ import annotations

from google_guest.features import Feature
from google_guest.features.linux import forwarded_addresses

FEATURES: tuple[Feature, ...] = (forwarded_addresses.FEATURE,)
