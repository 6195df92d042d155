"""Which scripts an event has, read from metadata.

``instance/attributes/`` decides if it has any of the event's keys with content; otherwise
``project/attributes/`` does. The levels are never merged: an instance's ``startup-script-url``
hides its project's ``startup-script``. A value that is empty or white space counts as absent.

Source: public GCE documentation, "Startup scripts"; guest-agent
``google_metadata_script_runner/main.go``. Unlike there, waiting grows from 0.1 s to 5 s.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from google_guest.metadata.errors import BadAnswer, MetadataError, NotFound
from google_guest.records import field, record
from google_guest.scripts.events import Event, Patience
from google_guest.scripts.output import Console

_LEVELS = ("instance", "project")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_TOLD_AFTER = 2.0


class AttributeSource(Protocol):
    """The part of ``MetadataClient`` that is needed here."""

    def get_json(
        self, path: str, *, recursive: bool = ..., timeout: float = ..., budget: float = ...
    ) -> object:
        """Return the document at ``path``."""


@record
class Script:
    """One script of an event: its key and the text, or address, that metadata has for it."""

    key: str
    value: str = field(repr=False)


def find_scripts(
    source: AttributeSource,
    event: Event,
    console: Console,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Script, ...]:
    """Return the scripts of ``event`` in the order in which they run.

    Raises:
        MetadataError: the metadata server gave no usable answer in time.
    """
    wait = _Wait(event.patience, console, clock, sleep)
    for level in _LEVELS:
        attributes = wait.attributes(source, level)
        scripts = []
        for key in event.keys:
            value = attributes.get(key)
            if value is not None and value.strip():
                scripts.append(Script(key, value))
            elif value is not None:
                console.info(f"{key} is empty in {level} metadata and counts as absent.")
        if scripts:
            return tuple(scripts)
    return ()


class _Wait:
    """The time that one event has for metadata, all requests together."""

    def __init__(
        self,
        patience: Patience,
        console: Console,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._timeout = patience.metadata_request
        self._began = clock()
        self._deadline = self._began + patience.metadata_total
        self._console = console
        self._clock = clock
        self._sleep = sleep
        self._told = False

    def attributes(self, source: AttributeSource, level: str) -> Mapping[str, str]:
        pause = _FIRST_PAUSE
        while True:
            left = self._deadline - self._clock()
            try:
                # A budget of 0 is one attempt: how often to try is decided here.
                document = source.get_json(
                    f"{level}/attributes/", timeout=max(0.1, min(self._timeout, left)), budget=0
                )
                return _texts(document)
            except NotFound:
                return {}
            except MetadataError as error:
                if self._clock() + pause >= self._deadline:
                    raise
                self._tell(error)
            self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _tell(self, error: MetadataError) -> None:
        now = self._clock()
        if not self._told and now - self._began >= _TOLD_AFTER:
            self._told = True
            self._console.info(
                f"Waiting for metadata, up to {self._deadline - now:.0f} s more: {error}"
            )


def _texts(document: object) -> Mapping[str, str]:
    if not isinstance(document, dict):
        raise BadAnswer("the attributes are no JSON object")
    return {
        str(key): value if isinstance(value, str) else json.dumps(value)
        for key, value in document.items()
        if value is not None
    }
