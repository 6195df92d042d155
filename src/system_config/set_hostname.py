"""google_set_hostname: gives the machine the name that a DHCP lease or the metadata server says.

    new_host_name=NAME new_ip_address=ADDRESS google_set_hostname
    google_set_hostname --from-metadata [--interface NAME]

The first form is what hooks of dhclient run, with the environment that dhclient gives them; the
second is for hooks of NetworkManager, networkd-dispatcher and wicked, and reads ``instance/`` of
the metadata server: the name, and the address of the first network interface. What happens on any
other interface changes nothing. The host name becomes the first label of the name, unless either
form of it is in use already, and /etc/hosts gets two marked lines (``google_guest.hostname``). A
lease that brings nothing new writes nothing and restarts nothing.

While ``[Unstable] set_hostname`` or ``set_fqdn`` is on, the agent owns the name and the program
does nothing.

Exit statuses: 0 when the name is in force, belongs to somebody else or there is nothing to do; 1
for what is no name or no address, when the metadata server does not say, and when a change failed;
2 for wrong arguments. Hooks do not look at it.

Source: guest-configs ``src/usr/bin/google_set_hostname`` and the hooks beside it (environment,
what is read); dhclient-script(8) for ``new_host_name``, ``new_ip_address``, ``interface``.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Optional

from google_guest.changes import Change, apply_all
from google_guest.changes.hostname import (
    current_hostname,
    hostname_changes,
    hosts_changes,
    static_hostname,
)
from google_guest.config import load_config
from google_guest.errors import GuestError
from google_guest.features.linux.hostname import owner
from google_guest.hostname import (
    ForbiddenName,
    RefusedName,
    forms_of,
    host_line,
    hostname_after_lease,
    parse_address,
    parse_name,
    short_name,
)
from google_guest.logs import configure_logging
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.endpoint import HOST_VARIABLE
from google_guest.metadata.errors import BadAnswer, MetadataError, Unreachable
from google_guest.metadata.tree import Instance, NetworkInterface, parse_metadata
from google_guest.records import record
from google_guest.state import STATE_DIRECTORY, encode_state, read_state
from google_guest.system import System
from google_guest.system.netlink import link_with_mac, parse_mac

NAME = "google_set_hostname"
MEMORY = f"/run/{NAME}.json"
"""What was complained about in this boot: renewals repeat it for as long as the machine runs."""
STATE = f"{STATE_DIRECTORY}/hostname.json"
"""The name that was acted upon last: a static name that differs since then was chosen."""
TRIES = 3
TIMEOUT = 2.0
"""Seconds for one try to read metadata."""
PAUSE = 1.0
BAD_USAGE = 2

_USAGE = f"usage: {NAME} [--from-metadata [--interface NAME]]\n"

log = logging.getLogger(NAME)

Read = Callable[[], Instance]
"""Reads ``instance/`` of the metadata server; raises ``MetadataError``."""


@record
class Arguments:
    """What the command line says."""

    from_metadata: bool = False
    interface: str = ""
    """The interface on which something happened; empty: unknown."""


@record
class Lease:
    """The name and the address that the machine has from now on, as they were sent."""

    name: str
    address: str


class NothingToDo(Exception):
    """Nothing is wrong, and nothing changes; the text says why."""


def main(
    arguments: Optional[Sequence[str]] = None,
    *,
    system: Optional[System] = None,
    environ: Optional[Mapping[str, str]] = None,
    read: Optional[Read] = None,
) -> int:
    """Run the program; return its exit status.

    ``read`` stands in for the metadata server.
    """
    given = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    if given is None:
        sys.stderr.write(_USAGE)
        return BAD_USAGE
    environment = os.environ if environ is None else environ
    machine = system or System()
    sink = configure_logging(NAME, environ=environment)
    try:
        return _run(machine, given, environment, read or (lambda: _ask(environment)))
    except NothingToDo as reason:
        log.info("nothing to do: %s", reason)
        return 0
    except ForbiddenName as error:
        complain(machine, f"ignored: {error}")
        return 0
    except (GuestError, OSError) as error:
        complain(machine, str(error))
        return 1
    finally:
        sink.flush(everything=True)


def parse_arguments(words: Sequence[str]) -> Optional[Arguments]:
    """Return what ``words`` say, or None if they are wrong."""
    if not words:
        return Arguments()
    if list(words) == ["--from-metadata"]:
        return Arguments(from_metadata=True)
    if len(words) == 3 and list(words[:2]) == ["--from-metadata", "--interface"] and words[2]:
        return Arguments(from_metadata=True, interface=words[2])
    return None


def _run(system: System, given: Arguments, environ: Mapping[str, str], read: Read) -> int:
    config = load_config(system.files, environ=environ)
    owned = owner(config)
    if owned is not None:
        raise NothingToDo(f"the agent owns the host name ({owned.reason} in {owned.layer})")

    def ask() -> Instance:
        if not environ.get(HOST_VARIABLE) and not system.is_compute_engine():
            raise NothingToDo("this machine is no Compute Engine instance")
        return read()

    if given.from_metadata:
        lease = lease_from_metadata(system, given.interface, ask)
    else:
        lease = lease_from_dhcp(system, environ, ask)
    return take(system, lease, fqdn_as_hostname=config.unstable.fqdn_as_hostname)


def lease_from_metadata(system: System, interface: str, read: Read) -> Lease:
    """Return what the metadata server says.

    Raises:
        NothingToDo: ``interface`` is given and is not the first one.
        MetadataError: the server says nothing, or no name.
    """
    if interface:
        _require_device(system, interface)
    instance = read()
    nic = _first_nic(instance)
    if interface:
        _require_first(system, interface, nic)
    if not instance.hostname:
        raise MetadataError("metadata has no name for this instance: its name stays")
    address = None if nic is None else nic.ip or next(iter(nic.ipv6s), None)
    return Lease(instance.hostname, address or "")


def lease_from_dhcp(system: System, environ: Mapping[str, str], read: Read) -> Lease:
    """Return what dhclient says, or on another interface than the first: nothing.

    Only a machine with several interfaces needs metadata to know which one is the first.
    """
    lease = Lease(environ.get("new_host_name", ""), environ.get("new_ip_address", ""))
    if not lease.name:
        raise NothingToDo("the lease has no host name")
    interface = environ.get("interface", "")
    if interface and _has_several_interfaces(system):
        _require_first(system, interface, _first_nic(read()))
    return lease


def _require_device(system: System, interface: str) -> None:
    """Spare the metadata server the events of devices without hardware address, such as lo."""
    link = next((link for link in system.network.links() if link.name == interface), None)
    if link is None or link.is_loopback or not link.mac:
        raise NothingToDo(f"{interface!a} is no network interface of the instance")


def _require_first(system: System, interface: str, nic: Optional[NetworkInterface]) -> None:
    mac = None if nic is None else parse_mac(nic.mac)
    first = None if mac is None else link_with_mac(system.network.links(), mac)
    if first is None or first.name != interface:
        raise NothingToDo(f"{interface!a} is not the first network interface")


def _has_several_interfaces(system: System) -> bool:
    try:
        links = system.network.links()
    except (GuestError, OSError) as error:
        log.debug("network devices cannot be listed: %s", error)
        return False
    return sum(bool(link.mac) and not link.is_loopback for link in links) > 1


def _first_nic(instance: Instance) -> Optional[NetworkInterface]:
    return next((nic for nic in instance.network_interfaces if nic.index == 0), None)


def read_instance(client: MetadataClient) -> Instance:
    """Ask the metadata server three times at most.

    Raises:
        MetadataError: it gave no good answer.
    """
    for left in reversed(range(TRIES)):
        try:
            document = client.get_json("instance/", timeout=TIMEOUT, budget=0.0)
            break
        except (Unreachable, BadAnswer) as error:
            log.debug("%s", error)
            if not left:
                raise
        client.sleep(PAUSE)
    return parse_metadata({"instance": document}).instance


def _ask(environ: Mapping[str, str]) -> Instance:
    with MetadataClient(environ=environ) as client:
        return read_instance(client)


def take(system: System, lease: Lease, *, fqdn_as_hostname: bool) -> int:
    """Give the machine the name and the address of ``lease``; return the exit status.

    Raises:
        RefusedName: they are none that it can have; then the metadata server's line alone is seen
            to, which no name may displace.
    """
    try:
        name = parse_name(lease.name)
        address = parse_address(lease.address) if lease.address else ""
    except RefusedName:
        _apply(system, lambda: hosts_changes(system, None))
        raise
    lines = [host_line(address, (name, short_name(name)))]
    known_as = str((read_state(system, STATE) or {}).get("name", ""))
    before = static_hostname(system)

    def changes() -> tuple[Change, ...]:
        hostname = hostname_after_lease(
            name,
            static=static_hostname(system),
            current=current_hostname(system),
            known_as=known_as,
            fqdn_as_hostname=fqdn_as_hostname,
        )
        hosts = hosts_changes(system, lines) if address else ()
        return (*hosts, *hostname_changes(system, hostname))

    if not _apply(system, changes):
        return 1
    # Only what the next boot will know, too, was set by this program or agrees with it. Another
    # name that came meanwhile was chosen, and stays as if it had been chosen later.
    static = static_hostname(system)
    if known_as != name and (static.lower() in forms_of(name) or static not in (before, "")):
        _note(system, STATE, {"name": name})
    return 0


def _apply(system: System, changes: Callable[[], tuple[Change, ...]]) -> bool:
    """Make ``changes``; plan them anew when another hook was faster. Return whether all is well."""
    for _ in range(TRIES):
        outcome = apply_all(changes(), system)
        for change in outcome.applied:
            log.info("%s", change.describe())
        if outcome.ok:
            return True
    texts = [f"cannot {change.describe()}: {error}" for change, error in outcome.failed]
    complain(system, "; ".join(texts))
    return False


def complain(system: System, text: str) -> None:
    """Warn, once in a boot for the same text."""
    memory = read_state(system, MEMORY) or {}
    if memory.get("complaint") == text:
        log.debug("%s", text)
        return
    log.warning("%s", text)
    _note(system, MEMORY, {"complaint": text})


def _note(system: System, path: str, document: Mapping[str, str]) -> None:
    """Write down what spares a repetition; where it cannot be written, things are repeated."""
    try:
        system.files.write_atomic(path, encode_state(document), mode=0o600)
    except OSError as error:
        log.debug("%s cannot be written: %s", path, error)
