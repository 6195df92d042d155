"""Changes of OS Login: several configuration files as one, directories, and services.

``EditFiles`` is the transaction: every candidate was computed by the plan, sshd checks its own
before anything is written, and when a later step fails everything written goes back. Files that
somebody else changed since the plan are left alone; the next pass looks anew.

Source: sshd(8) for ``-t``; systemctl(1); restorecon(8).
"""

from __future__ import annotations

import logging
import stat
from typing import ClassVar, Optional

from google_guest.changes import Change
from google_guest.changes.files import line_difference
from google_guest.errors import GuestError
from google_guest.records import field, record
from google_guest.system import System
from google_guest.system.commands import CommandError, CommandMissing

log = logging.getLogger(__name__)

SUBJECT = "OS Login"
"""What fails together: after a failed edit no service is restarted."""
LIMIT = 4 << 20
"""Bytes of a configuration file that is edited."""

_SSHD = ("/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd", "/usr/bin/sshd")
_PARSED = ("no hostkeys available", "Missing privilege separation directory")
"""Complaints that sshd only gets to once it has understood its configuration."""
_TIMEOUT = 30.0


@record
class Edit:
    """One file: what the plan saw (None: no file) and what it shall be (None: no file)."""

    path: str
    previous: Optional[bytes] = field(repr=False)
    content: Optional[bytes] = field(repr=False)
    is_sshd_config: bool = False


@record
class EditFiles(Change):
    """Give all of ``edits`` their new content, or none.

    Owner, mode and extended attributes of each file stay, and links are followed. With
    ``tolerant`` an sshd_config that fails sshd's check is taken if the present one fails, too: who
    removes lines need not mend those of others.
    """

    needs_live_system: ClassVar[bool] = False

    edits: tuple[Edit, ...]
    purpose: str
    tolerant: bool = False
    about: str = SUBJECT

    @property
    def subject(self) -> str:
        """OS Login, or the single file that is cleaned."""
        return self.about

    def describe(self) -> str:
        """Return the purpose and the files."""
        return f"{self.purpose} in {', '.join(edit.path for edit in self.edits)}"

    def diff(self) -> tuple[str, ...]:
        """Return the difference of each file below its name."""
        lines: list[str] = []
        for edit in self.edits:
            if len(self.edits) > 1:
                lines.append(f" {edit.path}:")
            lines += line_difference(edit.previous or b"", edit.content or b"")
        return tuple(lines)

    def apply(self, system: System) -> None:
        """Check, write, check again, and put everything back if that fails.

        Raises:
            GuestError: a file was changed meanwhile, or sshd refuses its configuration.
            OSError: a file cannot be written.
        """
        due = [edit for edit in self.edits if _now(system, edit) != edit.content]
        for edit in due:
            if _now(system, edit) != edit.previous:
                raise GuestError(f"{edit.path} was changed by somebody else meanwhile")
        for edit in due:
            if edit.is_sshd_config and edit.content is not None:
                self._check_candidate(system, edit)
        done: list[Edit] = []
        try:
            for edit in due:
                done.append(edit)
                _put(system, edit.path, edit.content)
            self._verify(system, due)
        except (GuestError, OSError):
            _roll_back(system, done)
            raise

    def _check_candidate(self, system: System, edit: Edit) -> None:
        assert edit.content is not None
        parent, _, name = edit.path.rpartition("/")
        candidate = f"{parent}/.{name}.google-candidate"
        system.files.write_atomic(candidate, edit.content, mode=0o600)
        try:
            complaint = sshd_complaint(system, candidate)
        finally:
            system.files.remove(candidate)
        if not complaint:
            return
        if self.tolerant and sshd_complaint(system, edit.path):
            log.warning("sshd refuses %s, with OS Login's lines and without", edit.path)
            return
        raise GuestError(f"{edit.path} stays as it is, sshd refuses the new one: {complaint}")

    def _verify(self, system: System, edits: list[Edit]) -> None:
        for edit in edits:
            if _now(system, edit) != edit.content:
                raise GuestError(f"{edit.path} does not hold what was written to it")
            if edit.is_sshd_config and not self.tolerant:
                complaint = sshd_complaint(system, edit.path)
                if complaint:
                    raise GuestError(f"sshd refuses {edit.path}: {complaint}")


def _now(system: System, edit: Edit) -> Optional[bytes]:
    return system.files.read_bytes(edit.path, limit=LIMIT)


def _put(system: System, path: str, content: Optional[bytes]) -> None:
    if content is None:
        system.files.remove(path)
    else:
        system.files.rewrite(path, content)


def _roll_back(system: System, done: list[Edit]) -> None:
    for edit in reversed(done):
        try:
            _put(system, edit.path, edit.previous)
        except OSError as error:
            log.error("%s cannot be put back: %s", edit.path, error)


def sshd_complaint(system: System, path: str) -> str:
    """Return what sshd says against the configuration at ``path``; empty if nothing.

    A tree that does not run has no sshd to ask, and neither has a machine without one.
    """
    program = next((name for name in _SSHD if system.files.is_executable(name)), None)
    if not system.is_live or program is None:
        return ""
    try:
        system.run([program, "-t", "-f", path], timeout=_TIMEOUT)
    except CommandError as error:
        text = " ".join(error.stderr.split())
        return "" if any(sign in text for sign in _PARSED) else text or str(error)
    except CommandMissing:
        return ""
    return ""


@record
class EnsureDirectory(Change):
    """Have a directory of root's with exactly this mode, labelled as the policy wants it."""

    needs_live_system: ClassVar[bool] = False

    path: str
    mode: int = 0o750

    @property
    def subject(self) -> str:
        """The directory."""
        return f"directory {self.path}"

    def describe(self) -> str:
        """Return the path and the mode."""
        return f"have directory {self.path} with mode {self.mode:04o}"

    def apply(self, system: System) -> None:
        """Make it, or mend its mode and owner."""
        facts = system.files.lstat(self.path)
        if facts is not None and not stat.S_ISDIR(facts.st_mode):
            raise GuestError(f"{self.path} is no directory")
        system.files.make_directory(self.path, mode=self.mode)
        system.files.set_access(self.path, mode=self.mode)
        if system.is_live and system.files.exists("/sys/fs/selinux/enforce"):
            try:
                system.run(["restorecon", self.path], timeout=_TIMEOUT)
            except GuestError as error:
                log.warning("%s keeps its SELinux label: %s", self.path, error)


@record
class RemoveDirectory(Change):
    """Remove a directory of ours with the files in it, but for the package's README."""

    needs_live_system: ClassVar[bool] = False

    path: str

    @property
    def subject(self) -> str:
        """The directory."""
        return f"directory {self.path}"

    def describe(self) -> str:
        """Return the path."""
        return f"remove directory {self.path}"

    def apply(self, system: System) -> None:
        """Remove it."""
        system.files.remove_flat_directory(self.path, keep="README")


@record
class ControlUnits(Change):
    """Start, stop or restart units of systemd; ``optional``: a failure is logged and no more."""

    verb: tuple[str, ...]
    units: tuple[str, ...]
    optional: bool = False
    about: str = SUBJECT

    @property
    def subject(self) -> str:
        """OS Login, or what the feature says."""
        return self.about

    def describe(self) -> str:
        """Return verb and units."""
        return f"{self.verb[0]} {', '.join(self.units)}"

    def apply(self, system: System) -> None:
        """Run systemctl.

        Raises:
            GuestError: a unit that is not optional refused.
        """
        try:
            system.run(["systemctl", *self.verb, "--", *self.units], timeout=_TIMEOUT)
        except GuestError as error:
            if not self.optional:
                raise
            log.warning("%s: %s", self.describe(), error)
