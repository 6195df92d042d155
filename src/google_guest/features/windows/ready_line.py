"""A line on ``COM4`` that tells clients of password resets that somebody listens.

``gcloud compute reset-windows-password`` takes an instance whose port shows neither an answer nor
this line for one that is not ready, and gives up.

Source: compute-image-windows (the agent before the present ones); gcloud's
``compute/reset_windows_password``.
"""

from __future__ import annotations

import json

from google_guest.changes.windows import WriteSerialLine
from google_guest.changes.windows_accounts import REPLY_PORT
from google_guest.features import Decision, Feature, Frequency, Inputs, Plan, Stage
from google_guest.version import version


def enabled(inputs: Inputs) -> Decision:
    """Return that nothing switches it off: it changes nothing."""
    return Decision(True, "on by default")


def plan(inputs: Inputs) -> Plan:
    """Return the line."""
    line = json.dumps({"ready": True, "version": version()}, separators=(",", ":"))
    return Plan((WriteSerialLine(REPLY_PORT, line, "that the agent is ready"),))


FEATURE = Feature(
    name="ready-line",
    summary="tell on COM4 that the agent is ready",
    enabled=enabled,
    plan=plan,
    stage=Stage.EARLY,
    frequency=Frequency.ONCE_PER_START,
    live_only=True,
)
