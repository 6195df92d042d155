"""A service's life as the service manager hears of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from google_guest.system.windows.service_process import (
    RUNNING,
    STOP_PENDING,
    STOPPED,
    ServiceControls,
    serve,
)

STOP, INTERROGATE, SHUTDOWN, PARAMETERS, PRESHUTDOWN = 1, 4, 5, 6, 15
Told = list[tuple[int, int, int, int, int]]


class Service:
    """A service in a thread, whose reports a test looks at."""

    def __init__(self, work: Callable[[ServiceControls], int], **bounds: float) -> None:
        self.controls = ServiceControls()
        self.told: Told = []
        self.running = threading.Event()
        self.result: list[int] = []
        self._thread = threading.Thread(
            target=lambda: self.result.append(
                serve(self.controls, lambda: work(self.controls), self._report, **bounds)
            )
        )
        self._thread.start()
        assert self.running.wait(5)

    def _report(self, *status: int) -> None:
        state, accepted, exit_status, checkpoint, wait_hint = status
        self.told.append((state, accepted, exit_status, checkpoint, wait_hint))
        self.running.set()

    def ended(self, timeout: float = 5) -> int:
        self._thread.join(timeout)
        assert not self._thread.is_alive()
        return self.result[0]

    def states(self) -> list[int]:
        return [status[0] for status in self.told]


def until_stopped(controls: ServiceControls) -> int:
    stopped = threading.Event()
    controls.connect(stop=stopped.set, reload=lambda: None)
    stopped.wait(10)
    return 0


def test_it_runs_although_its_worker_waits_for_something() -> None:
    go_on = threading.Event()
    service = Service(lambda _: int(not go_on.wait(5)))
    assert service.states() == [RUNNING]
    go_on.set()
    assert service.ended() == 0


@pytest.mark.parametrize("control", [STOP, SHUTDOWN, PRESHUTDOWN])
def test_every_kind_of_end_stops_the_worker(control: int) -> None:
    service = Service(until_stopped)
    assert service.controls.take(control) == 0
    assert service.ended() == 0
    assert service.states()[-1] == STOPPED
    assert service.told[-1][2] == 0


def test_stop_that_comes_before_the_worker_listens_is_not_lost() -> None:
    connect = threading.Event()

    def slow(controls: ServiceControls) -> int:
        connect.wait(5)
        return until_stopped(controls)

    service = Service(slow)
    service.controls.take(STOP)
    connect.set()
    assert service.ended() == 0


def test_checkpoints_grow_while_the_worker_ends() -> None:
    def slow(controls: ServiceControls) -> int:
        until_stopped(controls)
        time.sleep(0.3)
        return 0

    service = Service(slow, checkpoint_interval=0.05)
    service.controls.take(STOP)
    service.ended()
    pending = [status for status in service.told if status[0] == STOP_PENDING]
    assert [status[3] for status in pending] == list(range(1, len(pending) + 1))
    assert len(pending) > 2
    assert all(status[1] == 0 and status[4] > 0 for status in pending)


def test_worker_that_does_not_end_keeps_the_service_from_nothing() -> None:
    hang = threading.Event()
    service = Service(lambda _: int(hang.wait(20)), stop_bound=0.2, checkpoint_interval=0.05)
    started = time.monotonic()
    service.controls.take(STOP)
    assert service.ended() == 1
    assert time.monotonic() - started < 5
    assert service.states()[-1] == STOPPED
    hang.set()


def test_status_of_the_worker_is_that_of_the_service() -> None:
    service = Service(lambda _: 3)
    assert service.ended() == 3
    assert service.told[-1] == (STOPPED, 0, 3, 0, 0)


def test_trace_of_the_worker_is_logged_and_the_service_is_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: ServiceControls) -> int:
        raise RuntimeError("broken")

    service = Service(broken)
    assert service.ended() == 1
    assert service.states()[-1] == STOPPED
    assert "broken" in caplog.text


def test_changed_parameters_reload() -> None:
    controls = ServiceControls()
    assert controls.take(PARAMETERS) == 0
    reloads: list[None] = []
    controls.connect(stop=lambda: None, reload=lambda: reloads.append(None))
    assert controls.take(PARAMETERS) == 0
    assert reloads == [None]
    assert not controls.stopping.is_set()


def test_interrogation_is_answered_and_unknown_controls_are_not() -> None:
    controls = ServiceControls()
    assert controls.take(INTERROGATE) == 0
    assert controls.take(200) == 120
    assert not controls.stopping.is_set()
