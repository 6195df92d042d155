"""What a feature is: a pair of functions from what is wanted and what is to what must change.

One feature is one file below this folder. Its docstring says what it reads, what it wants and what
it changes; ``enabled`` decides whether it runs and says which layer decided; ``plan`` returns the
changes. Features never act: ``google_guest.agent`` applies their plans, ``google-guest plan`` only
prints them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable
from typing import Optional

from google_guest.changes import Change
from google_guest.config import Config
from google_guest.metadata.tree import Metadata
from google_guest.records import record
from google_guest.system import System

BUILT_IN = "built-in"
INSTANCE_METADATA = "instance metadata"
PROJECT_METADATA = "project metadata"


class Stage(enum.Enum):
    """When a feature first runs after the agent's start."""

    EARLY = "early"
    """Before anything else and without metadata."""
    BOOT = "boot"
    """With the first metadata; the agent reports READY only after this first pass (bounded)."""
    LATE = "late"
    """With the first metadata, without holding up READY."""


class Frequency(enum.Enum):
    """How often a feature's changes are made."""

    ALWAYS = "always"
    """Whenever what is differs from what is wanted."""
    ONCE_PER_START = "once per agent start"
    ONCE_PER_BOOT = "once per boot"
    ONCE_PER_INSTANCE = "once per instance"
    """Once for each instance id; the feature itself keeps the marker."""


@record
class Inputs:
    """Everything that a feature may look at."""

    metadata: Optional[Metadata]
    config: Config
    system: System
    now: float
    """The wall clock in Unix seconds."""


@record
class Decision:
    """Whether a feature runs, and who said so."""

    on: bool
    reason: str
    """A sentence fragment for people, such as ``[Daemons] accounts_daemon = false``."""
    layer: str = BUILT_IN
    """``built-in``, the configuration file, ``instance metadata`` or ``project metadata``."""


@record
class Plan:
    """What a feature wants changed now."""

    changes: tuple[Change, ...] = ()
    recheck_at: Optional[float] = None
    """Wall clock (Unix seconds) at which the plan may differ without any event."""
    notes: tuple[str, ...] = ()
    """What is left undone and needs nobody's attention; logged once for each text."""
    warnings: tuple[str, ...] = ()
    """Inputs that are wrong and that somebody should mend; logged once for each text."""


def _no_inputs(metadata: Metadata) -> Hashable:
    return ()


@record
class Feature:
    """One row of the catalog."""

    name: str
    summary: str
    enabled: Callable[[Inputs], Decision]
    plan: Callable[[Inputs], Plan]
    stage: Stage = Stage.LATE
    frequency: Frequency = Frequency.ALWAYS
    plan_off: Optional[Callable[[Inputs], Plan]] = None
    """What to undo while the feature is off; nothing is undone without it."""
    inputs_of: Callable[[Metadata], Hashable] = _no_inputs
    """The part of the metadata that the plan depends on; a change of it triggers a pass."""
    drift_interval: Optional[float] = None
    """Seconds after which a pass is due even without any event; None: never."""
    retry_first: float = 10.0
    """Seconds until the first retry of a failed pass; doubled for each further one."""
    retry_last: float = 600.0
    """Most seconds between retries."""
    follows: tuple[str, ...] = ()
    """Features whose successful passes trigger a pass of this one."""
    watches_network: bool = False
    """Whether changes of links, addresses and routes trigger a pass."""
    live_only: bool = False
    """Whether the plan needs the running machine (kernel state) and is skipped for a tree."""
