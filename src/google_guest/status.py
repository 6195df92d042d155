"""What the agent tells others about itself: ``status.json`` in its run folder.

Other programs read it (``google-guest status``, the features that follow another feature's
success), so the file is replaced atomically, world-readable, and holds no secret. It is written
when something that matters changed and otherwise not more than once a minute. It also remembers
which once-per-boot features are done, so that a restart of the agent does not repeat them.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable
from typing import Any, Protocol

from google_guest.features import Feature
from google_guest.reconcile import Pass
from google_guest.state import read_state, status_path
from google_guest.system import System
from google_guest.version import version

log = logging.getLogger(__name__)

_MINUTE = 60.0
_KEPT_CHANGES = 20


class RunningFeature(Protocol):
    """What the status needs to know of a worker."""

    @property
    def feature(self) -> Feature:
        """The catalog's row."""

    @property
    def failures(self) -> int:
        """Failed passes in a row."""


class StatusFile:
    """Collects results of passes and writes them out."""

    def __init__(self) -> None:
        self._features: dict[str, dict[str, Any]] = {}
        self._done: set[str] = set()
        self._boot_id = ""
        self._started = 0.0
        self._ready_at: float = 0.0
        self._important = True
        self._pending = False
        self._written = float("-inf")
        self._broken = False

    def load(self, system: System) -> None:
        """Take over from an earlier agent of this boot what is done once per boot."""
        self._boot_id = system.boot_id()
        self._started = system.now()
        earlier = read_state(system, status_path(system)) or {}
        if self._boot_id and earlier.get("boot_id") == self._boot_id:
            done = earlier.get("done_this_boot")
            if isinstance(done, list):
                self._done = {name for name in done if isinstance(name, str)}
            rows = earlier.get("features")
            if isinstance(rows, dict):
                # They do not run again, so what is known of them is what that agent noted.
                self._features = {
                    name: dict(rows[name])
                    for name in self._done
                    if isinstance(rows.get(name), dict)
                }

    def done_this_boot(self, feature: Feature) -> bool:
        """Return whether a once-per-boot feature has succeeded since the machine started."""
        return feature.name in self._done

    def note_done_this_boot(self, feature: Feature) -> None:
        """Remember that a once-per-boot feature is done."""
        self._done.add(feature.name)

    def note(self, feature: Feature, result: Pass, wall: float) -> None:
        """Take in the result of a pass at the Unix time ``wall``."""
        row = self._features.setdefault(feature.name, {})
        before = (row.get("on"), row.get("error"), row.get("skipped"))
        row["on"] = result.decision.on
        row["reason"] = result.decision.reason
        row["layer"] = result.decision.layer
        row["last_pass"] = round(wall, 3)
        row["notes"] = [*result.plan.warnings, *result.plan.notes]
        row["error"] = "; ".join(result.errors[:5])
        row["skipped"] = result.skipped
        if result.ok:
            row.setdefault("first_success", round(wall, 3))
            row["last_success"] = round(wall, 3)
        if result.outcome.applied:
            changes = [change.describe() for change in result.outcome.applied]
            row["changes"] = changes[:_KEPT_CHANGES]
            row["changes_count"] = len(changes)
            row["last_change"] = round(wall, 3)
        after = (row["on"], row["error"], row["skipped"])
        changed = before != after or bool(result.outcome.applied)
        self._important = self._important or changed
        self._pending = True

    def time_left(self, now: float) -> float:
        """Return the seconds until unimportant news should be written."""
        return max(0.0, self._written + _MINUTE - now) if self._pending else float("inf")

    def write(
        self,
        system: System,
        workers: Iterable[RunningFeature],
        *,
        ready: bool,
        final: bool = False,
    ) -> None:
        """Write the file if it is worth it; a failure is logged once and not repeated."""
        now = time.monotonic()
        if ready and not self._ready_at:
            self._ready_at = round(system.now(), 3)
            self._important = True
        if not (self._important or final or (self._pending and self.time_left(now) <= 0)):
            return
        document = {
            "version": version(),
            "pid": os.getpid(),
            "state": "stopped" if final else "running",
            "boot_id": self._boot_id,
            "started": round(self._started, 3),
            "ready": self._ready_at or None,
            "done_this_boot": sorted(self._done),
            "features": {
                worker.feature.name: {
                    **self._features.get(worker.feature.name, {}),
                    "summary": worker.feature.summary,
                    "frequency": worker.feature.frequency.value,
                    "failures": worker.failures,
                }
                for worker in workers
            },
        }
        self._important = self._pending = False
        self._written = now
        data = json.dumps(document, indent=1).encode() + b"\n"
        try:
            system.files.write_atomic(status_path(system), data, mode=0o644)
        except OSError as error:
            if not self._broken:
                log.warning("%s cannot be written: %s", status_path(system), error)
            self._broken = True
