"""A repository in Cloud Storage, for gooserve: a local mirror of its packages, and its index back.

The packages are the objects ``PREFIX/PACKAGE_PATH/*.goo`` of more than 0 bytes, not those in deeper
folders. They are downloaded to a folder, each once, because an index needs their content; the
folder is then like any other. The index becomes ``PREFIX/REPO_NAME/index`` and its neighbours.

Source: googet ``server/gooserve.go``; public Cloud Storage documentation, "Objects: list" and
"Objects: insert".
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from googet.index import SUFFIX
from googet.publishing import Layout, PublishingError
from googet.transport import Transport
from googet.urls import StorageLocation
from googet.web import TransportError
from google_guest.records import record

_FILE_NAME = re.compile(r"[^\x00-\x1f/\\:*?\"<>|]+\.goo")
_SIZE = re.compile(r"[1-9][0-9]{0,17}")
_TYPES = {"index": "application/json", "index.gz": "application/gzip"}
_MOST_PAGES = 10_000

_logger = logging.getLogger(__name__)


@record
class StoredObject:
    """An object: its name in the bucket, its size in bytes, and what changes with its content."""

    name: str
    size: int
    generation: str


class BucketRepository:
    """A repository whose ROOT is ``location``, mirrored below ``folder``."""

    def __init__(
        self, location: StorageLocation, layout: Layout, transport: Transport, folder: Path
    ) -> None:
        self._location = location
        self._layout = layout
        self._transport = transport
        self._folder = folder / layout.package_path
        self._known: dict[str, StoredObject] = {}

    def refresh(self) -> None:
        """Make the folder hold the packages that the bucket holds.

        Raises:
            PublishingError: the bucket cannot be listed, or a package not be downloaded.
        """
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        found = {}
        try:
            for stored in self._packages():
                file_name = stored.name.rpartition("/")[2]
                if self._known.get(file_name) != stored:
                    self._download(stored, self._folder / file_name)
                found[file_name] = stored
        except TransportError as error:
            raise PublishingError(f"{self._location}: {error}") from error
        for file_name in self._known.keys() - found.keys():
            (self._folder / file_name).unlink(missing_ok=True)
        self._known = found

    def save(self, files: Mapping[str, bytes]) -> str:
        """Write the files of the repository into the bucket; return where they are.

        Raises:
            PublishingError: they cannot be written.
        """
        for name, data in files.items():
            query = urlencode({"uploadType": "media", "name": self._object(name)}, quote_via=quote)
            try:
                self._transport.send_to_storage(
                    f"/upload/storage/v1/b/{self._location.bucket}/o?{query}",
                    method="POST",
                    content_type=_TYPES.get(name, "application/octet-stream"),
                    body=data,
                )
            except TransportError as error:
                raise PublishingError(
                    f"gs://{self._location.bucket}/{self._object(name)}: {error}"
                ) from error
        return str(StorageLocation(self._location.bucket, self._object("")[:-1]))

    def _object(self, name: str) -> str:
        return self._below(f"{self._layout.repo_name}/{name}")

    def _below(self, path: str) -> str:
        return f"{self._location.object}/{path}" if self._location.object else path

    def _download(self, stored: StoredObject, target: Path) -> None:
        url = str(StorageLocation(self._location.bucket, stored.name))
        _logger.info("downloading %s", url)
        self._transport.download(url, target, sha256="")

    def _packages(self) -> Iterator[StoredObject]:
        folder = f"{self._layout.package_path}/" if self._layout.package_path else ""
        prefix = self._below(folder)
        for item in self._listed(prefix):
            name, size = str(item.get("name")), str(item.get("size"))
            rest = name[len(prefix) :]
            if not rest.endswith(SUFFIX) or not _SIZE.fullmatch(size):
                continue
            if _FILE_NAME.fullmatch(rest):
                yield StoredObject(name, int(size), str(item.get("generation")))
            else:
                _logger.warning("%r is left out: no file can have this name", name)

    def _listed(self, prefix: str) -> Iterator[Mapping[str, Any]]:
        """Give the objects directly below ``prefix``."""
        query = {"prefix": prefix, "delimiter": "/"}
        for _ in range(_MOST_PAGES):
            path = f"/storage/v1/b/{self._location.bucket}/o?{urlencode(query, quote_via=quote)}"
            page = _json_object(self._transport.send_to_storage(path))
            yield from (item for item in page.get("items") or () if isinstance(item, dict))
            token = page.get("nextPageToken")
            if not token:
                return
            query["pageToken"] = str(token)
        raise PublishingError(f"{self._location}: the list of objects does not end")


def _json_object(data: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PublishingError("Cloud Storage's list of objects is no JSON") from error
    if not isinstance(value, dict):
        raise PublishingError("Cloud Storage's list of objects is no JSON object")
    return value
