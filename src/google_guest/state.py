"""What the agent remembers: small JSON documents, replaced atomically, bound to one instance.

``/var/lib/google-guest-agent`` holds what outlives a boot, ``/run/google-guest-agent`` what does
not; ``places`` knows their counterparts on Windows. A document that was written by another instance
(an image captured from a running machine) reads as absent, so foreign state never causes a removal.
A damaged document reads as absent, too, and is replaced by the next write.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Optional

from google_guest.changes import Change
from google_guest.places import LINUX
from google_guest.records import field, record
from google_guest.system import System

log = logging.getLogger(__name__)

STATE_DIRECTORY = LINUX.state
RUN_DIRECTORY = LINUX.run
STATUS_NAME = "status.json"
_LIMIT = 8 << 20
_INSTANCE = "instance"


def read_state(
    system: System, path: str, *, instance_id: Optional[int] = None
) -> Optional[dict[str, Any]]:
    """Return the document at ``path`` below the root of ``system``, or None.

    With ``instance_id`` a document that names another instance reads as absent.
    """
    try:
        data = system.files.read_bytes(path, limit=_LIMIT)
        document = None if data is None else json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s is unreadable and treated as absent: %s", path, error)
        return None
    if not isinstance(document, dict):
        return None
    owner = document.get(_INSTANCE)
    if instance_id is not None and owner is not None and owner != str(instance_id):
        log.info("%s belongs to instance %s and is ignored here", path, owner)
        return None
    return document


def status_path(system: System) -> str:
    """Return where the agent of ``system`` tells others about itself."""
    return system.places.in_run(STATUS_NAME)


def encode_state(document: Mapping[str, Any], *, instance_id: Optional[int] = None) -> bytes:
    """Return the bytes of a document, with the instance that it belongs to."""
    content = dict(document)
    if instance_id is not None:
        content[_INSTANCE] = str(instance_id)
    return json.dumps(content, sort_keys=True, indent=1).encode() + b"\n"


@record
class Remember(Change):
    """Write a state document; planned last, so that it tells of success only."""

    needs_live_system: ClassVar[bool] = False

    path: str
    document: Mapping[str, Any] = field(repr=False)
    purpose: str
    about: str = ""
    instance_id: Optional[int] = None
    mode: int = 0o600

    @property
    def subject(self) -> str:
        """What the feature says that it is about, or the document."""
        return self.about or f"state {self.path}"

    def describe(self) -> str:
        """Return what is remembered."""
        return f"remember {self.purpose}"

    def apply(self, system: System) -> None:
        """Write the document."""
        data = encode_state(self.document, instance_id=self.instance_id)
        system.files.write_atomic(self.path, data, mode=self.mode)
