"""gce-nic-naming: says how a network interface of an accelerator machine is called.

    DEVPATH=/devices/... SUBSYSTEM=net gce-nic-naming [--dry-run] [--root DIRECTORY] [DRIVER]

udev runs it for every interface of the drivers mlx5_core and idpf and takes what it prints as the
name: ``gpu0rdma0`` is the first interface next to the first GPU, ``rdma0`` the first one with RDMA
of a machine without, ``eth0`` an ordinary one. Names follow from where devices are on the PCI bus
and stay the same whatever order drivers load in. For an event of the subsystem ``auxiliary`` (RDMA
came after the interface) it renames the interface instead and prints nothing.

Reads ``/sys/bus/pci/devices`` and the interface's folder. Environment: ``DEVPATH``, ``SUBSYSTEM``,
``ID_NET_NAME_PATH`` from udev; ``GCE_NIC_NAMING=disable`` and ``TEST=test`` switch it off;
``GCE_NIC_NAMING_FAKEROOT`` stands for ``--root``. Below another root nothing is renamed; as with
``--dry-run``, standard error says what would be. DRIVER is accepted and not needed.

Exit statuses: 0 with a name or after a renaming; otherwise 1, with nothing on standard output and
one line in syslog (``gce-nic-naming``, local0), so that udev leaves the name that there is.

Source: guest-configs ``src/usr/bin/gce-nic-naming`` (devices, names, environment); Linux
``Documentation/ABI/testing/sysfs-class-net`` (phys_port_name), ``sysfs-bus-pci`` (physfn).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Optional

from google_guest.records import record
from system_config.command_line import BAD_USAGE, parse_arguments, usage
from system_config.link_names import LONGEST_NAME, rename_link
from system_config.sysfs import Tree, parse_number

NAME = "gce-nic-naming"
ROOT_VARIABLE = "GCE_NIC_NAMING_FAKEROOT"
PCI_DEVICES = "/sys/bus/pci/devices"
DEVICES = "/sys/devices"
NETWORK = "/sys/class/net"

IDPF = "8086:1452"
IDPF_RDMA = "8086:145c"
"""A virtual function that can have RDMA."""
ETHERNET = frozenset((IDPF, IDPF_RDMA))
GPU_NICS = frozenset(("15b3:101e", "15b3:1023"))
GPUS = frozenset(("10de:2330", "10de:2335", "10de:2901", "10de:2941", "10de:31c2"))

_HEX = frozenset("0123456789abcdefABCDEF")
_FUNCTIONS = 16
"""What numbers of virtual functions of an adapter are counted by."""

Rename = Callable[[str, str], None]
"""Renames an interface; raises ``OSError``."""


class NoName(Exception):
    """Why there is no name; the text is for people."""


@record
class Device:
    """A PCI device that matters: its address as a number, its kind, its place among the devices."""

    id: int
    kind: str
    path: str


@record
class Inventory:
    """The devices of each class, in the order of their addresses."""

    ethernet: tuple[Device, ...]
    gpu_nics: tuple[Device, ...]
    gpus: tuple[Device, ...]

    def ratios(self) -> tuple[int, int]:
        """How many interfaces a GPU has, and how many GPUs an interface; 1 without either."""
        return _ratios(len(self.gpu_nics), len(self.gpus))

    def below(self, path: str) -> Inventory:
        """What of it is a device or below it."""

        def inside(devices: tuple[Device, ...]) -> tuple[Device, ...]:
            return tuple(device for device in devices if f"{device.path}/".startswith(f"{path}/"))

        return Inventory(inside(self.ethernet), inside(self.gpu_nics), inside(self.gpus))


def main(
    argv: Optional[Sequence[str]] = None,
    *,
    environ: Optional[Mapping[str, str]] = None,
    rename: Optional[Rename] = None,
) -> int:
    """The program; see the module's text. ``rename`` stands in for the kernel."""
    environment = os.environ if environ is None else environ
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    if arguments is None or len(arguments.words) > 1:
        sys.stderr.write(_usage())
        return BAD_USAGE
    if arguments.wants_help:
        sys.stdout.write(_usage())
        return 0
    if environment.get("GCE_NIC_NAMING") == "disable" or environment.get("TEST") == "test":
        return 1
    tree = Tree(arguments.root or environment.get(ROOT_VARIABLE, ""))
    shows = arguments.dry_run or not tree.is_live
    naming = Naming(tree, environment, rename or (_show_rename if shows else rename_link))
    try:
        name = naming.run()
    except NoName as reason:
        _complain(str(reason), is_live=tree.is_live)
        return 1
    if name:
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
    return 0


def _usage() -> str:
    return usage(f"{NAME} [DRIVER]", "Says how the network interface of a udev event is called.")


def _show_rename(old: str, new: str) -> None:
    sys.stderr.write(f"would rename {old} to {new}\n")


def _complain(text: str, *, is_live: bool) -> None:
    if not is_live:
        sys.stderr.write(f"{NAME}: {text}\n")
        return
    import syslog  # Only where something is wrong.

    syslog.openlog(NAME, syslog.LOG_PID, syslog.LOG_LOCAL0)
    syslog.syslog(syslog.LOG_ERR, text)


class Naming:
    """One event of udev."""

    def __init__(self, tree: Tree, environ: Mapping[str, str], rename: Rename) -> None:
        """``environ`` is what udev knows about the event."""
        self.tree = tree
        self._environ = environ
        self._rename = rename
        self.devpath = environ.get("DEVPATH", "").rstrip("/")
        self.is_net = environ.get("SUBSYSTEM") == "net"

    def run(self) -> str:
        """Return the name to print, which may be none after a renaming.

        Raises:
            NoName: the interface keeps its name.
        """
        if not self.devpath.startswith("/"):
            raise NoName("DEVPATH names no device")
        found = read_inventory(self.tree)
        if not found.ethernet and not found.gpu_nics:
            raise NoName("there is no network device that is named here")
        name = valid_name(self._name(found))
        if not self.is_net:
            self._rename_interface(name)
            return ""
        return name

    def _name(self, found: Inventory) -> str:
        number = device_id(self.devpath)
        if number is None:
            raise NoName(f"{self.devpath} is on no PCI bus")
        for rank, device in enumerate(found.ethernet):
            if device.id == number:
                return self._ethernet_name(device, rank)
        nic = next((nic for nic in found.gpu_nics if nic.id == number), None)
        if nic is not None:
            return self._gpu_nic_name(found, nic)
        return self._function_name(found, number)

    def _ethernet_name(self, device: Device, rank: int) -> str:
        if device.kind == IDPF:
            name = f"eth{rank}"
            if self.is_net:
                self._vacate(name)
            return name
        if not self.is_net:
            return f"rdma{rank}"
        if self.tree.exists(f"/sys{self.devpath}/device/infiniband"):
            return f"rdma{rank}"
        if self.tree.exists(f"/sys{self.devpath}/device"):
            # It must not take eth0 from the interface that has it by right.
            return self._environ.get("ID_NET_NAME_PATH", "")
        raise NoName(f"{self.devpath} is no network interface any more")

    def _gpu_nic_name(self, found: Inventory, nic: Device) -> str:
        gpu = gpu_rank(found, nic)
        function = function_of_port(self.tree.read(f"/sys{self.devpath}/phys_port_name") or "")
        if function is not None:
            return f"gpu{gpu}rdma{function + 2}_rep"
        nics_of_gpu, _ = found.ratios()
        if nics_of_gpu:
            return f"gpu{gpu}rdma{found.gpu_nics.index(nic) % nics_of_gpu}"
        return f"gpu{gpu}_{gpu + 1}rdma0"

    def _function_name(self, found: Inventory, number: int) -> str:
        """The name of a virtual function of an adapter that serves a GPU."""
        adapter = device_id(self.tree.real(f"/sys{self.devpath}/device/physfn"))
        nic = next((nic for nic in found.gpu_nics if nic.id == adapter), None)
        if nic is None:
            raise NoName(f"{self.devpath} is no network device that is named here")
        return f"gpu{gpu_rank(found, nic)}rdma{number % _FUNCTIONS}"

    def _vacate(self, name: str) -> None:
        """Give whoever has a name another one; its own event will name it."""
        if self.devpath.rpartition("/")[2] == name or not self.tree.exists(f"{NETWORK}/{name}"):
            return
        self._apply_rename(name, f"{name}tmp")

    def _rename_interface(self, name: str) -> None:
        """Rename the interface of the device to which the auxiliary device belongs."""
        parent = self.devpath.rpartition("/")[0]
        current = self.tree.names(f"/sys{parent}/net")
        if len(current) > 1:
            raise NoName(f"{parent} has several network interfaces")
        if current and current[0] != name:
            self._apply_rename(current[0], name)

    def _apply_rename(self, old: str, new: str) -> None:
        try:
            self._rename(old, new)
        except OSError as error:
            raise NoName(f"{old} cannot be renamed to {new}: {error.strerror}") from None


def read_inventory(tree: Tree) -> Inventory:
    """What of the PCI bus matters here."""
    classes: dict[str, list[Device]] = {"ethernet": [], "gpu_nics": [], "gpus": []}
    for address in tree.names(PCI_DEVICES):
        folder = f"{PCI_DEVICES}/{address}"
        vendor, device = (_code(tree.read(f"{folder}/{part}")) for part in ("vendor", "device"))
        kind = f"{vendor}:{device}"
        number = device_id(address)
        room = _room(kind)
        if number is None or not room:
            continue
        if room == "gpu_nics" and tree.exists(f"{folder}/physfn"):
            continue
        classes[room].append(Device(number, kind, tree.real(folder)))
    return Inventory(
        *(tuple(sorted(classes[room], key=lambda device: device.id)) for room in classes)
    )


def _room(kind: str) -> str:
    if kind in ETHERNET:
        return "ethernet"
    if kind in GPU_NICS:
        return "gpu_nics"
    return "gpus" if kind in GPUS else ""


def _code(text: Optional[str]) -> str:
    return (text or "").lower().replace("0x", "", 1)


def device_id(path: str) -> Optional[int]:
    """The last PCI address in a path as a number (``0000:8e:00.0`` is 0x00008e000), or None."""
    for part in reversed(path.split("/")):
        bus, _, function = part.partition(".")
        fields = [*bus.split(":"), function]
        if len(fields) == 4 and all(field and _HEX.issuperset(field) for field in fields):
            digits = "".join(fields)
            return int(digits, 16) if len(digits) <= _FUNCTIONS else None
    return None


def function_of_port(name: str) -> Optional[int]:
    """The number of the virtual function that a port stands for (``pf0vf3``: 3), or None."""
    _, found, rest = name.partition("vf")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return parse_number(digits) if found else None


def gpu_rank(found: Inventory, nic: Device) -> int:
    """The number of the GPU that is next to an interface, among all GPUs.

    That is decided in the smallest part of the PCI tree around the interface in which there are as
    many interfaces for a GPU, or GPUs for an interface, as in the whole machine.

    Raises:
        NoName: there is no such part, or it has too few GPUs.
    """
    per_gpu, per_nic = found.ratios()
    path = nic.path
    while path.startswith(f"{DEVICES}/") or path == DEVICES:
        near = found.below(path)
        if near.gpu_nics and near.gpus:
            ratios = _ratios(len(near.gpu_nics), len(near.gpus))
            if ratios[0] == per_gpu if per_gpu else ratios[1] == per_nic:
                index = near.gpu_nics.index(nic)
                place = index // per_gpu if per_gpu else index * per_nic
                if place < len(near.gpus):
                    return found.gpus.index(near.gpus[place])
        path = path.rpartition("/")[0]
    raise NoName(f"{nic.path or 'the interface'} has no GPU beside it")


def _ratios(nics: int, gpus: int) -> tuple[int, int]:
    return (nics // gpus, gpus // nics) if nics and gpus else (1, 1)


def valid_name(name: str) -> str:
    """The name, if an interface can have it.

    Raises:
        NoName: it is empty, too long or has characters that no name has.
    """
    if not 0 < len(name.encode()) <= LONGEST_NAME:
        raise NoName(f"{name!a} is no name for an interface: it has 1 to {LONGEST_NAME} bytes")
    if name in (".", "..") or not all("!" <= character <= "~" for character in name):
        raise NoName(f"{name!a} is no name for an interface")
    if set(name) & set("/:%"):
        raise NoName(f"{name!a} is no name for an interface")
    return name
