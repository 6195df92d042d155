"""What can go wrong between the guest and the metadata server.

Callers tell apart what is worth waiting for (``Unreachable``), what is simply not there
(``NotFound``, ``NotConfigured``, ``Forbidden``) and an orderly stop (``Cancelled``).

Source of the meaning of the statuses: public GCE documentation, "Troubleshoot metadata server";
RFC 9110 section 15.
"""

from __future__ import annotations

from typing import Optional

from google_guest.errors import GuestError


class MetadataError(GuestError):
    """The metadata server did not give what was asked for."""


class Cancelled(MetadataError):
    """``MetadataClient.cancel`` ended the request; an orderly stop, never worth more than INFO."""


class Unreachable(MetadataError):
    """No metadata server gave an answer of its own."""


class ConnectFailed(Unreachable):
    """Nothing accepted the connection, the name has no address, or the connection was dropped."""


class TimedOut(Unreachable):
    """The server accepted the connection but did not finish its answer in time."""


class NotGoogle(Unreachable):
    """Something answered that is not a Compute Engine metadata server."""


class ServerError(Unreachable):
    """Status 5xx; 503 for less than a second is normal during a live migration."""


class TooManyRequests(Unreachable):
    """Status 429."""

    def __init__(self, message: str, *, retry_after: Optional[float] = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the server asks to wait, if it said so."""


class BadAnswer(MetadataError):
    """The answer is truncated, too large, no HTTP, no JSON or no metadata."""


class BadRedirect(BadAnswer):
    """A redirect to another host, or one too many."""


class BadRequest(MetadataError):
    """The server refuses this request for good: 400, 405 and other client errors."""


class Forbidden(MetadataError):
    """Status 403: a proxy removed the header, or the feature is off for this instance."""


class NotFound(MetadataError):
    """Status 404: the key does not exist."""


class NotConfigured(MetadataError):
    """Status 412: the feature behind the key has not been set up (yet)."""
