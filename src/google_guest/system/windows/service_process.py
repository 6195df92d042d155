"""This process as a Windows service: what the service manager is told and what it asks for.

The service is RUNNING as soon as its worker has a thread: whatever the worker waits for (a network,
a metadata server) is no reason to keep the machine's start waiting. STOP, SHUTDOWN and PRESHUTDOWN
ask the worker to end; while it does, the manager hears growing checkpoints, and after
``STOP_BOUND`` seconds the service is STOPPED in any case.

Source: learn.microsoft.com, "Service Control Handler Function", "SERVICE_STATUS",
"SetConsoleCtrlHandler" (a service also gets the console's shutdown event, whose default is the end
of the process).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Optional

from google_guest.errors import GuestError

log = logging.getLogger(__name__)

STOP_BOUND = 10.0
"""Seconds from the request to stop until the service is STOPPED."""
_CHECKPOINT_INTERVAL = 1.0
_WAIT_HINT = 5000

STOPPED, START_PENDING, STOP_PENDING, RUNNING = 1, 2, 3, 4
_ACCEPTED = 0x1 | 0x4 | 0x8 | 0x100
"""STOP, SHUTDOWN, PARAMCHANGE, PRESHUTDOWN."""
_ENDING = {1: "stop", 5: "shutdown", 15: "preshutdown"}
_INTERROGATE, _PARAMETERS_CHANGED = 4, 6
_NO_ERROR, _NOT_IMPLEMENTED, _SPECIFIC_ERROR = 0, 120, 1066


class NotAService(GuestError):
    """The service manager did not start this process."""


class ServiceControls:
    """What the manager asked for, and whom to tell."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop: Optional[Callable[[], None]] = None
        self._reload: Optional[Callable[[], None]] = None
        self.stopping = threading.Event()

    def connect(self, *, stop: Callable[[], None], reload: Callable[[], None]) -> None:
        """Have ``stop`` and ``reload`` called; at once if the request came before."""
        with self._lock:
            self._stop, self._reload = stop, reload
        if self.stopping.is_set():
            stop()

    def take(self, control: int) -> int:
        """Take a control code from the manager; return the error code that answers it."""
        if control in _ENDING:
            self.stopping.set()
            with self._lock:
                stop = self._stop
            if stop is not None:
                stop()
        elif control == _PARAMETERS_CHANGED:
            with self._lock:
                reload = self._reload
            if reload is not None:
                reload()
        elif control != _INTERROGATE:
            return _NOT_IMPLEMENTED
        return _NO_ERROR


Work = Callable[[ServiceControls, Sequence[str]], int]
"""What a service does: takes its controls and the arguments of its start, returns its status."""
Report = Callable[[int, int, int, int, int], None]
"""Tells the manager: state, accepted controls, exit status, checkpoint, wait hint in ms."""


def serve(
    controls: ServiceControls,
    work: Callable[[], int],
    report: Report,
    *,
    stop_bound: float = STOP_BOUND,
    checkpoint_interval: float = _CHECKPOINT_INTERVAL,
) -> int:
    """Run ``work`` in a thread and report its life; return its status."""
    status = [1]
    ended = threading.Event()

    def run() -> None:
        try:
            status[0] = work()
        except Exception:
            log.exception("the service's worker ended")
        finally:
            ended.set()
            controls.stopping.set()

    # A daemon: a worker that does not end keeps the process from nothing.
    threading.Thread(target=run, name="service", daemon=True).start()
    report(RUNNING, _ACCEPTED, 0, 0, 0)
    controls.stopping.wait()
    deadline = time.monotonic() + stop_bound
    checkpoint = 0
    while not ended.is_set() and time.monotonic() < deadline:
        checkpoint += 1
        report(STOP_PENDING, 0, 0, checkpoint, _WAIT_HINT)
        ended.wait(min(checkpoint_interval, max(0.0, deadline - time.monotonic())))
    if not ended.is_set():
        log.error("the service's worker did not end within %g s", stop_bound)
    report(STOPPED, 0, status[0], 0, 0)
    return status[0]


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    from google_guest.system.windows.calls import function, last_error

    _OWN_PROCESS = 0x10
    _NOT_STARTED_BY_MANAGER = 1063
    _LOGOFF_EVENT, _SHUTDOWN_EVENT = 5, 6

    _ServiceMain = ctypes.WINFUNCTYPE(None, wintypes.DWORD, ctypes.POINTER(wintypes.LPWSTR))
    _Handler = ctypes.WINFUNCTYPE(
        wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p, ctypes.c_void_p
    )
    _ConsoleHandler = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)

    class _TableEntry(ctypes.Structure):
        _fields_ = (("name", wintypes.LPWSTR), ("main", _ServiceMain))

    class _Status(ctypes.Structure):
        """SERVICE_STATUS."""

        _fields_ = tuple(
            (name, wintypes.DWORD)
            for name in (
                "kind",
                "state",
                "accepted",
                "exit_code",
                "specific_exit_code",
                "checkpoint",
                "wait_hint",
            )
        )

    def run_service(name: str, work: Work) -> int:
        """Be the service ``name`` until it has ended; return the status of ``work``.

        Raises:
            NotAService: this process was started by somebody else.
            WindowsError: Windows refused.
        """
        service = _Service(name, work)
        table = (_TableEntry * 2)()
        table[0] = _TableEntry(name, service.main)
        if not function("advapi32", "StartServiceCtrlDispatcherW", ctypes.c_void_p)(
            ctypes.byref(table)
        ):
            error = last_error("StartServiceCtrlDispatcher")
            if error.code == _NOT_STARTED_BY_MANAGER:
                raise NotAService("the service manager did not start this process")
            raise error
        return service.status

    class _Service:
        """The functions that Windows calls; they must live as long as the dispatcher runs."""

        def __init__(self, name: str, work: Work) -> None:
            self._name = name
            self._work = work
            self._controls = ServiceControls()
            self._handle = 0
            self.status = 1
            self.main = _ServiceMain(self._main)
            self._handler = _Handler(self._control)
            self._console = _ConsoleHandler(self._console_event)

        def _main(self, count: int, vector: ctypes._Pointer[wintypes.LPWSTR]) -> None:
            arguments = [str(vector[index]) for index in range(1, count)]
            function("kernel32", "SetConsoleCtrlHandler", _ConsoleHandler, wintypes.BOOL)(
                self._console, True
            )
            self._handle = function(
                "advapi32",
                "RegisterServiceCtrlHandlerExW",
                wintypes.LPCWSTR,
                _Handler,
                ctypes.c_void_p,
                result=ctypes.c_void_p,
            )(self._name, self._handler, None)
            self._report(START_PENDING, 0, 0, 1, _WAIT_HINT)
            self.status = serve(
                self._controls, lambda: self._work(self._controls, arguments), self._report
            )

        def _control(self, control: int, kind: int, data: int, context: int) -> int:
            return self._controls.take(control)

        @staticmethod
        def _console_event(event: int) -> bool:
            return event in (_LOGOFF_EVENT, _SHUTDOWN_EVENT)

        def _report(
            self, state: int, accepted: int, exit_status: int, checkpoint: int, wait_hint: int
        ) -> None:
            status = _Status(
                kind=_OWN_PROCESS,
                state=state,
                accepted=accepted,
                exit_code=_SPECIFIC_ERROR if exit_status else _NO_ERROR,
                specific_exit_code=exit_status,
                checkpoint=checkpoint,
                wait_hint=wait_hint,
            )
            function("advapi32", "SetServiceStatus", ctypes.c_void_p, ctypes.c_void_p)(
                self._handle, ctypes.byref(status)
            )
