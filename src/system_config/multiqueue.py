"""google_set_multiqueue: gives each queue of the network interfaces its processor.

    google_set_multiqueue [--dry-run] [--root DIRECTORY]

On every machine: IDPF interfaces get all channels that they can have, the interrupts of a virtio
interface's queue N go to processor N (a legacy interrupt to processor 0), those of a gVNIC where
its driver hints. On machines with accelerators (``platform_facts``) queues and interrupts of all
interfaces are laid out by NUMA node instead. Machines of the X series have settings of their own.

Reads and writes ``/proc/irq/N/smp_affinity*``, ``/sys/class/net/X/queues`` and, of IDPF interfaces,
channels, rings and moderation; only what differs. The metadata server has a second for each answer,
and its network 15 to come up where accelerators are likely; where the firmware is not Compute
Engine's it is not asked.

Environment: ``GOOGLE_SET_MULTIQUEUE_FAKEROOT`` stands for ``--root``;
``GOOGLE_SET_MULTIQUEUE_METADATASERVER`` (HOST[:PORT]) names another metadata server.

Exit statuses: 0 with one line that says what happened, also when something failed, which is logged;
2 for wrong arguments. Nothing here may hold up the agent.

Source: guest-configs ``src/usr/bin/google_set_multiqueue`` (steps, order, numbers);
cloud-image-tests ``test_suites/networkconfig`` (values of accelerator machines).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Optional

from google_guest.logs import configure_logging
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.endpoint import HOST_VARIABLE
from google_guest.metadata.errors import MetadataError
from google_guest.system.files import Files
from google_guest.system.firmware import is_compute_engine
from system_config import xps
from system_config.command_line import BAD_USAGE, parse_arguments, usage
from system_config.ethtool import Driver, Exchange, exchange
from system_config.interfaces import Interface, interfaces, queues
from system_config.interrupts import device_interrupts, interrupts
from system_config.platform_facts import (
    PATIENCE,
    X_SERIES,
    Platform,
    may_have_accelerators,
    read_platform,
)
from system_config.processors import Node, numa_nodes, online_processors, parse_mask
from system_config.settings import Print, Settings
from system_config.sysfs import Tree, parse_number

NAME = "google_set_multiqueue"
ROOT_VARIABLE = "GOOGLE_SET_MULTIQUEUE_FAKEROOT"
SERVER_VARIABLE = "GOOGLE_SET_MULTIQUEUE_METADATASERVER"

VIRTIO_NET = "/sys/bus/virtio/drivers/virtio_net"
GVNIC_ACTION = "-ntfy-block."
IDPF_ACTION = "TxRx"
"""Marks the interrupts of IDPF queues; its mailbox has one of its own, which stays."""

FLOW_ENTRIES = "/proc/sys/net/core/rps_sock_flow_entries"
X_FLOW_ENTRIES, X_QUEUE_FLOWS = "262144", "16384"
X_RINGS = (4096, 2048)
X_MICROSECONDS = (20, 50)
A4X, A4X_PROCESSORS = "a4x-", 144
A4X_MAX, A4X_MAX_RINGS = "a4x-maxgpu-", (2048, 1024)

log = logging.getLogger(NAME)


def main(
    argv: Optional[Sequence[str]] = None,
    *,
    environ: Optional[Mapping[str, str]] = None,
    say: Print = print,
    send: Optional[Exchange] = None,
) -> int:
    """The program; see the module's text. ``send`` stands in for the drivers of a tree."""
    environment = os.environ if environ is None else environ
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    text = usage(NAME, "Gives each queue of the network interfaces its processor.")
    if arguments is None or arguments.words:
        sys.stderr.write(text)
        return BAD_USAGE
    if arguments.wants_help:
        say(text.rstrip("\n"))
        return 0
    sink = configure_logging(NAME, environ=environment)
    try:
        tree = Tree(arguments.root or environment.get(ROOT_VARIABLE, ""))
        settings = Settings(tree, dry_run=arguments.dry_run, say=say)
        drivers = send or (exchange if tree.is_live else None)
        Tuning(settings, _platform(tree, environment), drivers).apply()
        say(f"{NAME}: {settings.report()}")
    finally:
        sink.flush(everything=True)
    return 0


def _platform(tree: Tree, environ: Mapping[str, str]) -> Platform:
    """What metadata say, if there can be any."""
    server = environ.get(SERVER_VARIABLE) or environ.get(HOST_VARIABLE, "")
    if not server and not (tree.is_live and is_compute_engine(Files())):
        log.debug("this is no Compute Engine instance: the metadata server is not asked")
        return Platform()
    try:
        with MetadataClient(server or None, environ={}) as client:
            patience = PATIENCE if may_have_accelerators(interfaces(tree)) else 0.0
            return read_platform(client, patience=patience)
    except MetadataError as error:
        log.warning("the metadata server is not asked: %s", error)
        return Platform()


class Tuning:
    """One run: the settings of the machine, in the order in which drivers keep them.

    Channels come before everything that counts queues or interrupts, and rings before affinities,
    because changing either makes a driver ask for its interrupts anew.
    """

    def __init__(
        self, settings: Settings, platform: Platform, send: Optional[Exchange] = None
    ) -> None:
        """``send`` reaches drivers; without it what needs one is left out."""
        self.settings = settings
        self.tree = settings.tree
        self.platform = platform
        self._send = send
        self.interfaces = interfaces(self.tree)
        self.running = online_processors(self.tree)

    def apply(self) -> None:
        """Do everything that this machine needs."""
        if self.platform.machine_type.startswith(X_SERIES):
            self._x_series()
            return
        for interface in self.interfaces:
            if interface.is_pci and interface.is_idpf:
                self._all_channels(interface)
        actions = interrupts(self.tree)
        self._virtio(actions)
        self._gvnic_hints(actions, except_for=self._laid_out())
        if not self.platform.has_accelerators:
            return
        nodes = numa_nodes(self.tree)
        self._send_queues(nodes)
        self._rings_of_a4x()
        self._nearby_interrupts(nodes, interrupts(self.tree))

    def _x_series(self) -> None:
        self.settings.value(FLOW_ENTRIES, X_FLOW_ENTRIES)
        for interface in self.interfaces:
            if not (interface.is_pci and interface.is_idpf):
                continue
            self._rings(interface, *X_RINGS)
            self._coalescing(interface, *X_MICROSECONDS)
            for queue in queues(self.tree, interface, "rx"):
                path = f"{interface.folder}/queues/rx-{queue}/rps_flow_cnt"
                self.settings.value(path, X_QUEUE_FLOWS)
        processors = without_first(self.running)
        found = [irq for irq, actions in interrupts(self.tree).items() if serves_idpf(actions)]
        self._spread(found, processors, 0)

    def _all_channels(self, interface: Interface) -> None:
        def change(driver: Driver) -> None:
            most, now = driver.combined_channels()
            if most > 1:
                self.settings.step(
                    f"{interface.name}: combined channels",
                    str(now),
                    str(most),
                    lambda: driver.set_combined_channels(most),
                )

        self._with_driver(interface, "channels", change)

    def _rings(self, interface: Interface, rx: int, tx: int) -> None:
        def change(driver: Driver) -> None:
            sizes = driver.possible_rings(rx, tx)
            self.settings.step(
                f"{interface.name}: descriptors of rings (rx, tx)",
                "{}, {}".format(*driver.rings()),
                "{}, {}".format(*sizes),
                lambda: driver.set_rings(*sizes),
            )

        self._with_driver(interface, "rings", change)

    def _coalescing(self, interface: Interface, rx: int, tx: int) -> None:
        def shown(rx_adapts: bool, tx_adapts: bool, rx_usecs: int, tx_usecs: int) -> str:
            adaptive = f"adaptive {'on' if rx_adapts else 'off'} {'on' if tx_adapts else 'off'}"
            return f"{adaptive}, {rx_usecs}, {tx_usecs}"

        def change(driver: Driver) -> None:
            self.settings.step(
                f"{interface.name}: moderation (rx, tx microseconds)",
                shown(*driver.coalescing()),
                shown(False, False, rx, tx),
                lambda: driver.set_coalescing(rx, tx),
            )

        self._with_driver(interface, "moderation", change)

    def _with_driver(
        self, interface: Interface, what: str, change: Callable[[Driver], None]
    ) -> None:
        if self._send is None:
            log.debug("%s: %s are a matter of the running driver", interface.name, what)
            return
        try:
            change(Driver(interface.name, self._send))
        except OSError as error:
            self.settings.failure(f"{interface.name}: {what}", error)

    def _virtio(self, actions: Mapping[int, tuple[str, ...]]) -> None:
        devices = {name for name in self.tree.names(VIRTIO_NET) if name.startswith("virtio")}
        for irq, names in actions.items():
            if devices.intersection(names):
                self.settings.affinity(irq, 0)
                continue
            queue = next((queue_of(name) for name in names if _device_of(name) in devices), None)
            hinted = self.tree.exists(f"/proc/irq/{irq}/affinity_hint")
            if queue is not None and queue in self.running and hinted:
                self.settings.affinity(irq, queue)

    def _laid_out(self) -> set[int]:
        """The interrupts of gVNICs that get their place by NUMA node, whatever a driver hints."""
        if not self.platform.has_accelerators:
            return set()
        return {
            irq
            for interface in self.interfaces
            if interface.is_pci and interface.is_gvnic
            for half in self._halves(interface)
            for irq in half
        }

    def _halves(self, interface: Interface) -> tuple[list[int], list[int]]:
        """A gVNIC's interrupts for sending, and those for receiving by the same queues."""
        given = device_interrupts(self.tree, f"{interface.folder}/device")
        pairs = len(given) // 2
        return given[:pairs], given[pairs : 2 * pairs]

    def _gvnic_hints(
        self, actions: Mapping[int, tuple[str, ...]], *, except_for: Collection[int]
    ) -> None:
        for irq, names in actions.items():
            if irq not in except_for and any(GVNIC_ACTION in name for name in names):
                hint = parse_mask(self.tree.read(f"/proc/irq/{irq}/affinity_hint") or "")
                # A driver that has no opinion shows an empty mask, which nobody may set.
                if hint:
                    self.settings.mask(f"/proc/irq/{irq}/smp_affinity", hint, self.running)

    def _send_queues(self, nodes: Sequence[Node]) -> None:
        for interface in self.interfaces:
            count = len(queues(self.tree, interface, "tx"))
            paths = [f"{interface.folder}/queues/tx-{queue}/xps_cpus" for queue in range(count)]
            if self.platform.machine_type.startswith(A4X):
                wanted = dict.fromkeys(range(count), (1 << A4X_PROCESSORS) - 1)
            else:
                current = [parse_mask(self.tree.read(path) or "") or 0 for path in paths]
                wanted = xps.masks(count, nodes, current)
            for queue, mask in wanted.items():
                self.settings.mask(paths[queue], mask, self.running)

    def _rings_of_a4x(self) -> None:
        if not self.platform.machine_type.startswith(A4X_MAX):
            return
        for interface in self.interfaces:
            if interface.is_pci and (interface.is_gvnic or interface.is_idpf):
                self._rings(interface, *A4X_MAX_RINGS)

    def _nearby_interrupts(
        self, nodes: Sequence[Node], actions: Mapping[int, tuple[str, ...]]
    ) -> None:
        """Give each interface's interrupts the processors of its node, one after the other."""
        known = {node.number for node in nodes}
        for node in nodes:
            processors = without_first(node.processors)
            served = 0
            for interface in self.interfaces:
                # A platform that does not say where a device is has one place for all.
                place = interface.node if interface.node in known else nodes[0].number
                if interface.is_pci and place == node.number:
                    served += self._interface_interrupts(interface, processors, served, actions)

    def _interface_interrupts(
        self,
        interface: Interface,
        processors: Sequence[int],
        served: int,
        actions: Mapping[int, tuple[str, ...]],
    ) -> int:
        """Spread one interface's interrupts from position ``served`` on; return how many moved."""
        if interface.is_gvnic:
            sending, receiving = self._halves(interface)
            self._spread(sending, processors, served)
            self._spread(receiving, processors, served)
            return len(sending)
        if interface.is_idpf:
            # The device lists more interrupts than the driver has asked for.
            given = device_interrupts(self.tree, f"{interface.folder}/device")
            asked = [irq for irq in given if serves_idpf(actions.get(irq, ()))]
            self._spread(asked, processors, served)
            return len(asked)
        return 0

    def _spread(self, irqs: Sequence[int], processors: Sequence[int], start: int) -> None:
        for position, irq in enumerate(irqs if processors else ()):
            self.settings.affinity(irq, processors[(start + position) % len(processors)])


def without_first(processors: Sequence[int]) -> Sequence[int]:
    """The processors without number 0, which has enough to do, unless there is no other."""
    return [number for number in processors if number] or processors


def serves_idpf(actions: Sequence[str]) -> bool:
    """Whether an interrupt is that of an IDPF queue."""
    return any(IDPF_ACTION in name for name in actions)


def queue_of(action: str) -> Optional[int]:
    """The queue's number in ``virtio0-input.3``, or None."""
    direction, _, number = action.partition("-")[2].partition(".")
    return parse_number(number) if direction in ("input", "output") else None


def _device_of(action: str) -> str:
    return action.partition("-")[0]
