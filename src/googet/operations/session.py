"""What an operation works with: one ROOT, opened, and the machine that it belongs to."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from googet.database import Database, InstalledPackage
from googet.host import Host
from googet.screen import Screen
from googet.selection import Key, key_of
from googet.settings import Settings
from google_guest.errors import GuestError

if TYPE_CHECKING:
    from googet.repofiles import Repository
    from googet.repositories import Available
    from googet.transport import Transport


class NoRepositories(GuestError):
    """Nothing can be looked up: there is no repository, or none answers."""


class Session:
    """One ROOT, its settings and database, the host and the screen."""

    def __init__(
        self,
        root: Path,
        host: Host,
        settings: Settings,
        database: Optional[Database],
        screen: Screen,
        *,
        sources: str = "",
        read_only: bool = False,
    ) -> None:
        """Bring the parts together.

        ``sources`` is the text of ``-sources``, which stands for the repository files;
        ``read_only`` leaves the index cache as it is.
        """
        self.root = root
        self.host = host
        self.settings = settings
        self.screen = screen
        self._database = database
        self._sources = sources
        self._read_only = read_only

    @property
    def cache(self) -> Path:
        """The folder of indexes, packages and what is extracted of them."""
        return self.root / "cache"

    @property
    def repository_files(self) -> Path:
        """The folder of the ``.repo`` files."""
        return self.root / "repos"

    @property
    def database(self) -> Database:
        """The database; opened for writing in every command that holds the lock."""
        if self._database is None:
            raise GuestError(f"nothing has been installed below {self.root} yet")
        return self._database

    @functools.cached_property
    def transport(self) -> Transport:
        """The client of all repositories, made when it is first needed."""
        from googet.progress import Progress
        from googet.transport import Transport

        return Transport(self.settings, progress=Progress())

    @property
    def has_database(self) -> bool:
        """Whether there is a database at all; a command that only reads makes none."""
        return self._database is not None

    def installed(self) -> dict[Key, InstalledPackage]:
        """Return what is installed, by name and architecture."""
        packages = self._database.packages() if self._database is not None else ()
        return {key_of(package.spec): package for package in packages}

    @functools.cached_property
    def repositories(self) -> tuple[Repository, ...]:
        """The repositories of ``-sources``, else of the files; raises NoRepositories."""
        from googet.repofiles import read_repositories, repositories_from_sources

        if self._sources:
            found = repositories_from_sources(self._sources, self.settings)
        else:
            found = read_repositories(self.repository_files, self.settings)
        if not found:
            raise NoRepositories(
                "there is no repository to use: add one with googet addrepo, or name one with"
                " -sources"
            )
        return found

    @functools.cached_property
    def available(self) -> Available:
        """Everything that the repositories have.

        Raises:
            NoRepositories: there are none, or none could be read.
        """
        from googet.repositories import load_available

        repositories = self.repositories
        if not self._read_only:
            self.cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        available = load_available(
            repositories,
            cache=self.cache,
            settings=self.settings,
            transport=self.transport,
            read_only=self._read_only,
        )
        if available.all_failed:
            raise NoRepositories("none of the repositories could be read")
        return available
