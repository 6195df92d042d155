"""Changes outside the machine: what the instance tells its metadata server.

Each change keeps its own account of what was sent, because a server that takes the first of five
values and not the second must not be sent the first again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Optional

from google_guest.changes import Change
from google_guest.errors import GuestError
from google_guest.metadata.errors import Cancelled, Forbidden, MetadataError, NotFound, Unreachable
from google_guest.records import field, record
from google_guest.run_memory import noted_by_this_run
from google_guest.state import encode_state
from google_guest.system import MetadataChannel, System

log = logging.getLogger(__name__)


@record
class GuestAttribute:
    """One published value."""

    namespace: str
    key: str
    value: str = field(repr=False)

    @property
    def path(self) -> str:
        """``namespace/key``."""
        return f"{self.namespace}/{self.key}"


@record
class PublishGuestAttributes(Change):
    """Write guest attributes one after the other and note in ``memory_path`` how far it got.

    ``memory`` is the document that was there when the plan was made. An instance on which guest
    attributes are switched off refuses the first one (status 403 or 404): that is noted, too, said
    once, and no failure.
    """

    attributes: tuple[GuestAttribute, ...]
    memory_path: str
    memory: Mapping[str, Any] = field(repr=False)
    instance_id: Optional[int] = None

    @property
    def subject(self) -> str:
        """Guest attributes as a whole."""
        return "guest attributes"

    def describe(self) -> str:
        """Return how many values are sent."""
        noun = "guest attribute" if len(self.attributes) == 1 else "guest attributes"
        return f"offer {len(self.attributes)} {noun} to the metadata server"

    def diff(self) -> tuple[str, ...]:
        """Return the attributes' names and values; all of them are public."""
        return tuple(f"+{attribute.path} {attribute.value}" for attribute in self.attributes)

    def apply(self, system: System) -> None:
        """Send the values.

        Raises:
            GuestError: the metadata server could not be reached or is overloaded; what it had
                taken before is remembered.
        """
        channel = _channel(system)
        document = noted_by_this_run(self.memory)
        published = dict(document.get("published") or {})
        try:
            for attribute in self.attributes:
                channel.write_guest_attribute(attribute.namespace, attribute.key, attribute.value)
                published[attribute.path] = attribute.value
        except (Forbidden, NotFound) as error:
            document["refused"] = str(error)
            status = "403, they are switched off" if isinstance(error, Forbidden) else "404"
            log.info("guest attributes are not published: the metadata server says %s", status)
        finally:
            document["published"] = published
            data = encode_state(document, instance_id=self.instance_id)
            system.files.write_atomic(self.memory_path, data, mode=0o600)


@record
class SendTelemetry(Change):
    """Send one request with ``headers`` and note in ``memory_path`` when (``now``)."""

    headers: Mapping[str, str] = field(repr=False)
    shown: tuple[str, ...]
    """What the headers say, for people."""
    memory_path: str
    now: float

    @property
    def subject(self) -> str:
        """Telemetry."""
        return "telemetry"

    def describe(self) -> str:
        """Return what is sent in general terms."""
        return "report the versions of agent and operating system"

    def diff(self) -> tuple[str, ...]:
        """Return every value that is sent."""
        return tuple(f"+{line}" for line in self.shown)

    def apply(self, system: System) -> None:
        """Send the request; any answer will do.

        Raises:
            GuestError: there was no answer.
        """
        try:
            _channel(system).report(self.headers)
        except (Unreachable, Cancelled):
            raise
        except MetadataError as error:
            log.debug("telemetry: %s", error)
        document = noted_by_this_run({"sent": self.now})
        system.files.write_atomic(self.memory_path, encode_state(document), mode=0o600)


def _channel(system: System) -> MetadataChannel:
    if system.channel is None:
        raise GuestError("no metadata server is connected")
    return system.channel
