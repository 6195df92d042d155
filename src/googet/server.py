"""A web server for one repository: what gooserve runs.

``/REPO_NAME/index``, ``index.gz`` and ``index.sig`` come from memory; ``/PACKAGE_PATH/`` are the
files of that folder, with listings. GET and HEAD, ETag and Last-Modified with their conditions, and
single ranges. The index is made anew in the background and exchanged as a whole, so that a client
sees the old one or the new one. Every connection has its own thread and at most a minute of
silence.

Source: googet ``server/gooserve.go``; RFC 9110 sections 13 (conditions) and 14 (ranges).
"""

from __future__ import annotations

import email.utils
import hashlib
import html
import logging
import os
import re
import socket
import socketserver
import ssl
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Optional, Union
from urllib.parse import quote, unquote

from googet.buckets import BucketRepository
from googet.index import IndexEntry
from googet.publishing import Layout, Scanner, Signer, repository_files
from google_guest.errors import GuestError
from google_guest.records import record

IDLE_SECONDS = 60.0
_BLOCK = 1 << 18
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_TYPES = {"index": "application/json", "index.gz": "application/gzip"}
_BINARY = "application/octet-stream"
_METHODS = "GET, HEAD"

_logger = logging.getLogger(__name__)


class ServerError(GuestError):
    """The server cannot be started."""


@record
class Resource:
    """What an address stands for, of which the headers are known before the content is read."""

    content_type: str
    size: int
    etag: str
    """With its quotes."""
    modified: float
    """Unix time."""
    opener: Callable[[], BinaryIO]


@record
class Span:
    """A range of bytes that can be sent."""

    start: int
    length: int


class Index:
    """The index of a repository, made anew when it is asked to."""

    def __init__(
        self,
        scanner: Scanner,
        *,
        bucket: Optional[BucketRepository] = None,
        signer: Optional[Signer] = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``bucket``: what the scanner's folder is a mirror of; ``clock`` gives Unix time."""
        self._scanner = scanner
        self._bucket = bucket
        self._signer = signer
        self._clock = clock
        self._entries: Optional[tuple[IndexEntry, ...]] = None
        self._signed_at = 0
        self.files: Mapping[str, bytes] = {}
        """The files of ``/REPO_NAME/``; replaced as a whole."""
        self.modified = 0.0

    def refresh(self) -> None:
        """Look at the packages, and make the files anew if something has changed.

        A signature is made anew also when half of its time is over. Raises ``GuestError``, and the
        files stay as they are.
        """
        if self._bucket is not None:
            self._bucket.refresh()
        entries = self._scanner.scan()
        now = int(self._clock())
        worn = self._signer is not None and now - self._signed_at >= self._signer.lifetime / 2
        if entries == self._entries and not worn:
            return
        # A serial must grow, also when the clock was set back.
        serial = max(now, self._signed_at + 1)
        files = repository_files(entries, signer=self._signer, now=serial)
        self._entries, self._signed_at, self.modified = entries, serial, self._clock()
        self.files = files
        _logger.info("the index has %d packages", len(entries))

    def resource(self, name: str) -> Optional[Resource]:
        """Return a file of ``/REPO_NAME/``."""
        data = self.files.get(name)
        if data is None:
            return None
        etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        content_type = _TYPES.get(name, _BINARY)
        return Resource(content_type, len(data), etag, self.modified, lambda: BytesIO(data))


class RepositoryServer:
    """Serves an index and a folder of packages until it is closed."""

    def __init__(
        self,
        index: Index,
        folder: Path,
        layout: Layout,
        *,
        address: str = "",
        port: int = 8000,
        interval: float = 300.0,
        tls: Optional[ssl.SSLContext] = None,
    ) -> None:
        """Open the port; ``folder`` is PACKAGE_PATH's, ``interval`` the seconds between scans.

        Raises:
            ServerError: the address cannot be used.
        """
        self._index = index
        self._interval = interval
        self._closing = threading.Event()

        class Handler(_Handler):
            site = _Site(index, folder, layout)

        try:
            self._server = _Server(address, port, Handler, tls)
        except (OSError, OverflowError) as error:
            text = error.strerror if isinstance(error, OSError) else "no port"
            raise ServerError(f"{address or '*'}:{port} cannot be used: {text}") from error
        scheme = "http" if tls is None else "https"
        host = f"[{address}]" if ":" in address else address or socket.gethostname()
        self.url = f"{scheme}://{host}:{self.port}/{layout.repo_name}"
        """The repository's address for clients."""

    @property
    def port(self) -> int:
        """The port that is listened on, also if 0 was asked for."""
        return int(self._server.server_address[1])

    def serve(self) -> None:
        """Serve, and look at the packages at every interval, until :meth:`close`."""
        rescanner = threading.Thread(target=self._rescan, name="rescan", daemon=True)
        rescanner.start()
        try:
            self._server.serve_forever(poll_interval=0.1)
        finally:
            self._closing.set()
            rescanner.join()
            self._server.server_close()

    def close(self) -> None:
        """End :meth:`serve`, which another thread runs."""
        self._closing.set()
        self._server.shutdown()

    def _rescan(self) -> None:
        while not self._closing.wait(self._interval):
            try:
                self._index.refresh()
            except GuestError as error:
                _logger.error("the index stays as it is: %s", error)


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what makes the server speak TLS; raise ``ServerError`` if the files are unusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # The callback keeps OpenSSL from asking for a passphrase on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        text = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ServerError(f"{certificate} and {key} cannot be used for TLS: {text}") from error
    return context


def requested_span(header: str, size: int) -> Union[Span, HTTPStatus]:
    """Return what a ``Range`` header asks of ``size`` bytes.

    The status 416 if nothing of it is there; 200 if the whole is to be sent, because there is no
    range, more than one, or a malformed one.
    """
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return HTTPStatus.OK
    if not match[1]:
        length = min(size, int(match[2]))
        return Span(size - length, length) if length else HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    start = int(match[1])
    end = int(match[2]) if match[2] else size - 1
    if match[2] and end < start:
        return HTTPStatus.OK
    if start >= size:
        return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    return Span(start, min(end, size - 1) - start + 1)


def is_unchanged(resource: Resource, headers: Mapping[str, str]) -> bool:
    """Return whether a client that sends these conditions has the resource already (304).

    Names are written as in ``If-None-Match``.
    """
    etags = headers.get("If-None-Match")
    if etags is not None:
        known = {etag.strip().removeprefix("W/") for etag in etags.split(",")}
        return "*" in known or resource.etag in known
    since = _moment(headers.get("If-Modified-Since", ""))
    return since is not None and int(resource.modified) <= since


def range_applies(resource: Resource, headers: Mapping[str, str]) -> bool:
    """Return whether a range may be sent: without ``If-Range``, or if it means this content."""
    condition = headers.get("If-Range")
    if condition is None:
        return True
    if condition.startswith(('"', "W/")):
        return condition == resource.etag
    return _moment(condition) == int(resource.modified)


class _Site:
    """Which addresses there are."""

    def __init__(self, index: Index, folder: Path, layout: Layout) -> None:
        self._index = index
        self._folder = folder
        self._repository = layout.repo_name.split("/")
        self._packages = layout.package_path.split("/") if layout.package_path else []

    def find(self, target: str) -> Union[Resource, str, None]:
        """Return what is at a request's target, the address to go to instead, or None."""
        path = re.split(r"[?#]", target, maxsplit=1)[0]
        segments = _segments(path)
        if segments is None:
            return None
        if segments[:-1] == self._repository:
            resource = self._index.resource(segments[-1])
            if resource is not None:
                return resource
        depth = len(self._packages)
        if segments[:depth] != self._packages:
            return None
        try:
            return self._file(self._folder.joinpath(*segments[depth:]), path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None

    def _file(self, path: Path, address: str) -> Union[Resource, str, None]:
        facts = path.stat()
        if stat.S_ISDIR(facts.st_mode):
            if address.endswith("/"):
                return _listing(path, address, facts.st_mtime)
            return f"/{address.strip('/')}/"
        if not stat.S_ISREG(facts.st_mode) or address.endswith("/"):
            return None
        version = facts.st_size, facts.st_mtime_ns

        def opener() -> BinaryIO:
            file = path.open("rb")
            now = os.fstat(file.fileno())
            if (now.st_size, now.st_mtime_ns) != version:
                file.close()
                raise BlockingIOError(f"{path} has just changed")
            return file

        etag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
        return Resource(_BINARY, facts.st_size, etag, facts.st_mtime, opener)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    site: _Site
    protocol_version = "HTTP/1.1"
    server_version = "gooserve"
    sys_version = ""
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer with the content, a part of it, or why not."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer as to GET, without the content."""
        self._answer(with_body=False)

    def do_other(self) -> None:
        """Refuse what would change something."""
        self.close_connection = True
        self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
        self._end({"Allow": _METHODS, "Content-Length": "0", "Connection": "close"})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_other

    def _answer(self, *, with_body: bool) -> None:
        found = self.site.find(self.path)
        conditions = {name.title(): value for name, value in self.headers.items()}
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif isinstance(found, str):
            self.send_response(HTTPStatus.MOVED_PERMANENTLY)
            self._end({"Location": found, "Content-Length": "0"})
        elif is_unchanged(found, conditions):
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self._end(_validators(found))
        else:
            self._send(found, conditions, with_body=with_body)

    def _send(self, resource: Resource, conditions: Mapping[str, str], *, with_body: bool) -> None:
        span: Union[Span, HTTPStatus] = HTTPStatus.OK
        if with_body and range_applies(resource, conditions):
            span = requested_span(conditions.get("Range", ""), resource.size)
        headers = {**_validators(resource), "Accept-Ranges": "bytes"}
        if span == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self._end({"Content-Range": f"bytes */{resource.size}", "Content-Length": "0"})
            return
        whole = Span(0, resource.size)
        part = span if isinstance(span, Span) else whole
        try:
            file = resource.opener() if with_body else BytesIO()
        except BlockingIOError:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            if isinstance(span, Span):
                self.send_response(HTTPStatus.PARTIAL_CONTENT)
                end = span.start + span.length - 1
                headers["Content-Range"] = f"bytes {span.start}-{end}/{resource.size}"
            else:
                self.send_response(HTTPStatus.OK)
            headers["Content-Type"] = resource.content_type
            self._end({**headers, "Content-Length": str(part.length)})
            if with_body:
                self._copy(file, part)

    def _copy(self, file: BinaryIO, part: Span) -> None:
        file.seek(part.start)
        left = part.length
        while left:
            block = file.read(min(left, _BLOCK))
            if not block:
                # The file has become shorter: the client must see that something is missing.
                self.close_connection = True
                return
            self.wfile.write(block)
            left -= len(block)

    def _end(self, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Note a request, without what could change a terminal or forge a line."""
        text = (format % args).encode("unicode_escape").decode()
        _logger.info("%s %s", self.client_address[0], text)


class _Server(ThreadingHTTPServer):
    """The listening socket; TLS is spoken in the connection's own thread."""

    daemon_threads = True
    # On Windows this option lets another program take over the port.
    allow_reuse_address = sys.platform != "win32"
    request_queue_size = 128

    def __init__(
        self,
        address: str,
        port: int,
        handler: type[_Handler],
        tls: Optional[ssl.SSLContext],
    ) -> None:
        self._tls = tls
        self._is_dual = not address and socket.has_dualstack_ipv6()
        if self._is_dual or ":" in address:
            self.address_family = socket.AF_INET6
        super().__init__((address, port), handler)

    def server_bind(self) -> None:
        """Bind without looking up names, to IPv4 and IPv6 alike if no address is given."""
        if self._is_dual:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(IDLE_SECONDS)
        with self._tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note that a connection broke; anything else is our own mistake."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            _logger.info("%s: %s", client_address[0], error.strerror or error)
        else:
            _logger.exception("%s: the request failed", client_address[0])


def _segments(path: str) -> Optional[list[str]]:
    """Return the decoded components of an address; None if it must not be looked up."""
    segments = [unquote(part) for part in path.split("/") if part]
    for segment in segments:
        bad = segment in (".", "..") or any(letter in segment for letter in "\0/")
        if bad or (sys.platform == "win32" and any(letter in segment for letter in '\\:*?"<>|')):
            return None
    return segments


def _listing(folder: Path, address: str, modified: float) -> Resource:
    with os.scandir(folder) as files:
        names = sorted(file.name + ("/" if file.is_dir() else "") for file in files)
    links = "".join(
        f'<a href="{quote(name, errors="surrogateescape")}">{_shown(name)}</a>\n' for name in names
    )
    title = _shown(unquote(address))
    page = f"<!doctype html>\n<meta charset=utf-8>\n<title>{title}</title>\n<pre>\n{links}</pre>\n"
    data = page.encode()
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    return Resource("text/html; charset=utf-8", len(data), etag, modified, lambda: BytesIO(data))


def _shown(name: str) -> str:
    return html.escape(name.encode("utf-8", "replace").decode())


def _validators(resource: Resource) -> dict[str, str]:
    modified = email.utils.formatdate(resource.modified, usegmt=True)
    return {"ETag": resource.etag, "Last-Modified": modified}


def _moment(text: str) -> Optional[int]:
    """Return the Unix time of an HTTP date, or None."""
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
