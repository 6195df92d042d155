"""The client of the metadata server: one-shot reads, one long poll, guest attributes.

Reads ``http://169.254.169.254/computeMetadata/v1/`` (see ``endpoint`` for the alternatives) and
writes below ``instance/guest-attributes/`` only. It never uses a proxy, whatever the environment
says, and takes no 2xx answer without the header ``Metadata-Flavor: Google``. A one-shot read tries
again according to the kind of failure and always ends within its budget; the long poll tries once,
because ``google_guest.metadata.watcher`` knows better when to come back.

Threads may share a client; ``cancel`` ends all its requests and pauses for good.

Source: public GCE documentation, "About VM metadata"; google-guest-agent
``internal/metadata/metadata.go`` and ``internal/utils/retry`` for what the reference retries.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Optional, TypeVar, Union
from urllib.parse import quote

from google_guest.metadata.answers import (
    Answer,
    check_descriptor,
    check_genuine,
    check_status,
    is_genuine,
    is_redirect,
    named,
    redirect_target,
    request_target,
)
from google_guest.metadata.endpoint import (
    HOST_VARIABLE,
    WELL_KNOWN,
    Endpoint,
    Endpoints,
    parse_endpoint,
)
from google_guest.metadata.errors import (
    BadAnswer,
    BadRedirect,
    BadRequest,
    Cancelled,
    ConnectFailed,
    Forbidden,
    MetadataError,
    NotFound,
    NotGoogle,
    Unreachable,
)
from google_guest.metadata.exchange import Connection, Interrupt, NoAnswer, Request, Response
from google_guest.metadata.retries import ReadRetries, WriteRetries, random_fraction
from google_guest.metadata.streak import Streak

READ_TIMEOUT = 5.0
"""Seconds for one attempt of a one-shot read."""
READ_BUDGET = 30.0
"""Seconds for all attempts of a one-shot read, pauses included."""
GUEST_ATTRIBUTE_NAME_LIMIT = 128
GUEST_ATTRIBUTE_VALUE_LIMIT = 256 * 1024

_NEVER_MATCHING_ETAG = "NONE"
_CONNECT_TIMEOUT = 2.0
_POLL_GRACE = 10.0
_IDLE_LIMIT = 5.0
_MOST_REDIRECTS = 2
_FIELD_VALUE = re.compile(r"[ -~]*")
_FIELDS = {"Metadata-Flavor": "Google", "User-Agent": "google-guest"}

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class MetadataClient:
    """Asks the metadata server; see the module's docstring."""

    def __init__(
        self,
        endpoint: Optional[str] = None,
        *,
        candidates: Optional[tuple[Endpoint, ...]] = None,
        environ: Optional[Mapping[str, str]] = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Optional[Callable[[float], None]] = None,
        jitter: Optional[Callable[[], float]] = None,
        connect_timeout: float = _CONNECT_TIMEOUT,
        redirects: int = _MOST_REDIRECTS,
    ) -> None:
        """Choose the endpoint: the argument, ``GCE_METADATA_HOST`` of ``environ``, or GCE's own.

        ``connect_timeout`` (seconds) bounds one attempt to connect; ``redirects`` is how many a
        request follows, all of them to the same server.
        ``clock``, ``sleep`` and ``jitter`` (a number from 0 to 1) pace the retries; deadlines of
        single requests always follow the real clock. Raises ``MetadataError`` if the endpoint
        cannot be understood.
        """
        named = endpoint or (os.environ if environ is None else environ).get(HOST_VARIABLE)
        if named and named.strip():
            candidates = (parse_endpoint(named),)
        self.clock = clock
        self._connect_timeout = connect_timeout
        self._redirects = redirects
        self._interrupt = Interrupt()
        self._sleep = sleep or self._interrupt.sleep
        self.jitter = jitter or random_fraction
        self._endpoints = Endpoints(WELL_KNOWN if candidates is None else candidates)
        self._idle: Optional[Connection] = None
        self._idle_lock = threading.Lock()
        self._streak = Streak("metadata server", _logger, clock=clock)
        self._refused_writes: set[type[MetadataError]] = set()

    def get_bytes(
        self,
        path: str,
        *,
        query: Optional[Mapping[str, str]] = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: float = READ_TIMEOUT,
        budget: float = READ_BUDGET,
    ) -> bytes:
        """Return the value at ``path`` (``instance/id``); an empty one is valid.

        ``timeout`` bounds one attempt, ``budget`` everything; a budget of 0 means one attempt.
        Raises a ``MetadataError``.
        """

        def read(limit: float) -> bytes:
            response = self.request("GET", path, query=query, headers=headers, timeout=limit)
            if response.headers.get("content-type", "").startswith("text/html"):
                raise BadAnswer(f"{named(path)}: the answer is a web page")
            return response.body

        return self._retried(read, timeout=timeout, budget=budget)

    def get_text(
        self,
        path: str,
        *,
        query: Optional[Mapping[str, str]] = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: float = READ_TIMEOUT,
        budget: float = READ_BUDGET,
    ) -> str:
        """Return the value at ``path`` as text; bytes that are not UTF-8 are replaced."""
        body = self.get_bytes(path, query=query, headers=headers, timeout=timeout, budget=budget)
        return body.decode("utf-8", "replace")

    def get_json(
        self,
        path: str,
        *,
        recursive: bool = True,
        timeout: float = READ_TIMEOUT,
        budget: float = READ_BUDGET,
    ) -> object:
        """Return the JSON document at ``path``; integers are exact."""
        query = {"recursive": "true"} if recursive else {}

        def read(limit: float) -> object:
            return self._json(path, {**query, "alt": "json"}, timeout=limit).document

        return self._retried(read, timeout=timeout, budget=budget)

    def get_metadata(self, *, timeout: float = READ_TIMEOUT, budget: float = READ_BUDGET) -> Answer:
        """Return the document that ``parse_metadata`` takes, and its ETag."""

        def read(limit: float) -> Answer:
            return check_descriptor(
                self._json("", {"recursive": "true", "alt": "json"}, timeout=limit)
            )

        return self._retried(read, timeout=timeout, budget=budget)

    def wait_for_change(self, last_etag: Optional[str], timeout_sec: float = 60.0) -> Answer:
        """Return the tree as soon as its ETag differs from ``last_etag``, or after the timeout.

        After a timeout the ETag is the same. Without ``last_etag`` the answer comes at once. One
        attempt: raises a ``MetadataError`` for every failure.
        """
        query = {
            "recursive": "true",
            "alt": "json",
            "wait_for_change": "true",
            "last_etag": last_etag or _NEVER_MATCHING_ETAG,
            "timeout_sec": f"{timeout_sec:g}",
        }
        return check_descriptor(self._json("", query, timeout=timeout_sec + _POLL_GRACE))

    def put_guest_attribute(self, namespace: str, key: str, value: Union[str, bytes]) -> None:
        """Write a guest attribute, trying again in the face of an overloaded server.

        Blocks for up to a minute: callers that hold up the boot run it elsewhere. An instance on
        which guest attributes are switched off is no failure: one INFO line, and it returns.
        Raises a ``MetadataError`` otherwise.
        """
        try:
            self.write_guest_attribute(namespace, key, value)
        except (Forbidden, NotFound) as error:
            if type(error) not in self._refused_writes:
                self._refused_writes.add(type(error))
                _logger.info("guest attributes are not published: %s", error)

    def write_guest_attribute(self, namespace: str, key: str, value: Union[str, bytes]) -> None:
        """Write a guest attribute like ``put_guest_attribute``; also raise when switched off."""
        body = value.encode("utf-8", "replace") if isinstance(value, str) else value
        for name in (namespace, key):
            size = len(name.encode("utf-8", "replace"))
            if not 1 <= size <= GUEST_ATTRIBUTE_NAME_LIMIT or name in (".", ".."):
                raise BadRequest(
                    f"guest attribute {named(f'{namespace}/{key}')}: a name has 1 to "
                    f"{GUEST_ATTRIBUTE_NAME_LIMIT} bytes"
                )
        if len(body) > GUEST_ATTRIBUTE_VALUE_LIMIT:
            raise BadRequest(f"guest attribute {namespace}/{key}: the value exceeds 256 KiB")
        path = "instance/guest-attributes/" + "/".join(
            quote(name, safe="", errors="replace") for name in (namespace, key)
        )
        policy = WriteRetries()
        while True:
            try:
                self.request("PUT", path, body=body)
                return
            except MetadataError as error:
                delay = policy.delay_after(error)
                if delay is None:
                    raise
                _logger.debug("%s; trying again in %.1f s", error, delay)
                self.sleep(delay)

    def report(self, headers: Mapping[str, str]) -> None:
        """Send one request that carries ``headers``; its answer does not matter."""
        self.request("GET", "", headers=headers)

    def oslogin_certificates(self) -> object:
        """Return the JSON document that lists OS Login's certificate authorities."""
        return self.get_json("oslogin/certificates", recursive=False, budget=10.0)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Optional[Mapping[str, str]] = None,
        headers: Optional[Mapping[str, str]] = None,
        body: Optional[bytes] = None,
        timeout: float = READ_TIMEOUT,
    ) -> Response:
        """Make one attempt and return a genuine 2xx answer; raise a ``MetadataError`` otherwise.

        ``path`` is relative to ``/computeMetadata/v1/`` (an absolute one below it is accepted) and
        percent-encoded where needed.
        """
        fields = {**_FIELDS, **(headers or {})}
        if not all(_FIELD_VALUE.fullmatch(value) for value in fields.values()):
            raise BadRequest(f"{named(path)}: a header has characters that headers cannot have")
        target = request_target(path, query)
        deadline = time.monotonic() + timeout
        for _ in range(self._redirects + 1):
            request = Request(method, target, fields, body)
            response, endpoint = self._attempt(request, deadline)
            if not is_redirect(response):
                check_status(response, path)
                return response
            target = redirect_target(response, endpoint, path)
        raise BadRedirect(f"{named(path)}: more than {self._redirects} redirects")

    def sleep(self, seconds: float) -> None:
        """Pause; raise ``Cancelled`` as soon as the client is cancelled."""
        if self._interrupt.event.is_set():
            raise Cancelled("cancelled")
        self._sleep(seconds)

    def cancel(self) -> None:
        """End every request and pause, present and future, with ``Cancelled``; from any thread."""
        self._interrupt.set()

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._interrupt.event.is_set()

    def close(self) -> None:
        """Free the sockets; no request may be running."""
        self._keep(None)
        self._interrupt.close()

    def __enter__(self) -> MetadataClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _retried(self, attempt: Callable[[float], _T], *, timeout: float, budget: float) -> _T:
        """Return what ``attempt`` returns, trying again as long as policy and budget allow."""
        deadline = self.clock() + budget
        policy = ReadRetries(self.jitter)
        while True:
            remaining = deadline - self.clock()
            try:
                value = attempt(min(timeout, remaining) if budget > 0 else timeout)
            except MetadataError as error:
                delay = policy.delay_after(error)
                if delay is None or self.clock() + delay >= deadline:
                    raise
                self._streak.failed(error)
            else:
                self._streak.recovered()
                return value
            self.sleep(delay)

    def _json(self, path: str, query: Mapping[str, str], *, timeout: float) -> Answer:
        response = self.request("GET", path, query=query, timeout=timeout)
        try:
            document = json.loads(response.body.decode("utf-8", "replace"))
        except (ValueError, RecursionError) as error:
            # The text of the error would show the document.
            raise BadAnswer(f"{named(path)}: the answer is not JSON") from error
        return Answer(document, response.headers.get("etag"))

    def _attempt(self, request: Request, deadline: float) -> tuple[Response, Endpoint]:
        """Ask one endpoint after the other until something genuine answers."""
        order = self._endpoints.order()
        failures: list[Unreachable] = []
        for position, endpoint in enumerate(order):
            now = time.monotonic()
            share = max(0.0, deadline - now) / (len(order) - position)
            try:
                response = self._ask(
                    endpoint, request, now + min(self._connect_timeout, share), deadline
                )
                check_genuine(response, endpoint)
            except ConnectFailed as error:
                self._endpoints.connect_failed()
                failures.append(error)
            except NotGoogle as error:
                failures.append(error)
            else:
                if is_genuine(response):
                    self._endpoints.answered(endpoint)
                return response, endpoint
        if len(failures) == 1:
            raise failures[0]
        kinds = {type(failure) for failure in failures}
        kind = next((kind for kind in (NotGoogle, NoAnswer) if kind in kinds), ConnectFailed)
        raise kind("; ".join(str(failure) for failure in failures))

    def _ask(
        self, endpoint: Endpoint, request: Request, connect_deadline: float, deadline: float
    ) -> Response:
        connection = self._take_idle(endpoint)
        if connection is not None:
            try:
                return self._exchange(connection, request, deadline)
            except NoAnswer:
                # The server closed the idle connection while the request was on its way.
                _logger.debug("reconnecting to %s", endpoint.authority)
        connection = Connection(endpoint, deadline=connect_deadline, interrupt=self._interrupt)
        return self._exchange(connection, request, deadline)

    def _exchange(self, connection: Connection, request: Request, deadline: float) -> Response:
        try:
            response = connection.exchange(request, deadline=deadline)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            self._keep(connection)
        else:
            connection.close()
        return response

    def _keep(self, connection: Optional[Connection]) -> None:
        with self._idle_lock:
            replaced, self._idle = self._idle, connection
        if replaced is not None:
            replaced.close()

    def _take_idle(self, endpoint: Endpoint) -> Optional[Connection]:
        """Return the idle connection if it is fresh enough to be trusted."""
        with self._idle_lock:
            connection, self._idle = self._idle, None
        if connection is None:
            return None
        fresh = time.monotonic() - connection.idle_since < _IDLE_LIMIT
        if connection.endpoint == endpoint and fresh and connection.is_quiet():
            return connection
        connection.close()
        return None
