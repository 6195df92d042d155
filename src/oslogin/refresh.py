"""The identity cache from the metadata server: one refresh, and one rewrite without it.

A refresh walks all pages and publishes a file only when all of them were good. Groups that fail
leave the users valid: the groups of the file before are carried on. OS Login that is off deletes
the file. What changed is told to a name service cache daemon if one runs.

A user that a lookup found and the file lacks is written to the file without walking the pages
anew; the next refresh keeps it for as long as the server knows it. At each refresh the users and
sudoers files of people whom the server does not know any more are removed, never on an error.

Reads and writes ``/etc/oslogin/identity.v1.cache``; removes the caches of the implementation in C++
once that file exists (guest-oslogin ``src/cache_refresh/cache_refresh.cc``).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Optional

from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.system import CommandRunner
from google_guest.system.commands import run_command
from oslogin import identity_cache, paths
from oslogin.directory import Directory, Disabled, Nobody, Unavailable
from oslogin.identities import Group, Profile, User
from oslogin.identity_cache import (
    CLOUD_RUN,
    GROUPS_COMPLETE,
    GROUPS_IN_USE,
    USERS_COMPLETE,
    CacheError,
    Reader,
)

MOST_RECHECKED = 256
"""Users of the file that are on no page, of whom a refresh asks one by one."""
_ASK_TIME = 10.0

log = logging.getLogger(__name__)


@record
class Outcome:
    """What became of a refresh."""

    users: int = 0
    groups: int = 0
    changed: bool = False
    disabled: bool = False
    groups_failed: bool = False
    failure: str = ""


class Refresh:
    """Makes the file anew; one caller at a time."""

    def __init__(
        self,
        directory: Directory,
        *,
        path: str = paths.CACHE_FILE,
        former: Sequence[str] = paths.FORMER_CACHE_FILES,
        nscd_socket: str = paths.NSCD_SOCKET,
        runner: CommandRunner = run_command,
        sweep: Callable[[Callable[[str], bool]], object] = lambda is_departed: None,
        cloud_run: bool = False,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``sweep`` removes the files of users that its argument calls departed."""
        self._directory = directory
        self._path = path
        self._former = former
        self._nscd_socket = nscd_socket
        self._runner = runner
        self._sweep = sweep
        self._cloud_run = cloud_run
        self._wall_clock = wall_clock
        self._clock = clock
        self.groups_in_use = True
        """Whether asking for groups makes sense, by the last refresh that knew."""

    def reader(self) -> Optional[Reader]:
        """Return the file of now, or None if there is no good one."""
        try:
            return Reader(self._path, owner=os.geteuid())
        except CacheError:
            return None

    def check(self) -> bool:
        """Return whether the file is there and whole; note what it says about groups."""
        reader = self.reader()
        if reader is None:
            return False
        try:
            reader.verify()
        except CacheError as error:
            log.warning("%s: %s: it is made anew", self._path, error)
            return False
        if reader.flags & GROUPS_COMPLETE:
            self.groups_in_use = bool(reader.flags & GROUPS_IN_USE)
        return True

    def run(self) -> Outcome:
        """Refresh, and tell what came of it; raises nothing for what others did wrong."""
        try:
            return self._run()
        except Disabled:
            return self._switched_off()
        except (Unavailable, CacheError) as error:
            return Outcome(failure=str(error))

    def rewrite(self, found: Iterable[User]) -> bool:
        """Add those of ``found`` that a good file lacks; return whether it changed."""
        reader = self.reader()
        if reader is None:
            return False
        try:
            missing = [user for user in found if reader.user_by_name(user.name) is None]
            if not missing:
                return False
            real = _real_groups(reader)
            users = [*(User(*user) for user in reader.users()), *missing]
            return self._publish(users, real, reader.flags)
        except CacheError as error:
            log.warning("the identity cache cannot be extended: %s", error)
            return False

    def _run(self) -> Outcome:
        users: list[User] = list(self._directory.all_users())
        listed = {user.name for user in users}
        users += self._beyond_pages(listed)
        flags = USERS_COMPLETE | (CLOUD_RUN if self._cloud_run else 0)
        groups: Sequence[Group] = ()
        failed = False
        if not self._cloud_run:
            try:
                groups = list(self._directory.all_groups())
                self.groups_in_use = bool(groups)
                flags |= GROUPS_COMPLETE | (GROUPS_IN_USE if groups else 0)
            except (Unavailable, Disabled) as error:
                log.warning("groups: %s; those of the file before stay", error)
                failed = True
                reader = self.reader()
                groups = _real_groups(reader) if reader is not None else ()
                flags |= GROUPS_IN_USE if groups else 0
        changed = self._publish(users, groups, flags)
        self._remove_former()
        self._sweep(lambda name: name not in listed and self._is_departed(name))
        return Outcome(len(users), len(groups), changed, groups_failed=failed)

    def _publish(self, users: Sequence[User], groups: Sequence[Group], flags: int) -> bool:
        data = identity_cache.build(
            users,
            groups,
            generation=identity_cache.next_generation(self._path),
            built_at=int(self._wall_clock()),
            flags=flags,
            note=log.warning,
        )
        changed = identity_cache.publish(self._path, data)
        if changed:
            log.info("the identity cache has %d users and %d groups", len(users), len(groups))
            self._tell_nscd()
        return changed

    def _beyond_pages(self, listed: set[str]) -> list[User]:
        """Return users of the file before that are on no page and that the server still knows."""
        reader = self.reader()
        if reader is None or self._cloud_run:
            return []
        kept: list[User] = []
        asked = 0
        for cached in reader.users():
            if cached.name in listed:
                continue
            asked += 1
            if asked > MOST_RECHECKED:
                break
            try:
                deadline = self._clock() + _ASK_TIME
                found = self._directory.find_user(name=cached.name, deadline=deadline)
            except Unavailable:
                kept.append(User(*cached))
                continue
            if isinstance(found, Profile):
                kept.append(found.user)
        return kept

    def _is_departed(self, name: str) -> bool:
        found = self._directory.find_user(name=name, deadline=self._clock() + _ASK_TIME)
        return isinstance(found, Nobody) and found.status == 404

    def _switched_off(self) -> Outcome:
        try:
            changed = identity_cache.delete(self._path)
        except CacheError as error:
            return Outcome(disabled=True, failure=str(error))
        if changed:
            log.info("OS Login is off: the identity cache is removed")
            self._tell_nscd()
        return Outcome(disabled=True, changed=changed)

    def _tell_nscd(self) -> None:
        if not os.path.exists(self._nscd_socket):
            return
        for database in ("passwd", "group"):
            try:
                self._runner(["nscd", "-i", database], timeout=10.0)
            except GuestError as error:
                log.info("%s", error)

    def _remove_former(self) -> None:
        for path in self._former:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.debug("%s stays: %s", path, error.strerror)
            else:
                log.info("removed %s, which nothing reads any more", path)


def _real_groups(reader: Reader) -> list[Group]:
    """Return the groups of a file without those that single users have for themselves.

    Raises ``CacheError``.
    """
    own = {(user.name, user.gid) for user in reader.users() if user.gid == user.uid}
    return [
        Group(*group)
        for group in reader.groups()
        if (group.name, group.gid) not in own or group.members != (group.name,)
    ]
