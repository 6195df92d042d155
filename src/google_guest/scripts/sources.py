"""From the value of a ``-url`` key to a file: which requests are made, with which credentials.

An object in Cloud Storage is asked for with the token of the instance's service account, and
without it if that fails or if there is no account; both times at ``https://storage.U`` of the
instance's universe, the only host that ever sees the token. Every other address is fetched as it
is, without credentials.

Source: google-guest-agent ``cmd/gce_metadata_script_runner/scriptrunner.go``, where the fallback
always goes to ``storage.googleapis.com`` and appends to what a broken transfer has left.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Optional, Protocol

from google_guest.metadata.errors import MetadataError, NotFound
from google_guest.scripts.connections import DownloadError
from google_guest.scripts.download import Download
from google_guest.scripts.events import Patience
from google_guest.scripts.storage_url import (
    DEFAULT_UNIVERSE,
    StorageObject,
    is_universe,
    may_need_universe,
    parse_script_url,
)

if TYPE_CHECKING:
    from google_guest.scripts.platforms import Scratch

TOKEN_PATH = "instance/service-accounts/default/token"
UNIVERSE_PATH = "universe/universe-domain"
_METADATA_BUDGET = 5.0
_TOKEN = re.compile(r"[!-~]+")


class CredentialSource(Protocol):
    """The part of ``MetadataClient`` that is needed here."""

    def get_json(
        self, path: str, *, recursive: bool = ..., timeout: float = ..., budget: float = ...
    ) -> object:
        """Return the document at ``path``."""

    def get_text(self, path: str, *, timeout: float = ..., budget: float = ...) -> str:
        """Return the value at ``path``."""


class ScriptFetcher:
    """Fetches the scripts of one event."""

    def __init__(
        self,
        metadata: CredentialSource,
        download: Download,
        patience: Patience,
        say: Callable[[str], None],
    ) -> None:
        """``say`` takes a line for people."""
        self._metadata = metadata
        self._download = download
        self._patience = patience
        self._say = say

    def fetch(self, value: str, scratch: Scratch, name: str) -> str:
        """Fetch what ``value`` names into ``scratch`` as ``name`` and return its path.

        Raises:
            BadScriptUrl, DownloadError: it cannot be fetched.
            OSError: it cannot be written.
        """
        part = f"{name}.part"
        output = scratch.create(part)
        try:
            self._fetch(value, output)
        finally:
            os.close(output)
        return scratch.rename(part, name)

    def _fetch(self, value: str, output: int) -> None:
        universe = self._universe() if may_need_universe(value) else DEFAULT_UNIVERSE
        source = parse_script_url(value, universe=universe)
        if not isinstance(source, StorageObject):
            self._download.fetch(source.url, output)
            return
        url = source.url(universe)
        failure = self._fetch_with_token(url, output)
        if failure is None:
            return
        try:
            self._download.fetch(url, output)
        except DownloadError as error:
            raise DownloadError(f"{error}{failure}") from error

    def _fetch_with_token(self, url: str, output: int) -> Optional[str]:
        """Return None if it worked, else what to append to the error of the next attempt."""
        try:
            authorization = self._authorization()
            self._download.fetch(url, output, headers={"Authorization": authorization})
        except NotFound:
            # An instance without a service account: a state, not a failure.
            return ""
        except (MetadataError, DownloadError) as error:
            self._say(f"Failed to download with the service account: {error}")
            self._say("Trying unauthenticated download")
            return f"; with the service account: {error}"
        return None

    def _authorization(self) -> str:
        document = self._metadata.get_json(
            TOKEN_PATH,
            recursive=False,
            timeout=self._patience.metadata_request,
            budget=_METADATA_BUDGET,
        )
        values = document if isinstance(document, dict) else {}
        token = values.get("access_token")
        if not (isinstance(token, str) and _TOKEN.fullmatch(token)):
            raise DownloadError("metadata has no usable token")
        # The only kind of token that the platform issues (RFC 6750).
        return f"Bearer {token}"

    def _universe(self) -> str:
        try:
            found = self._metadata.get_text(
                UNIVERSE_PATH, timeout=self._patience.metadata_request, budget=_METADATA_BUDGET
            )
        except MetadataError:
            # Old metadata servers have no such key; every machine there is in the default one.
            return DEFAULT_UNIVERSE
        domain = found.strip().lower()
        return domain if is_universe(domain) else DEFAULT_UNIVERSE
