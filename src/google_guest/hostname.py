"""What this machine is called: which names are acceptable, which one it gets, lines of hosts(5).

Pure rules: text in, text out. They read and write nothing; ``changes.hostname`` does.

A name comes from metadata or from a DHCP answer, and a DHCP answer may be forged. What is not a
name of RFC 1123 is refused, and so is a name that would put another machine, or this one, in the
place of the metadata server or of ``localhost``: root's keys and scripts come from the one, and
programs trust the other.

Source: guest-configs ``src/usr/bin/google_set_hostname`` (marker, the form of the lines, the
metadata server's line), its pull requests 22 (forged names), 26 (why the name is not mapped to a
loopback address), 44 and 69 (why a name that is in use is not turned into its other form);
google-guest-agent ``cmd/core_plugin/network/hostname`` for several addresses and aliases;
RFC 1123 section 2.1 and RFC 1035 section 2.3.4 for lengths; hosts(5), hostname(5), hostname(7).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Optional

from google_guest.errors import GuestError

MARK = "Added by Google"
"""The comment of the lines in /etc/hosts that are ours."""
METADATA_NAME = "metadata.google.internal"
METADATA_ADDRESS = "169.254.169.254"
LONGEST_HOSTNAME = 63
"""Bytes of a host name that everybody can deal with; Linux itself takes 64."""

_LONGEST_NAME = 253
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_TAKEN = frozenset(("localhost", "metadata"))
"""As the first label they would be an alias, as the last one a domain, of somebody else."""
_UNSET = frozenset(("", "(none)", "localhost", "localhost.localdomain"))


class RefusedName(GuestError):
    """The text is no name or no address that this machine can have."""


class ForbiddenName(RefusedName):
    """The text is a name that belongs to somebody else."""


def parse_name(text: str) -> str:
    """Return the name that ``text`` is, without a final dot.

    Raises:
        ForbiddenName: it belongs to the metadata server or to the loopback address.
        RefusedName: it is no name of RFC 1123, or ends in a number as addresses do.
    """
    name = text[:-1] if text.endswith(".") else text
    if METADATA_NAME in name.lower():
        raise ForbiddenName(f"the name {_shown(text)} belongs to the metadata server")
    labels = name.split(".")
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise RefusedName(
            f"{_shown(text)} is no host name: RFC 1123 wants labels of letters,"
            " digits and hyphens, 63 bytes each and 253 altogether"
        )
    if labels[-1].isdigit():
        raise RefusedName(f"{_shown(text)} is no host name: it ends in a number")
    taken = _TAKEN.intersection((labels[0].lower(), labels[-1].lower()))
    if taken:
        raise ForbiddenName(f"the name {_shown(text)} would take the place of {min(taken)}")
    return name


def parse_address(text: str) -> str:
    """Return the normal form of the address that names of this machine may lead to.

    Raises:
        RefusedName: it is no address, or not one of a network interface of an instance.
    """
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        raise RefusedName(f"{_shown(text)} is no IP address") from None
    if address.version == 4 and str(address) != text.strip():
        # Old releases of Python 3.9 take leading zeros, which others take for octal numbers.
        raise RefusedName(f"{_shown(text)} is no IP address")
    if (
        address.is_loopback
        or address.is_unspecified
        or address.is_multicast
        or address.is_link_local
        or "%" in text
    ):
        raise RefusedName(f"{_shown(text)} is no address that a name can lead to")
    return str(address)


def short_name(name: str) -> str:
    """Return what stands before the first dot."""
    return name.partition(".")[0]


def forms_of(fqdn: str) -> frozenset[str]:
    """Return the host names by which a machine called ``fqdn`` goes, in lower case."""
    return frozenset((fqdn.lower(), short_name(fqdn).lower()))


def chosen_hostname(fqdn: str, *, fqdn_as_hostname: bool) -> str:
    """Return the host name of a machine called ``fqdn``: its first label, or all of it if it fits.

    A host name of more than 63 bytes breaks programs, so that such an FQDN is cut after all.
    """
    fits = len(fqdn.encode()) <= LONGEST_HOSTNAME
    return fqdn if fqdn_as_hostname and fits else short_name(fqdn)[:LONGEST_HOSTNAME]


def hostname_after_lease(
    fqdn: str, *, static: str, current: str, known_as: str = "", fqdn_as_hostname: bool = False
) -> str:
    """Return the host name that a machine called ``fqdn`` keeps or gets after a lease.

    ``static`` is the name in /etc/hostname and ``current`` the kernel's, empty where there is none;
    ``known_as`` is the ``fqdn`` of the last lease that was acted upon, empty if there was none.

    Whichever form of ``fqdn`` is in use stays: clusters know their nodes by it. The static name is
    what the administrator wanted; the kernel's alone counts where a static name of another machine
    is in force, but not where there is none, since DHCP clients set a full name then. A static
    name that is no form of ``fqdn`` is the one of the machine whose disk was copied, and is
    replaced, unless the machine has been called ``fqdn`` before: then somebody has chosen it since.
    """
    chosen = chosen_hostname(fqdn, fqdn_as_hostname=fqdn_as_hostname)
    forms = forms_of(fqdn)
    if static.lower() in forms:
        return static
    if static.lower() in _UNSET:
        return chosen
    if current.lower() in forms or (current and known_as.lower() == fqdn.lower()):
        return current
    return chosen


def static_name(text: Optional[str]) -> str:
    """Return the name in the text of /etc/hostname; empty if there is none."""
    for line in (text or "").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return line.strip()
    return ""


def usable_alias(name: str) -> Optional[str]:
    """Return ``name`` if it may stand in a line of /etc/hosts, or None."""
    try:
        return parse_name(name)
    except RefusedName:
        return None


def host_line(address: str, names: Iterable[str]) -> str:
    """Return the line of /etc/hosts by which ``names`` lead to ``address``, repeated names once."""
    return f"{address} {' '.join(dict.fromkeys(names))}  # {MARK}"


METADATA_LINE = host_line(METADATA_ADDRESS, (METADATA_NAME,))
"""The line by which the metadata server's name is known without DNS."""


def edit_hosts(content: bytes, lines: Optional[Sequence[str]]) -> bytes:
    """Return the content of /etc/hosts in which exactly ``lines`` are ours, and one more.

    That one names the metadata server, unless a line of somebody else does. Lines of somebody else
    keep every byte and their order; where ours are right already, everything stays where it is.
    Without ``lines`` (None) those that are there stay.
    """
    rows = _rows(content)
    ours = [row.rstrip(b"\r\n") for row in rows if is_ours(row)]
    foreign = [row for row in rows if not is_ours(row)]
    if lines is None:
        wanted = [row for row in ours if not _names_metadata_server(row)]
    else:
        wanted = [line.encode() for line in lines]
    if not any(_names_metadata_server(row) for row in foreign):
        wanted.append(METADATA_LINE.encode())
    if ours == wanted:
        return content
    kept = b"".join(foreign)
    if kept and not kept.endswith(b"\n"):
        kept += b"\n"
    return kept + b"".join(line + b"\n" for line in wanted)


def is_ours(row: bytes) -> bool:
    """Return whether a line of /etc/hosts is an entry with our mark.

    A line that is a comment and nothing else is a note of somebody else, whatever it says.
    """
    entry, _, comment = row.partition(b"#")
    return bool(entry.strip()) and MARK.encode() in comment


def _names_metadata_server(row: bytes) -> bool:
    words = row.partition(b"#")[0].split()
    if not words:
        return False
    names = [word.lower() for word in words[1:]]
    return words[0] == METADATA_ADDRESS.encode() or METADATA_NAME.encode() in names


def _rows(content: bytes) -> list[bytes]:
    """Return the lines with their ends; the last one may have none."""
    rows = [row + b"\n" for row in content.split(b"\n")]
    last = rows.pop()[:-1]
    return [*rows, last] if last else rows


def _shown(text: str) -> str:
    """Return a name from elsewhere in a form that may be logged."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")
