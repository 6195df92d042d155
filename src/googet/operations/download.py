"""``googet download``: packages into a folder, nothing installed.

Facts: googet: cli/download/download.go.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from googet.archive import extract
from googet.operations import sources
from googet.operations.install import catalogue_of
from googet.operations.session import Session
from googet.pkgspec import split_name
from googet.repositories import Candidate
from googet.selection import choose
from google_guest.errors import GuestError

_log = logging.getLogger(__name__)


def download(
    session: Session, arguments: Sequence[str], folder: Path, *, extracted: bool = False
) -> bool:
    """Download every argument (N, N.A or N.A.V) into ``folder``; return whether all could be.

    ``extracted`` adds a folder ``N.A.V`` with the content of each.
    """
    catalogue = catalogue_of(session)
    succeeded = True
    for text in dict.fromkeys(arguments):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            offer = choose(
                catalogue, split_name(text), architectures=session.settings.architectures
            )
            if not isinstance(offer, Candidate):
                raise TypeError(f"{offer!r} comes from no repository")
            path = sources.download(session, offer, folder)
            session.screen.line(f"Downloaded {path}")
            if extracted:
                target = folder / offer.spec.full_name
                extract(path, target)
                session.screen.line(f"Extracted to {target}")
        except (GuestError, OSError) as error:
            _log.error("%s is not downloaded: %s", text, error)
            succeeded = False
    return succeeded
