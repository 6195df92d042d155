"""The vocabulary of changes: what a plan is made of.

A feature never acts. It returns :class:`Change` values, which say what they would do
(:meth:`~Change.describe`, :meth:`~Change.diff`) and can do it (:meth:`~Change.apply`). Applying a
change that is already in force does nothing, so that an interrupted plan is mended by the next one.

Changes about the same thing share a ``subject``. When one of them fails, later changes of that
subject are left out and every other subject goes on: one bad user never stops the rest.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, ClassVar, Optional

from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.system import System

log = logging.getLogger(__name__)

BATCH_SIZE = 64
"""Most changes that are applied in one batch, so that a stop is honoured soon."""


@record
class Change(ABC):
    """One step from what is to what is wanted."""

    batched: ClassVar[bool] = False
    """Whether consecutive changes of this class are handed to :meth:`apply_batch` together."""

    needs_live_system: ClassVar[bool] = True
    """Whether the change can only be made on the running machine, not in a file tree."""

    notes_outcome: ClassVar[bool] = False
    """Whether it notes what came of the changes before it, and so is made when the agent stops."""

    @property
    @abstractmethod
    def subject(self) -> str:
        """The thing that changes, such as ``user ada``."""

    @abstractmethod
    def describe(self) -> str:
        """Return one imperative line without secrets, such as ``create user ada``."""

    def diff(self) -> tuple[str, ...]:
        """Return lines that start with ``+``, ``-`` or a blank; empty if one line says it all."""
        return ()

    @abstractmethod
    def apply(self, system: System) -> None:
        """Make the change.

        Raises:
            GuestError, OSError: it failed and the old state is in force.
        """

    @classmethod
    def apply_batch(
        cls, changes: Sequence[Change], system: System
    ) -> Sequence[Optional[Exception]]:
        """Make several changes of this class; return None or the error for each of them."""
        return [apply_one(change, system) for change in changes]

    def as_dict(self) -> dict[str, Any]:
        """Return the form that ``--json`` prints."""
        return {
            "kind": type(self).__name__,
            "subject": self.subject,
            "description": self.describe(),
            "diff": list(self.diff()),
        }


class Outcome:
    """What became of a list of changes."""

    def __init__(self, failed: Iterable[tuple[Change, Exception]] = ()) -> None:
        self.applied: list[Change] = []
        self.failed: list[tuple[Change, Exception]] = list(failed)
        self.left_out: list[Change] = []
        """Not tried: an earlier change of the subject failed, or the agent stops."""
        self.not_live: list[Change] = []
        """Not tried: they need the running machine, and the system is a file tree."""

    @property
    def ok(self) -> bool:
        """Whether every change that this system can take was made."""
        return not self.failed and not self.left_out


def apply_one(change: Change, system: System) -> Optional[Exception]:
    """Make one change; return the error instead of raising it.

    A mistake of ours (anything but ``GuestError`` and ``OSError``) is logged with its trace here.
    """
    try:
        change.apply(system)
    except (GuestError, OSError) as error:
        return error
    except Exception as error:
        log.exception("%s: internal error", change.describe())
        return error
    return None


def apply_all(
    changes: Iterable[Change],
    system: System,
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Make ``changes`` in order and return what became of each.

    ``stopping`` is asked between changes (between batches for batched ones); once it answers true
    the remaining ones are left out, except those that note what came of the others. On a system
    that is not live, changes that need one are left out without being failures of their subject.
    """
    outcome = Outcome()
    broken: set[str] = set()
    for kind, run in groupby(changes, key=_kind):
        pending = list(run)
        size = BATCH_SIZE if kind.batched else 1
        for start in range(0, len(pending), size):
            batch = []
            for change in pending[start : start + size]:
                must_end = stopping() and not change.notes_outcome
                if must_end or change.subject in broken:
                    outcome.left_out.append(change)
                elif change.needs_live_system and not system.is_live:
                    outcome.not_live.append(change)
                else:
                    batch.append(change)
            if not batch:
                continue
            results = (
                kind.apply_batch(batch, system) if kind.batched else [apply_one(batch[0], system)]
            )
            for change, error in zip(batch, results):
                if error is None:
                    outcome.applied.append(change)
                else:
                    outcome.failed.append((change, error))
                    broken.add(change.subject)
    return outcome


def _kind(change: Change) -> type[Change]:
    return type(change)
