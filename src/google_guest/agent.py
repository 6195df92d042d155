"""The agent: a level-triggered loop over the catalog's features.

One thread waits (signals, timers, the kernel's network messages), one watches metadata, and each
feature that has something to do gets a thread of its own for the time of a pass. A feature runs
when its part of the metadata changed, when its last pass failed (with back-off), when it asked to
be looked at again, when drift is due, when the network moved, after a reload and after a jump of
the wall clock. Nothing is handed from event to event: every pass looks at the newest metadata, the
configuration and the machine, so whatever was missed or half done is mended by the next one.

READY=1 is sent when the first pass of every BOOT feature has ended, or at its bound.
"""

from __future__ import annotations

import logging
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Optional

from google_guest.config import Config
from google_guest.features import Feature, Frequency, Inputs, Stage
from google_guest.metadata.tree import Metadata
from google_guest.metadata.watcher import Update, Watcher
from google_guest.reconcile import Pass
from google_guest.records import record
from google_guest.status import StatusFile
from google_guest.system import NetworkMonitor, System
from google_guest.system.service import RELOAD_SIGNALS, STOP_SIGNALS, ServiceManager, WakeUp
from google_guest.worker import Worker

log = logging.getLogger(__name__)

READY_BOUND = 72.0
"""Seconds after which READY is sent in any case: 75 from the unit's start, on slow machines too."""
FIRST_PASS_BOUND = 30.0
"""Seconds from the first metadata after which READY is sent in any case."""
STOP_BOUND = 15.0
"""Seconds that running passes get to end at a change's boundary when the agent stops."""
NETWORK_DEBOUNCE = 0.25
NETWORK_INTERVAL = 1.0
"""A pass after network messages waits for the first and keeps the second between two passes."""
CLOCK_JUMP = 3.0
"""Seconds by which the wall clock may leave the monotonic one before features look again."""
_LONGEST_WAIT = 60.0
_THREAD_STACK = 256 << 10


@record
class AgentOptions:
    """Bounds that tests shorten."""

    ready_bound: float = READY_BOUND
    first_pass_bound: float = FIRST_PASS_BOUND
    stop_bound: float = STOP_BOUND


class Agent:
    """The running agent; ``run`` returns when it was told to stop."""

    def __init__(
        self,
        system: System,
        *,
        load_config: Callable[[], Config],
        watcher: Watcher,
        features: Sequence[Feature],
        manager: ServiceManager,
        status: StatusFile,
        flush_logs: Callable[[], None] = lambda: None,
        options: Optional[AgentOptions] = None,
    ) -> None:
        self._system = system
        self._load_config = load_config
        self._config = load_config()
        self._watcher = watcher
        self._manager = manager
        self._status = status
        self._flush_logs = flush_logs
        self._options = options or AgentOptions()
        self._metadata: Optional[Metadata] = None
        self._wake_up = WakeUp()
        self._updates: deque[Update] = deque()
        self._finished: deque[tuple[Worker, Pass]] = deque()
        self._stopping = threading.Event()
        self._reload_wanted = False
        self._monitor: Optional[NetworkMonitor] = None
        self._network_due: Optional[float] = None
        self._network_last = float("-inf")
        self._ready = False
        self._ready_deadline = float("inf")
        self._clock_offset = system.now() - time.monotonic()
        self._known_problems: frozenset[str] = frozenset()
        self._workers = {
            feature.name: Worker(
                feature,
                inputs=self._inputs,
                finished=self._pass_finished,
                stopping=self._stopping.is_set,
            )
            for feature in features
        }

    # What other threads and signal handlers call.

    def stop(self) -> None:
        """Ask the agent to end; returns at once."""
        self._stopping.set()
        self._wake_up.wake()

    def reload(self) -> None:
        """Have the configuration read again; returns at once."""
        self._reload_wanted = True
        self._wake_up.wake()

    def _on_signal(self, number: int) -> None:
        if number in RELOAD_SIGNALS:
            self._reload_wanted = True
        else:
            self._stopping.set()

    def _inputs(self) -> Inputs:
        return Inputs(self._metadata, self._config, self._system, self._system.now())

    def _pass_finished(self, worker: Worker, result: Pass) -> None:
        self._finished.append((worker, result))
        self._wake_up.wake()

    def _watch(self) -> None:
        for update in self._watcher.updates():
            self._updates.append(update)
            self._wake_up.wake()

    # The loop.

    def run(self, *, handle_signals: bool = True) -> int:
        """Run until stopped; return the exit status."""
        if handle_signals:
            self._wake_up.on_signals((*STOP_SIGNALS, *RELOAD_SIGNALS), self._on_signal)
        threading.stack_size(_THREAD_STACK)
        self._report_config_problems()
        self._status.load(self._system)
        self._ready_deadline = time.monotonic() + self._options.ready_bound
        self._manager.notify(STATUS="waiting for metadata")
        for worker in self._workers.values():
            if worker.feature.stage is Stage.EARLY:
                self._submit(worker)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_up.fileno(), selectors.EVENT_READ)
            self._open_monitor(selector)
            while not self._stopping.is_set():
                self._wait(selector)
                self._turn()
        return self._end()

    def _wait(self, selector: selectors.BaseSelector) -> None:
        for key, _ in selector.select(self._time_left()):
            if key.fd == self._wake_up.fileno():
                self._wake_up.drain()
            elif self._network_moved(selector) and self._network_due is None:
                earliest = self._network_last + NETWORK_INTERVAL
                self._network_due = max(time.monotonic() + NETWORK_DEBOUNCE, earliest)

    def _network_moved(self, selector: selectors.BaseSelector) -> bool:
        if self._monitor is None:
            return False
        try:
            return bool(self._monitor.drain())
        except OSError as error:
            log.warning("the kernel's network messages ended, listening anew: %s", error)
            selector.unregister(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None
            self._open_monitor(selector)
            return True

    def _turn(self) -> None:
        """Look once at everything that may have happened."""
        while self._finished:
            self._take_result(*self._finished.popleft())
        while self._updates:
            self._take_update(self._updates.popleft())
        if self._reload_wanted:
            self._reload_wanted = False
            self._reload()
        self._check_clock()
        now, wall = time.monotonic(), self._system.now()
        if self._network_due is not None and now >= self._network_due:
            self._network_due, self._network_last = None, now
            self._submit_where(lambda worker: worker.feature.watches_network)
        for worker in self._workers.values():
            if worker.is_due(now, wall):
                self._submit(worker)
        if not self._ready and (self._first_passes_done() or now >= self._ready_deadline):
            self._announce_ready()
        self._status.write(self._system, self._workers.values(), ready=self._ready)
        self._flush_logs()

    def _time_left(self) -> float:
        now, wall = time.monotonic(), self._system.now()
        left = min(
            (worker.time_left(now, wall) for worker in self._workers.values()),
            default=_LONGEST_WAIT,
        )
        if self._network_due is not None:
            left = min(left, self._network_due - now)
        if not self._ready:
            left = min(left, self._ready_deadline - now)
        left = min(left, self._status.time_left(now))
        return max(0.0, min(left, _LONGEST_WAIT))

    # Events.

    def _take_update(self, update: Update) -> None:
        if not update.changed:
            return
        first = self._metadata is None
        self._metadata = update.metadata
        new = frozenset(update.metadata.problems)
        for problem in sorted(new - self._known_problems):
            log.warning("metadata: %s", problem)
        self._known_problems = new
        if first:
            bound = time.monotonic() + self._options.first_pass_bound
            self._ready_deadline = min(self._ready_deadline, bound)
            self._submit_where(lambda worker: worker.feature.stage is Stage.BOOT)
        else:
            self._submit_where(lambda worker: worker.wants(update.metadata))

    def _take_result(self, worker: Worker, result: Pass) -> None:
        worker.note_result(result, time.monotonic())
        self._status.note(worker.feature, result, self._system.now())
        if result.ok and worker.feature.frequency is Frequency.ONCE_PER_BOOT:
            self._status.note_done_this_boot(worker.feature)
        if result.ok and (result.outcome.applied or worker.successes == 1):
            name = worker.feature.name
            self._submit_where(lambda other: name in other.feature.follows)

    def _announce_ready(self) -> None:
        self._ready = True
        if self._metadata is None:
            log.warning("no metadata yet: ready without it, and still trying")
            self._manager.notify(READY="1", STATUS="waiting for metadata")
        else:
            self._manager.notify(READY="1", STATUS="running")
            self._submit_where(lambda worker: worker.feature.stage is Stage.LATE)

    def _reload(self) -> None:
        self._manager.reloading()
        config = self._load_config()
        errors = [problem for problem in config.problems if problem.is_error]
        if errors:
            for problem in errors:
                log.error("%s", problem)
            log.error("the configuration in force stays until every file can be read")
        else:
            self._config = config
            self._report_config_problems()
            log.info("configuration read again")
        self._manager.notify(READY="1", STATUS="running")
        self._submit_where(lambda worker: True)

    def _check_clock(self) -> None:
        offset = self._system.now() - time.monotonic()
        if abs(offset - self._clock_offset) >= CLOCK_JUMP:
            log.info("the clock moved by %+.0f s", offset - self._clock_offset)
            self._submit_where(lambda worker: worker.feature.frequency is Frequency.ALWAYS)
        self._clock_offset = offset

    # Parts.

    def _submit_where(self, condition: Callable[[Worker], bool]) -> None:
        for worker in self._workers.values():
            if condition(worker):
                self._submit(worker)

    def _submit(self, worker: Worker) -> None:
        feature = worker.feature
        if feature.stage is not Stage.EARLY and self._metadata is None:
            return
        if feature.stage is Stage.LATE and not self._ready:
            return
        if feature.frequency is Frequency.ONCE_PER_START and worker.successes:
            return
        if feature.frequency is Frequency.ONCE_PER_BOOT and self._status.done_this_boot(feature):
            return
        worker.submit(self._metadata)

    def _first_passes_done(self) -> bool:
        return self._metadata is not None and all(
            worker.passes or self._status.done_this_boot(worker.feature)
            for worker in self._workers.values()
            if worker.feature.stage is not Stage.LATE
        )

    def _open_monitor(self, selector: selectors.BaseSelector) -> None:
        if not self._system.is_live or not any(
            worker.feature.watches_network for worker in self._workers.values()
        ):
            return
        try:
            self._monitor = self._system.open_network_monitor()
        except OSError as error:
            log.warning("network changes are only seen by the periodic pass: %s", error)
            return
        selector.register(self._monitor.fileno(), selectors.EVENT_READ)

    def _report_config_problems(self) -> None:
        for problem in self._config.problems:
            log.log(logging.ERROR if problem.is_error else logging.WARNING, "%s", problem)

    def _end(self) -> int:
        self._manager.notify(STOPPING="1", STATUS="stopping")
        self._watcher.cancel()
        deadline = time.monotonic() + self._options.stop_bound
        for worker in self._workers.values():
            worker.join(max(0.0, deadline - time.monotonic()))
        while self._finished:
            self._take_result(*self._finished.popleft())
        self._status.write(self._system, self._workers.values(), ready=self._ready, final=True)
        if self._monitor is not None:
            self._monitor.close()
        log.info("stopped")
        return 0
