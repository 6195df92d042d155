"""Changes of what this machine is called: its host name, and its lines in /etc/hosts.

``SetHostname`` sets the kernel's name, then tells those who keep one of their own: NetworkManager,
systemd-hostnamed (and with it /etc/hostname) and the syslog daemon, which writes the name into
every line. ``EditHosts`` replaces /etc/hosts; where it is a mount of its own, as in containers, it
is rewritten in place, since no rename can replace it.

Source: guest-configs ``src/usr/bin/google_set_hostname``, its issue 36 (a restart of rsyslog for
every lease); google-guest-agent ``cmd/core_plugin/network/hostname/hostname_linux.go`` for what
fails and what is only logged; hostnamectl(1), nmcli(1), sethostname(2), rename(2).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from typing import ClassVar, Optional

from google_guest.changes import Change
from google_guest.changes.files import line_difference
from google_guest.errors import GuestError
from google_guest.hostname import edit_hosts, static_name
from google_guest.programs import find_program
from google_guest.records import field, record
from google_guest.system import System
from google_guest.system.commands import CommandError

log = logging.getLogger(__name__)

HOSTS = "/etc/hosts"
STATIC_HOSTNAME = "/etc/hostname"
KERNEL_HOSTNAME = "/proc/sys/kernel/hostname"

_HOSTS_LIMIT = 16 << 20
_TIMEOUT = 10.0
"""Seconds for each program; a DHCP client may be waiting."""
_NO_PROCESS = 1
"""Status of pkill(1) when nothing had that name."""


@record
class SetHostname(Change):
    """Give the machine this host name; ``previous`` is the one that the plan saw."""

    name: str
    previous: str = ""

    @property
    def subject(self) -> str:
        """The host name."""
        return "host name"

    def describe(self) -> str:
        """Return the new name."""
        return f"set the host name to {self.name}"

    def diff(self) -> tuple[str, ...]:
        """Return the old and the new name."""
        old = (f"-{self.previous}",) if self.previous else ()
        return (*old, f"+{self.name}")

    def apply(self, system: System) -> None:
        """Set the kernel's name and tell the others; a name that is in force is left.

        Raises:
            OSError: the kernel refused.
            GuestError: the syslog daemon cannot be told, on a machine without systemd.
        """
        if current_hostname(system) == self.name:
            return
        system.set_hostname(self.name)
        if find_program(system.files, "nmcli"):
            try:
                system.run(("nmcli", "general", "hostname", self.name), timeout=_TIMEOUT)
            except GuestError as error:
                log.info("NetworkManager does not take the host name: %s", error)
        if find_program(system.files, "hostnamectl"):
            _keep(system, self.name)
        _wake_syslog(system)


@record
class EditHosts(Change):
    """Give /etc/hosts new content; ``previous`` is what the plan saw (None: no file)."""

    needs_live_system: ClassVar[bool] = False

    previous: Optional[bytes] = field(repr=False)
    content: bytes = field(repr=False)

    @property
    def subject(self) -> str:
        """The file."""
        return f"file {HOSTS}"

    def describe(self) -> str:
        """Return the path."""
        return f"{'create' if self.previous is None else 'change'} {HOSTS}"

    def diff(self) -> tuple[str, ...]:
        """Return the changed lines with two lines of context."""
        return line_difference(self.previous or b"", self.content)

    def apply(self, system: System) -> None:
        """Replace the file; owner, mode, label and a link at its place stay.

        Raises:
            GuestError: somebody else has changed it since the plan.
            OSError: it cannot be written.
        """
        now = read_hosts(system)
        if now == self.content:
            return
        if now != self.previous:
            raise GuestError(f"{HOSTS} was changed by somebody else meanwhile")
        try:
            system.files.rewrite(HOSTS, self.content)
        except OSError as error:
            # A mount of its own, perhaps in a folder that is read-only.
            if error.errno not in (errno.EBUSY, errno.EROFS) or now is None:
                raise
            system.files.overwrite(HOSTS, self.content)


def read_hosts(system: System) -> Optional[bytes]:
    """Return the content of /etc/hosts, or None if there is no such file; raise ``OSError``."""
    return system.files.read_bytes(HOSTS, limit=_HOSTS_LIMIT)


def hosts_changes(system: System, lines: Optional[Sequence[str]]) -> tuple[EditHosts, ...]:
    """Return the change after which ``lines`` are ours in /etc/hosts, or none if they are.

    See ``hostname.edit_hosts``. Raises ``OSError`` if the file cannot be read.
    """
    now = read_hosts(system)
    content = edit_hosts(now or b"", lines)
    return () if content == now else (EditHosts(now, content),)


def hostname_changes(system: System, name: str) -> tuple[SetHostname, ...]:
    """Return the change after which the host name is ``name``, or none if it is."""
    now = current_hostname(system)
    return () if now == name else (SetHostname(name, now),)


def current_hostname(system: System) -> str:
    """Return the kernel's host name; empty where it cannot be read."""
    return _read(system, KERNEL_HOSTNAME).strip()


def static_hostname(system: System) -> str:
    """Return the name in /etc/hostname, which boots set; empty if there is none."""
    return static_name(_read(system, STATIC_HOSTNAME))


def _read(system: System, path: str) -> str:
    try:
        return system.files.read_text(path, limit=64 << 10) or ""
    except OSError as error:
        log.debug("%s cannot be read: %s", path, error)
        return ""


def _keep(system: System, name: str) -> None:
    """Have the next boot start with ``name``.

    That is systemd-hostnamed's business, but a lease may come before D-Bus does, early in the boot.
    """
    # The command had its second name before systemd 249.
    for command in ("hostname", "set-hostname"):
        try:
            system.run(("hostnamectl", command, name), timeout=_TIMEOUT)
            return
        except GuestError as error:
            log.debug("%s", error)
            if not isinstance(error, CommandError) or error.status is None:
                # Whoever did not answer in time will not answer the other question either.
                break
    try:
        system.files.rewrite(STATIC_HOSTNAME, f"{name}\n".encode())
    except OSError as error:
        log.info("the next boot starts with another host name: %s", error)


def _wake_syslog(system: System) -> None:
    """Have the syslog daemon notice the new name, without waiting for it."""
    if find_program(system.files, "systemctl"):
        # Only units that are loaded match a pattern, and only those that run are restarted.
        argv = ("systemctl", "--no-block", "try-restart", "rsyslog*.service")
        try:
            system.run(argv, timeout=_TIMEOUT)
        except GuestError as error:
            log.info("rsyslog is not restarted and keeps the old host name: %s", error)
    elif find_program(system.files, "pkill"):
        try:
            system.run(("pkill", "-HUP", "syslogd"), timeout=_TIMEOUT)
        except CommandError as error:
            if error.status != _NO_PROCESS:
                raise
