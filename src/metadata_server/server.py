"""Sockets and threads of the emulator: one thread a connection, one reactor for all waiting.

A thread serves one client connection from its first request to its last.  While a request waits
(long poll, injected delay or hang) its thread sleeps on one event; the reactor, a single thread
around a selector, watches the sockets of all waiting requests and wakes the one whose client
leaves.  The reactor also accepts connections.  So a waiting client costs a sleeping thread and one
entry in the selector, and ends at once when the client disconnects or the server stops.

Reads and writes TCP connections on the addresses it is given, and optionally one Unix socket.
Facts: RFC 9112 (persistence), unix(7).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Callable, Optional

from metadata_server.faults import Fault, FaultBook
from metadata_server.request_log import Request, RequestLog
from metadata_server.service import BadTarget, Service, Target, Wait, header_refusal, parse_target
from metadata_server.tree import NoSuchPath, Waiter
from metadata_server.wire import (
    Answer,
    ConnectionEnded,
    Link,
    Malformed,
    Message,
    error_page,
)

CONTROL = "_emulator"
_BODY_LIMIT = 16 * 1024 * 1024
_CONTROL_BODY_LIMIT = 256 * 1024 * 1024
_BACKLOG = 1024

Control = Callable[[Message, Target, bool], Answer]

log = logging.getLogger("metadata_server")


class AddressInUse(OSError):
    """The emulator cannot listen where it was told to."""


@dataclass
class _Listener:
    """A socket that accepts connections.  ``family`` AF_UNIX is the control socket."""

    sock: socket.socket
    address: str
    port: int
    tls: Optional[ssl.SSLContext] = None
    trusted: bool = False

    @property
    def is_unix(self) -> bool:
        return self.trusted


class Reactor(threading.Thread):
    """Accepts connections, and notices when a waiting client hangs up."""

    def __init__(self, accepted: Callable[[socket.socket, _Listener], None]) -> None:
        super().__init__(name="metadata-reactor", daemon=True)
        self._accepted = accepted
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._stopping = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)

    def run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                if isinstance(key.data, _Listener):
                    self._accept(key.data)
                elif isinstance(key.data, Waiter):
                    # One report is enough; the waiting thread asks again after looking.
                    self._unregister(key.fileobj)  # type: ignore[arg-type]
                    key.data.wake()
                else:
                    self._drain()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def _accept(self, listener: _Listener) -> None:
        try:
            connection, _ = listener.sock.accept()
        except OSError as problem:
            if problem.errno in (errno.EMFILE, errno.ENFILE):
                log.error("out of file descriptors: raise the limit (ulimit -n)")
                time.sleep(0.05)
            return
        connection.setblocking(True)
        self._accepted(connection, listener)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                pass

    def _poke(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"x")

    def _unregister(self, sock: socket.socket) -> None:
        with self._lock, contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def listen(self, listener: _Listener) -> None:
        with self._lock:
            self._selector.register(listener.sock, selectors.EVENT_READ, listener)
        self._poke()

    def unlisten(self, listener: _Listener) -> None:
        self._unregister(listener.sock)

    def report_input(self, link: Link, waiter: Waiter) -> None:
        """Wake ``waiter`` once when the client sends something or leaves."""
        with self._lock:
            try:
                self._selector.register(link.sock, selectors.EVENT_READ, waiter)
            except (KeyError, ValueError):
                return  # still registered, or already closed
        self._poke()

    def forget(self, link: Link) -> None:
        self._unregister(link.sock)

    def stop(self) -> None:
        self._stopping = True
        self._poke()


@dataclass
class Server:
    """The network side of the emulator."""

    service: Service
    faults: FaultBook
    requests: RequestLog
    control: Optional[Control] = None
    failures: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listeners: list[_Listener] = []
        self._links: set[Link] = set()
        self._waiters: set[Waiter] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._offline = False
        self._reactor = Reactor(self._connected)
        self._unix_path: Optional[str] = None

    # Life

    def start(self) -> None:
        self._reactor.start()

    def listen(
        self, addresses: Sequence[str], port: int, *, tls: Optional[ssl.SSLContext] = None
    ) -> int:
        """Listen on all addresses with one port (0: any free one) and return it."""
        attempts = 1 if port else 20
        for attempt in range(attempts):
            opened: list[_Listener] = []
            chosen = port
            try:
                for address in addresses:
                    sock = _tcp_socket(address, chosen)
                    sock.listen(_BACKLOG)
                    chosen = sock.getsockname()[1]
                    opened.append(_Listener(sock, address, chosen, tls))
            except OSError as problem:
                for listener in opened:
                    listener.sock.close()
                if problem.errno == errno.EADDRINUSE and attempt + 1 < attempts:
                    continue  # the port chosen on the first address is taken on another
                raise AddressInUse(
                    problem.errno, f"cannot listen on {address} port {chosen}: {problem.strerror}"
                ) from problem
            self._listeners += opened
            for listener in opened:
                self._reactor.listen(listener)
            return chosen
        raise AssertionError("unreachable: the last attempt returns or raises")

    def listen_unix(self, path: str) -> None:
        """Serve the control interface, and nothing else, on a Unix socket of mode 0600."""
        _remove_stale_socket(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
            # Nobody can connect between these two calls: the socket does not listen yet.
            os.chmod(path, 0o600)
            sock.listen(_BACKLOG)
        except OSError as problem:
            sock.close()
            raise AddressInUse(
                problem.errno, f"cannot listen on {path}: {problem.strerror}"
            ) from problem
        self._unix_path = path
        listener = _Listener(sock, path, 0, trusted=True)
        self._listeners.append(listener)
        self._reactor.listen(listener)

    def stop(self) -> None:
        """End every connection and wait until nobody listens any more."""
        self._stopping = True
        self._reactor.stop()
        if self._reactor.is_alive():
            self._reactor.join()
        for listener in self._listeners:
            listener.sock.close()
        if self._unix_path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._unix_path)
        with self._lock:
            links, waiters = list(self._links), list(self._waiters)
        for link in links:
            link.shut()
        for waiter in waiters:
            waiter.wake()

    def go_offline(self) -> None:
        """Refuse connections and reset those that exist; the control socket stays."""
        with self._lock:
            if self._offline:
                return
            self._offline = True
            links = [link for link in self._links if not link.trusted]
            waiters = list(self._waiters)
            for listener in self._listeners:
                if listener.is_unix:
                    continue
                self._reactor.unlisten(listener)
                listener.sock.close()
                # Bound but not listening: the port stays ours and connecting is refused.
                listener.sock = _tcp_socket(listener.address, listener.port)
        for link in links:
            link.shut()
        for waiter in waiters:
            waiter.wake()

    def go_online(self) -> None:
        with self._lock:
            if not self._offline:
                return
            self._offline = False
            for listener in self._listeners:
                if not listener.is_unix:
                    listener.sock.listen(_BACKLOG)
                    self._reactor.listen(listener)

    def wake_all(self) -> None:
        """Let every waiting request look again (a fault has gone)."""
        with self._lock:
            waiters = list(self._waiters)
        for waiter in waiters:
            waiter.wake()

    @property
    def waiting_clients(self) -> int:
        with self._lock:
            return len(self._waiters)

    # Connections

    def _connected(self, sock: socket.socket, listener: _Listener) -> None:
        thread = threading.Thread(
            target=self._serve, args=(sock, listener), name="metadata-client", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            log.error("cannot start a thread for another client")
            sock.close()

    def _serve(self, sock: socket.socket, listener: _Listener) -> None:
        if not listener.is_unix:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if listener.tls is not None:
            try:
                sock = listener.tls.wrap_socket(sock, server_side=True)
            except (OSError, ValueError) as problem:
                log.debug("TLS handshake failed: %s", problem)
                sock.close()
                return
        link = Link(sock, trusted=listener.trusted)
        with self._lock:
            ending = self._stopping or (self._offline and not link.trusted)
            if not ending:
                self._links.add(link)
        try:
            if not ending:
                self._serve_link(link)
        except ConnectionEnded:
            pass
        finally:
            self._reactor.forget(link)
            with self._lock:
                self._links.discard(link)
            if self._offline and not link.trusted:
                link.reset()
            link.close()

    def _serve_link(self, link: Link) -> None:
        limit = _CONTROL_BODY_LIMIT if link.trusted else _BODY_LIMIT
        while not self._stopping:
            try:
                message = link.read_message(body_limit=limit)
            except Malformed as problem:
                page = error_page(problem.status, str(problem))
                link.send(page.encode(close=True))
                link.finish()
                return
            if message is None:
                return
            try:
                answer = self._answer(message, link)
            except ConnectionEnded:
                raise
            except Exception as failure:
                log.exception("answering %s %s failed", message.method, message.target)
                if len(self.failures) < 100:
                    self.failures.append(failure)
                answer = error_page(500, "Internal error of the emulator.", close=True)
            close = answer.close or not message.keeps_connection
            link.send(answer.encode(close=close, without_body=message.method == "HEAD"))
            if close:
                link.finish()
                return

    # Requests

    def _answer(self, message: Message, link: Link) -> Answer:
        try:
            target = parse_target(message.target)
        except BadTarget as problem:
            return error_page(400, str(problem))
        if target.names[:1] == (CONTROL,):
            if self.control is None:
                return error_page(404, "Not found.")
            return self.control(message, target, link.trusted)
        if link.trusted:
            return error_page(404, "Only the control interface is served on this socket.")
        request = self.requests.add(
            message.method,
            target.path,
            target.query,
            message.headers,
            message.body,
            target=message.target,
            client=_peer(link.sock),
            tls=isinstance(link.sock, ssl.SSLSocket),
        )
        struck = self.faults.strike(request)
        for fault in struck:
            if fault.kind == "delay":
                self._pause(link, fault.numeric_option("seconds", 1.0), fault)
            elif fault.kind == "hang":
                self._pause(link, None, fault)
            elif fault.kind == "reset":
                link.reset()
                raise ConnectionEnded
            elif fault.replaces_answer:
                return self._altered(fault.answer(request), struck)
        return self._altered(self._genuine(request, target, message, link), struck)

    def _altered(self, answer: Answer, struck: Sequence[Fault]) -> Answer:
        for fault in struck:
            answer = fault.alter(answer)
        return answer

    def _genuine(self, request: Request, target: Target, message: Message, link: Link) -> Answer:
        refusal = header_refusal(message.headers, target.names)
        if refusal is not None:
            return refusal
        answer = self.service.answer(request, target)
        if isinstance(answer, Wait):
            return self._wait_for_change(answer, link)
        return answer

    def _wait_for_change(self, wait: Wait, link: Link) -> Answer:
        deadline = None if wait.timeout is None else time.monotonic() + wait.timeout
        tree = self.service.tree
        with self._waiting(link) as waiter, tree.watched(wait.path, waiter):
            try:
                while tree.etag(wait.path) == wait.etag:
                    if deadline is not None and time.monotonic() >= deadline:
                        break
                    self._sleep(waiter, link, deadline)
                return wait.render()
            except NoSuchPath:
                return error_page(404, "Not found.")

    def _pause(self, link: Link, seconds: Optional[float], fault: Fault) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._waiting(link) as waiter:
            while not fault.removed and (deadline is None or time.monotonic() < deadline):
                self._sleep(waiter, link, deadline)

    @contextlib.contextmanager
    def _waiting(self, link: Link) -> Iterator[Waiter]:
        waiter = Waiter()
        with self._lock:
            self._waiters.add(waiter)
        self._reactor.report_input(link, waiter)
        try:
            yield waiter
        finally:
            self._reactor.forget(link)
            with self._lock:
                self._waiters.discard(waiter)

    def _sleep(self, waiter: Waiter, link: Link, deadline: Optional[float]) -> None:
        """Wait until something happens; raises ConnectionEnded when nobody waits any more."""
        waiter.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if self._stopping or link.hung_up() or (self._offline and not link.trusted):
            raise ConnectionEnded
        if link.has_room:
            self._reactor.report_input(link, waiter)


def _tcp_socket(address: str, port: int) -> socket.socket:
    """A bound TCP socket."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # On Windows this option would let another program take the port over.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.setblocking(False)  # a client that left before accept must not block the reactor
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale_socket(path: str) -> None:
    """Remove the socket of an emulator that was killed; leave anything else alone."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except OSError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError:
        pass  # binding will report what is wrong
    finally:
        probe.close()


def _peer(sock: socket.socket) -> str:
    try:
        name = sock.getpeername()
    except OSError:
        return ""
    return str(name[0]) if isinstance(name, tuple) else ""
