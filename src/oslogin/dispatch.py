"""What the daemon's server and its handlers agree on.

A handler takes one request and the peer that sent it and returns the reply. It raises nothing for
what a client or the metadata server did wrong; the server answers INTERNAL for everything that it
raises all the same. Handlers run in worker threads, several at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from google_guest.records import record

if TYPE_CHECKING:
    from oslogin.protocol import Message


@record
class Peer:
    """Who is at the other end of a connection, by the kernel's word (SO_PEERCRED)."""

    uid: int
    pid: int
    connection_id: int
    """A number that no other connection of this process has; challenges die with it."""

    @property
    def is_root(self) -> bool:
        """Whether the peer runs as root."""
        return self.uid == 0


if TYPE_CHECKING:
    Handler = Callable[[Message, Peer], Message]
    """Answers one request; see the module's docstring."""
