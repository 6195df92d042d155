"""What a Wine bed's Windows has and tests look at: running programs, services, the registry."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from support.commands import CommandTimeout, Completed

if TYPE_CHECKING:
    from support.wine import Wine


class Program:
    """A program that runs inside Windows beside the test."""

    def __init__(self, wine: Wine, pid: int, request: Mapping[str, Any]) -> None:
        self.pid = pid
        self._wine = wine
        self._request = request

    def wait(self, timeout: float = 60.0) -> Completed:
        """Wait for its end; CommandTimeout when it has not ended in time and goes on."""
        answer = self._wine.ask("wait", limit=timeout + 10, pid=self.pid, timeout=timeout)
        completed = self._wine.completed(self._request, answer["code"])
        if answer["code"] is None:
            shown = self._request["argv"]
            raise CommandTimeout(
                [shown] if isinstance(shown, str) else shown,
                completed,
                purpose=f"see a program end in {timeout:g} s",
            )
        return completed

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._wine.ask("wait", pid=self.pid, timeout=0)["code"] is None

    def output(self) -> str:
        """What it has written to its standard output until now."""
        return self._wine.completed(self._request, 0).stdout

    def terminate(self) -> None:
        """End it with TerminateProcess: none of its code runs any more."""
        self._wine.ask("terminate", pid=self.pid)


class Service:
    """A Windows service as the service control manager sees it."""

    def __init__(self, wine: Wine, name: str) -> None:
        self.name = name
        self._wine = wine

    def state(self) -> Optional[str]:
        """ "RUNNING", "STOPPED", "START_PENDING", ...; None when there is no such service."""
        state: Optional[str] = self._status()["state"]
        return state

    def exit_codes(self) -> tuple[int, int]:
        """The Win32 and the service-specific exit code of its last end."""
        status = self._status()
        return status["win32"], status["specific"]

    def pid(self) -> int:
        """The Windows process id; 0 when it does not run."""
        pid: int = self._status()["pid"]
        return pid

    def start(self, *arguments: str, timeout: float = 30.0) -> None:
        """Start it and wait until it runs; RuntimeError with the reason when it does not."""
        self._control("start", arguments)
        self.wait("RUNNING", timeout)

    def stop(self, *, timeout: float = 30.0) -> None:
        """Stop it and wait until it has stopped."""
        self._control(1)
        self.wait("STOPPED", timeout)

    def control(self, code: int) -> None:
        """Send a control code."""
        self._control(code)

    def wait(self, state: Optional[str], timeout: float = 30.0) -> None:
        """Wait for a state."""
        deadline = time.monotonic() + timeout
        while True:
            status = self._status()
            if status["state"] == state:
                return
            if time.monotonic() > deadline or (state == "RUNNING" and status["state"] == "STOPPED"):
                raise RuntimeError(
                    f"service {self.name} is {status['state']}, not {state} "
                    f"(exit code {status['win32']}/{status['specific']})"
                )
            time.sleep(0.05)

    def _status(self) -> dict[str, Any]:
        return self._wine.ask("service", name=self.name)

    def _control(self, control: Union[int, str], arguments: Sequence[str] = ()) -> None:
        answer = self._wine.ask(
            "control_service", name=self.name, control=control, args=list(arguments), limit=60
        )
        if answer["error"]:
            raise RuntimeError(
                f"service {self.name}: control {control}: error {answer['error']} {answer['text']}"
            )


class Registry:
    """The registry, through winreg: the files of the prefix are complete only after a session."""

    SZ, EXPAND_SZ, BINARY, DWORD, MULTI_SZ, QWORD = 1, 2, 3, 4, 7, 11

    def __init__(self, wine: Wine) -> None:
        self._wine = wine

    def values(self, key: str) -> Optional[dict[str, Any]]:
        r"""The values of a key ("HKLM\Software\..."), binary ones as bytes; None without it."""
        found = self._wine.ask("read_key", key=key)["values"]
        if found is None:
            return None
        return {
            name: bytes(data) if kind == self.BINARY and data is not None else data
            for name, kind, data in found
        }

    def value(self, key: str, name: str) -> Any:
        """One value; None without it."""
        return (self.values(key) or {}).get(name)

    def kind(self, key: str, name: str) -> Optional[int]:
        """The type of a value (REG_SZ is 1, ...); None without it."""
        for found, kind, _ in self._wine.ask("read_key", key=key)["values"] or ():
            if found == name:
                return int(kind)
        return None

    def keys(self, key: str) -> tuple[str, ...]:
        """Names of the keys below a key; none without it."""
        return tuple(self._wine.ask("read_key", key=key)["keys"])

    def set(self, key: str, name: str, data: Any, kind: int = SZ) -> None:
        """Set a value; the key is made when it is missing."""
        if isinstance(data, bytes):
            data, kind = list(data), self.BINARY
        self._wine.ask("write_value", key=key, name=name, data=data, type=kind)

    def delete(self, key: str) -> None:
        """Remove a key and everything below it; nothing without it."""
        self._wine.ask("delete_key", key=key)
