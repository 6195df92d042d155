"""What the repositories offer: their indexes, fetched at most four at a time and kept for a while.

``index.gz`` is preferred. Over http any status but 200 leads to ``index``, while an address that
does not answer fails the repository; in Cloud Storage and in folders any error leads to ``index``.
A repository that fails is reported and does not stop the others.

The cache below ``ROOT/cache`` has, for the SHA-256 of an address without ``oauth-``,

* ``HEX.rs``, the index as compact JSON, used while it is younger than ``cachelife``; one that is
  damaged or dated in the future counts as absent;
* ``HEX.url``, the address;
* ``HEX.serial``, for a repository with a pinned key: the fingerprint of the key, the highest serial
  that was accepted, when that signature expires, and the SHA-256 of ``HEX.rs``, which alone makes
  the cached index acceptable there.

Source: googet ``client/client.go``; ``googet.signing`` for pinned keys.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional, Protocol, Union

from googet.atomic import replace_file
from googet.gojson import dumps
from googet.index import (
    SIZE_LIMIT,
    IndexEntry,
    IndexFormatError,
    read_documents,
    read_index,
    unpacked,
)
from googet.pkgspec import PackageSpec
from googet.repofiles import Repository
from googet.settings import Settings
from googet.signing import (
    SIGNATURE_LIMIT,
    OtherIndex,
    PublicKey,
    SigningError,
    Statement,
    check_signature,
    check_statement,
    read_public_key,
)
from googet.urls import child_url, is_web, repository_key, shown
from googet.web import TransportError
from google_guest.errors import GuestError
from google_guest.records import record

PARALLEL = 4
_MODE = 0o644

_logger = logging.getLogger(__name__)


class Fetcher(Protocol):
    """The part of ``googet.transport.Transport`` that is needed here."""

    def fetch(self, url: str, *, limit: int) -> bytes:
        """Return what is at ``url``; raise ``TransportError``."""


@record
class Candidate:
    """A package and the repository that offers it."""

    repository: Repository
    entry: IndexEntry

    @property
    def spec(self) -> PackageSpec:
        """What the package is, as the index says."""
        return self.entry.spec

    @property
    def priority(self) -> int:
        """The priority of the repository."""
        return self.repository.priority


@record
class Available:
    """What all repositories offer, in their order, and which of them failed and why."""

    candidates: tuple[Candidate, ...]
    failures: tuple[tuple[Repository, str], ...] = ()
    answered: int = 0
    """How many repositories gave an index, an empty one included."""

    @property
    def all_failed(self) -> bool:
        """Whether there were repositories and none of them answered: reason for an exit of 1."""
        return bool(self.failures) and not self.answered


def load_available(
    repositories: Iterable[Repository],
    *,
    cache: Path,
    settings: Settings,
    transport: Fetcher,
    read_only: bool = False,
    clock: Callable[[], float] = time.time,
) -> Available:
    """Return everything that the repositories offer, for all architectures.

    ``read_only``: nothing is written to the cache; ``clock`` gives Unix time.
    """
    loader = _Loader(cache, settings, transport, read_only, clock)
    wanted = tuple(repositories)
    with _collector_paused(), ThreadPoolExecutor(PARALLEL, thread_name_prefix="index") as pool:
        results = list(pool.map(loader.load, wanted))
    candidates: list[Candidate] = []
    failures: list[tuple[Repository, str]] = []
    for repository, result in zip(wanted, results):
        if isinstance(result, GuestError):
            _logger.error("repository %s: %s", shown(repository.display_url), result)
            failures.append((repository, str(result)))
        else:
            candidates += [Candidate(repository, entry) for entry in result]
    answered = len(wanted) - len(failures)
    return Available(tuple(candidates), tuple(failures), answered)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python from looking for cycles among the entries again and again: there are none.

    It would take more than half of the time that a large index needs.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Loader:
    """Loads one index after the other; threads share it."""

    def __init__(
        self,
        cache: Path,
        settings: Settings,
        transport: Fetcher,
        read_only: bool,
        clock: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._transport = transport
        self._read_only = read_only
        self._clock = clock
        self._pins = {repository_key(url): Path(key) for url, key in settings.signed_repos.items()}

    def load(self, repository: Repository) -> Union[tuple[IndexEntry, ...], GuestError]:
        """Return the entries of a repository, or what went wrong."""
        try:
            pin = self._pins.get(repository_key(repository.url))
            key = None if pin is None else read_public_key(pin)
            cached = _CachedIndex(self._cache, repository.url)
            entries = self._cached(cached, key)
            return self._fetched(repository, cached, key) if entries is None else entries
        except GuestError as error:
            return error

    def _cached(
        self, cached: _CachedIndex, key: Optional[PublicKey]
    ) -> Optional[tuple[IndexEntry, ...]]:
        data = cached.read(max_age=self._settings.cache_life, now=self._clock())
        if data is None:
            return None
        if key is not None:
            seen = cached.seen(key)
            if seen is None or seen.sha256 != _sha256(data) or seen.has_expired(self._clock()):
                return None
        try:
            return read_index(data)
        except IndexFormatError as error:
            _logger.info("the cached index %s is not used: %s", cached.path, error)
            return None

    def _fetched(
        self, repository: Repository, cached: _CachedIndex, key: Optional[PublicKey]
    ) -> tuple[IndexEntry, ...]:
        data = unpacked(self._index(repository))
        seen = None
        if key is not None:
            try:
                seen = self._verified(repository, cached, key, data)
            except OtherIndex:
                # It may have been published anew between the two answers.
                data = unpacked(self._index(repository))
                seen = self._verified(repository, cached, key, data)
        documents = read_documents(data)
        if not self._read_only:
            cached.write(dumps([document for _, document in documents]).encode(), seen)
        return tuple(entry for entry, _ in documents)

    def _index(self, repository: Repository) -> bytes:
        url = repository.display_url
        try:
            return self._transport.fetch(child_url(url, "index.gz"), limit=SIZE_LIMIT)
        except TransportError as error:
            if is_web(url) and error.status is None:
                raise
        return self._transport.fetch(child_url(url, "index"), limit=SIZE_LIMIT)

    def _verified(
        self, repository: Repository, cached: _CachedIndex, key: PublicKey, data: bytes
    ) -> _Seen:
        """Return what is to be remembered of an index's signature; raise ``SigningError``."""
        url = child_url(repository.display_url, "index.sig")
        try:
            signature = self._transport.fetch(url, limit=SIGNATURE_LIMIT)
        except TransportError as error:
            raise SigningError(
                f"a key is pinned, but the index has no signature: {error}"
            ) from error
        statement = check_signature(key, data, signature)
        before = cached.seen(key)
        highest = None if before is None else before.serial
        check_statement(statement, now=self._clock(), highest_serial=highest)
        if statement is None:
            _logger.warning("%s: the signature has no serial and never expires", shown(url))
        return _Seen.of(key, statement)


@record
class _Seen:
    """What is known of the last accepted signature of a repository."""

    key: str
    serial: Optional[int]
    expires: Optional[int]
    sha256: str = ""
    """Of the cached index."""

    @classmethod
    def of(cls, key: PublicKey, statement: Optional[Statement]) -> _Seen:
        if statement is None:
            return cls(key.fingerprint, None, None)
        return cls(key.fingerprint, statement.serial, statement.expires)

    def has_expired(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now


class _CachedIndex:
    """The files of one repository in the cache."""

    def __init__(self, folder: Path, url: str) -> None:
        name = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()
        self.path = folder / f"{name}.rs"
        self._url = url
        self._url_path = folder / f"{name}.url"
        self._serial_path = folder / f"{name}.serial"

    def read(self, *, max_age: float, now: float) -> Optional[bytes]:
        """Return the index if there is one that is young enough."""
        try:
            with self.path.open("rb") as file:
                age = now - os.fstat(file.fileno()).st_mtime
                return file.read(SIZE_LIMIT + 1) if 0 <= age < max_age else None
        except FileNotFoundError:
            return None
        except OSError as error:
            _logger.info("the cached index %s is not used: %s", self.path, error.strerror)
            return None

    def seen(self, key: PublicKey) -> Optional[_Seen]:
        """Return what is remembered of the signatures by ``key``."""
        try:
            values = json.loads(self._serial_path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(values, dict) or values.get("Key") != key.fingerprint:
            return None
        serial, expires = (_number(values.get(name)) for name in ("Serial", "Expires"))
        return _Seen(key.fingerprint, serial, expires, str(values.get("Index")))

    def write(self, data: bytes, seen: Optional[_Seen]) -> None:
        """Keep an index; a cache that cannot be written costs a line in the log and no more."""
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if seen is not None:
                values = {
                    "Key": seen.key,
                    "Serial": seen.serial,
                    "Expires": seen.expires,
                    "Index": _sha256(data),
                }
                replace_file(self._serial_path, json.dumps(values).encode(), mode=_MODE)
            replace_file(self.path, data, mode=_MODE)
            url = self._url.encode("utf-8", "surrogateescape")
            replace_file(self._url_path, url, mode=_MODE)
        except OSError as error:
            _logger.warning("the index of %s is not cached: %s", shown(self._url), error.strerror)


def _number(value: Any) -> Optional[int]:
    return value if type(value) is int else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
