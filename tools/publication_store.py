"""A place that repositories are published to: a folder or an object store, through fsspec.

Files appear and are replaced in one step: object stores do that by themselves, a local folder by a
temporary file and a rename, anything else (sftp://) by a temporary name and fsspec's own move.

What fails for a while (time-outs, broken connections, answers 408, 429 and 5xx) is tried again,
later each time. Stores with a cache in front of them are told that content-named files never change
and that the others must be asked for again, because Cloud Storage alone would otherwise let clients
have an hour-old root with a new index.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import builds
import release

sys.path.insert(0, str(release.TOP / "src"))

from googet.atomic import replacing
from google_guest.errors import GuestError

TRIES = 6
FIRST_PAUSE = 0.5
"""Seconds before the second try; doubled for each further one."""
TEMPORARY = ".publishing"
_EXTRA_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs"}
_WHOLE_OBJECTS = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "az"}
_TRANSIENT_ERRNO = {
    *(errno.EIO, errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE),
    *(errno.ECONNREFUSED, errno.ECONNABORTED, errno.ENETUNREACH, errno.EHOSTUNREACH),
}
_TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}
_CLIENTS = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "requests", "urllib3"}
_LOST = re.compile("Connect|Timeout|TimedOut|Disconnected|Payload")
"""In the names of their errors, which have no common class, for answers that did not come."""
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"

Result = TypeVar("Result")


class StoreError(GuestError):
    """The place cannot be used."""


class Store:
    """The files below one URL, by their paths with ``/``."""

    def __init__(self, url: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        # What is left of "memory://" without its end would be a folder.
        self.url = url if url.endswith("://") else url.rstrip("/")
        self._sleep = sleep
        self._fs, self._root = _open(self.url)
        names = self._fs.protocol
        self._protocols = {names} if isinstance(names, str) else set(names)

    def listing(self) -> dict[str, dict[str, Any]]:
        """Every file with what the store says of it, its ``size`` among it."""
        self._fs.invalidate_cache()
        root = self._root.rstrip("/")
        try:
            found = self._retried("list", lambda: self._fs.find(root, withdirs=False, detail=True))
        except FileNotFoundError:
            return {}
        return {
            path[len(root) :].lstrip("/"): info
            for path, info in sorted(found.items())
            if info.get("type") != "directory"
        }

    def read(self, name: str) -> bytes:
        data: bytes = self._retried(f"read {name}", lambda: self._fs.cat_file(self._path(name)))
        return data

    def holds(self, name: str, info: dict[str, Any], file: Path) -> bool:
        """Whether a file of the store has the content of a local one; ``info`` is of listing()."""
        if info["size"] != file.stat().st_size:
            return False
        # A sum that differs proves nothing: S3's is another one for encrypted and multipart files.
        if _md5(info) == _md5_of(file):
            return True
        return hashlib.sha256(self.read(name)).hexdigest() == builds.file_digest(file)

    def put(self, file: Path, name: str, *, for_ever: bool) -> None:
        """Makes a file of the store that of a local one, in one step."""
        path = self._path(name)
        if "file" in self._protocols:
            self._retried(f"write {name}", lambda: _put_locally(file, Path(path)))
        elif self._protocols & _WHOLE_OBJECTS:
            options = self._headers(_FOR_EVER if for_ever else _ASK_AGAIN)
            put = self._fs.put_file
            self._retried(f"upload {name}", lambda: put(str(file), path, **options))
        else:
            self._retried(f"upload {name}", lambda: self._put_and_move(file, path))

    def remove(self, name: str) -> None:
        """Takes a file away; it may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            self._retried(f"remove {name}", lambda: self._fs.rm_file(self._path(name)))

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _headers(self, cache_control: str) -> dict[str, Any]:
        if self._protocols & {"s3", "s3a"}:
            return {"CacheControl": cache_control}
        if self._protocols & {"gs", "gcs"}:
            return {"fixed_key_metadata": {"cache_control": cache_control}}
        return {}

    def _put_and_move(self, file: Path, path: str) -> None:
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/.{name}{TEMPORARY}"
        self._fs.makedirs(folder, exist_ok=True)
        self._fs.put_file(str(file), temporary)
        self._fs.mv(temporary, path)

    def _retried(self, what: str, action: Callable[[], Result]) -> Result:
        """Does something, several times if it fails for a while.

        Raises FileNotFoundError as it is, StoreError for every other failure of the store.
        """
        for pause in (*_pauses(), None):
            try:
                return action()
            except FileNotFoundError:
                raise
            except Exception as failure:
                if not _is_transient(failure):
                    if _is_of_the_store(failure):
                        raise StoreError(f"{self.url}: cannot {what}: {failure}") from failure
                    raise
                if pause is None:
                    raise StoreError(
                        f"{self.url}: cannot {what} after {TRIES} tries: {failure!r}; publish again"
                        " to go on from here"
                    ) from failure
                self._sleep(pause)
        raise AssertionError("the last try returns or raises")


def _open(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    try:
        import fsspec
    except ImportError:
        raise StoreError("publishing needs fsspec: install python3-fsspec") from None
    try:
        fs, root = fsspec.core.url_to_fs(url)
    except ImportError as missing:
        package = _EXTRA_PACKAGES.get(url.partition("://")[0])
        raise StoreError(
            f"{url}: " + (f"install the Python package {package}" if package else str(missing))
        ) from None
    except ValueError as wrong:
        raise StoreError(f"{url}: {wrong}") from None
    if not str(root).strip("/"):
        raise StoreError(f"{url} names no folder or bucket")
    return fs, str(root)


def _put_locally(file: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as target, file.open("rb") as source:
        while block := source.read(1 << 20):
            target.write(block)


def _md5(info: dict[str, Any]) -> str | None:
    """The MD5 that a store tells of a file, in hexadecimal: Cloud Storage's or S3's."""
    if "md5Hash" in info:
        return base64.b64decode(info["md5Hash"]).hex()
    tag = str(info.get("ETag", "")).strip('"')
    return tag if len(tag) == 32 else None


def _md5_of(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def _pauses() -> Iterator[float]:
    """Seconds between tries; not quite regular, so that publishers do not go in step."""
    for number in range(TRIES - 1):
        yield FIRST_PAUSE * 2**number * random.uniform(0.8, 1.2)


def _is_transient(failure: Exception) -> bool:
    if isinstance(failure, (ConnectionError, TimeoutError, asyncio.TimeoutError)):
        return True
    if _is_of_a_client(failure) and _LOST.search(type(failure).__name__):
        return True
    if _status(failure) in _TRANSIENT_STATUS:
        return True
    return isinstance(failure, OSError) and failure.errno in _TRANSIENT_ERRNO


def _is_of_the_store(failure: Exception) -> bool:
    """Whether a failure is the place's, and not a mistake here."""
    return isinstance(failure, OSError) or _status(failure) is not None or _is_of_a_client(failure)


def _is_of_a_client(failure: Exception) -> bool:
    """Whether a library that talks to object stores has defined the error."""
    return type(failure).__module__.partition(".")[0] in _CLIENTS


def _status(failure: Exception) -> int | None:
    """The HTTP status that a client library's error carries."""
    for name in ("code", "status"):
        status = getattr(failure, name, None)
        if isinstance(status, int):
            return status
        if isinstance(status, str) and status.isdigit():
            return int(status)
    return None
