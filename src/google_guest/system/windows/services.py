"""The service manager of the running machine, through advapi32.

Source: learn.microsoft.com, "CreateServiceW", "ChangeServiceConfig2W", "SERVICE_TRIGGER",
"DeleteService"; guest-agent ``packaging/googet`` for the properties that the service has.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import contextlib
    import ctypes
    import time
    import uuid
    from collections.abc import Callable, Iterator
    from ctypes import wintypes
    from typing import Any, Optional

    from google_guest.system.windows import ServiceDefinition, ServiceState, WindowsError
    from google_guest.system.windows.calls import function, last_error

    _MANAGE, _EVERYTHING = 0xF003F, 0xF01FF
    _QUERY_STATUS = 0x4
    _CONNECT = 0x1
    _START, _STOP, _PARAMETERS_CHANGED = 0x10, 0x20, 0x40
    """Rights of a service's handle."""
    _DELETE = 0x10000
    _OWN_PROCESS, _AUTO_START, _NORMAL_ERRORS = 0x10, 2, 1
    _CONTROL_STOP, _CONTROL_PARAMETERS_CHANGED = 1, 6
    _DESCRIPTION, _FAILURE_ACTIONS, _DELAYED_START, _TRIGGERS = 1, 2, 3, 8
    _RESTART = 1
    _IP_ADDRESS_AVAILABILITY, _SERVICE_START = 2, 1
    _FIRST_ADDRESS = "{4f27f2de-14e2-430b-a549-7cd48cbc8245}"
    _ALREADY_RUNNING, _CANNOT_ACCEPT_CONTROL, _NOT_ACTIVE = 1056, 1061, 1062
    _NO_SUCH_SERVICE, _MARKED_FOR_DELETE = 1060, 1072
    _UNKNOWN_TO_THIS_WINDOWS = (120, 124, 1733)
    """ERROR_CALL_NOT_IMPLEMENTED, ERROR_INVALID_LEVEL, RPC_S_INVALID_TAG."""
    _END_OF_SERVICE = 30.0
    _POLL = 0.1

    class _Status(ctypes.Structure):
        """SERVICE_STATUS_PROCESS."""

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
                "process",
                "flags",
            )
        )

    class _Text(ctypes.Structure):
        _fields_ = (("text", wintypes.LPWSTR),)

    class _Flag(ctypes.Structure):
        _fields_ = (("value", wintypes.BOOL),)

    class _Action(ctypes.Structure):
        _fields_ = (("kind", ctypes.c_int), ("delay", wintypes.DWORD))

    class _FailureActions(ctypes.Structure):
        _fields_ = (
            ("reset_period", wintypes.DWORD),
            ("reboot_message", wintypes.LPWSTR),
            ("command", wintypes.LPWSTR),
            ("count", wintypes.DWORD),
            ("actions", ctypes.c_void_p),
        )

    class _Trigger(ctypes.Structure):
        _fields_ = (
            ("kind", wintypes.DWORD),
            ("action", wintypes.DWORD),
            ("subtype", ctypes.c_void_p),
            ("count", wintypes.DWORD),
            ("items", ctypes.c_void_p),
        )

    class _TriggerInfo(ctypes.Structure):
        _fields_ = (
            ("count", wintypes.DWORD),
            ("triggers", ctypes.c_void_p),
            ("reserved", ctypes.c_void_p),
        )

    class NativeServices:
        """See ``google_guest.system.windows.Services``."""

        def state(self, name: str) -> Optional[ServiceState]:
            """Return the state of a service."""
            status = _status(name)
            return None if status is None else ServiceState(status.state)

        def process_of(self, name: str) -> Optional[int]:
            """Return the number of the service's process."""
            status = _status(name)
            return status.process or None if status is not None else None

        def install(self, definition: ServiceDefinition) -> tuple[str, ...]:
            """Create or change the service."""
            with _manager(_MANAGE) as manager, _create_or_open(manager, definition) as handle:
                return tuple(_set_properties(handle, definition))

        def start(self, name: str, *arguments: str) -> None:
            """Start the service."""
            vector = (wintypes.LPCWSTR * len(arguments))(*arguments)
            with _service(name, _START) as handle:
                if handle is None:
                    raise _no_service(name)
                if not function(
                    "advapi32", "StartServiceW", ctypes.c_void_p, wintypes.DWORD, ctypes.c_void_p
                )(handle, len(arguments), vector if arguments else None):
                    _raise_unless(_ALREADY_RUNNING, "StartService")

        def stop(self, name: str) -> None:
            """Ask the service to stop; one that is just starting is asked until it listens."""
            deadline = time.monotonic() + _END_OF_SERVICE
            while True:
                try:
                    self._control(name, _STOP, _CONTROL_STOP)
                    return
                except WindowsError as error:
                    if error.code != _CANNOT_ACCEPT_CONTROL or time.monotonic() > deadline:
                        raise
                if self.state(name) in (None, ServiceState.STOPPED, ServiceState.STOP_PENDING):
                    return
                time.sleep(_POLL)

        def reload(self, name: str) -> None:
            """Send the control for changed parameters."""
            self._control(name, _PARAMETERS_CHANGED, _CONTROL_PARAMETERS_CHANGED)

        def delete(self, name: str) -> bool:
            """Stop and delete the service."""
            if self.state(name) is None:
                return False
            self.stop(name)
            self.wait_for(name, ServiceState.STOPPED, timeout=_END_OF_SERVICE)
            with _service(name, _DELETE) as handle:
                if handle is None:
                    return False
                if not function("advapi32", "DeleteService", ctypes.c_void_p)(handle):
                    _raise_unless(_MARKED_FOR_DELETE, "DeleteService")
            return True

        def wait_for(self, name: str, state: ServiceState, *, timeout: float) -> bool:
            """Look at the state again and again."""
            return _becomes_true(
                lambda: (self.state(name) or ServiceState.STOPPED) is state, timeout
            )

        def has_come_up(self, name: str, *, timeout: float) -> bool:
            """Look at the state and the exit code again and again."""

            def is_up() -> bool:
                status = _status(name)
                if status is None:
                    return False
                state = ServiceState(status.state)
                ended_well = state is ServiceState.STOPPED and status.exit_code == 0
                return state is ServiceState.RUNNING or ended_well

            return _becomes_true(is_up, timeout)

        @staticmethod
        def _control(name: str, right: int, control: int) -> None:
            with _service(name, right) as handle:
                if handle is None:
                    return
                status = _Status()
                if not function(
                    "advapi32", "ControlService", ctypes.c_void_p, wintypes.DWORD, ctypes.c_void_p
                )(handle, control, ctypes.byref(status)):
                    _raise_unless(_NOT_ACTIVE, "ControlService")

    def _becomes_true(condition: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        return True

    def _set_properties(handle: int, definition: ServiceDefinition) -> Iterator[str]:
        """Set what goes beyond a service's basic properties; yield what Windows does not know."""
        count = len(definition.restart_delays)
        actions = (_Action * count)(
            *(_Action(_RESTART, round(1000 * delay)) for delay in definition.restart_delays)
        )
        failures = _FailureActions(
            reset_period=definition.reset_period,
            count=count,
            actions=ctypes.addressof(actions),
        )
        first_address = (ctypes.c_uint8 * 16)(*uuid.UUID(_FIRST_ADDRESS).bytes_le)
        trigger = _Trigger(
            kind=_IP_ADDRESS_AVAILABILITY,
            action=_SERVICE_START,
            subtype=ctypes.addressof(first_address),
        )
        triggers = _TriggerInfo(count=1, triggers=ctypes.addressof(trigger))
        if not definition.starts_with_network:
            triggers = _TriggerInfo()
        for what, level, info in (
            ("description", _DESCRIPTION, _Text(definition.description)),
            ("delayed start", _DELAYED_START, _Flag(definition.delayed)),
            ("restart after a crash", _FAILURE_ACTIONS, failures),
            ("start with the network", _TRIGGERS, triggers),
        ):
            if level == _TRIGGERS and not definition.starts_with_network:
                continue
            if not function(
                "advapi32",
                "ChangeServiceConfig2W",
                ctypes.c_void_p,
                wintypes.DWORD,
                ctypes.c_void_p,
            )(handle, level, ctypes.byref(info)):
                error = last_error("ChangeServiceConfig2")
                if error.code not in _UNKNOWN_TO_THIS_WINDOWS:
                    raise error
                yield f"{definition.name}: this Windows does not know {what}"

    @contextlib.contextmanager
    def _create_or_open(manager: int, definition: ServiceDefinition) -> Iterator[int]:
        # A list of texts that ends with an empty one; without entries, it is empty itself.
        dependencies = "".join(f"{name}\0" for name in definition.dependencies) + "\0"
        with _service(definition.name, _EVERYTHING, manager=manager) as handle:
            if handle is not None:
                _change(handle, definition, dependencies)
                yield handle
                return
        handle = _create(manager, definition, dependencies)
        try:
            yield handle
        finally:
            _close(handle)

    def _change(handle: int, definition: ServiceDefinition, dependencies: str) -> None:
        if not function(
            "advapi32",
            "ChangeServiceConfigW",
            ctypes.c_void_p,
            wintypes.DWORD,
            wintypes.DWORD,
            wintypes.DWORD,
            wintypes.LPCWSTR,
            wintypes.LPCWSTR,
            ctypes.c_void_p,
            wintypes.LPCWSTR,
            wintypes.LPCWSTR,
            wintypes.LPCWSTR,
            wintypes.LPCWSTR,
        )(
            handle,
            _OWN_PROCESS,
            _AUTO_START,
            _NORMAL_ERRORS,
            definition.command,
            None,
            None,
            dependencies,
            "LocalSystem",
            "",
            definition.display_name,
        ):
            raise last_error("ChangeServiceConfig")

    def _create(manager: int, definition: ServiceDefinition, dependencies: str) -> int:
        handle: Optional[int] = function(
            "advapi32",
            "CreateServiceW",
            ctypes.c_void_p,
            wintypes.LPCWSTR,
            wintypes.LPCWSTR,
            wintypes.DWORD,
            wintypes.DWORD,
            wintypes.DWORD,
            wintypes.DWORD,
            wintypes.LPCWSTR,
            wintypes.LPCWSTR,
            ctypes.c_void_p,
            wintypes.LPCWSTR,
            wintypes.LPCWSTR,
            wintypes.LPCWSTR,
            result=ctypes.c_void_p,
        )(
            manager,
            definition.name,
            definition.display_name,
            _EVERYTHING,
            _OWN_PROCESS,
            _AUTO_START,
            _NORMAL_ERRORS,
            definition.command,
            None,
            None,
            dependencies,
            None,
            None,
        )
        if not handle:
            raise last_error("CreateService")
        return handle

    @contextlib.contextmanager
    def _manager(rights: int) -> Iterator[int]:
        handle = function(
            "advapi32",
            "OpenSCManagerW",
            wintypes.LPCWSTR,
            wintypes.LPCWSTR,
            wintypes.DWORD,
            result=ctypes.c_void_p,
        )(None, None, rights)
        if not handle:
            raise last_error("OpenSCManager")
        try:
            yield handle
        finally:
            _close(handle)

    @contextlib.contextmanager
    def _service(
        name: str, rights: int, *, manager: Optional[int] = None
    ) -> Iterator[Optional[int]]:
        """Open a service; None if there is none of this name."""
        if manager is None:
            with _manager(_CONNECT) as own, _service(name, rights, manager=own) as handle:
                yield handle
            return
        handle = function(
            "advapi32",
            "OpenServiceW",
            ctypes.c_void_p,
            wintypes.LPCWSTR,
            wintypes.DWORD,
            result=ctypes.c_void_p,
        )(manager, name, rights)
        if not handle:
            _raise_unless(_NO_SUCH_SERVICE, "OpenService")
            yield None
            return
        try:
            yield handle
        finally:
            _close(handle)

    def _status(name: str) -> Optional[Any]:
        with _service(name, _QUERY_STATUS) as handle:
            if handle is None:
                return None
            status, needed = _Status(), wintypes.DWORD()
            if not function(
                "advapi32",
                "QueryServiceStatusEx",
                ctypes.c_void_p,
                ctypes.c_int,
                ctypes.c_void_p,
                wintypes.DWORD,
                ctypes.c_void_p,
            )(handle, 0, ctypes.byref(status), ctypes.sizeof(status), ctypes.byref(needed)):
                raise last_error("QueryServiceStatusEx")
            return status

    def _close(handle: int) -> None:
        function("advapi32", "CloseServiceHandle", ctypes.c_void_p)(handle)

    def _raise_unless(code: int, name: str) -> None:
        error = last_error(name)
        if error.code != code:
            raise error

    def _no_service(name: str) -> WindowsError:
        return WindowsError("OpenService", _NO_SUCH_SERVICE, f"there is no service {name}")
