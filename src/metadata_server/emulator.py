"""The emulator as one object: document, network, faults, presets, OS Login.

    with Emulator(profile="linux") as mds:
        run_agent(env={"GCE_METADATA_HOST": mds.host})
        mds.set("instance/attributes/ssh-keys", "ada:ssh-ed25519 AAAA...")
        mds.wait_for_request("instance/guest-attributes/", 10, method="PUT")

Reads and writes only what its parts do: TCP connections, an optional control socket.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Callable, Optional, Union

from metadata_server import presets
from metadata_server.control import ControlInterface
from metadata_server.faults import Fault, FaultBook
from metadata_server.oslogin import Directory
from metadata_server.profiles import profile as profile_document
from metadata_server.request_log import Request, RequestLog
from metadata_server.server import Server
from metadata_server.service import Service
from metadata_server.tls import TlsFiles, server_context
from metadata_server.tree import (
    GUEST_ATTRIBUTES,
    NoSuchPath,
    Tree,
    is_directory,
    scalar_text,
    split_path,
)


class Emulator:
    """A metadata server under the caller's control.  Use as a context manager.

    ``document`` (a recursive document, JSON spelling) takes the place of the profile.  ``address``
    is one or several IP addresses; anything but loopback must be named explicitly.
    ``control_socket`` serves the control interface on a Unix socket; ``control_token`` on the TCP
    port.  ``tls`` names the directory with the certificates of a listener that demands client
    certificates, on port ``tls_port``.
    """

    def __init__(
        self,
        profile: str = "linux",
        *,
        address: Union[str, Sequence[str]] = "127.0.0.1",
        port: int = 0,
        document: Optional[Mapping[str, object]] = None,
        control_socket: Optional[str] = None,
        control_token: Optional[str] = None,
        request_limit: int = 10_000,
        guest_attribute_rate: Optional[float] = None,
        guest_writes_move_root: bool = True,
        tls: Optional[TlsFiles] = None,
        tls_port: int = 0,
    ) -> None:
        self._addresses = (address,) if isinstance(address, str) else tuple(address)
        if not self._addresses:
            raise ValueError("an emulator needs at least one address to listen on")
        self._asked_port = port
        self._port: Optional[int] = None
        self._control_socket = control_socket
        self._tls = tls
        self._asked_tls_port = tls_port
        self._tls_port: Optional[int] = None
        self._timers: list[threading.Timer] = []
        self._timers_lock = threading.Lock()
        self.control_token = control_token or secrets.token_hex(16)
        self.oslogin = Directory()
        self.tree = Tree(
            profile_document(profile) if document is None else document,
            guest_writes_move_root=guest_writes_move_root,
        )
        self._faults = FaultBook()
        self._log = RequestLog(request_limit)
        self.service = Service(self.tree, self.oslogin)
        self.service.limit_guest_attributes(guest_attribute_rate)
        control = ControlInterface(self, self.control_token)
        self._server = Server(self.service, self._faults, self._log, control.answer)

    # Life

    def start(self) -> Emulator:
        self._server.start()
        try:
            self._port = self._server.listen(self._addresses, self._asked_port)
            if self._tls is not None:
                self._tls_port = self._server.listen(
                    self._addresses, self._asked_tls_port, tls=server_context(self._tls)
                )
            if self._control_socket is not None:
                self._server.listen_unix(self._control_socket)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        with self._timers_lock:
            for timer in self._timers:
                timer.cancel()
            self._timers.clear()
        self._server.stop()

    def __enter__(self) -> Emulator:
        return self.start()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Call ``action`` after a while unless the emulator stops first."""
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        with self._timers_lock:
            self._timers = [known for known in self._timers if known.is_alive()]
            timer.start()
            self._timers.append(timer)

    # Where it is

    @property
    def port(self) -> int:
        if self._port is None:
            raise RuntimeError("the emulator has not been started")
        return self._port

    @property
    def tls_port(self) -> int:
        if self._tls_port is None:
            raise RuntimeError("the emulator has no TLS listener")
        return self._tls_port

    @property
    def hosts(self) -> list[str]:
        """``address:port`` of every address."""
        return [f"{_bracketed(address)}:{self.port}" for address in self._addresses]

    @property
    def host(self) -> str:
        """``address:port`` for GCE_METADATA_HOST."""
        return self.hosts[0]

    @property
    def url(self) -> str:
        """The URL of the document root, with its final slash."""
        return f"http://{self.host}/computeMetadata/v1/"

    # The document

    def set(self, path: str, value: object) -> None:
        """Put a value (str, number, bytes, list, dict, None) at a path such as "instance/id"."""
        self.tree.set(split_path(path), value)

    def delete(self, path: str) -> None:
        """Remove a value or directory; raises KeyError when there is none."""
        self.tree.delete(split_path(path))

    def replace(self, document: Mapping[str, object]) -> None:
        """Replace everything by a recursive document (JSON or path spelling)."""
        self.tree.replace(document)

    def get(self, path: str = "", default: object = None) -> object:
        """A value, or a directory as its JSON document; ``default`` when the path is absent."""
        try:
            return self.tree.document(split_path(path))
        except NoSuchPath:
            return default

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Publish all changes made inside as one."""
        with self.tree.batch():
            yield

    def use_profile(self, name: str) -> None:
        self.replace(profile_document(name))

    def etag(self, path: str = "") -> str:
        """The current ETag of a path; raises KeyError when it is absent."""
        return self.tree.etag(split_path(path))

    def guest_attributes(self) -> dict[str, dict[str, str]]:
        """What the guest has written: ``{namespace: {key: value}}``."""
        try:
            node = self.tree.node(GUEST_ATTRIBUTES)
        except NoSuchPath:
            return {}
        written: dict[str, dict[str, str]] = {}
        for namespace, keys in node.items() if isinstance(node, dict) else ():
            if isinstance(keys, dict):
                written[namespace] = {
                    key: scalar_text(value).decode("utf-8", "replace")
                    for key, value in keys.items()
                    if not is_directory(value, (*GUEST_ATTRIBUTES, namespace, key))
                }
        return written

    # Requests

    def requests(self, path_prefix: str = "") -> list[Request]:
        """The newest recorded requests, oldest first."""
        return self._log.matching(path_prefix)

    @property
    def request_count(self) -> int:
        """How many requests there were, the forgotten ones included."""
        return self._log.total

    @property
    def waiting_clients(self) -> int:
        """How many requests wait right now (long polls, delays, hangs)."""
        return self._server.waiting_clients

    def clear_requests(self) -> None:
        self._log.clear()

    def wait_for_request(
        self,
        path_prefix: str,
        timeout: float,
        *,
        method: Optional[str] = None,
        since: Optional[Union[float, Request]] = None,
    ) -> Request:
        """The first recorded request that matches, waiting for it if need be.

        ``since`` is a Unix time or an earlier Request.  Raises TimeoutError.
        """
        return self._log.wait(path_prefix, timeout, method=method, since=since)

    @property
    def failures(self) -> list[BaseException]:
        """Errors of the emulator itself, which clients saw as status 500."""
        return list(self._server.failures)

    # Faults

    def fault(
        self,
        path_prefix: str,
        kind: str,
        *,
        count: Optional[int] = None,
        probability: float = 1.0,
        method: Optional[str] = None,
        watch: Optional[bool] = None,
        exact: bool = False,
        lifetime: Optional[float] = None,
        **options: object,
    ) -> Fault:
        """Put a fault in force (kinds and options: module ``faults``) for requests below a path.

        ``watch`` limits it to long polls (True) or to other requests (False), ``exact`` to this
        very path, ``lifetime`` to that many seconds.
        """
        return self._faults.add(
            path_prefix,
            kind,
            count=count,
            probability=probability,
            method=method,
            watch=watch,
            exact=exact,
            lifetime=lifetime,
            **options,
        )

    def faults(self) -> list[Fault]:
        return self._faults.faults()

    def remove_fault(self, fault: Fault) -> None:
        self._faults.remove(fault)
        self._server.wake_all()

    def clear_faults(self) -> None:
        """End all faults; requests that hang are answered now."""
        self._faults.clear()
        self._server.wake_all()

    def offline(self, seconds: Optional[float] = None) -> None:
        """Refuse connections and reset existing ones, for a while or until ``online``."""
        self._server.go_offline()
        if seconds is not None:
            self.later(seconds, self.online)

    def online(self) -> None:
        self._server.go_online()

    # Scenarios

    def preset(self, name: str, **options: object) -> None:
        """Play a scenario (module ``presets``)."""
        presets.play(self, name, **options)

    def set_oslogin(self, document: Mapping[str, object]) -> None:
        """Replace the OS Login directory (module ``oslogin``, ``Directory.load``)."""
        self.oslogin.load(document)

    def serve_credentials(self, make: Optional[Callable[[], dict[str, object]]]) -> None:
        """Serve the mTLS certificate that ``make`` gives (module ``credentials``); None: 404."""
        self.service.encrypt_credentials = make

    def limit_guest_attributes(self, per_second: Optional[float]) -> None:
        """Answer 429 above this rate of guest-attribute requests; None: no limit."""
        self.service.limit_guest_attributes(per_second)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
