"""How the scripts went, for machines.

``scripts/EVENT.json`` in the folder of this boot's files (``/run/google-guest-agent``, see
``places``; mode 0644, replaced atomically) is written when the runner starts, before and after each
script, and when it ends::

    {"event": "startup", "state": "finished", "boot_id": "…", "started": 1795489200.1,
     "error": null,
     "scripts": [{"key": "startup-script", "exit_status": 3, "signal": null,
                  "error": "exit status 3", "started": 1795489200.3, "seconds": 1.25}]}

``state`` is ``running``, ``finished`` or ``interrupted`` (a signal ended the runner). Times are
Unix seconds. Of a script that is running ``exit_status``, ``signal``, ``error`` and ``seconds`` are
null; afterwards ``error`` is null exactly if it succeeded. ``error`` of the document tells why no
script could be looked for. ``boot_id`` tells an old result from a new one; it is information only,
a run by hand never depends on it.

With ``[MetadataScripts] report_exit_status = true`` the entry of each finished script, with
``boot_id``, is also published as the guest attribute ``guest-scripts/KEY``, for tools that wait for
an instance to be ready (packer-plugin-googlecompute issue 45).
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from typing import Any, Optional, Protocol

from google_guest.errors import GuestError
from google_guest.records import as_dict, record, replace
from google_guest.scripts.output import Console
from google_guest.system import System

DIRECTORY = "scripts"
ATTRIBUTE_NAMESPACE = "guest-scripts"
RUNNING, FINISHED, INTERRUPTED = "running", "finished", "interrupted"


class AttributeSink(Protocol):
    """The part of ``MetadataClient`` that is needed here."""

    def request(
        self, method: str, path: str, *, body: Optional[bytes] = ..., timeout: float = ...
    ) -> object:
        """Make one request."""


@record
class ScriptResult:
    """One script's entry."""

    key: str
    started: float
    exit_status: Optional[int] = None
    signal: Optional[str] = None
    """Name such as ``SIGKILL``."""
    error: Optional[str] = None
    seconds: Optional[float] = None

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as it is written."""
        return as_dict(self)


class ResultFile:
    """The document of one run; a failure to write it is told once and changes nothing else."""

    def __init__(self, system: System, event: str, console: Console) -> None:
        self._system = system
        places = system.places
        self._path = places.in_run(f"{DIRECTORY}{places.separator}{event}.json")
        self._event = event
        self._console = console
        self._started = system.now()
        self._scripts: list[ScriptResult] = []
        self._complained = False
        self.boot_id = _boot_id(system)
        self._write(RUNNING, None)

    def begin(self, key: str) -> None:
        """Note that a script starts now."""
        self._scripts.append(ScriptResult(key, round(self._system.now(), 3)))
        self._write(RUNNING, None)

    def end(self, **outcome: Any) -> ScriptResult:
        """Note the outcome (fields of ``ScriptResult``) of the script that began last."""
        began = self._scripts[-1]
        self._scripts[-1] = replace(began, **outcome)
        self._write(RUNNING, None)
        return self._scripts[-1]

    def close(self, state: str = FINISHED, *, error: Optional[str] = None) -> None:
        """Note that the runner ends."""
        self._write(state, error)

    def _write(self, state: str, error: Optional[str]) -> None:
        document = {
            "event": self._event,
            "state": state,
            "boot_id": self.boot_id,
            "started": round(self._started, 3),
            "error": error,
            "scripts": [script.as_dict() for script in self._scripts],
        }
        data = json.dumps(document, indent=1).encode() + b"\n"
        try:
            self._system.files.write_atomic(self._path, data, mode=0o644)
        except OSError as failure:
            if not self._complained:
                self._complained = True
                self._console.warning(f"Cannot write {self._path}: {failure.strerror}")


def publish(
    result: ScriptResult, boot_id: str, sink: AttributeSink, console: Console, *, timeout: float
) -> None:
    """Publish a finished script's entry as a guest attribute; one attempt, never raises."""
    value: Mapping[str, Any] = {**result.as_dict(), "boot_id": boot_id}
    try:
        sink.request(
            "PUT",
            f"instance/guest-attributes/{ATTRIBUTE_NAMESPACE}/{result.key}",
            body=json.dumps(value).encode(),
            timeout=timeout,
        )
    except GuestError as error:
        console.warning(f"Cannot publish the result of {result.key}: {error}")


def signal_name(number: int) -> str:
    """Return the name of a signal, such as ``SIGKILL``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        # Real-time signals have numbers only.
        return f"SIG{number}"


def _boot_id(system: System) -> str:
    try:
        return system.boot_id()
    except OSError:
        return ""
