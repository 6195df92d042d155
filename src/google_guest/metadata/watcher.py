"""Following the metadata tree for as long as the process lives.

The first answer is a plain read; each later one is a long poll that carries the ETag of the answer
before it, so that nothing is published twice at the start and no change is missed in between. A
tree is published only if its parsed content differs from the last published one: what the agent
writes itself (guest attributes) moves the ETag and nothing else. About once per timeout without a
change a tick is published, for whoever repairs what drifted. Failures leave the last good tree in
force and are told in two log lines, one when they start and one when they end.

Source: google-guest-agent ``internal/events/metadata`` for what the reference delivers, its issues
283, 320 and 364 for what happens without pauses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Optional

from google_guest.metadata.answers import Answer
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.errors import Cancelled, ConnectFailed, MetadataError
from google_guest.metadata.retries import ReadRetries, WatchPauses
from google_guest.metadata.streak import Streak
from google_guest.metadata.tree import Metadata, parse_metadata
from google_guest.records import record

_QUICK = 1.0
_CHANGES_APART = 0.02
_QUICK_ROUNDS = 5
_STARTUP = 60.0
# A server measures the timeout with its own clock; a poll that ends a little early still ticks.
_TICK_SHARE = 0.9

_logger = logging.getLogger(__name__)


@record
class Update:
    """The tree as it is now."""

    metadata: Metadata
    etag: Optional[str]
    changed: bool
    """False for a tick: nothing changed for the length of a long poll."""


class Watcher:
    """Publishes every change of the metadata tree; made for a thread of its own.

    Telling people about ``Metadata.problems`` is left to whoever takes the updates.
    """

    def __init__(self, client: MetadataClient, *, timeout_sec: float = 60.0) -> None:
        """Watch through ``client``; a long poll lasts up to ``timeout_sec`` seconds."""
        self._client = client
        self._clock = client.clock
        self._timeout = timeout_sec
        self._streak = Streak("metadata", _logger, clock=self._clock)
        self._pauses = WatchPauses()
        self._etag: Optional[str] = None
        self._metadata: Optional[Metadata] = None

    @property
    def metadata(self) -> Optional[Metadata]:
        """The last good tree; None before the first."""
        return self._metadata

    def cancel(self) -> None:
        """Stop from another thread, in the middle of a poll or pause; cancels the client."""
        self._client.cancel()

    def run(self, publish: Callable[[Update], None]) -> None:
        """Call ``publish`` for every update until cancelled."""
        for update in self.updates():
            publish(update)

    def updates(self) -> Iterator[Update]:
        """Yield updates until cancelled: first the tree as found, then changes and ticks."""
        try:
            yield from self._updates()
        except Cancelled:
            _logger.debug("no longer watching metadata")

    def _updates(self) -> Iterator[Update]:
        startup_ends = self._clock() + _STARTUP
        startup = ReadRetries(self._client.jitter)
        published = self._clock()
        quick_rounds = 0
        while True:
            started = self._clock()
            try:
                answer = self._ask()
            except Cancelled:
                raise
            except MetadataError as error:
                self._streak.failed(error)
                delay = None
                if type(error) is ConnectFailed and started < startup_ends:
                    # The network comes up while the agent starts, and no server is bothered
                    # (one that hangs up is NoAnswer).
                    delay = startup.delay_after(error)
                self._client.sleep(self._pauses.delay_after(error) if delay is None else delay)
                continue
            self._streak.recovered()
            self._pauses.reset()
            asked = self._clock()
            startup_ends = started
            changed = self._accept(answer)
            # The document can be a megabyte and would live until the next answer.
            del answer
            if changed or self._clock() - published >= self._timeout * _TICK_SHARE:
                published = self._clock()
                yield Update(self._current(), self._etag, changed)
            if asked - started >= _QUICK:
                quick_rounds = 0
                continue
            # A few answers may follow each other closely, and real changes may keep coming. A
            # server that does not hold its answers back although nothing changed must not set
            # the pace.
            quick_rounds += 1
            if quick_rounds > _QUICK_ROUNDS:
                self._client.sleep(_CHANGES_APART if changed else _QUICK)

    def _ask(self) -> Answer:
        if self._metadata is None:
            return self._client.get_metadata(budget=0)
        return self._client.wait_for_change(self._etag, self._timeout)

    def _accept(self, answer: Answer) -> bool:
        """Make ``answer`` the current tree; return whether its content is new."""
        metadata = parse_metadata(answer.document)
        self._etag = answer.etag
        if metadata == self._metadata:
            return False
        self._metadata = metadata
        return True

    def _current(self) -> Metadata:
        assert self._metadata is not None
        return self._metadata
