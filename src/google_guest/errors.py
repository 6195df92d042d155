"""The root of the project's errors.

A ``GuestError`` is something that the administrator, the platform or a user did or left undone:
its message names the thing and what to do, and is shown without a trace. Every other exception is
our own mistake and is logged with one.
"""

from __future__ import annotations


class GuestError(Exception):
    """A failure that a person can act on; ``str()`` of it is one complete sentence or clause."""
