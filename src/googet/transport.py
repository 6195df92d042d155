"""Fetching what repositories hold: http and https, ``oauth-``, Cloud Storage, files and folders.

Everything that may succeed next time (connection errors, 408, 429, 5xx) is tried four times, with
pauses that double from a second and have some chance in them, so that a thousand machines do not
come back at once.

Cloud Storage is read through ``https://storage.googleapis.com`` with a token if the machine has one
and anonymously otherwise, or where the token is refused. An ``oauth-`` address gets a token or is
an error; over plain http a token is sent only with ``allowunsafeurl``, or to this machine itself.

A package is downloaded to ``TARGET.part`` and renamed when its SHA-256 is right. What is there of
it from an earlier run is continued; a server that does not do so starts it anew, and a continued
file with a wrong checksum is fetched once more from its beginning.

Source: googet ``client/client.go``, ``download/download.go``; RFC 9110 section 14 (ranges); public
Cloud Storage documentation, "Request endpoints", "Objects: list", "Objects: insert".
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from googet.archive import sha256_of
from googet.atomic import move
from googet.credentials import Credentials
from googet.progress import Progress
from googet.settings import Settings
from googet.urls import STORAGE, UrlError, local_path, parse_storage, shown, split_oauth
from googet.web import (
    Request,
    Timeouts,
    TransportError,
    Web,
    check_length,
    read_body,
    status_error,
)
from google_guest.records import record
from google_guest.scripts.connections import (
    DownloadError,
    announced_length,
    url_parts,
    user_headers,
)

if TYPE_CHECKING:
    import ssl

TRIES = 4
_LONGEST_PAUSE = 30.0
_BLOCK = 1 << 18
_ANSWER_LIMIT = 16 << 20
_PART = ".part"
_SHOWN = 16
"""Digits of a digest in messages: whole ones are taken for secrets by the log."""
_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG})
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,15})")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


@record
class Destination:
    """An address after its form has been understood: a path, or what to ask over the web."""

    url: str
    """As it was given, for messages."""
    path: Optional[Path] = None
    web: str = ""
    oauth: bool = False
    storage: bool = False


class Transport:
    """The one client of googet and gooserve; threads may share it."""

    def __init__(
        self,
        settings: Settings,
        *,
        progress: Optional[Progress] = None,
        environ: Mapping[str, str] = os.environ,
        credentials: Optional[Credentials] = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 (records are immutable)
        storage: str = STORAGE,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        system_verifier: Optional[Callable[[], Optional[ssl.SSLContext]]] = None,
    ) -> None:
        """``storage`` is Cloud Storage's address; ``jitter`` gives a number from 0 to 1."""
        self._settings = settings
        self._progress = progress or Progress()
        self._storage = storage
        self._sleep = sleep
        self._jitter = jitter
        self._web = Web(
            settings, environ=environ, timeouts=timeouts, system_verifier=system_verifier
        )
        self._credentials = credentials or Credentials(self.send, environ=environ)

    def fetch(self, url: str, *, limit: int) -> bytes:
        """Return what is at ``url``, at most ``limit`` bytes, without undoing any packing.

        Raises:
            TransportError: its ``status`` is 404 also for a file that does not exist.
        """
        where = self._destination(url)
        if where.path is not None:
            return _read_local(where.path, limit)

        def attempt() -> bytes:
            with self._answer(where, {}) as response:
                if response.status != 200:
                    raise status_error(where.url, response)
                return read_body(response, limit=limit, url=where.url)

        return self._tried(attempt)

    def download(self, url: str, target: Path, *, sha256: str) -> None:
        """Make ``target`` the file at ``url``; one that is already right is left alone.

        ``sha256`` is hexadecimal; an empty one is not compared, for packages whose checksum was
        never recorded. The folder must exist.

        Raises:
            TransportError: nothing is left after a wrong checksum or on a full disk; after anything
                else, ``TARGET.part`` is.
        """
        where = self._destination(url)
        wanted = sha256.lower()
        part_path = target.with_name(target.name + _PART)
        try:
            if wanted and _adopt(target, part_path, wanted):
                return
            with _Part.opened(part_path, keep=bool(wanted)) as part:
                was_continued = part.size > 0
                self._fill(where, part, target.name)
                if wanted and part.digest() != wanted and was_continued:
                    # The package changed on the server since the first half was fetched.
                    part.restart()
                    self._fill(where, part, target.name)
                if wanted and part.digest() != wanted:
                    part.discard()
                    raise TransportError(
                        f"{shown(url)}: checksum mismatch: the index says {wanted[:_SHOWN]}...,"
                        f" the file has {part.digest()[:_SHOWN]}..."
                    )
                part.finish(sync=not wanted)
            # What a power failure does to it is seen by its checksum before it is ever used.
            move(part_path, target, sync=not wanted)
        except OSError as error:
            if error.errno in _FULL or getattr(error, "winerror", None) == 112:
                with contextlib.suppress(OSError):
                    part_path.unlink()
                raise TransportError(f"no space left for {target}") from error
            raise TransportError(f"{target} cannot be written: {error.strerror}") from error

    def send(
        self,
        url: str,
        *,
        method: str = "POST",
        headers: Mapping[str, str],
        body: Optional[bytes] = None,
    ) -> bytes:
        """Send a request without credentials of this machine; return the body of a 2xx answer.

        Raises:
            TransportError: as for :meth:`fetch`.
        """
        request = Request(url, method, {}, headers, body)
        return self._tried(lambda: self._exchanged(request))

    def send_to_storage(
        self, path: str, *, method: str = "GET", content_type: str = "", body: bytes = b""
    ) -> bytes:
        """Ask Cloud Storage's JSON interface; ``path`` begins with a slash and may have a query."""
        headers = {"Content-Type": content_type} if content_type else {}
        where = Destination(f"{self._storage}{path}", web=f"{self._storage}{path}", storage=True)

        def attempt() -> bytes:
            with self._answer(where, headers, method=method, body=body or None) as response:
                if response.status // 100 != 2:
                    raise status_error(where.url, response)
                return read_body(response, limit=_ANSWER_LIMIT, url=where.url)

        return self._tried(attempt)

    def _exchanged(self, request: Request) -> bytes:
        with self._web.ask(request) as response:
            if response.status // 100 != 2:
                raise status_error(request.url, response)
            return read_body(response, limit=_ANSWER_LIMIT, url=request.url)

    def _tried(self, attempt: Callable[[], _T]) -> _T:
        """Return what ``attempt`` returns; a temporary error is met with further attempts."""
        pause = 1.0
        for left in reversed(range(TRIES)):
            try:
                return attempt()
            except TransportError as error:
                if not error.temporary or not left:
                    raise
                wait = max(error.pause, min(_LONGEST_PAUSE, pause * (1 + self._jitter())))
                _logger.info("%s; trying again in %.0f s", error, wait)
            self._sleep(wait)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _destination(self, url: str) -> Destination:
        plain, oauth = split_oauth(url)
        storage = parse_storage(plain)
        if storage is not None:
            return Destination(url, None, storage.url(self._storage), oauth, True)
        try:
            path = local_path(plain)
        except UrlError as error:
            raise TransportError(str(error)) from error
        if path is not None:
            return Destination(url, path)
        try:
            parts = url_parts(plain)
            is_web = parts.scheme in ("http", "https") and parts.hostname
        except DownloadError:
            is_web = False
        if not is_web:
            raise TransportError(f"{shown(url)} is no address that can be fetched")
        return Destination(url, None, plain, oauth)

    @contextlib.contextmanager
    def _answer(
        self,
        where: Destination,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        body: Optional[bytes] = None,
    ) -> Iterator[Any]:
        """Give the answer from a web server, with the credentials that the address asks for.

        A refused token is replaced once: it may have been withdrawn before its time. Cloud Storage
        is then asked without any, because a public object needs none.
        """
        if where.storage:
            # Or else the server unpacks objects that are stored as gzip.
            headers = {"Accept-Encoding": "gzip", **headers}
        for secrets, token in self._secrets(where):
            with self._web.ask(Request(where.web, method, headers, secrets, body)) as response:
                if token is not None and response.status in (401, 403):
                    self._credentials.forget(token)
                    if response.status == 401 or where.storage:
                        continue
                yield response
                return

    def _secrets(self, where: Destination) -> Iterator[tuple[Mapping[str, str], Optional[str]]]:
        """Give the headers of one attempt after the other, and the token that may be replaced."""
        if where.oauth:
            self._check_secure(where)
            token = self._credentials.token()
            yield _bearer(token), token
            yield _bearer(self._credentials.token()), None
        elif where.storage:
            optional = self._credentials.optional_token()
            if optional is not None:
                yield _bearer(optional), optional
            yield {}, None
        else:
            yield user_headers(where.web), None

    def _check_secure(self, where: Destination) -> None:
        parts = url_parts(where.web)
        if parts.scheme == "https" or parts.hostname in _LOOPBACK:
            return
        if not self._settings.allow_unsafe_url:
            raise TransportError(f"{shown(where.url)}: credentials are sent over https only")
        _logger.warning("%s: credentials are sent without encryption", shown(where.url))

    def _fill(self, where: Destination, part: _Part, label: str) -> None:
        """Complete ``part``; the bytes are not compared with anything yet."""
        if where.path is not None:
            part.restart()
            _copy_local(where.path, part)
            return
        try:
            self._tried(lambda: self._continued(where, part, label))
        finally:
            self._progress.finish()

    def _continued(self, where: Destination, part: _Part, label: str) -> None:
        """Ask for what is missing of ``part`` and append it."""
        have = part.size
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._answer(where, headers) as response:
            step = next_step(
                have, int(response.status), str(response.headers.get("Content-Range", ""))
            )
            if step is Step.FAIL:
                raise status_error(where.url, response)
            if step is Step.DONE:
                return
            if step is not Step.APPEND:
                part.restart()
            if step is not Step.ASK_AGAIN:
                self._receive(where, response, part, label)
                return
        self._continued(where, part, label)

    def _receive(self, where: Destination, response: Any, part: _Part, label: str) -> None:
        length = announced_length(response.headers.get("Content-Length", ""))
        total = None if length is None else part.size + length
        self._progress.start(label, done=part.size, total=total)
        received = 0
        for block in response.stream(_BLOCK, decode_content=False):
            part.write(block)
            received += len(block)
            self._progress.advance(len(block))
        check_length(response, received, url=where.url)


class Step(Enum):
    """What to do with the answer to a request for the rest of a file."""

    APPEND = "append"
    """The body continues what is there."""
    REPLACE = "replace"
    """The body is the whole file."""
    DONE = "done"
    """Nothing is missing."""
    ASK_AGAIN = "ask again"
    """The answer is of no use for what is there: begin with an empty file."""
    FAIL = "fail"


def next_step(have: int, status: int, content_range: str) -> Step:
    """Return what an answer means for a file of which ``have`` bytes are there.

    A range was asked for exactly if ``have`` is not 0.
    """
    if status == 200:
        return Step.REPLACE
    if status == 206 and have:
        match = _RANGE.fullmatch(content_range)
        fits = match is not None and int(match[1]) == have <= int(match[2])
        return Step.APPEND if fits else Step.ASK_AGAIN
    if status == 416 and have:
        match = _UNSATISFIED.fullmatch(content_range)
        return Step.DONE if match is not None and int(match[1]) == have else Step.ASK_AGAIN
    return Step.FAIL


class _Part:
    """The file that a download grows in, with the checksum of what is in it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = 0
        self._file = descriptor
        self._digest = hashlib.sha256()

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, *, keep: bool) -> Iterator[_Part]:
        """Open the file at its end; what it holds counts if ``keep``."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        part = cls(path, os.open(path, flags, 0o644))
        try:
            if keep:
                while block := os.read(part._file, _BLOCK):
                    part._note(block)
            else:
                part.restart()
            yield part
        finally:
            part._close()

    def write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(self._file, view) :]
        self._note(block)

    def restart(self) -> None:
        os.lseek(self._file, 0, os.SEEK_SET)
        os.ftruncate(self._file, 0)
        self.size = 0
        self._digest = hashlib.sha256()

    def digest(self) -> str:
        return self._digest.hexdigest()

    def finish(self, *, sync: bool) -> None:
        if sync:
            os.fsync(self._file)
        self._close()

    def discard(self) -> None:
        self._close()
        self.path.unlink()

    def _note(self, block: bytes) -> None:
        self._digest.update(block)
        self.size += len(block)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _adopt(target: Path, part: Path, wanted: str) -> bool:
    """Return whether ``target`` is complete; what it has of the file otherwise is continued."""
    if not target.is_file():
        return False
    if sha256_of(target) == wanted:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        return True
    if part.exists():
        target.unlink()
    else:
        move(target, part)
    return False


def _bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _read_local(path: Path, limit: int) -> bytes:
    with _local_errors(path), path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TransportError(f"{path}: larger than {limit} bytes")
    return data


def _copy_local(path: Path, part: _Part) -> None:
    with _local_errors(path):
        file = path.open("rb")
    with file:
        while True:
            with _local_errors(path):
                block = file.read(_BLOCK)
            if not block:
                return
            part.write(block)


@contextlib.contextmanager
def _local_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        raise TransportError(
            f"{path} cannot be read: {error.strerror}", status=404 if missing else None
        ) from error
    except ValueError as error:
        # No path has a zero byte.
        raise TransportError(f"{str(path)!r} names no file", status=404) from error
