"""Changes of an instance's first boot: new ssh host keys, and the record that it happened."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from typing import ClassVar, Optional

from google_guest.changes import Change, apply_one
from google_guest.changes.platform import RunCommand
from google_guest.errors import GuestError
from google_guest.records import field, record
from google_guest.system import System
from google_guest.system.commands import CommandError

log = logging.getLogger(__name__)

FIRST_BOOT = "first boot"
"""Subject of everything that must succeed before the instance counts as set up."""
KEYGEN_TIMEOUT = 60.0

_REFUSAL = re.compile(r"unknown key type|unsupported|not supported|not allowed|FIPS", re.IGNORECASE)


class KeyTypeRefused(GuestError):
    """This ssh-keygen makes no keys of the type: FIPS mode, or a type that was removed."""


@record
class GenerateHostKey(Change):
    """Replace one ssh host key by a new one.

    ``previous`` is the public half that the plan saw (None: there was no key): another one on disk
    was made since, and is kept. The old key is only given up once it is certain that
    ``recorded_in``, where the first boot will be recorded, can be written: otherwise every start
    would change the machine's identity.

    Of several types one that works is enough (``apply_batch``); the others are logged.
    """

    batched: ClassVar[bool] = True

    key_type: str
    directory: str
    recorded_in: str
    previous: Optional[str] = field(default=None, repr=False)

    @property
    def subject(self) -> str:
        """The first boot: without any key it is not done."""
        return FIRST_BOOT

    @property
    def path(self) -> str:
        """The private key."""
        return f"{self.directory}/ssh_host_{self.key_type}_key"

    def describe(self) -> str:
        """Return the type of the key."""
        verb = "generate" if self.previous is None else "replace"
        return f"{verb} ssh host key {self.path}"

    def apply(self, system: System) -> None:
        """Generate the key beside the old one and move it into place.

        Raises:
            KeyTypeRefused: ssh-keygen does not make such keys.
            GuestError, OSError: it failed for another reason; the old key is in force.
        """
        current = system.files.read_text(f"{self.path}.pub")
        if current is not None and current != self.previous:
            return
        for directory in (os.path.dirname(self.recorded_in), self.directory):
            require_writable(system, directory)
        temporary = f"{self.path}.temp"
        # ssh-keygen asks before it replaces a file, and nobody would answer.
        _remove_pair(system, temporary)
        try:
            self._generate(system, temporary)
            private = _content(system, temporary)
            public = _content(system, f"{temporary}.pub")
            system.files.write_atomic(self.path, private, mode=0o600)
            system.files.write_atomic(f"{self.path}.pub", public, mode=0o644)
        finally:
            _remove_pair(system, temporary)

    def _generate(self, system: System, temporary: str) -> None:
        target = system.files.host_path(temporary)
        argv = ("ssh-keygen", "-t", self.key_type, "-f", target, "-N", "", "-q")
        try:
            system.run(argv, timeout=KEYGEN_TIMEOUT)
        except CommandError as error:
            if _REFUSAL.search(error.stderr):
                raise KeyTypeRefused(f"ssh-keygen refuses type {self.key_type}") from error
            raise

    @classmethod
    def apply_batch(
        cls, changes: Sequence[Change], system: System
    ) -> Sequence[Optional[Exception]]:
        """Generate every type; a failure counts only if no type succeeded."""
        results = [apply_one(change, system) for change in changes]
        if all(results):
            return results
        for change, error in zip(changes, results):
            if error is not None:
                level = logging.INFO if isinstance(error, KeyTypeRefused) else logging.WARNING
                log.log(level, "cannot %s: %s", change.describe(), error)
        return [None] * len(results)


@record
class FollowUp(RunCommand):
    """Run a program because host keys are new: not without them, and not worth doing them again."""

    @property
    def subject(self) -> str:
        """The first boot."""
        return FIRST_BOOT

    def apply(self, system: System) -> None:
        """Run the program; a failure is a warning."""
        try:
            super().apply(system)
        except GuestError as error:
            log.warning("cannot %s: %s", self.purpose, error)


@record
class RecordInstance(Change):
    """Write down on which instance the first boot was done; planned after everything else."""

    path: str
    instance_id: int

    @property
    def subject(self) -> str:
        """The first boot."""
        return FIRST_BOOT

    def describe(self) -> str:
        """Return the instance and where it is recorded."""
        return f"record instance {self.instance_id} in {self.path}"

    def apply(self, system: System) -> None:
        """Write the marker."""
        system.files.write_atomic(self.path, f"{self.instance_id}\n".encode(), mode=0o644)


def require_writable(system: System, directory: str) -> None:
    """Make sure that files can be made in ``directory``.

    Raises:
        OSError: they cannot; nothing was changed.
    """
    probe = f"{directory}/.google-guest-probe"
    try:
        system.files.write_atomic(probe, b"\n", mode=0o600)
    finally:
        if system.files.exists(probe):
            system.files.remove(probe)


def _remove_pair(system: System, path: str) -> None:
    for name in (path, f"{path}.pub"):
        if system.files.exists(name):
            system.files.remove(name)


def _content(system: System, path: str) -> bytes:
    data = system.files.read_bytes(path)
    if not data:
        raise GuestError(f"ssh-keygen made no {path}")
    return data
