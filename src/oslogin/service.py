"""``google-oslogind``: the service behind the name service, sshd's helpers and PAM.

Usage: google-oslogind [--idle SECONDS]

systemd passes its sockets (``server``). It is ready as soon as it runs: the identity cache is made
in the background, and a lookup that comes first is answered or refused within its own deadline. It
ends after five minutes without work, and a socket starts it again. It never asks the name service
itself: everything here is numbers.

Reads the metadata server, writes the identity cache, the users and sudoers files, and two marks
below /run/google-oslogin. Exit status: 0 after an orderly stop, 1 when nothing can be served, 2 for
wrong arguments.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Optional

from google_guest import logs
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.endpoint import WELL_KNOWN
from google_guest.metadata.streak import Streak
from google_guest.records import record
from google_guest.system.service import STOP_SIGNALS, ServiceManager
from google_guest.version import version
from oslogin import auth_handlers, nss_handlers, paths, protocol
from oslogin.authorization import Authorizer
from oslogin.challenges import Sessions
from oslogin.directory import Breaker, Directory
from oslogin.grants import Grants
from oslogin.keys import Keys
from oslogin.lookups import Lookups
from oslogin.protocol import Message
from oslogin.refresh import Refresh
from oslogin.schedule import Schedule
from oslogin.server import Server, Service, passed_sockets

if TYPE_CHECKING:
    import socket

    from oslogin.certificates import Certificate
    from oslogin.dispatch import Handler, Peer

PROGRAM = "google-oslogind"
IDLE = 300.0
"""Seconds without work after which the service ends."""
EXIT_FAILED, EXIT_USAGE = 1, 2
_CONNECT_TIME = 1.0
_REFRESH_TIME = 115.0
"""Seconds that a REFRESH waits; whoever asked waits for 120."""
_STACK = 1024 * 1024
REFRESHED_MARK = f"{paths.RUNTIME_FOLDER}/refreshed"

log = logging.getLogger(__name__)


@record
class Places:
    """Where the service keeps its files; tests have others."""

    cache: str = paths.CACHE_FILE
    users: str = paths.USERS_FOLDER
    sudoers: tuple[str, ...] = (paths.SUDOERS_FOLDER, paths.RUNTIME_SUDOERS_FOLDER)
    answered: str = paths.ANSWERED_MARK
    refreshed: str = REFRESHED_MARK
    former: tuple[str, ...] = paths.FORMER_CACHE_FILES


class Answered:
    """Whether the metadata server has answered since boot, also to an earlier process."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._known = os.path.exists(mark)
        self._streak = Streak("OS Login's metadata", log)

    def __call__(self) -> bool:
        return self._known

    def answered(self) -> None:
        """Note an answer."""
        self._streak.recovered()
        if self._known:
            return
        self._known = True
        try:
            os.close(os.open(self._mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        except OSError as error:
            log.debug("%s: %s", self._mark, error.strerror)

    def failed(self, error: Exception) -> None:
        """Note that no answer came: one line when an outage starts, one when it ends."""
        self._streak.failed(error)


class Daemon:
    """Everything wired together; ``run`` serves until ``stop`` or idle."""

    def __init__(
        self,
        client: MetadataClient,
        *,
        places: Optional[Places] = None,
        idle: float = IDLE,
    ) -> None:
        places = places or Places()
        self._client = client
        answered = Answered(places.answered)
        # Logins ask even while lookups have given the server up for some seconds.
        patient = Directory(client, on_answer=answered.answered, on_failure=answered.failed)
        quick = Directory(
            client,
            breaker=Breaker(),
            on_answer=answered.answered,
            on_failure=answered.failed,
        )
        grants = Grants(users=places.users, sudoers=places.sudoers)
        grants.migrate()
        refresh = Refresh(patient, path=places.cache, former=places.former, sweep=grants.sweep)
        refresh.check()
        self._lookups = Lookups(
            quick,
            has_answered=answered,
            groups_in_use=lambda: refresh.groups_in_use,
            on_found=lambda user: self._schedule.found(user),
        )
        authorizer = Authorizer(patient, grants)
        self._sessions = Sessions(patient, authorizer.find)
        keys = Keys(authorizer, _certificate)
        self._auth = dict(auth_handlers.handlers(authorizer, self._sessions, keys))
        self.server = Server(
            idle=idle,
            is_busy=lambda: self._schedule.is_busy(),
            tick=lambda: self._schedule.tick(),
            on_closed=lambda peer: self._sessions.close(peer.connection_id),
        )
        self._schedule = Schedule(
            refresh,
            mark=places.refreshed,
            wake=self.server.wake,
            on_changed=self._lookups.forget,
        )
        self._auth[protocol.PING] = nss_handlers.ping
        self._auth[protocol.REFRESH] = refresh_handler(self._schedule)

    def serve(self, sockets: Mapping[str, Sequence[socket.socket]]) -> int:
        """Listen on these sockets; return on how many."""
        known = {
            "nss": Service("nss", nss_handlers.handlers(self._lookups)),
            "auth": Service(
                "auth",
                self._auth,
                request_limit=protocol.AUTH_REQUEST_LIMIT,
                root_only=True,
                one_request=False,
            ),
            "userdb": Service("userdb", talk=self._talk),
        }
        count = 0
        for name, passed in sockets.items():
            for sock in passed:
                if name in known:
                    self.server.listen(sock, known[name])
                    count += 1
                else:
                    log.warning("a socket named %r was passed, which nobody here serves", name)
                    sock.close()
        return count

    def run(self) -> None:
        """Serve, then end what is in flight."""
        try:
            self.server.run()
        finally:
            self._client.cancel()
            self.server.close()

    def _talk(self, sock: socket.socket, peer: Peer) -> None:
        # Loaded by the few machines that use it.
        from oslogin import userdb

        sock.setblocking(True)
        userdb.serve_connection(sock, self._lookups)


def refresh_handler(schedule: Schedule) -> Handler:
    """Return the handler of REFRESH."""

    def answer(request: Message, peer: Peer) -> Message:
        outcome = schedule.request(_REFRESH_TIME)
        if outcome is None or outcome.failure:
            return protocol.reply(request, protocol.UNAVAILABLE)
        if outcome.disabled:
            return protocol.reply(request, protocol.DISABLED)
        count = protocol.number_field(protocol.COUNT, outcome.users)
        return protocol.reply(request, protocol.OK, [count])

    return answer


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the service and return its exit status."""
    idle = _idle(sys.argv[1:] if argv is None else argv)
    if idle is None:
        print(f"usage: {PROGRAM} [--idle SECONDS]", file=sys.stderr)
        return EXIT_USAGE
    sink = logs.configure_logging(PROGRAM)
    sockets = passed_sockets(os.environ)
    if not sockets:
        log.error("systemd passed no sockets: start the units google-oslogind-*.socket")
        return EXIT_FAILED
    manager = ServiceManager()
    threading.stack_size(_STACK)
    client = MetadataClient(candidates=WELL_KNOWN[:1], connect_timeout=_CONNECT_TIME, redirects=0)
    daemon = Daemon(client, idle=idle)
    if not daemon.serve(sockets):
        return EXIT_FAILED
    daemon.server.on_signals(STOP_SIGNALS)
    gc.freeze()
    gc.enable()
    manager.notify(READY="1", STATUS=f"version {version()}")
    try:
        daemon.run()
    finally:
        manager.notify(STOPPING="1")
        sink.flush(everything=True)
    return 0


def _certificate(text: str) -> Optional[Certificate]:
    # Loaded with the first certificate.
    from oslogin import certificates

    return certificates.read(text)


def _idle(argv: Sequence[str]) -> Optional[float]:
    if not argv:
        return IDLE
    if len(argv) == 2 and argv[0] == "--idle" and argv[1].isascii() and argv[1].isdigit():
        return float(argv[1])
    return None
