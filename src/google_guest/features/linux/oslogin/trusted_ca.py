"""``/etc/ssh/oslogin_trustedca.pub``: the certificate authorities that sshd trusts.

A regular file, 0644, asked for at enabling, when a switch changes, and every ten minutes. When the
metadata server has no answer the last good file stays for a day and is emptied then. The FIFO that
Google's agents put there is replaced without ever being opened.

Source: guest-agent ``sshca/sshca.go`` for the path and the answer's form; sshd_config(5),
``TrustedUserCAKeys``.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from typing import ClassVar, Optional

from google_guest.changes import Change
from google_guest.changes.files import RemoveFile
from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.ssh_keys import KeyLine, parse_key_line
from google_guest.state import RUN_DIRECTORY, encode_state, read_state
from google_guest.system import System

log = logging.getLogger(__name__)

PATH = "/etc/ssh/oslogin_trustedca.pub"
MEMORY = f"{RUN_DIRECTORY}/oslogin-trusted-ca.json"
INTERVAL = 600.0
"""Seconds between two requests, give or take a tenth."""
KEPT_FOR = 24 * 3600.0
"""Seconds that a file outlives the last answer."""

_MOST_AUTHORITIES = 64


@record
class RefreshTrustedCa(Change):
    """Ask for the authorities and write them; ``next_at`` is when they are asked for again."""

    needs_live_system: ClassVar[bool] = False

    switches: str
    next_at: float
    now: float

    @property
    def subject(self) -> str:
        """The file: without certificates keys still work."""
        return f"file {PATH}"

    def describe(self) -> str:
        """Return what is written."""
        return f"refresh {PATH}"

    def apply(self, system: System) -> None:
        """Fetch and write; a file with the same content is not written.

        Raises:
            GuestError: there is no usable answer; the last one is in force for up to a day.
        """
        try:
            if system.channel is None:
                raise GuestError("no metadata server is connected")
            keys = authorities(system.channel.oslogin_certificates())
        except GuestError:
            self._without_answer(system)
            raise
        content = "".join(f"{key}\n" for key in keys).encode()
        if not _is_regular(system) or system.files.read_bytes(PATH) != content:
            system.files.write_atomic(PATH, content)
        document = {"fetched": self.now, "next": self.next_at, "switches": self.switches}
        system.files.write_atomic(MEMORY, encode_state(document), mode=0o600)

    def _without_answer(self, system: System) -> None:
        if not _is_regular(system):
            system.files.write_atomic(PATH, b"")
            return
        facts = system.files.stat(PATH)
        if facts is None or facts.st_size == 0:
            return
        last = _moment(read_state(system, MEMORY), "fetched") or facts.st_mtime
        if self.now - last > KEPT_FOR:
            log.warning("%s is emptied: its authorities were last confirmed a day ago", PATH)
            system.files.write_atomic(PATH, b"")


def authorities(document: object) -> Sequence[str]:
    """Return the authorities' public keys, a line each, out of the metadata server's answer.

    Raises:
        GuestError: the answer has another form, or no key in it can be used.
    """
    listed = document.get("trustedCertificateAuthorities") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise GuestError("oslogin/certificates: the answer lists no certificate authorities")
    keys: dict[str, None] = {}
    for item in listed[:_MOST_AUTHORITIES]:
        text = item.get("publicKey") if isinstance(item, dict) else None
        line = parse_key_line(f"ca:{text.strip()}") if isinstance(text, str) else None
        if isinstance(line, KeyLine) and not line.options and "-cert-" not in line.key_type:
            keys[line.text] = None
        else:
            log.warning("oslogin/certificates: an authority without a usable key is left out")
    if listed and not keys:
        raise GuestError("oslogin/certificates: no authority in the answer has a usable key")
    return tuple(keys)


def plan_file(
    system: System, switches: str, now: float
) -> tuple[tuple[Change, ...], Optional[float]]:
    """Return the change that is due, and when the next will be (Unix seconds)."""
    memory = read_state(system, MEMORY)
    next_at = _moment(memory, "next")
    is_due = (
        next_at is None
        or not now < next_at <= now + 2 * INTERVAL
        or (memory or {}).get("switches") != switches
        or not _is_regular(system)
    )
    if not is_due:
        return (), next_at
    delay = INTERVAL * (0.9 + os.urandom(1)[0] / 1275.0)
    return (RefreshTrustedCa(switches, now + delay, now),), now + delay


def plan_removal(system: System) -> tuple[Change, ...]:
    """Return what removes the file, whatever it is, and what is remembered about it."""
    return tuple(RemoveFile(path) for path in (PATH, MEMORY) if system.files.exists(path))


def _is_regular(system: System) -> bool:
    facts = system.files.lstat(PATH)
    return facts is not None and stat.S_ISREG(facts.st_mode)


def _moment(memory: Optional[dict[str, object]], key: str) -> Optional[float]:
    value = (memory or {}).get(key)
    return value if isinstance(value, (int, float)) and 0 < value < 1e11 else None
