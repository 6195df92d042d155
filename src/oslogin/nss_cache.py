"""google_oslogin_nss_cache: makes the identity cache anew, by the daemon or without it.

The timer of the package and administrators run it. It asks the daemon, which starts when it is
asked, and waits for the end of the refresh; where there is no daemon it does the same itself. With
``--cloud_run`` it always does it itself: every user is root there, and no daemon runs.

Exit statuses: 0 when the cache is current, when OS Login is off, and when the refresh failed but
the cache before is still there; 1 for a wrong argument; 255 when the refresh failed and there is no
cache.

Source: guest-oslogin ``src/cache_refresh/cache_refresh.cc`` (argument, statuses, name in the log).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Optional

from google_guest.logs import configure_logging
from oslogin import client, paths, protocol

if TYPE_CHECKING:
    from oslogin.refresh import Outcome

SECONDS = 120.0
BAD_USAGE = 1
NO_CACHE = 255

log = logging.getLogger(__name__)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the program with ``arguments``, without its name; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    configure_logging("oslogin_cache_refresh", watched=True)
    if given not in ([], ["--cloud_run"]):
        sys.stderr.write("usage: google_oslogin_nss_cache [--cloud_run]\n")
        return BAD_USAGE
    return update(cloud_run=bool(given))


def update(
    *,
    cloud_run: bool = False,
    socket: str = paths.AUTH_SOCKET,
    owner: int = 0,
    cache: str = paths.CACHE_FILE,
    seconds: float = SECONDS,
    refresh: Optional[Callable[[bool], Outcome]] = None,
) -> int:
    """Make ``cache`` anew and return the exit status.

    ``refresh`` does it in this process, for a given ``cloud_run``; by default as the daemon would.
    """
    failure: Optional[str] = None
    try:
        if cloud_run:
            raise client.NotThere("no daemon serves Cloud Run")
        failure = _ask_daemon(socket, owner, seconds)
    except client.NotThere:
        outcome = (refresh or _refresh)(cloud_run)
        failure = outcome.failure or None
        if outcome.disabled and failure is None:
            log.info("OS Login is off: there is nothing to cache")
    except client.Unreachable as error:
        failure = str(error)
    return 0 if failure is None else _failed(failure, cache)


def _ask_daemon(socket: str, owner: int, seconds: float) -> Optional[str]:
    """Return None when the daemon did it, else what failed; raise ``client.Unreachable``."""
    request = protocol.Message(protocol.REFRESH)
    reply = client.ask(socket, request, seconds=seconds, owner=owner)
    if reply.status in (protocol.OK, protocol.DISABLED):
        log.info("the daemon has refreshed %d entries", reply.integer(protocol.COUNT) or 0)
        return None
    if reply.status == protocol.UNAVAILABLE:
        return "the metadata server did not answer"
    return f"the daemon answered status {reply.status}"


def _failed(failure: str, cache: str) -> int:
    if os.path.exists(cache):
        log.warning("%s; the cache of before stays", failure)
        return 0
    log.error("%s; there is no cache", failure)
    return NO_CACHE


def _refresh(cloud_run: bool) -> Outcome:
    from google_guest.metadata.client import MetadataClient
    from oslogin.directory import Directory
    from oslogin.refresh import Refresh

    with MetadataClient(redirects=0) as metadata:
        return Refresh(Directory(metadata, cloud_run=cloud_run), cloud_run=cloud_run).run()
